"""Steady state found: known answers on made-up series, and figures from a folder."""

import numpy as np
import pytest
from scipy import stats

from harness.records import open_run
from reports.steady import LEAST_MINUTES, Steady, found_in, mser, steady, summed_up, told, trend
from tests.harness.results import call, sample, write_run


def noise(seed, count, mean=100.0, spread=5.0):
    return np.random.default_rng(seed).normal(mean, spread, count)


# ---------------------------------------------------------------- what to cut


def test_mser_of_a_step_cuts_exactly_the_step():
    """After the step all values are alike, so the squared error is 0 from there on; the first counts."""
    assert mser(np.array([0.0] * 7 + [10.0] * 20)) == 7


def test_mser_of_a_worked_example():
    """sum((x - mean)^2) / (n - d)^2 by hand: d = 0: 7.5 / 36, d = 1: 2.8 / 25 ..."""
    series = np.array([4.0, 1.0, 1.0, 2.0, 1.0, 2.0])
    by_hand = [((series[d:] - series[d:].mean()) ** 2).sum() / (6 - d) ** 2 for d in range(6)]
    assert by_hand[:2] == pytest.approx([6.833333 / 36, 1.2 / 25], rel=1e-6)
    assert mser(series) == 0  # only d = 0 leaves five values
    assert mser(np.append(series, [1.0, 2.0, 1.0, 2.0])) == 1


def test_mser_does_not_mind_where_zero_is():
    series = np.concatenate([np.linspace(0, 100, 12), noise(3, 60)])
    assert mser(series) == mser(series + 1e6)
    assert mser(series) >= 9


def test_mser_never_leaves_less_than_five():
    assert mser(np.arange(30.0) ** 3) <= 25


# ---------------------------------------------------------------- what is left of a trend


def test_the_trend_of_a_worked_example():
    """Ten rising values: of 10! orders two are as extreme. Neighbours are alike by the line only."""
    p_value, change = trend(np.arange(100.0, 110.0))
    assert p_value == pytest.approx(2 / 3628800)
    assert change == pytest.approx(9 / 104.5)


def test_mann_kendall_of_a_worked_example():
    """Four values: 5 pairs rise, 1 falls, S = 4, tau = 4 / 6; 8 of 24 orders have |S| >= 4: p = 1 / 3."""
    found = stats.kendalltau([0, 1, 2, 3], [10, 15, 14, 20])
    assert found.statistic == pytest.approx(4 / 6)
    assert found.pvalue == pytest.approx(1 / 3, abs=1e-3)
    assert trend(np.array([10.0, 15.0, 14.0, 20.0]))[0] == pytest.approx(1 / 3, abs=1e-3)


def test_no_change_at_all_is_no_trend():
    assert trend(np.full(30, 7.0)) == (1.0, 0.0)
    assert trend(np.zeros(30)) == (1.0, 0.0)


def test_what_neighbours_have_in_common_is_no_trend():
    """Where neighbours correlate, the plain test finds a trend in far more than 1 % of series without."""
    rng = np.random.default_rng(8)
    plain = ours = 0
    for _ in range(300):
        shocks = rng.normal(size=160)
        for i in range(1, 160):
            shocks[i] += 0.5 * shocks[i - 1]
        series = 100 + shocks[100:]
        plain += stats.kendalltau(np.arange(60), series).pvalue < 0.01
        ours += trend(series)[0] < 0.01
    assert plain >= 15
    assert ours <= 9


# ---------------------------------------------------------------- both


def test_a_ramp_before_a_plateau_is_cut():
    cut, reason = found_in(np.concatenate([np.linspace(0, 90, 10), noise(1, 60)]))
    assert reason == ""
    assert 8 <= cut <= 14


def test_a_series_that_keeps_falling_has_no_steady_state():
    _, reason = found_in(np.linspace(200, 100, 60) + noise(2, 60, 0.0))
    assert reason.startswith(("still falling", "still settling"))


def test_a_slow_rise_that_no_cut_can_remove_is_a_trend():
    _, reason = found_in(noise(5, 60) + np.linspace(0, 15, 60))
    assert reason.startswith("still rising, by 1")


def test_a_cut_of_more_than_half_is_no_steady_state():
    _, reason = found_in(np.concatenate([np.linspace(300, 110, 45), noise(4, 15, 100.0, 1.0)]))
    assert reason == "still settling: only the last 15 of 60 minutes look alike"


def test_a_short_series_is_not_asked():
    assert found_in(noise(1, 19)) == (0, "too short: 19 minutes, at least 20 are needed")
    assert found_in(np.empty(0))[1].startswith("too short: 0 minutes")


@pytest.mark.parametrize("minutes", [60, 120])
def test_of_steady_runs_few_are_turned_down(minutes):
    rng = np.random.default_rng(minutes)
    turned_down = sum(bool(found_in(rng.poisson(200, minutes))[1]) for _ in range(500))
    assert turned_down <= 25


# ---------------------------------------------------------------- from a folder


def rows_of(minutes, per_minute, hits=()):
    """Steps spread evenly over minutes; samples on two replicas at the whole minutes; the window."""
    ends = [
        60.0 * minute + 60.0 * (i + 0.5) / count
        for minute, count in enumerate(per_minute)
        for i in range(count)
    ]
    calls = [call(arrived=end - 1, decode=1.0, call_id=f"c{i}") for i, end in enumerate(ends)]
    samples = [
        sample(60.0 * minute, replica, hits_total=total, queries_total=1000 * minute)
        for minute, total in enumerate(hits)
        for replica in ("r0", "r1")
    ]
    return calls, samples, {"start_s": 600.0, "end_s": 60.0 * minutes}


def run_of(folder, minutes, per_minute, hits=()):
    calls, samples, window = rows_of(minutes, per_minute, hits)
    summary = {"window": window, "throughput": {"steps_per_min": 5.0}, "kv": {"hit_rate_share": 0.4}}
    return open_run(write_run(folder, calls=calls, samples=samples, summary=summary))


def test_both_figures_of_a_run(tmp_path):
    """4 quiet minutes, then 10 steps and 500 hits a minute; ten more steps end after the window."""
    hits = [0] * 5 + [500 * i for i in range(1, 37)]
    found = steady(run_of(tmp_path / "r", 40, [1] * 4 + [10] * 37, hits))
    assert found.found
    assert found.reason == ""
    assert found.start_s == 240.0
    assert (found.steps_per_min_total, found.hit_rate_total) == (5.0, 0.4)
    assert found.steps_per_min_steady == pytest.approx(10.0)
    assert found.hit_rate_steady == pytest.approx(0.5)


def test_without_a_steady_state_there_are_no_steady_figures(tmp_path):
    found = steady(run_of(tmp_path / "r", 40, range(1, 41)))
    assert not found.found
    assert "still" in found.reason
    assert (found.start_s, found.steps_per_min_steady, found.hit_rate_steady) == (None, None, None)
    assert found.steps_per_min_total == 5.0


@pytest.mark.parametrize(
    ("changes", "hit_rate"),
    [
        ({}, 0.5),
        ({2: {"hits_total": None}}, 0.5),
        ({i: {"hits_total": None} for i in range(4)}, None),
        ({3: {"queries_total": 5, "hits_total": 5}}, None),
    ],
)
def test_a_steady_hit_rate_needs_totals_that_are_told_and_never_fall(tmp_path, changes, hit_rate):
    rows = [sample(t * 600.0, queries_total=t * 1000, hits_total=t * 500) for t in range(4)]
    rows = [row._replace(**changes.get(i, {})) for i, row in enumerate(rows)]
    calls, _, window = rows_of(30, [3] * 30, ())
    folder = write_run(tmp_path / "r", calls=calls, samples=rows, summary={"window": window})
    assert steady(open_run(folder)).hit_rate_steady == hit_rate


def test_a_run_without_a_step_or_a_sample(tmp_path):
    assert steady(run_of(tmp_path / "empty", 40, [])).reason.startswith(("still", "too short", ""))
    short = steady(run_of(tmp_path / "short", LEAST_MINUTES - 1, [3] * 19))
    assert short.reason.startswith("too short")
    assert steady(run_of(tmp_path / "r", 30, [3] * 30)).hit_rate_steady is None


def test_repeats_are_told_together():
    """Means are over the runs that have a steady state; the others are counted and one reason is given."""
    there = [Steady(True, 300.0, "", 9.0, steps, 0.4, 0.5) for steps in (10.0, 12.0)]  # noqa: FBT003 - a field
    never = Steady(False, None, "still rising", 9.0, None, 0.4, None)  # noqa: FBT003 - a field
    together = summed_up({"a": there[0], "b": there[1], "c": never})
    assert together == {
        "runs": 2,
        "reasons": {"c": "still rising"},
        "steps_per_min": 11.0,
        "hit_rate_share": 0.5,
    }
    assert told(together, 3) == "steady state in 2 of 3 runs; c: still rising"
    assert told(summed_up({"a": there[0]}), 1) == "steady state in 1 of 1 run"

"""Metrics on small tables whose numbers can be checked by hand."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from harness import metrics
from harness.errors import SetupError
from harness.rows import TABLES
from tests.harness.results import as_table, call, program, sample, sandbox, tool

WINDOW = (100.0, 160.0)
SECONDS = st.floats(0, 1000)


class Given:
    """The tables of a run that was never written."""

    def __init__(self, **rows):
        self.rows = rows

    def table(self, name):
        return as_table(TABLES[name], self.rows.get(name, ()))


def summary(window=WINDOW, goodput=None, **rows):
    found = metrics.summarise(Given(**rows), window, goodput)
    json.dumps(found, allow_nan=False)
    return found


def test_a_run_in_which_nothing_happened_has_no_values_but_counts():
    found = summary()
    assert found["throughput"]["steps_per_min"] == 0
    assert found["kv"]["hit_rate_of_calls_share"] is None
    assert found["latency"]["ttft_s"] == {
        "n": 0,
        "mean": None,
        "p50": None,
        "p90": None,
        "p95": None,
        "p99": None,
        "max": None,
    }
    assert set(found["latency"]["split_s"].values()) == {None}
    assert found["fairness"]["worst_wait_s"] is None
    assert found["goodput"] is None


def test_throughput_counts_what_ended_in_the_window():
    found = summary(
        calls=[
            call(decode=100.0, output_tokens=7),  # ends on the start: warm-up
            call(decode=100.5, output_tokens=60, prompt_tokens=600),
            call(decode=160.0, output_tokens=60, prompt_tokens=600),
            call(decode=160.5, output_tokens=7),
        ],
        programs=[
            program("p0", finished_s=90.0, ended_at="finished"),
            program("p1", finished_s=120.0, ended_at="finished"),
            program("p2", finished_s=130.0, ended_at="failed: it does not fit"),
            program("p3"),
        ],
    )["throughput"]
    assert found == {
        "steps": 2,
        "programs_finished": 1,
        "programs_failed": 1,
        "steps_per_min": 2.0,
        "programs_per_h": 60.0,
        "output_tokens_per_s": 2.0,
        "prompt_tokens_per_s": 20.0,
    }


def test_reuse_as_the_calls_saw_it():
    tokens = {"prompt_tokens": 100, "cached_tokens": 60, "known_tokens": 80, "recomputed_tokens": 20}
    more = {"prompt_tokens": 100, "cached_tokens": 40, "known_tokens": 20, "recomputed_tokens": 5}
    found = summary(calls=[call(110.0, **tokens), call(120.0, **more)])["kv"]
    assert found["hit_rate_of_calls_share"] == 0.5
    assert found["recomputed_tokens"] == 25
    assert found["recomputed_share"] == 0.125
    # 60 of 80 known tokens were cached, then 20 of 20; what others had cached besides does not count
    assert found["zero_recompute_share"] == 0.8


def test_first_tokens_count_from_the_gateway_and_single_tokens_have_no_rate():
    found = summary(
        calls=[
            call(110.0, hold=3.0, queue=2.0, prefill=1.0, decode=4.0, output_tokens=5),
            call(110.0, prefill=2.0, output_tokens=1),
        ]
    )["latency"]
    assert found["ttft_s"]["n"] == 2
    assert found["ttft_s"]["mean"] == 4.0
    assert found["ttft_s"]["max"] == 6.0
    assert found["tpot_s"]["n"] == 1
    assert found["tpot_s"]["mean"] == 1.0


@given(st.lists(st.lists(SECONDS, min_size=7, max_size=7), min_size=1, max_size=20))
def test_the_parts_of_a_step_sum_to_it(times):
    found = summary((-1.0, 10_000.0), calls=[call(*parts) for parts in times])["latency"]
    split = found["split_s"]
    assert sum(split[part] for part in metrics.PARTS) == pytest.approx(found["step_s"]["mean"])
    assert split["sum_minus_step_s"] == pytest.approx(0, abs=1e-6)


def test_parts_that_do_not_sum_to_the_step_show():
    found = summary(calls=[call(110.0, tool=5.0, tool_s=3.0)])["latency"]
    assert found["split_s"]["sum_minus_step_s"] == -2.0


@pytest.mark.parametrize(("percentile", "floor"), metrics.FLOORS.items())
def test_a_percentile_needs_the_samples_of_the_early_stopping_rule(percentile, floor):
    def unsure(n):
        return binom.cdf(1, n, 1 - percentile / 100)

    assert unsure(floor) <= 0.01 < unsure(floor - 1)
    for count, known in ((floor - 1, False), (floor, True)):
        found = summary(calls=[call(110.0, decode=float(i % 7)) for i in range(count)])
        assert (found["latency"]["step_s"][f"p{percentile}"] is not None) == known


def test_percentiles_lie_between_ranks():
    found = summary(calls=[call(110.0, decode=float(i)) for i in range(11)])["latency"]["step_s"]
    assert (found["p50"], found["p90"], found["max"], found["n"]) == (5.0, None, 10.0, 11)


def test_completion_time_is_of_programs_that_finished():
    found = summary(
        programs=[
            program("p0", arrived_s=20.0, finished_s=120.0, ended_at="finished"),
            program("p1", arrived_s=110.0, finished_s=120.0, ended_at="failed: why"),
        ]
    )["latency"]["program_s"]
    assert (found["n"], found["mean"]) == (1, 100.0)


def test_the_final_answer_begins_with_the_call_that_ends_last():
    found = summary(
        calls=[
            call(110.0, prefill=2.0, decode=3.0),
            call(115.0, prefill=4.0, decode=1.0),
            call(110.0, program_id="p1", prefill=2.0),
        ],
        programs=[
            program("p0", arrived_s=20.0, finished_s=120.0, ended_at="finished"),
            program("p1", arrived_s=20.0),
        ],
    )["latency"]["answer_s"]
    assert (found["n"], found["mean"]) == (1, 99.0)


def test_starvation_cannot_hide():
    """A program none of whose steps ended has the worst wait, and its wait counts in the Gini."""
    found = summary(
        programs=[
            program("gone", finished_s=90.0, worst_wait_s=500.0, ended_at="finished"),
            program("fed", worst_wait_s=2.0),
            program("starved", worst_wait_s=60.0),
            program("late", arrived_s=170.0, worst_wait_s=900.0),
        ],
        calls=[
            call(110.0, hold=1.0, queue=1.0, program_id="fed"),
            call(120.0, queue=2.0, program_id="fed"),
        ],
    )["fairness"]
    assert found["programs"] == 2
    assert found["worst_wait_s"] == 60.0
    assert found["worst_wait_program"] == "starved"
    assert found["wait_gini_share"] == pytest.approx((60 - 4) / (2 * 64))


def test_gini_of_known_cases():
    assert metrics.gini(np.array([])) is None
    assert metrics.gini(np.zeros(3)) == 0
    assert metrics.gini(np.full(4, 2.5)) == pytest.approx(0)
    assert metrics.gini(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.75)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=30))
def test_gini_is_half_the_mean_difference_over_the_mean(values):
    array = np.array(values, dtype=float)
    found = metrics.gini(array)
    assert -1e-9 <= found < 1
    if array.mean() > 0:
        spread = np.abs(array[:, None] - array[None, :]).mean()
        assert found == pytest.approx(spread / (2 * array.mean()), abs=1e-9)


def test_tools_and_sandboxes():
    found = summary(
        tools=[tool(started_s=100.0, finished_s=104.0), tool(finished_s=200.0)],
        sandboxes=[
            sandbox(requested_s=80.0, ready_s=110.0, hidden_s=20.0, exposed_s=10.0),
            sandbox(requested_s=80.0, ready_s=90.0, hidden_s=10.0, exposed_s=0.0, leaked=True),
            sandbox(requested_s=150.0),
        ],
    )
    assert found["tools"]["runs"] == 1
    assert found["tools"]["run_s"]["mean"] == 4.0
    assert found["tools"]["observation_tokens"] == 10
    boxes = found["sandboxes"]
    assert (boxes["prepared"], boxes["prepare_s"]["mean"]) == (1, 30.0)
    assert (boxes["hidden_s"], boxes["exposed_s"]) == (20.0, 10.0)
    assert (boxes["leaked"], boxes["leaked_bytes"]) == (1, 10)


def test_goodput_counts_steps_within_every_limit():
    found = summary(
        goodput={"ttft_s": 2.0, "tpot_s": 0.5},
        calls=[
            call(110.0, prefill=2.0, decode=2.0, output_tokens=5),  # on the limits
            call(110.0, prefill=2.1, decode=1.0, output_tokens=5),
            call(110.0, prefill=1.0, decode=9.0, output_tokens=5),
            call(110.0, prefill=1.0, tool=9.0, output_tokens=1),
        ],
    )["goodput"]
    assert found["good_steps"] == 2
    assert found["good_steps_per_min"] == 2.0
    assert found["good_share"] == 0.5


def test_an_unknown_limit_is_refused():
    with pytest.raises(SetupError, match="goodput limit 'itl_s'; expected one of ttft_s, tpot_s, step_s"):
        summary(goodput={"itl_s": 1.0})


def member(group, arrived, finished, position=0, **changes):
    ended_at = "unfinished" if finished is None else "finished"
    row = program(f"{group}-{position}", arrived_s=arrived, finished_s=finished, ended_at=ended_at)
    return row._replace(group_id=group, position=position, **changes)


def test_a_group_lasts_from_its_first_arrival_to_the_end_of_its_slowest_member():
    found = summary(
        programs=[
            member("a", 90.0, 110.0, 0),
            member("a", 95.0, 120.0, 1, ended_at="failed: gone"),  # it has ended, which is what counts
            member("a", 100.0, 140.0, 2),
            member("b", 100.0, 150.0, 3),
            member("b", 100.0, 150.0, 4),
            member("b", 130.0, 150.0, 5),
        ]
    )["groups"]
    assert found["finished"] == 2
    assert found["completion_s"]["mean"] == 50.0
    assert found["completion_s"]["max"] == 50.0
    assert found["straggler_share"] == pytest.approx(((140 - 120) / 50 + 0.0) / 2)


def test_a_group_counts_once_all_its_members_have_ended_in_the_window_and_none_is_to_come():
    early, late = member("early", 0.0, 100.0, 0), member("late", 0.0, 160.5, 1)
    running = [member("running", 0.0, 120.0, 2), member("running", 0.0, None, 3)]
    latest = member("latest", 0.0, 120.0, 4)
    found = summary(programs=[latest, early, late, *running])["groups"]
    assert found == {
        "finished": 0,
        "completion_s": {
            "n": 0,
            "mean": None,
            "p50": None,
            "p90": None,
            "p95": None,
            "p99": None,
            "max": None,
        },
        "straggler_share": None,
    }
    whole = summary(programs=[latest, latest._replace(program_id="x"), *running])["groups"]
    assert whole["finished"] == 1


def test_programs_without_a_group_are_in_none_and_a_run_without_groups_has_no_numbers_of_them():
    alone = program("p", arrived_s=0.0, finished_s=130.0, ended_at="finished")
    assert summary(programs=[alone])["groups"] is None
    both = summary(programs=[alone, member("a", 110.0, 120.0, 1)])["groups"]
    assert both["completion_s"]["mean"] == 10.0


def live(arrived=100.0, hold=None, rest=10.0, **changes):
    """A step of a real server: it does not say when it scheduled; `rest` counts from what is known."""
    row = call(arrived=arrived, hold=hold or 0.0, prefill=rest, decode=5.0)
    unknown = {"scheduled_s": None, "queue_s": None}
    if hold is None:
        unknown |= {"dispatched_s": None, "hold_s": None, "replica": None}
    return row._replace(**unknown | changes)


def test_parts_that_nobody_told_are_null_and_the_others_still_sum_to_the_step():
    split = summary(calls=[live(hold=2.0), live(hold=4.0, rest=20.0)])["latency"]["split_s"]
    assert (split["hold"], split["queue"], split["prefill"]) == (3.0, None, 15.0)
    assert split["sum_minus_step_s"] == 0.0
    split = summary(calls=[live()])["latency"]["split_s"]
    assert (split["hold"], split["queue"], split["prefill"]) == (None, None, 10.0)
    assert split["sum_minus_step_s"] == 0.0


def test_without_a_queue_time_a_wait_is_until_the_first_token():
    programs = [program("a", arrived_s=100.0), program("b", arrived_s=100.0)]
    calls = [live(program_id="a", hold=3.0, rest=1.0), live(program_id="b", rest=12.0)]
    found = summary(calls=calls, programs=programs)["fairness"]
    assert found["wait_gini_share"] == metrics.gini(np.array([4.0, 12.0]))


def test_cached_tokens_that_were_told_of_some_calls_give_a_share_but_no_sum():
    told = {"prompt_tokens": 100, "cached_tokens": 40, "known_tokens": 80, "recomputed_tokens": 40}
    untold = {"prompt_tokens": 999, "cached_tokens": None, "known_tokens": 999, "recomputed_tokens": None}
    found = summary(calls=[live(**told), live(**untold)])["kv"]
    assert found["hit_rate_of_calls_share"] == 0.4
    assert (found["recomputed_share"], found["zero_recompute_share"]) == (0.4, 0.5)
    assert found["recomputed_tokens"] is None
    nothing = summary(calls=[live(**untold)])["kv"]
    assert {nothing[name] for name in found if name.startswith(("recomputed", "zero", "hit"))} == {None}


@pytest.mark.parametrize(
    ("totals", "cached", "share", "source"),
    [
        ({"queries_total": 100, "hits_total": 30}, 40, 0.3, "engines"),
        ({"queries_total": 0, "hits_total": 0}, 40, None, "engines"),
        ({"queries_total": None, "hits_total": None}, 40, 0.4, "usage"),
        ({"queries_total": 100, "hits_total": None}, 40, 0.4, "usage"),
        ({"queries_total": None, "hits_total": None}, None, None, None),
    ],
)
def test_the_hit_rate_is_the_engines_or_else_by_usage_and_says_which(totals, cached, share, source):
    samples = [sample(WINDOW[0], queries_total=0, hits_total=0), sample(WINDOW[1])]
    samples = [
        each._replace(**dict.fromkeys(k for k, v in totals.items() if v is None)) for each in samples
    ]
    samples[1] = samples[1]._replace(**totals)
    found = summary(samples=samples, calls=[live(prompt_tokens=100, cached_tokens=cached)])["kv"]
    assert (found["hit_rate_share"], found["hit_rate_from"]) == (share, source)


def test_how_the_client_fared_stands_in_the_summary_as_it_was_given():
    assert summary()["client"] is None
    told = {"lateness_p99_s": 0.001, "retries": 2}
    assert metrics.summarise(Given(), WINDOW, client=told)["client"] == told

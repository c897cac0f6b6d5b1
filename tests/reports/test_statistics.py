"""Known answers, and promises kept on simulated data: coverage, false alarms, power."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from reports.statistics import LEVEL, POWER, corrected, effect, holm


def more(pairs, **options):
    return effect(pairs, metric="m", more_is_better=True, **options)


def less(pairs, **options):
    return effect(pairs, metric="m", more_is_better=False, **options)


def of_ratios(*ratios):
    return [(100 * ratio, 100.0) for ratio in ratios]


# ---------------------------------------------------------------- the words


@pytest.mark.parametrize(
    ("ratios", "word"),
    [
        ([1.30, 1.31, 1.29, 1.32], "improved"),
        ([0.70, 0.71, 0.69, 0.72], "regressed"),
        ([1.001, 0.999, 1.002, 1.0], "equivalent"),
        ([1.015, 1.014, 1.016, 1.015], "equivalent"),
        ([1.03, 1.031, 1.029, 1.03], "improved"),
        ([0.8, 1.3, 0.9, 1.2], "inconclusive"),
    ],
)
def test_interval_and_p_value_decide_the_word(ratios, word):
    found = more(of_ratios(*ratios))
    assert found.word == word
    assert found.low <= found.value <= found.high
    assert found.note is None


def test_where_less_is_better_the_words_turn_round():
    assert less(of_ratios(0.50, 0.52, 0.51)).word == "improved"
    assert less(of_ratios(1.50, 1.52, 1.51)).word == "regressed"


def test_shares_are_compared_as_differences():
    found = more([(0.90, 0.50), (0.92, 0.50), (0.91, 0.51)], kind="difference")
    assert found.word == "improved"
    assert found.value == pytest.approx(0.4066667)
    near = more([(0.500, 0.499), (0.501, 0.5), (0.0, 0.001)], kind="difference")
    assert near.word == "equivalent"


def test_the_margin_and_the_level_can_be_chosen():
    pairs = of_ratios(1.03, 1.031, 1.029, 1.03)
    assert more(pairs, margin=0.05).word == "equivalent"
    wide = more(of_ratios(1.0, 1.1, 1.2), level=0.99)
    assert wide.high - wide.low > 2 * (more(of_ratios(1.0, 1.1, 1.2)).high - 1)


# ---------------------------------------------------------------- known answers


def test_a_worked_example():
    """Log-ratios 0.1, 0.2, 0.3: mean 0.2, standard error 0.1 / sqrt(3); with 2 degrees t is 4.3027."""
    found = more([(math.exp(x), 1.0) for x in (0.1, 0.2, 0.3)])
    half = 4.302652729911275 * 0.1 / math.sqrt(3)
    assert (found.value, found.low, found.high) == pytest.approx(
        tuple(map(math.exp, (0.2, 0.2 - half, 0.2 + half)))
    )
    assert found.p_value == pytest.approx(stats.ttest_1samp([0.1, 0.2, 0.3], 0).pvalue)
    assert found.baseline == 1.0
    assert found.candidate == pytest.approx(np.exp([0.1, 0.2, 0.3]).mean())


def test_holm_of_a_worked_example():
    """Step down: 4 x 0.005, 3 x 0.01, 2 x 0.03, then 0.04 is raised to what came before."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([None, 0.02, None]) == [None, 0.02, None]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_keeps_the_order_and_lies_between_plain_and_bonferroni(p_values):
    found = holm(p_values)
    for p, adjusted in zip(p_values, found, strict=True):
        assert p <= adjusted <= min(1.0, len(p_values) * p)
    by_p = [adjusted for _, adjusted in sorted(zip(p_values, found, strict=True))]
    assert by_p == sorted(by_p)


def test_judged_together_a_weak_sign_is_no_longer_enough():
    weak = more(of_ratios(1.01, 1.06, 1.05, 1.09))
    assert weak.word == "improved"
    noise = more(of_ratios(0.8, 1.3, 0.9, 1.2))
    none = more([(1.0, None)])
    together = corrected([weak, noise, none])
    assert [each.word for each in together] == ["inconclusive", "inconclusive", None]
    assert together[0].p_holm == pytest.approx(2 * weak.p_value)
    assert together[0].p_value == weak.p_value
    assert together[2] == none


# ---------------------------------------------------------------- what cannot be said


@pytest.mark.parametrize("count", [1, 2])
def test_with_fewer_than_three_pairs_the_noise_is_unknown(count):
    found = more([(200.0, 100.0)] * count)
    assert found.value == pytest.approx(2.0)
    assert (found.low, found.high, found.p_value, found.p_holm, found.mde, found.word) == (None,) * 6
    assert found.note.startswith(f"{count} repeat")
    assert "--repeats 5" in found.note


def test_repeats_that_all_agree_are_degenerate_and_said_to_be():
    found = more([(200.0, 100.0), (100.0, 50.0), (50.0, 25.0)])
    assert (found.low, found.high, found.p_value, found.mde) == (
        pytest.approx(2),
        pytest.approx(2),
        0.0,
        0.0,
    )
    assert found.word == "improved"
    assert "degenerate" in found.note
    same = more([(7.0, 7.0)] * 3)
    assert (same.word, same.p_value) == ("equivalent", 1.0)


@pytest.mark.parametrize(
    ("pairs", "note"),
    [
        ([], "no seed that both ran"),
        ([(1.0, None)], "a run has no value here"),
        ([(0.0, 1.0)], "0 in a run, so there is no ratio"),
        ([(1.0, 0.0), (1.0, 1.0)], "0 in a run, so there is no ratio"),
        ([(0.0, 0.0)] * 3, "0 in every run"),
    ],
)
def test_without_a_ratio_there_is_a_note_and_no_number(pairs, note):
    found = more(pairs)
    assert (found.value, found.low, found.high, found.p_value, found.mde, found.word) == (None,) * 6
    assert found.note == note


# ---------------------------------------------------------------- properties

PAIRS = st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=6)


@given(PAIRS)
def test_turning_a_comparison_round_inverts_it(pairs):
    ours, theirs = more(pairs), more([(b, a) for a, b in pairs])
    assert ours.value == pytest.approx(1 / theirs.value)
    assert ours.low == pytest.approx(1 / theirs.high)
    assert ours.p_value == pytest.approx(theirs.p_value, abs=1e-9)
    opposite = {"improved": "regressed", "regressed": "improved"}
    assert ours.word == opposite.get(theirs.word, theirs.word)


@given(PAIRS, st.randoms())
def test_the_order_of_the_pairs_does_not_matter_and_json_has_no_nan(pairs, rng):
    shuffled = list(pairs)
    rng.shuffle(shuffled)
    one, other = more(pairs), more(shuffled)
    assert one.word == other.word
    assert (one.low, one.high) == pytest.approx((other.low, other.high))
    assert json.loads(json.dumps(one.json(), allow_nan=False))["word"] == one.word


# ---------------------------------------------------------------- promises, on simulated studies


def simulated(rng, pairs, ratio=1.0, noise=0.05):
    """A study: programs that differ by a lot between seeds, arms with log-normal noise of their own."""
    programs = rng.lognormal(5, 0.5, pairs)
    ours = programs * ratio * rng.lognormal(0, noise, pairs)
    theirs = programs * rng.lognormal(0, noise, pairs)
    return list(zip(ours.tolist(), theirs.tolist(), strict=True))


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_the_interval_covers_the_truth_in_95_of_100_studies(pairs):
    """2,000 studies; the limits are those that a true 95 % misses once in 10,000."""
    rng = np.random.default_rng(20 + pairs)
    studies = 2000
    covered = 0
    for _ in range(studies):
        found = more(simulated(rng, pairs, ratio=1.3))
        covered += found.low <= 1.3 <= found.high
    low, high = stats.binom.interval(0.9999, studies, LEVEL)
    assert low <= covered <= high, f"{covered / studies:.3f}"


def test_bca_is_too_narrow_for_five_pairs():
    """Why the interval is not the usual bootstrap; see the module."""
    changes = np.random.default_rng(1).normal(0, 0.1, (1000, 5))
    interval = stats.bootstrap(
        (changes,), np.mean, axis=-1, n_resamples=999, method="BCa", rng=np.random.default_rng(2)
    ).confidence_interval
    assert 0.80 < np.mean((interval.low <= 0) & (interval.high >= 0)) < 0.88


def test_among_six_numbers_without_a_change_a_false_alarm_is_rare():
    """1,000 comparisons of identical arms: any of the six words raises an alarm in at most 5 %."""
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(1000):
        found = corrected([more(simulated(rng, 5)) for _ in range(6)])
        alarms += any(each.word in {"improved", "regressed"} for each in found)
    assert alarms <= stats.binom.ppf(0.9999, 1000, 1 - LEVEL)


@pytest.mark.parametrize("pairs", [3, 5, 10])
def test_the_smallest_effect_is_found_in_four_of_five_studies(pairs):
    """`mde` at the true noise is the change that is noticed with a probability of 80 %."""
    rng = np.random.default_rng(pairs)
    noise = 0.05
    true_mde = math.exp(_reach(pairs) * noise * math.sqrt(2 / pairs))
    found = [more(simulated(rng, pairs, ratio=true_mde)) for _ in range(1000)]
    share = np.mean([each.p_value <= 1 - LEVEL for each in found])
    assert share == pytest.approx(POWER, abs=0.05)
    assert np.median([each.mde for each in found]) == pytest.approx(true_mde - 1, rel=0.25)


def _reach(pairs):
    """In standard errors, from a sample whose spread is known: 1 and its mirror."""
    values = np.linspace(-1, 1, pairs)
    values /= values.std(ddof=1)
    found = more([(math.exp(x), 1.0) for x in values])
    return math.log1p(found.mde) * math.sqrt(pairs)

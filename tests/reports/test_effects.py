"""Two arms in all measures: pairing by seed, Holm over the headlines, means."""

import pytest

from reports.effects import averages, effects
from reports.measures import HEADLINES, MEASURES
from tests.reports.test_verdict import metrics

PATHS = {name: measure.path for name, measure in MEASURES.items()}


def arm(*steps, **changes):
    """Seed -> summary."""
    return {seed: metrics(steps=each, **changes) for seed, each in enumerate(steps)}


def test_all_measures_are_compared_and_the_headlines_alone_get_a_word():
    found = effects(arm(120.0, 121.0, 119.0, 122.0), arm(100.0, 100.0, 100.0, 100.0))
    assert list(found) == list(MEASURES)
    words = {name: each.word for name, each in found.items() if each.word is not None}
    assert words == {
        "steps_per_min": "improved",
        "programs_per_h": "equivalent",
        "hit_rate_share": "equivalent",
        "step_mean_s": "equivalent",
        "worst_wait_s": "equivalent",
    }
    assert found["ttft_p95_s"].note == "a run has no value here"


def test_holm_counts_the_headlines_only():
    steps = (101.0, 106.0, 105.0, 109.0)
    found = effects(arm(*steps), arm(100.0, 100.0, 100.0, 100.0))
    alone = effects(arm(*steps), arm(100.0, 100.0, 100.0, 100.0), ["steps_per_min"])
    assert alone["steps_per_min"].word == "improved"
    assert found["steps_per_min"].word == "inconclusive"
    assert found["steps_per_min"].p_holm == pytest.approx(5 * alone["steps_per_min"].p_value)
    assert {name for name, each in found.items() if each.p_holm is not None} < set(HEADLINES)


def test_arms_are_paired_by_seed_whatever_the_order():
    """Seeds differ by a factor of 100; paired, the candidate is 10 % ahead in each."""
    ours = {seed: metrics(steps=1.1 * 100.0**seed) for seed in (3, 2, 1, 0)}
    theirs = {seed: metrics(steps=100.0**seed) for seed in (0, 1, 2, 7)}
    found = effects(ours, theirs, ["steps_per_min"])["steps_per_min"]
    assert found.pairs == 3
    assert found.value == pytest.approx(1.1)


def test_arms_without_a_common_seed_have_no_effect():
    found = effects({0: metrics()}, {1: metrics()}, ["steps_per_min"])["steps_per_min"]
    assert (found.pairs, found.value, found.note) == (0, None, "no seed that both ran")


def test_means_are_over_repeats_and_waits_are_the_worst():
    found = averages([metrics(steps=10.0, wait=1.0), metrics(steps=30.0, wait=9.0)], PATHS)
    assert (found["steps_per_min"], found["worst_wait_s"]) == (20.0, 9.0)
    assert found["ttft_p95_s"] is None
    assert averages([], PATHS)["steps_per_min"] is None
    assert averages([metrics(steps=None), metrics()], PATHS)["steps_per_min"] is None

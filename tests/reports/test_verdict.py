"""Who wins, by how much, why, and how sure."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.records import open_run
from reports.verdict import COMPARED, compare_all, facts, judge, label, verdict
from tests.harness.results import PROVENANCE, write_run


def metrics(**changes):
    """Metrics as `metrics.summarise` nests them, of what a verdict looks at."""
    plain = {
        "steps": 100.0,
        "programs": 50.0,
        "hits": 0.9,
        "recomputed": 0.05,
        "step": 10.0,
        "prefill": 2.0,
        "decode": 8.0,
        "wait": 5.0,
    } | changes
    return {
        "throughput": {"steps_per_min": plain["steps"], "programs_per_h": plain["programs"]},
        "kv": {
            "hit_rate_share": plain["hits"],
            "recomputed_tokens": 1000,
            "recomputed_share": plain["recomputed"],
            "preemptions": 0,
        },
        "latency": {
            "ttft_s": {"p50": 1.0, "p95": None},
            "step_s": {"mean": plain["step"]},
            "split_s": {
                "hold": 0.0,
                "queue": 0.0,
                "prefill": plain["prefill"],
                "decode": plain["decode"],
                "sandbox": 0.0,
                "tool": 0.0,
            },
        },
        "fairness": {"worst_wait_s": plain["wait"]},
        "disk": {"peak_bytes": 3_300_000_000_000},
        "sandboxes": {"leaked": 0},
    }


def run(scheduler, seed=0, value=96, load="concurrency", plan="plan", **changes):
    return {
        "scheduler": scheduler,
        "load": load,
        "value": value,
        "seed": seed,
        "simulated": True,
        "plan_hash": plan,
        "metrics": metrics(**changes),
    }


def only_load(runs):
    found = compare_all(runs)
    json.dumps(found, allow_nan=False)
    (load,) = found["loads"]
    return load


def words(load):
    return {name: found["word"] for name, found in load["comparisons"][0]["metrics"].items()}


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
def test_the_interval_decides_the_word(ratios, word):
    pairs = [(100 * ratio, 100.0) for ratio in ratios]
    found = judge(pairs, more_is_better=True)
    assert found["word"] == word
    assert found["interval"][0] <= found["ratio"] <= found["interval"][1]
    assert found["note"] is None


def test_where_less_is_better_the_words_turn_round():
    assert judge([(5.0, 10.0), (5.2, 10.0), (5.1, 10.0)], more_is_better=False)["word"] == "improved"
    assert judge([(15.0, 10.0), (15.2, 10.0), (15.1, 10.0)], more_is_better=False)["word"] == "regressed"


@pytest.mark.parametrize("count", [1, 2])
def test_with_fewer_than_three_repeats_the_noise_is_unknown(count):
    found = judge([(200.0, 100.0)] * count, more_is_better=True)
    assert (found["ratio"], found["interval"], found["word"]) == (pytest.approx(2.0), None, None)
    assert found["note"].startswith(f"{count} repeat")
    assert "--repeats 5" in found["note"]


def test_repeats_that_all_agree_are_degenerate_and_said_to_be():
    found = judge([(200.0, 100.0), (100.0, 50.0), (50.0, 25.0)], more_is_better=True)
    assert found["interval"] == [pytest.approx(2.0)] * 2
    assert found["word"] == "improved"
    assert "degenerate" in found["note"]
    assert judge([(7.0, 7.0)] * 3, more_is_better=True)["word"] == "equivalent"


@pytest.mark.parametrize("pairs", [[], [(1.0, None)], [(0.0, 1.0)], [(1.0, 0.0), (1.0, 1.0)]])
def test_without_a_ratio_there_is_a_note_and_no_number(pairs):
    found = judge(pairs, more_is_better=True)
    assert (found["ratio"], found["interval"], found["word"]) == (None, None, None)
    assert found["note"]


@given(
    st.lists(st.tuples(st.floats(1, 100), st.floats(1, 100)), min_size=3, max_size=6),
    st.booleans(),
)
def test_turning_a_comparison_round_inverts_the_ratio(pairs, more_is_better):
    ours = judge(pairs, more_is_better=more_is_better)
    theirs = judge([(b, a) for a, b in pairs], more_is_better=more_is_better)
    assert ours["ratio"] == pytest.approx(1 / theirs["ratio"])
    assert all(map(math.isfinite, ours["interval"]))
    assert ours["interval"][0] <= ours["interval"][1]


def test_the_same_study_has_the_same_verdict():
    pairs = [(100.0, 90.0), (120.0, 80.0), (95.0, 99.0)]
    assert judge(pairs, more_is_better=True) == judge(pairs, more_is_better=True)


# ---------------------------------------------------------------- pairing


def test_schedulers_are_paired_by_seed_whatever_the_order():
    """Seeds differ by a factor of 100; paired, thunder is 10 % ahead in each."""
    runs = [run("thunder", seed, steps=1.1 * 10**seed) for seed in (2, 0, 1)]
    runs += [run("vllm", seed, steps=1.0 * 10**seed) for seed in (0, 1, 2)]
    found = only_load(runs)["comparisons"][0]
    assert found["pairs"] == 3
    assert found["metrics"]["steps_per_min"]["ratio"] == pytest.approx(1.1)


def test_a_seed_that_one_of_them_lacks_is_left_out():
    runs = [run("thunder", 0), run("thunder", 1), run("vllm", 0)]
    assert only_load(runs)["comparisons"][0]["pairs"] == 1


def test_other_programs_cannot_be_compared():
    with pytest.raises(SetupError, match="thunder and vllm with seed 0 worked on different programs"):
        compare_all([run("thunder"), run("vllm", plan="another")])


def test_the_baseline_is_vllm_where_it_ran_else_the_first():
    assert compare_all([run("thunder"), run("vllm")])["baseline"] == "vllm"
    assert compare_all([run("b"), run("a")])["baseline"] == "b"
    assert compare_all([])["baseline"] is None


def test_loads_are_judged_one_by_one_in_their_order():
    found = compare_all([run("vllm", value=24), run("vllm", value=96), run("thunder", value=24)])
    assert [load["label"] for load in found["loads"]] == ["24 programs at a time", "96 programs at a time"]
    assert [len(load["comparisons"]) for load in found["loads"]] == [1, 0]


def test_loads_in_words():
    assert label("request_rate", 0.5) == "0.5 programs/s"
    assert label("arrival_times", 3) == "3 programs at given times"


def test_means_are_over_repeats_and_waits_are_the_worst():
    found = only_load([run("vllm", 0, steps=10.0, wait=1.0), run("vllm", 1, steps=30.0, wait=9.0)])
    (row,) = found["schedulers"]
    assert (row["repeats"], row["steps_per_min"], row["worst_wait_s"]) == (2, 20.0, 9.0)
    assert row["ttft_p95_s"] is None


# ---------------------------------------------------------------- the sentences


def test_a_winner_is_named_with_its_reasons():
    load = only_load(
        [
            run("thunder", steps=377.0, hits=0.97, recomputed=0.01, step=15.0, prefill=1.0, programs=60.0),
            run("vllm", steps=145.0, hits=0.31, recomputed=0.6, step=40.0, prefill=26.0),
        ]
    )
    assert load["sentences"] == [
        "thunder wins over vllm by 2.60x: 377.0 against 145.0 steps/min.",
        (
            "thunder against vllm: KV hit rate 97.0% against 31.0%; "
            "recomputed 1.0% against 60.0% of prompt tokens; "
            "a step takes 15.0 s against 40.0 s, and differs most in prefill (1.0 s against 26.0 s)."
        ),
        "How sure is this? 1 repeat, so the noise is unknown and there is no interval; use --repeats 5.",
    ]
    assert load["why"]["part"] == "prefill"


def test_starvation_is_never_hidden():
    load = only_load(
        [run("thunder", steps=200.0, programs=40.0, wait=900.0), run("vllm", programs=50.0, wait=100.0)]
    )
    assert load["sentences"][2:4] == [
        "But thunder finishes fewer programs than vllm: 40.0 against 50.0 programs/h.",
        "But thunder lets a program wait longer than vllm: 900 s against 100 s at worst.",
    ]


def test_a_third_scheduler_that_is_fairer_is_named_too():
    load = only_load(
        [run("thunder", steps=200.0, wait=50.0), run("vllm", wait=60.0), run("mine", wait=1.0)]
    )
    assert [s for s in load["sentences"] if s.startswith("But")] == [
        "But thunder lets a program wait longer than mine: 50 s against 1 s at worst."
    ]


def test_two_percent_is_no_win():
    (first, *_) = only_load([run("thunder", steps=101.0), run("vllm")])["sentences"]
    assert first == (
        "No winner in steps/min: thunder and vllm are within 2% (101.0 against 100.0 steps/min)."
    )


def test_noise_is_no_win_but_an_interval_on_one_side_is():
    noisy = [run("thunder", seed, steps=steps) for seed, steps in enumerate((90.0, 130.0, 95.0, 125.0))]
    clear = [run("thunder", seed, steps=steps) for seed, steps in enumerate((120.0, 121.0, 119.0, 122.0))]
    base = [run("vllm", seed) for seed in range(4)]
    assert "is noise" in only_load(noisy + base)["sentences"][0]
    (first, *others) = only_load(clear + base)["sentences"]
    assert first.startswith("thunder wins over vllm by 1.20x")
    assert "95 % interval 1.19x to 1.2" in first
    assert not any("noise" in sentence for sentence in others)


def test_when_the_baseline_wins_it_is_measured_against_the_next():
    load = only_load([run("a", steps=50.0), run("b", steps=80.0), run("vllm")])
    assert load["best"]["scheduler"] == "vllm"
    assert load["best"]["baseline"] == "b"
    assert load["sentences"][0].startswith("vllm wins over b by 1.25x")


def test_one_scheduler_has_nobody_to_beat():
    assert only_load([run("vllm")])["sentences"] == ["Only vllm ran: nothing to compare."]
    assert only_load([run("vllm", steps=None)])["sentences"] == ["Nothing was measured."]


def test_a_run_without_any_step_does_not_stop_the_verdict():
    empty = dict.fromkeys(("hits", "recomputed", "step", "prefill", "decode", "wait"))
    load = only_load([run("thunder", steps=0.0, programs=0.0, **empty), run("vllm")])
    assert load["sentences"][0] == "vllm leads thunder: 100.0 against 0.0 steps/min."
    assert words(load) == dict.fromkeys(COMPARED)


# ---------------------------------------------------------------- from folders


@pytest.mark.parametrize(
    ("spec", "load", "value"),
    [
        ("concurrency = [96]", "concurrency", 96),
        ("request_rate = [0.5]", "request_rate", 0.5),
        ("arrival_times = [0.0, 1.0, 5.0]", "arrival_times", 3),
    ],
)
def test_facts_of_a_run_are_read_from_its_folder(tmp_path, spec, load, value):
    folder = write_run(tmp_path / "run", spec=f"seed = 3\n{spec}\n", summary=metrics(steps=7.0))
    found = facts(open_run(folder))
    assert found == {
        "scheduler": "vllm",
        "load": load,
        "value": value,
        "seed": 3,
        "simulated": True,
        "plan_hash": "abc",
        "metrics": metrics(steps=7.0),
    }


def test_a_study_is_judged_from_its_folders(tmp_path):
    thunder = PROVENANCE | {"policy": {"name": "thunder", "config": {}, "seed": 7}}
    runs = [
        open_run(write_run(tmp_path / "t", provenance=thunder, summary=metrics(steps=200.0))),
        open_run(write_run(tmp_path / "v", summary=metrics())),
    ]
    found = verdict(runs)
    assert found["simulated"] is True
    assert found["loads"][0]["best"]["metrics"]["steps_per_min"]["ratio"] == pytest.approx(2.0)

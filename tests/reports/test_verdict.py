"""Who wins, by how much, why, and how sure."""

import json

import pytest

from harness.errors import SetupError
from harness.records import open_run
from reports.measures import HEADLINES
from reports.verdict import compare_all, facts, verdict
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
        "run": f"{scheduler}-c{value}-s{seed}",
        "study": "study",
        "scheduler": scheduler,
        "load": load,
        "value": value,
        "seed": seed,
        "simulated": True,
        "invalid": (),
        "unsettled": "",
        "reference": False,
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
        "thunder leads vllm by 2.60x: 377.0 against 145.0 steps/min.",
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


def test_who_never_settled_is_named_with_the_reason():
    runs = [run("thunder", seed, steps=200.0) for seed in range(3)] + [
        run("vllm", seed) for seed in range(3)
    ]
    runs[4] |= {"unsettled": "still falling, by 30% from minute 20 to 70 (p = 0.001)"}
    assert only_load(runs)["sentences"][-1] == (
        "vllm had no steady state in 1 of 3 runs, so its numbers depend on the window; "
        "still falling, by 30% from minute 20 to 70 (p = 0.001)."
    )


def test_a_part_that_differs_by_nothing_explains_nothing():
    load = only_load([run("thunder", steps=101.0), run("vllm")])
    assert any("a step takes" in text for text in load["sentences"])
    assert not any("differs most" in text for text in load["sentences"])


def test_a_leader_that_holds_calls_back_is_shown_to_do_so():
    holding, through = run("thunder", steps=200.0), run("vllm")
    holding["metrics"]["kv"]["held_mean"], through["metrics"]["kv"]["held_mean"] = 50.9, 0.0
    assert (
        "But thunder holds 51 calls at any time (vllm: 0); those that never ran are in no mean of steps."
        in only_load([holding, through])["sentences"]
    )
    holding["metrics"]["kv"]["held_mean"] = 0.4
    assert not any("holds" in text for text in only_load([holding, through])["sentences"])


def test_noise_is_no_win_but_an_interval_on_one_side_is():
    noisy = [run("thunder", seed, steps=steps) for seed, steps in enumerate((90.0, 130.0, 95.0, 125.0))]
    clear = [run("thunder", seed, steps=steps) for seed, steps in enumerate((120.0, 121.0, 119.0, 122.0))]
    base = [run("vllm", seed) for seed in range(4)]
    (noise, *_) = only_load(noisy + base)["sentences"]
    assert noise.startswith(
        "No winner in steps/min: thunder and vllm may differ by noise alone (1.09x; 110.0"
    )
    assert noise.endswith("; the smallest change that 4 repeats would show is 49%.")
    (first, *others) = only_load(clear + base)["sentences"]
    assert first.startswith("thunder wins over vllm by 1.20x")
    assert "95 % interval 1.18x to 1.23x" in first
    assert not any("noise" in sentence for sentence in others)


def test_when_the_baseline_wins_it_is_measured_against_the_next():
    load = only_load([run("a", steps=50.0), run("b", steps=80.0), run("vllm")])
    assert load["best"]["scheduler"] == "vllm"
    assert load["best"]["baseline"] == "b"
    assert load["sentences"][0].startswith("vllm leads b by 1.25x")


def test_one_scheduler_has_nobody_to_beat():
    assert only_load([run("vllm")])["sentences"] == ["Only vllm ran: nothing to compare."]
    assert only_load([run("vllm", steps=None)])["sentences"] == ["Nothing was measured."]


def test_a_run_without_any_step_does_not_stop_the_verdict():
    empty = dict.fromkeys(("hits", "recomputed", "step", "prefill", "decode", "wait"))
    load = only_load([run("thunder", steps=0.0, programs=0.0, **empty), run("vllm")])
    assert load["sentences"][0] == "vllm leads thunder: 100.0 against 0.0 steps/min."
    assert words(load) == dict.fromkeys(HEADLINES)


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
        "run": "run",
        "study": str(tmp_path),
        "invalid": (),
        "unsettled": "",
        "reference": False,
        "scheduler": "vllm",
        "load": load,
        "value": value,
        "seed": 3,
        "simulated": True,
        "plan_hash": "abc",
        "metrics": metrics(steps=7.0),
    }


def test_what_was_simulated_and_what_was_measured_are_no_arms_of_one_comparison():
    with pytest.raises(SetupError, match=r"thunder-c96-s0 was simulated and vllm-c96-s0 measured on real"):
        compare_all([run("thunder"), run("vllm") | {"simulated": False}])


def test_an_invalid_run_takes_no_part_and_is_named():
    bad = run("thunder", 3, steps=9000.0) | {"invalid": ("too few steps", "client too slow")}
    runs = [run(name, seed) for name in ("thunder", "vllm") for seed in range(3)]
    found = compare_all([*runs, bad, run("vllm", 3)])
    assert found["invalid"] == [{"run": "thunder-c96-s3", "reasons": ["too few steps", "client too slow"]}]
    (load,) = found["loads"]
    assert [(row["scheduler"], row["repeats"]) for row in load["schedulers"]] == [
        ("thunder", 3),
        ("vllm", 4),
    ]
    assert load["comparisons"][0]["pairs"] == 3
    assert load["invalid"] == []


def test_a_scheduler_without_a_valid_run_is_shown_but_not_ranked():
    bad = [run("thunder", seed, steps=9000.0) | {"invalid": ("too few steps",)} for seed in range(3)]
    load = only_load([*bad, run("vllm")])
    assert [(row["scheduler"], row["steps_per_min"]) for row in load["invalid"]] == [("thunder", 9000.0)]
    assert (load["best"], load["comparisons"]) == (None, [])
    assert load["sentences"] == ["Only vllm has a valid run: nothing to compare."]


def test_a_study_is_judged_from_its_folders(tmp_path):
    """Two runs of no more than a summary: INVALID by their tables."""
    thunder = PROVENANCE | {"policy": {"name": "thunder", "config": {}, "seed": 7}}
    runs = [
        open_run(write_run(tmp_path / "t", provenance=thunder, summary=metrics(steps=200.0))),
        open_run(write_run(tmp_path / "v", summary=metrics())),
    ]
    found = verdict(runs)
    assert found["simulated"] is True
    assert [each["run"] for each in found["invalid"]] == ["t", "v"]
    assert "too few steps" in found["invalid"][0]["reasons"][-1]
    assert [row["steps_per_min"] for row in found["loads"][0]["invalid"]] == [200.0, 100.0]
    assert found["loads"][0]["sentences"] == ["No valid run."]


# ---------------------------------------------------------------- the reference arm


def reference(seed=0, **changes):
    return run("unlimited", seed=seed, **changes) | {"reference": True}


def test_every_scheduler_is_shown_with_its_share_of_the_bound_seed_by_seed():
    load = only_load(
        [
            run("thunder", seed=0, steps=90.0),
            run("thunder", seed=1, steps=100.0),
            run("vllm", seed=0, steps=20.0),
            reference(seed=0, steps=100.0),
            reference(seed=1, steps=200.0),
        ]
    )
    assert {row["scheduler"]: row["of_bound_share"] for row in load["schedulers"]} == {
        "thunder": pytest.approx((0.9 + 0.5) / 2),
        "vllm": 0.2,
    }
    assert load["bound_steps_per_min"] == 150.0


def test_each_study_has_a_bound_of_its_own():
    """The engines of another study may be others, so its reference runs bound nothing here."""
    runs = [
        run("small", steps=30.0) | {"study": "a"},
        reference(steps=40.0) | {"study": "a"},
        run("large", steps=100.0) | {"study": "b"},
        reference(steps=200.0) | {"study": "b"},
        run("other", steps=100.0) | {"study": "c"},
    ]
    load = only_load(runs)
    assert [row["of_bound_share"] for row in load["schedulers"]] == [0.75, 0.5, None]
    assert load["bound_steps_per_min"] is None


def test_the_reference_arm_takes_part_in_no_comparison():
    runs = [run("thunder", steps=90.0), run("vllm", steps=20.0)]
    load, bounded = only_load(runs), only_load([*runs, reference(steps=1000.0)])
    for key in ("comparisons", "best", "why", "sentences"):
        assert bounded[key] == load[key]
    assert [row["scheduler"] for row in bounded["schedulers"]] == ["thunder", "vllm"]
    assert compare_all([reference(), *runs])["baseline"] == "vllm"


def test_without_a_valid_reference_run_nothing_is_said_of_a_bound():
    load = only_load([run("vllm"), reference() | {"invalid": ("too few steps",)}])
    assert load["bound_steps_per_min"] is None
    assert load["schedulers"][0]["of_bound_share"] is None
    found = compare_all([run("vllm"), reference() | {"invalid": ("too few steps",)}])
    assert found["invalid"] == [{"run": "unlimited-c96-s0", "reasons": ["too few steps"]}]


def test_the_reference_arm_has_to_work_on_the_same_programs():
    with pytest.raises(SetupError, match="vllm and unlimited with seed 0 worked on different programs"):
        compare_all([run("vllm"), reference(plan="other")])


def test_a_reference_arm_that_is_given_alone_is_what_is_asked_about():
    assert only_load([reference()])["schedulers"][0]["scheduler"] == "unlimited"

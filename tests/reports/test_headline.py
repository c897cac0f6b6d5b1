"""What the page opens with, from verdicts on numbers made up for the purpose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reports.headline import Headline, headline
from reports.verdict import compare_all

NOISE = (0.99, 1.0, 1.01)  # what repeats do to a number


def runs(
    scheduler: str, value: float, steps: float, repeats: int = 3, **changes: Any
) -> list[dict[str, Any]]:
    """Repeats of a scheduler under a load; `changes` go into the facts of each."""
    return [
        {
            "run": f"{scheduler}-{value:g}-{seed}",
            "study": "study",
            "scheduler": scheduler,
            "load": "concurrency",
            "value": value,
            "seed": seed,
            "simulated": False,
            "invalid": (),
            "unsettled": "",
            "reference": False,
            "plan_hash": str(seed),
            "metrics": metrics(steps * NOISE[seed % 3 if steps > 100 else 1]),
            **changes,
        }
        for seed in range(repeats)
    ]


def metrics(steps: float) -> Mapping[str, Any]:
    return {
        "throughput": {"steps_per_min": steps, "programs_per_h": steps / 2},
        "kv": {"hit_rate_share": 0.5, "recomputed_share": 0.1},
        "latency": {"step_s": {"mean": 600 / steps}, "split_s": {}},
        "fairness": {"worst_wait_s": 2000.0 if steps > 100 else 20.0},
    }


def told(*groups: list[dict[str, Any]]) -> Headline:
    return headline(compare_all([run for group in groups for run in group]))


def test_a_win_is_told_with_its_loads_ratios_and_price() -> None:
    loads = {24: 100, 48: 200, 96: 300}
    arms = [(("vllm", load, 100.0), ("mine", load, ours)) for load, ours in loads.items()]
    found = told(*(runs(*run) for pair in arms for run in pair))
    price = (
        "At 96 programs at a time: 300.0 against 100.0 steps/min, 150.0 against 50.0 programs/h; "
        "the longest wait of one call is 2,000 s against 20.0 s."
    )
    assert found.sentences == [
        "On real servers:",
        "mine wins over vllm at 48 and 96 programs at a time, by 2.00x to 3.00x in steps/min.",
        "No winner at 24 programs at a time: within 2% of each other.",
        price,
        "Intervals are of 95 %, over 3 repeats paired by seed.",
    ]
    assert [load.outcome for load in found.loads] == [
        "no winner, within 2%",
        "mine wins, 2.00x the steps/min of vllm",
        "mine wins, 3.00x the steps/min of vllm",
    ]


def test_rows_stand_in_order_of_steps_with_interval_and_word() -> None:
    (load,) = told(runs("vllm", 96, 100), runs("mine", 96, 300)).loads
    ours, theirs = load.rows
    assert (ours.scheduler, ours.tag, ours.steps_per_min, ours.ratio) == ("mine", "wins", "300.0", "3.00x")
    assert (ours.interval, ours.word) == ("2.93 to 3.08x", "improved")
    assert (theirs.scheduler, theirs.tag, theirs.ratio, theirs.interval) == ("vllm", "", "baseline", "")


def test_one_repeat_is_a_lead_and_no_proof() -> None:
    found = told(
        runs("vllm", 96, 100, 1),
        runs("mine", 96, 300, 1),
    )
    assert found.sentences[1] == "mine leads vllm at 96 programs at a time, by 2.97x in steps/min."
    assert found.sentences[-1] == (
        "Every load was run once, so the noise is unknown: a lead is no proof. Use --repeats 5."
    )
    assert found.loads[0].outcome == "mine leads, 2.97x the steps/min of vllm; noise unknown"
    assert found.loads[0].rows[0].tag == "leads"


def test_noise_has_no_winner() -> None:
    noisy = [
        run | {"metrics": metrics(steps)}
        for run, steps in zip(runs("mine", 96, 300), (60.0, 100.0, 190.0), strict=True)
    ]
    found = told(runs("vllm", 96, 100), noisy)
    assert found.sentences[1] == "No winner at 96 programs at a time: the difference is noise."
    assert {row.tag for row in found.loads[0].rows} == {""}


def test_simulated_numbers_are_called_so_first() -> None:
    found = told(runs("vllm", 96, 100, simulated=True), runs("mine", 96, 300, simulated=True))
    assert found.sentences[0] == "In simulation:"
    assert found.simulated


def test_who_is_alone_or_invalid_beats_nobody() -> None:
    found = told(runs("mine", 96, 300))
    assert found.sentences[1] == "Only mine ran: nothing to compare."
    assert found.baseline == ""
    found = told(runs("vllm", 96, 100), runs("mine", 96, 300, invalid=("too few steps",)))
    assert found.loads[0].outcome == "only vllm has a valid run: nothing to compare"
    assert [(row.scheduler, row.tag) for row in found.loads[0].rows] == [("vllm", ""), ("mine", "INVALID")]
    assert told(runs("mine", 96, 300, invalid=("too few steps",))).sentences[1] == "No valid run."


def test_the_share_of_the_bound_is_shown_only_where_there_is_a_reference_arm() -> None:
    arms = [runs("vllm", 96, 50.0, 1), runs("mine", 96, 60.0, 1)]
    assert (told(*arms).bound, told(*arms).loads[0].rows[0].of_bound) == ("", "-")
    found = told(*arms, runs("unlimited", 96, 80.0, 1, reference=True))
    assert [(row.scheduler, row.of_bound) for row in found.loads[0].rows] == [
        ("mine", "75.0%"),
        ("vllm", "62.5%"),
    ]
    assert found.bound.startswith(
        "Of bound: share of the steps/min with endless KV memory (unlimited, 80.0 steps/min); a bound in"
    )
    assert found.sentences == told(*arms).sentences


def test_with_several_loads_no_single_bound_is_named() -> None:
    arms = [runs("vllm", load, 50.0, 1) for load in (24, 96)]
    bounds = [runs("unlimited", load, 80.0, 1, reference=True) for load in (24, 96)]
    assert "(unlimited)" in told(*arms, *bounds).bound


def test_with_several_studies_no_single_bound_is_named() -> None:
    sides = [(name, bound, {"study": name}) for name, bound in (("vllm", 80.0), ("mine", 64.0))]
    arms = [runs(name, 96, 40.0, 1, **where) for name, _, where in sides]
    bounds = [runs("unlimited", 96, bound, 1, reference=True, **where) for _, bound, where in sides]
    found = told(*arms, *bounds)
    assert "(unlimited)" in found.bound
    assert {row.scheduler: row.of_bound for row in found.loads[0].rows} == {
        "vllm": "50.0%",
        "mine": "62.5%",
    }

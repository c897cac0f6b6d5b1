"""The verdict as the page says it: one paragraph, and per load one outcome and one row per arm.

Nothing is decided here: `reports.verdict` compares, this module words and writes its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reports.verdict import Verdict
from reports.wording import NOTHING, listed, number, seconds, share


class Row(NamedTuple):
    """An arm under a load, every number as it is written. `leads` tags the arm in front, else is empty."""

    scheduler: str
    leads: str
    steps_per_min: str
    ratio: str
    interval: str
    word: str
    programs_per_h: str
    worst_wait: str
    hit_rate: str


class LoadVerdict(NamedTuple):
    """What came out under a load."""

    label: str
    outcome: str
    rows: list[Row]
    sentences: list[str]


class Headline(NamedTuple):
    """What the page opens with. `baseline` is empty when it did not run."""

    baseline: str
    simulated: bool
    sentences: list[str]
    loads: list[LoadVerdict]


class _Outcome(NamedTuple):
    """How a load ended: `kind` is won, leads, equal, noise, alone or empty."""

    kind: str
    winner: str
    rival: str
    ratio: float | None
    interval: Sequence[float] | None
    margin: float


def headline(verdict: Verdict) -> Headline:
    """The opening of the page from what `reports.verdict.verdict` found."""
    loads = verdict["loads"]
    outcomes = [_outcome(load, verdict["margin_share"]) for load in loads]
    ran = {row["scheduler"] for load in loads for row in load["schedulers"]}
    baseline = verdict["baseline"] if verdict["baseline"] in ran and len(ran) > 1 else ""
    return Headline(
        baseline,
        verdict["simulated"],
        _paragraph(verdict, outcomes),
        [
            LoadVerdict(load["label"], _tell(outcome), _rows(load, outcome, baseline), load["sentences"])
            for load, outcome in zip(loads, outcomes, strict=True)
        ],
    )


def _outcome(load: Mapping[str, Any], margin: float) -> _Outcome:
    best = load["best"]
    if best is None:
        measured = [row["scheduler"] for row in load["schedulers"] if row["steps_per_min"] is not None]
        kind, winner = ("alone", measured[0]) if measured else ("empty", "")
        return _Outcome(kind, winner, "", None, None, margin)
    steps = best["metrics"]["steps_per_min"]
    ratio, word = steps["ratio"], steps["word"]
    if word == "equivalent" or (word is None and ratio is not None and abs(ratio - 1) <= margin):
        kind = "equal"
    elif word == "improved":
        kind = "won"
    else:
        kind = "leads" if word is None else "noise"
    return _Outcome(kind, best["scheduler"], best["baseline"], ratio, steps["interval"], margin)


def _tell(outcome: _Outcome) -> str:
    """An outcome in a few words."""
    times = NOTHING if outcome.ratio is None else f"{outcome.ratio:.2f}x"
    return {
        "won": f"{outcome.winner} wins, {times} the steps/min of {outcome.rival}",
        "leads": f"{outcome.winner} leads, {times} the steps/min of {outcome.rival}; noise unknown",
        "equal": f"no winner, within {outcome.margin:.0%}",
        "noise": "no winner, the difference is noise",
        "alone": f"only {outcome.winner} ran",
        "empty": "nothing was measured",
    }[outcome.kind]


# ------------------------------------------------------------------ the paragraph


def _paragraph(verdict: Verdict, outcomes: Sequence[_Outcome]) -> list[str]:
    loads = verdict["loads"]
    found = []
    for kind, verb in (("won", "wins over"), ("leads", "leads")):
        for pair in dict.fromkeys((o.winner, o.rival) for o in outcomes if o.kind == kind):
            at = [i for i, o in enumerate(outcomes) if o.kind == kind and (o.winner, o.rival) == pair]
            found.append(f"{pair[0]} {verb} {pair[1]} {_at(loads, at)}{_times(outcomes, at)}.")
    for kind, why in (("equal", "within {:.0%} of each other"), ("noise", "the difference is noise")):
        at = [i for i, o in enumerate(outcomes) if o.kind == kind]
        if at:
            reason = why.format(outcomes[at[0]].margin)
            found.append(f"No winner {_at(loads, at)}: {reason}.")
    found += [f"Only {o.winner} ran: nothing to compare." for o in outcomes[:1] if o.kind == "alone"]
    if not any(o.kind != "empty" for o in outcomes):
        found.append("Nothing was measured.")
    found += _heaviest(loads, outcomes)
    found.append(_how_sure(loads))
    return ["In simulation:", *found] if verdict["simulated"] else found


def _at(loads: Sequence[Mapping[str, Any]], places: Sequence[int]) -> str:
    """`at 48, 72 and 96 programs at a time`."""
    units: dict[str, list[str]] = {}
    for i in places:
        number = f"{loads[i]['value']:g}"
        units.setdefault(loads[i]["label"].removeprefix(number).strip(), []).append(number)
    return "at " + " and ".join(f"{listed(numbers)} {unit}" for unit, numbers in units.items())


def _times(outcomes: Sequence[_Outcome], places: Sequence[int]) -> str:
    """`, by 2.77x to 3.13x in steps/min`; empty when there is no ratio."""
    ratios = sorted(ratio for ratio in (outcomes[i].ratio for i in places) if ratio is not None)
    if not ratios:
        return ""
    low, high = f"{ratios[0]:.2f}x", f"{ratios[-1]:.2f}x"
    return f", by {low if low == high else f'{low} to {high}'} in steps/min"


def _heaviest(loads: Sequence[Mapping[str, Any]], outcomes: Sequence[_Outcome]) -> list[str]:
    """Under the heaviest load that somebody leads: what the leader gives beside steps, and to whom."""
    led = [i for i, outcome in enumerate(outcomes) if outcome.kind in {"won", "leads"}]
    if not led:
        return []
    last = max(led, key=lambda i: loads[i]["value"])
    rows = {row["scheduler"]: row for row in loads[last]["schedulers"]}
    ours, theirs = rows[outcomes[last].winner], rows[outcomes[last].rival]
    parts = [
        f"{number(ours[name], 1)} against {number(theirs[name], 1)} {unit}"
        for name, unit in (("steps_per_min", "steps/min"), ("programs_per_h", "programs/h"))
    ]
    wait = f"the longest wait of one call is {seconds(ours['worst_wait_s'])}"
    return [
        f"At {loads[last]['label']}: {', '.join(parts)}; {wait} against {seconds(theirs['worst_wait_s'])}."
    ]


def _how_sure(loads: Sequence[Mapping[str, Any]]) -> str:
    repeats = sorted({row["repeats"] for load in loads for row in load["schedulers"]})
    if not repeats:
        return ""
    if repeats[-1] < 3:
        times = {1: "once", 2: "twice"}[repeats[-1]]
        return f"Every load was run {times}, so the noise is unknown: a lead is no proof. Use --repeats 5."
    count = str(repeats[-1]) if repeats[0] == repeats[-1] else f"{repeats[0]} to {repeats[-1]}"
    return f"Intervals are of 95 %, over {count} repeats paired by seed."


# ------------------------------------------------------------------ the table


def _rows(load: Mapping[str, Any], outcome: _Outcome, baseline: str) -> list[Row]:
    against = {each["scheduler"]: each["metrics"]["steps_per_min"] for each in load["comparisons"]}
    tags = {"won": "wins", "leads": "leads"}
    found = []
    for row in sorted(load["schedulers"], key=lambda row: -(row["steps_per_min"] or 0.0)):
        name = row["scheduler"]
        steps = against.get(name)
        has_ratio = steps is not None and steps["ratio"] is not None
        interval = steps["interval"] if steps is not None else None
        found.append(
            Row(
                scheduler=name,
                leads=tags.get(outcome.kind, "") if name == outcome.winner else "",
                steps_per_min=number(row["steps_per_min"], 1),
                ratio=f"{steps['ratio']:.2f}x" if steps is not None and has_ratio else _own(name, baseline),
                interval="" if interval is None else "{:.2f} to {:.2f}x".format(*interval),
                word=(steps["word"] or "") if steps is not None else "",
                programs_per_h=number(row["programs_per_h"], 1),
                worst_wait=seconds(row["worst_wait_s"]).removesuffix(" s"),
                hit_rate=share(row["hit_rate_share"]),
            )
        )
    return found


def _own(name: str, baseline: str) -> str:
    return "baseline" if name == baseline else NOTHING

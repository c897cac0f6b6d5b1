"""The verdict as the page says it: one paragraph, and per load one outcome and one row per arm.

Nothing is decided here: `reports.verdict` compares, this module words and writes its numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from reports.bound import told
from reports.text import NOTHING, number
from reports.verdict import Verdict
from reports.wording import listed, sort_of


class Row(NamedTuple):
    """An arm under a load, every number as it is written. `tag`: wins, leads, INVALID or empty."""

    scheduler: str
    tag: str
    steps_per_min: str
    ratio: str
    interval: str
    word: str
    programs_per_h: str
    worst_wait: str
    hit_rate: str
    of_bound: str


class LoadVerdict(NamedTuple):
    """What came out under a load."""

    label: str
    outcome: str
    rows: list[Row]
    sentences: list[str]


class Headline(NamedTuple):
    """What the page opens with. `baseline` is empty if it did not run, `bound` without a reference arm."""

    baseline: str
    simulated: bool
    sentences: list[str]
    loads: list[LoadVerdict]
    bound: str

    @property
    def kind(self) -> str:
        """What sort of numbers these are."""
        return sort_of(simulated=self.simulated)


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
            LoadVerdict(
                load["label"], _tell(load, outcome), _rows(load, outcome, baseline), load["sentences"]
            )
            for load, outcome in zip(loads, outcomes, strict=True)
        ],
        _bound(loads),
    )


def _bound(loads: Sequence[Mapping[str, Any]]) -> str:
    """What `of bound` means; with one load also how high the bound is, unless several studies have one."""
    bounds = [load["bound_steps_per_min"] for load in loads]
    shares = [row["of_bound_share"] for load in loads for row in load["schedulers"]]
    if all(known is None for known in (*bounds, *shares)):
        return ""
    meaning = told(bounds[0] if len(bounds) == 1 else None)
    return f"{meaning[0].upper()}{meaning[1:]}"


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


def _tell(load: Mapping[str, Any], outcome: _Outcome) -> str:
    """An outcome in a few words."""
    if outcome.kind in {"alone", "empty"}:
        only: str = load["sentences"][0]
        return f"{only[0].lower()}{only[1:].removesuffix('.')}"
    times = NOTHING if outcome.ratio is None else f"{outcome.ratio:.2f}x"
    return {
        "won": f"{outcome.winner} wins, {times} the steps/min of {outcome.rival}",
        "leads": f"{outcome.winner} leads, {times} the steps/min of {outcome.rival}; noise unknown",
        "equal": f"no winner, within {outcome.margin:.0%}",
        "noise": "no winner, the difference is noise",
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
    if loads and not found:
        found.append(loads[0]["sentences"][0])
    found += _heaviest(loads, outcomes)
    found.append(_how_sure(loads))
    return ["In simulation:" if verdict["simulated"] else "On real servers:", *found]


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
        f"{number(name, ours[name])} against {number(name, theirs[name])} {unit}"
        for name, unit in (("steps_per_min", "steps/min"), ("programs_per_h", "programs/h"))
    ]
    waits = " s against ".join(number("worst_wait_s", row["worst_wait_s"]) for row in (ours, theirs))
    return [f"At {loads[last]['label']}: {', '.join(parts)}; the longest wait of one call is {waits} s."]


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
    """The arms that count, the fastest first, then those that have nothing but INVALID runs."""
    against = {each["scheduler"]: each["metrics"]["steps_per_min"] for each in load["comparisons"]}
    front = {"won": "wins", "leads": "leads"}.get(outcome.kind, "")
    found = []
    for row in sorted(load["schedulers"], key=lambda row: -(row["steps_per_min"] or 0.0)):
        name = row["scheduler"]
        found.append(
            _row(
                row,
                front if name == outcome.winner else "",
                against.get(name),
                is_baseline=name == baseline,
            )
        )
    return found + [_row(row, "INVALID", None, is_baseline=False) for row in load["invalid"]]


def _row(row: Mapping[str, Any], tag: str, steps: Mapping[str, Any] | None, *, is_baseline: bool) -> Row:
    effect = steps or {}
    ratio, interval, word = (effect.get(name) for name in ("ratio", "interval", "word"))
    nothing = "baseline" if is_baseline else NOTHING
    return Row(
        scheduler=row["scheduler"],
        tag=tag,
        steps_per_min=number("steps_per_min", row["steps_per_min"]),
        ratio=nothing if ratio is None else f"{ratio:.2f}x",
        interval="" if interval is None else "{:.2f} to {:.2f}x".format(*interval),
        word=word or "",
        programs_per_h=number("programs_per_h", row["programs_per_h"]),
        worst_wait=number("worst_wait_s", row["worst_wait_s"]),
        hit_rate=number("hit_rate_share", row["hit_rate_share"]),
        of_bound=number("of_bound_share", row["of_bound_share"]),
    )

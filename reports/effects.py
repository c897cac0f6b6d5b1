"""What two arms are compared by: `run`, `show`, `compare`, the page and the gate all ask here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from reports.measures import HEADLINES, MEASURES, pick
from reports.statistics import Effect, corrected, effect

Summary: TypeAlias = Mapping[str, Any]


def effects(
    candidate: Mapping[int, Summary], baseline: Mapping[int, Summary], names: Iterable[str] = MEASURES
) -> dict[str, Effect]:
    """`candidate` against `baseline` in the measures `names`; both map seeds to summaries and are paired.

    The headlines are judged together. The other measures describe: they get no word, because every word
    more is another chance of a false alarm.
    """
    seeds = sorted(candidate.keys() & baseline.keys())
    found = {name: _effect(name, [(candidate[seed], baseline[seed]) for seed in seeds]) for name in names}
    family = [name for name in HEADLINES if name in found]
    judged = dict(zip(family, corrected([found[name] for name in family]), strict=True))
    return {name: judged.get(name) or replace(each, p_holm=None, word=None) for name, each in found.items()}


def _effect(name: str, pairs: Sequence[tuple[Summary, Summary]]) -> Effect:
    measure = MEASURES[name]
    return effect(
        [(pick(ours, measure.path), pick(theirs, measure.path)) for ours, theirs in pairs],
        metric=name,
        more_is_better=measure.more_is_better,
        kind=measure.kind,
    )


def averages(summaries: Sequence[Summary], paths: Mapping[str, Sequence[str]]) -> dict[str, float | None]:
    """Means over an arm's repeats, of waits the worst; null where a repeat has no such number."""
    values = {name: [pick(each, path) for each in summaries] for name, path in paths.items()}
    found = {name: _mean(each) for name, each in values.items()}
    if "worst_wait_s" in values:
        found["worst_wait_s"] = max((w for w in values["worst_wait_s"] if w is not None), default=None)
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None

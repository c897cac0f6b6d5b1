"""Whether results are worse than a baseline: the rules by which a CI job fails.

Every threshold is checked for every arm (scheduler and load) that both sides have, paired by seed. It is a

    regression    when the estimated change is beyond the limit, and p after Holm's correction over all
                  checks of the gate is at most 5 %: there is a change, and it is worth stopping for
    pass          when the whole 95 % interval is within the limit, or the number is 0 on both sides
    inconclusive  in any other case: beyond the limit but perhaps by noise, an interval that reaches beyond
                  it, no number on one side, or fewer than 3 pairs

One regression makes the gate fail; without any, one inconclusive check leaves it inconclusive.

With both conditions a gate over identical arms raises a false alarm in fewer than 5 of 100 comparisons,
however many checks it has. A change of exactly the limit fails at most every other time: put the limit
nearer to 0 than the change that must not get through. Measured rates (`tests/reports/test_gate_power.py`
measures them again), for the noise that virtual runs of 96 programs show from pair to pair in throughput
when a parameter is nudged, and `throughput<-2%` watched alone:

    sd of the log-ratio from pair to pair       share of true 5 % regressions that fail
                                                3 pairs   5 pairs   10 pairs   20 pairs
    0.002   vllm, 10 minutes                    1.00      1.00      1.00       1.00
    0.035   thunder, an hour                    0.30      0.71      0.98       1.00
    0.084   thunder, 10 minutes                 0.09      0.20      0.41       0.77

In virtual time the same code and seeds give the same numbers: every ratio is 1, and the gate passes.

Invalid runs are refused: a crash or a warm cache on one side would look like a win of the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias

from harness.errors import SetupError, ThunderbenchError
from reports.baseline import RunSummary, refuse_empty
from reports.comparable import differences
from reports.measures import label, pick
from reports.statistics import Effect, corrected, effect
from reports.text import shown
from reports.thresholds import Threshold

Outcome: TypeAlias = Literal["pass", "regression", "inconclusive"]

_BADNESS: tuple[Outcome, ...] = ("pass", "inconclusive", "regression")
EXIT_CODES: dict[Outcome, int] = {"pass": 0, "regression": 6, "inconclusive": 0}
STRICT_INCONCLUSIVE = 7
MOST_TOLD = 5  # invalid runs in one line


class InvalidRuns(ThunderbenchError):
    """A side has runs that did not measure what they say."""

    exit_code = 5

    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__(reasons)
        self.reasons = tuple(reasons)

    def __str__(self) -> str:
        return f"INVALID runs are no measure of anything: {'; '.join(self.reasons)}"


def refuse_invalid(runs: Sequence[RunSummary]) -> None:
    """Raise SetupError when one of the runs measured nothing, InvalidRuns when one does not count."""
    refuse_empty(runs)
    invalid = [run for run in runs if run.invalid]
    if invalid:
        told = [f"{shown(run.name)}: {shown(', '.join(run.invalid), 300)}" for run in invalid[:MOST_TOLD]]
        raise InvalidRuns([*told, *([f"{len(invalid) - MOST_TOLD} more"] if invalid[MOST_TOLD:] else [])])


class Arm(NamedTuple):
    """One scheduler under one load."""

    scheduler: str
    load: str
    value: float

    @property
    def label(self) -> str:
        """`thunder, 96 programs at a time`."""
        return f"{self.scheduler}, {label(self.load, self.value)}"


@dataclass(frozen=True, slots=True)
class Check:
    """One threshold on one arm. `reason` says in a clause why the outcome is what it is."""

    arm: Arm
    threshold: Threshold
    effect: Effect
    outcome: Outcome
    reason: str

    def json(self) -> dict[str, Any]:
        """Plain values, without NaN."""
        return {
            "scheduler": self.arm.scheduler,
            "load": self.arm.load,
            "value": self.arm.value,
            "threshold": self.threshold.text,
            "outcome": self.outcome,
            "reason": self.reason,
            "effect": self.effect.json(),
        }


@dataclass(frozen=True, slots=True)
class GateVerdict:
    """What a gate decided. `left_out` names what only one side has, `forced` what --force overlooked."""

    outcome: Outcome
    checks: tuple[Check, ...]
    left_out: tuple[str, ...]
    forced: tuple[str, ...]
    simulated: bool
    candidate: Mapping[str, Any]
    baseline: Mapping[str, Any]

    def exit_code(self, *, strict: bool) -> int:
        """0 pass, 6 regression; inconclusive is 7 when `strict`, else 0."""
        undecided = strict and self.outcome == "inconclusive"
        return STRICT_INCONCLUSIVE if undecided else EXIT_CODES[self.outcome]

    def json(self) -> dict[str, Any]:
        """The verdict as plain values."""
        return {
            "outcome": self.outcome,
            "simulated": self.simulated,
            "checks": [check.json() for check in self.checks],
            "left_out": list(self.left_out),
            "forced": list(self.forced),
            "candidate": dict(self.candidate),
            "baseline": dict(self.baseline),
        }


def gate(
    candidate: Sequence[RunSummary],
    baseline: Sequence[RunSummary],
    thresholds: Sequence[Threshold],
    *,
    scheduler: str | None = None,
    force: bool = False,
) -> GateVerdict:
    """Check `candidate` against `baseline`, of one scheduler only when its name is given.

    Raises InvalidRuns when a run is invalid, and SetupError when one measured nothing, when the two have
    no scheduler, load and seed in common or, unless `force`, differ in more than the scheduler's doing
    (`reports.comparable`).
    """
    candidate, baseline = _of(scheduler, candidate, "results"), _of(scheduler, baseline, "baseline")
    ours, theirs = _arms(candidate), _arms(baseline)
    shared = [arm for arm in ours if arm in theirs and ours[arm].keys() & theirs[arm].keys()]
    if not shared:
        raise SetupError(
            f"results of {_names(ours)} and a baseline of {_names(theirs)} have no scheduler, load and "
            "seed in common",
            "results of the same settings as the baseline",
        )
    pairs = [(ours[arm][seed], theirs[arm][seed]) for arm in shared for seed in _seeds(arm, ours, theirs)]
    refuse_invalid([*candidate, *(run for _, run in pairs)])
    disagree = differences(
        [
            (f"{side} {shown(run.name, 20)}", run.spec, run.provenance)
            for pair in pairs
            for side, run in zip(("results", "baseline"), pair, strict=True)
        ]
    )
    if disagree and not force:
        raise SetupError(
            f"results and baseline differ in {'; in '.join(disagree)}",
            "the same settings on both sides",
            "Save a baseline anew, or compare nevertheless with --force.",
        )
    checks = _checks(shared, ours, theirs, thresholds)
    return GateVerdict(
        overall(check.outcome for check in checks),
        checks,
        (*_left_out(ours, theirs, "the baseline"), *_left_out(theirs, ours, "the results")),
        tuple(disagree),
        any(run.provenance.get("simulated", False) for pair in pairs for run in pair),
        _origin(candidate),
        _origin(baseline),
    )


def decide(found: Effect, threshold: Threshold) -> tuple[Outcome, str]:
    """Outcome and reason of one check, given the effect of the threshold's kind."""
    if found.value is None and found.note == "0 in every run":
        return "pass", "0 on both sides"
    if found.low is None or found.high is None or found.value is None or found.p_holm is None:
        return "inconclusive", found.note or "no interval"
    if threshold.beyond(found.value):
        if found.p_holm <= 1 - found.level:
            return "regression", f"beyond {threshold.text} and significant (p = {found.p_holm:.2g})"
        return "inconclusive", f"beyond {threshold.text}, but it may be noise (p = {found.p_holm:.2g})"
    if threshold.beyond(found.low if threshold.more_is_better else found.high):
        return "inconclusive", f"the interval reaches beyond {threshold.text}"
    return "pass", f"within {threshold.text}"


def overall(outcomes: Iterable[Outcome]) -> Outcome:
    """The worst of the outcomes."""
    return max(outcomes, key=_BADNESS.index, default="pass")


# ------------------------------------------------------------------ pairing


_Arms: TypeAlias = dict[Arm, dict[int, RunSummary]]


def _of(scheduler: str | None, runs: Sequence[RunSummary], side: str) -> list[RunSummary]:
    """The runs of one scheduler, or all. Raises SetupError when there is none."""
    found = [run for run in runs if scheduler in {None, run.scheduler}]
    if not found:
        known = ", ".join(sorted({shown(run.scheduler) for run in runs}))
        raise SetupError(f"no scheduler {shown(scheduler or '')} in the {side}", f"one of {known}")
    return found


def _arms(runs: Sequence[RunSummary]) -> _Arms:
    """Arm -> seed -> run, in order of load and name. Raises SetupError when a run is there twice."""
    found: _Arms = {}
    for run in sorted(runs, key=lambda run: (run.load, run.value, run.scheduler, run.seed)):
        other = found.setdefault(Arm(run.scheduler, run.load, run.value), {}).setdefault(run.seed, run)
        if other is not run:
            raise SetupError(
                f"{shown(other.name)} and {shown(run.name)} are the same scheduler, load and seed",
                "every run once",
            )
    return found


def _checks(
    shared: Sequence[Arm], ours: _Arms, theirs: _Arms, thresholds: Sequence[Threshold]
) -> tuple[Check, ...]:
    asked = [(arm, threshold) for arm in shared for threshold in thresholds]
    effects = corrected([_effect(arm, ours, theirs, threshold) for arm, threshold in asked])
    return tuple(
        Check(arm, threshold, found, *decide(found, threshold))
        for (arm, threshold), found in zip(asked, effects, strict=True)
    )


def _seeds(arm: Arm, ours: _Arms, theirs: _Arms) -> list[int]:
    """The seeds of an arm that both sides ran."""
    return sorted(ours[arm].keys() & theirs[arm].keys())


def _effect(arm: Arm, ours: _Arms, theirs: _Arms, threshold: Threshold) -> Effect:
    path = threshold.measure.path
    return effect(
        [
            (pick(ours[arm][seed].summary, path), pick(theirs[arm][seed].summary, path))
            for seed in _seeds(arm, ours, theirs)
        ],
        metric=threshold.name,
        more_is_better=threshold.more_is_better,
        kind=threshold.kind,
    )


def _left_out(ours: _Arms, theirs: _Arms, missing_in: str) -> list[str]:
    """What only our side has."""
    found = []
    for arm, runs in ours.items():
        alone = [str(seed) for seed in runs if seed not in theirs.get(arm, {})]
        if len(alone) == len(runs):
            found.append(f"{arm.label}: not in {missing_in}")
        elif alone:
            found.append(
                f"{arm.label}: seed{'s' * (len(alone) > 1)} {', '.join(alone)} not in {missing_in}"
            )
    return found


def _names(arms: _Arms) -> str:
    return ", ".join(shown(arm.label, 60) for arm in list(arms)[:4]) + (" ..." if len(arms) > 4 else "")


def _origin(runs: Sequence[RunSummary]) -> dict[str, Any]:
    """What made the runs, as far as they agree."""
    wanted = ("thunderbench_version", "git_commit", "command", "study_started_utc")
    first = runs[0].provenance
    return {
        key: first.get(key)
        for key in wanted
        if all(run.provenance.get(key) == first.get(key) for run in runs)
    }

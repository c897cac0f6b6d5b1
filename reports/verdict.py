"""Which scheduler wins a study, by how much, why, and how sure that is.

Schedulers are compared load by load and paired by seed, because all schedulers of a seed work on the same
programs; how, and when a difference is called one, is said in `reports.statistics`. Runs that are INVALID
are named and take no part. Where a scheduler has no other under some load, its numbers are shown, marked,
and compared with nothing.

Runs of the reference arm, the same engine with endless KV memory, are no scheduler's and are compared with
nothing. Of every scheduler `of_bound_share` says how much of their steps/min it reaches, pair by pair, mean
over the repeats; a pair is of one study, for another may have other engines. That bounds what memory can
give: more calls decode at a time under it, which slow each other down, so a scheduler that lets fewer run
may exceed it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from harness.errors import SetupError
from harness.records import Run, is_reference
from reports.comparable import Made, load_of
from reports.effects import averages, effects
from reports.measures import HEADLINES, MEASURES, PARTS, label, pick
from reports.statistics import MARGIN
from reports.steady import steady
from reports.text import shown
from reports.validity import validity
from reports.wording import counted

Verdict: TypeAlias = dict[str, Any]

WAIT_NOTICED_S = (
    10.0  # two of the paper's ticks: below that a longer worst wait is no reason to think twice
)
GAP_NOTICED_S = 0.1  # the last digit shown: a part that differs by less explains nothing
HELD_NOTICED = 1.0  # calls waiting at the gateway on average: fewer make no mean look better than it is
BASELINE = "vllm"

STEPS = MEASURES["steps_per_min"].path

# What is shown of a scheduler: path in a run's metrics.
SHOWN: dict[str, tuple[str, ...]] = {
    **{name: MEASURES[name].path for name in HEADLINES},
    **{name: MEASURES[name].path for name in ("recomputed_share", "preemptions", "ttft_p50_s")},
    **{name: MEASURES[name].path for name in ("disk_peak_bytes", "leaked")},
    "groups_finished": ("groups", "finished"),
    **{f"group_{name}_s": ("groups", "completion_s", name) for name in ("mean", "p50", "p90", "max")},
    "straggler_share": ("groups", "straggler_share"),
    "recomputed_tokens": ("kv", "recomputed_tokens"),
    "held_mean": ("kv", "held_mean"),
    **{f"{part}_s": ("latency", "split_s", part) for part in PARTS},
}


def verdict(runs: Sequence[Run]) -> Verdict:
    """Compare the runs of a study; the result is JSON-able.

    The baseline is vllm where it ran, else the scheduler that stands first. Raises SetupError when two
    runs to be compared did not work on the same programs.
    """
    return compare_all(
        [facts(run) | {"invalid": validity(run).reasons, "unsettled": steady(run).reason} for run in runs]
    )


def facts(run: Made) -> Verdict:
    """What is compared of a run, as a dict.

    `run` is its name and `study` the folder around it; `invalid` says why it takes no part and `unsettled`
    why it has no steady state, both for the caller to fill in. The others are `scheduler`, `load`,
    `value`, `seed`, `simulated`, `reference` (whether it is of the reference arm), `plan_hash`, and
    `metrics`, its summary.
    `load` is concurrency, request_rate or arrival_times; `value` a number of programs, programs per
    second, or how many times were given.
    """
    load, value = load_of(run.spec)
    return {
        "run": run.folder.name,
        "study": str(run.folder.parent),
        "scheduler": run.provenance["policy"]["name"],
        "load": load,
        "value": value,
        "seed": run.spec["seed"],
        "simulated": run.provenance.get("simulated", False),
        "invalid": (),
        "unsettled": "",
        "reference": is_reference(run.spec),
        "plan_hash": run.provenance.get("plan_hash"),
        "metrics": run.summary,
    }


def compare_all(runs: Sequence[Verdict], baseline: str | None = None) -> Verdict:
    """The verdict on runs, given as their `facts`. `baseline` takes the place of the usual one."""
    _same_kind(runs)
    _same_programs(runs)
    arms = [run for run in runs if not run["reference"]]
    references = [run for run in runs if run["reference"]]
    if not arms:  # somebody gave nothing else, so that is what is asked about
        arms, references = references, []
    schedulers = list(dict.fromkeys(run["scheduler"] for run in arms))
    baseline = baseline or (BASELINE if BASELINE in schedulers else next(iter(schedulers), None))
    loads = list(dict.fromkeys((run["load"], run["value"]) for run in arms))
    return {
        "simulated": any(run["simulated"] for run in runs),
        "baseline": baseline,
        "margin_share": MARGIN,
        "invalid": [{"run": run["run"], "reasons": list(run["invalid"])} for run in runs if run["invalid"]],
        "loads": [_of_load(load, _under(load, arms), _under(load, references), baseline) for load in loads],
    }


def _same_kind(runs: Sequence[Verdict]) -> None:
    """What was simulated and what was measured are no arms of one comparison."""
    first = {bool(run["simulated"]): run["run"] for run in reversed(runs)}
    if len(first) > 1:
        raise SetupError(
            f"{first[True]} was simulated and {first[False]} measured on real servers",
            "runs of one kind",
            "Report them apart; what `thunderbench compare --force` shows of both is a difference of kind.",
        )


def _same_programs(runs: Sequence[Verdict]) -> None:
    """Runs of one load and seed are compared, so they must have worked on the same programs."""
    plans: dict[Any, tuple[str, Any]] = {}
    for run in runs:
        name, plan = plans.setdefault(
            (run["load"], run["value"], run["seed"]), (run["scheduler"], run["plan_hash"])
        )
        if plan != run["plan_hash"]:
            raise SetupError(
                f"{name} and {run['scheduler']} with seed {run['seed']} worked on different programs",
                "runs with the same plan_hash in provenance.json",
                "Run them in one study.",
            )


def _under(load: tuple[str, float], runs: Sequence[Verdict]) -> list[Verdict]:
    return [run for run in runs if (run["load"], run["value"]) == load]


def _of_load(
    load: tuple[str, float],
    runs: Sequence[Verdict],
    references: Sequence[Verdict],
    baseline: str | None,
) -> Verdict:
    by_scheduler: dict[str, dict[int, Mapping[str, Any]]] = {}
    valid = [run for run in runs if not run["invalid"]]
    for run in valid:
        by_scheduler.setdefault(run["scheduler"], {})[run["seed"]] = run["metrics"]
    bounds = [run for run in references if not run["invalid"]]
    rows = [
        {
            **_row(name, list(found.values())),
            "of_bound_share": of_bound([run for run in valid if run["scheduler"] == name], bounds),
        }
        for name, found in by_scheduler.items()
    ]
    found: Verdict = {
        "load": load[0],
        "value": load[1],
        "label": label(*load),
        "bound_steps_per_min": _bound_steps_per_min(bounds),
        "schedulers": rows,
        "invalid": _invalid(runs, by_scheduler),
        "comparisons": [
            compare(name, by_scheduler[name], baseline, by_scheduler[baseline])
            for name in by_scheduler
            if baseline is not None and baseline in by_scheduler and name != baseline
        ],
    }
    ranked = sorted(
        (row for row in rows if row["steps_per_min"] is not None), key=lambda row: -row["steps_per_min"]
    )
    if len(ranked) > 1:
        best = ranked[0]["scheduler"]
        rival = ranked[1]["scheduler"] if best == baseline or baseline not in by_scheduler else baseline
        found["best"] = compare(best, by_scheduler[best], rival, by_scheduler[rival])
        found["why"] = why(_find(rows, best), _find(rows, rival))
        found["sentences"] = sentences(found["best"], found["why"], rows) + _unsettled(runs)
    else:
        found |= {"best": None, "why": None, "sentences": _alone(rows, found["invalid"])}
    return found


def _invalid(runs: Sequence[Verdict], counted: Mapping[str, Any]) -> list[Verdict]:
    """Rows of the schedulers that have nothing but INVALID runs."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        if run["scheduler"] not in counted:
            found.setdefault(run["scheduler"], []).append(run["metrics"])
    return [_row(name, metrics) for name, metrics in found.items()]


def _row(scheduler: str, metrics: Sequence[Mapping[str, Any]]) -> Verdict:
    of_bound = {"of_bound_share": None}
    return {"scheduler": scheduler, "repeats": len(metrics), **averages(metrics, SHOWN), **of_bound}


def of_bound(ours: Sequence[Verdict], bounds: Sequence[Verdict]) -> float | None:
    """Share of the reference arm's steps/min that a scheduler reaches: mean over the seeds of both.

    A run is held against the reference run of its own study and seed.
    """
    known = {(run["study"], run["seed"]): pick(run["metrics"], STEPS) for run in bounds}
    pairs = [(pick(run["metrics"], STEPS), known.get((run["study"], run["seed"]))) for run in ours]
    shares = [steps / bound for steps, bound in pairs if steps is not None and bound]
    return sum(shares) / len(shares) if shares else None


def _bound_steps_per_min(bounds: Sequence[Verdict]) -> float | None:
    """Steps/min of the reference arm; null where several studies have one each."""
    if len({run["study"] for run in bounds}) > 1:
        return None
    return averages([run["metrics"] for run in bounds], {"steps": STEPS})["steps"]


def compare(
    scheduler: str,
    ours: Mapping[int, Mapping[str, Any]],
    baseline: str,
    theirs: Mapping[int, Mapping[str, Any]],
) -> Verdict:
    """`scheduler` against `baseline`, paired by seed: per headline an effect as JSON."""
    found = effects(ours, theirs, HEADLINES)
    return {
        "scheduler": scheduler,
        "baseline": baseline,
        "pairs": len(ours.keys() & theirs.keys()),
        "metrics": {name: each.json() for name, each in found.items()},
    }


def why(best: Verdict, rival: Verdict) -> Verdict:
    """What lies behind a difference: cache, recompute, and the part of the step that differs most."""
    gaps = {
        part: rival[f"{part}_s"] - best[f"{part}_s"]
        for part in PARTS
        if best[f"{part}_s"] is not None and rival[f"{part}_s"] is not None
    }
    part = max(gaps, key=lambda name: abs(gaps[name])) if gaps else None
    return {
        "hit_rate_share": [best["hit_rate_share"], rival["hit_rate_share"]],
        "recomputed_share": [best["recomputed_share"], rival["recomputed_share"]],
        "step_mean_s": [best["step_mean_s"], rival["step_mean_s"]],
        "part": part,
        "part_s": [best[f"{part}_s"], rival[f"{part}_s"]] if part else [None, None],
    }


def sentences(comparison: Verdict, reasons: Verdict, rows: Sequence[Verdict]) -> list[str]:
    """The verdict in words: who wins, why, what speaks against it, how sure it is."""
    best, rival = (_find(rows, comparison[side]) for side in ("scheduler", "baseline"))
    found = [_headline(comparison, best, rival), _because(reasons, best, rival)]
    found += _against(best, rows)
    note = comparison["metrics"]["steps_per_min"]["note"]
    if note:
        found.append(f"How sure is this? {note[0].upper()}{note[1:]}.")
    return [sentence for sentence in found if sentence]


def _headline(comparison: Verdict, best: Verdict, rival: Verdict) -> str:
    steps = comparison["metrics"]["steps_per_min"]
    names = f"{_name(best)} and {_name(rival)}"
    numbers = f"{best['steps_per_min']:.1f} against {rival['steps_per_min']:.1f} steps/min"
    if steps["ratio"] is None:
        return f"{_name(best)} leads {_name(rival)}: {numbers}."
    ratio = f"{steps['ratio']:.2f}x"
    if steps["interval"] is not None:
        numbers += ", 95 % interval {:.2f}x to {:.2f}x".format(*steps["interval"])
    if steps["word"] == "equivalent" or (steps["word"] is None and abs(steps["ratio"] - 1) <= MARGIN):
        return f"No winner in steps/min: {names} are within {MARGIN:.0%} ({numbers})."
    if steps["word"] == "inconclusive":
        reach = f"the smallest change that {steps['pairs']} repeats would show is {steps['mde']:.0%}"
        return f"No winner in steps/min: {names} may differ by noise alone ({ratio}; {numbers}); {reach}."
    verb = "leads" if steps["word"] is None else "wins over"  # without a known noise a lead is no proof
    return f"{_name(best)} {verb} {_name(rival)} by {ratio}: {numbers}."


def _because(reasons: Verdict, best: Verdict, rival: Verdict) -> str:
    parts = []
    if None not in reasons["hit_rate_share"]:
        parts.append("KV hit rate {:.1%} against {:.1%}".format(*reasons["hit_rate_share"]))
    if None not in reasons["recomputed_share"]:
        parts.append(
            "recomputed {:.1%} against {:.1%} of prompt tokens".format(*reasons["recomputed_share"])
        )
    if reasons["part"] and None not in reasons["step_mean_s"]:
        step = "a step takes {:.1f} s against {:.1f} s".format(*reasons["step_mean_s"])
        ours, theirs = reasons["part_s"]
        if abs(ours - theirs) >= GAP_NOTICED_S:
            step += f", and differs most in {reasons['part']} ({ours:.1f} s against {theirs:.1f} s)"
        parts.append(step)
    return f"{_name(best)} against {_name(rival)}: {'; '.join(parts)}." if parts else ""


def _against(best: Verdict, rows: Sequence[Verdict]) -> list[str]:
    """Where the leader in steps/min is worse than another: fewer programs finished, a longer wait."""
    found = []
    for other in rows:
        if other is best:
            continue
        name = _name(other)
        if _more(other["programs_per_h"], best["programs_per_h"]):
            found.append(
                f"But {_name(best)} finishes fewer programs than {name}: "
                f"{best['programs_per_h']:.1f} against {other['programs_per_h']:.1f} programs/h."
            )
        if _longer(best["worst_wait_s"], other["worst_wait_s"]):
            found.append(
                f"But {_name(best)} lets a program wait longer than {name}: "
                f"{best['worst_wait_s']:.0f} s against {other['worst_wait_s']:.0f} s at worst."
            )
        if _more(best["held_mean"], other["held_mean"]) and best["held_mean"] >= HELD_NOTICED:
            found.append(
                f"But {_name(best)} holds {best['held_mean']:.0f} calls at any time ({name}: "
                f"{other['held_mean']:.0f}); those that never ran are in no mean of steps."
            )
    return found


def _unsettled(runs: Sequence[Verdict]) -> list[str]:
    """Schedulers whose numbers depend on the window, because the rate of steps was still changing."""
    valid = [run for run in runs if not run["invalid"]]
    found = []
    for name in dict.fromkeys(run["scheduler"] for run in valid):
        own = [run["unsettled"] for run in valid if run["scheduler"] == name]
        reasons = [reason for reason in own if reason]
        if reasons:
            found.append(
                f"{shown(name)} had no steady state in {len(reasons)} of {counted(len(own), 'run')}, "
                f"so its numbers depend on the window; {reasons[0]}."
            )
    return found


def _alone(rows: Sequence[Verdict], invalid: Sequence[Verdict]) -> list[str]:
    measured = [_name(row) for row in rows if row["steps_per_min"] is not None]
    if measured:
        return [f"Only {measured[0]} {'has a valid run' if invalid else 'ran'}: nothing to compare."]
    return ["No valid run." if invalid else "Nothing was measured."]


def _longer(one: float | None, other: float | None) -> bool:
    """Whether a wait is longer by more than the margin, and by enough for anybody to notice."""
    return one is not None and other is not None and _more(one, other) and one - other > WAIT_NOTICED_S


def _more(one: float | None, other: float | None) -> bool:
    """Whether `one` is larger by more than the margin."""
    return one is not None and other is not None and one > other * (1 + MARGIN)


def _name(row: Verdict) -> str:
    return shown(row["scheduler"])


def _find(rows: Sequence[Verdict], scheduler: str) -> Verdict:
    return next(row for row in rows if row["scheduler"] == scheduler)

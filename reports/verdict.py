"""Which scheduler wins a study, by how much, why, and how sure that is.

Schedulers are compared load by load and paired by seed, because all schedulers of a seed work on the
same programs. Compared are ratios: the mean of the log-ratios of the pairs, with a 95 % interval by BCa
bootstrap over the pairs. The interval decides the word:

    equivalent    it lies within the margin of 2 % around 1
    improved      it lies on the better side of 1
    regressed     it lies on the worse side of 1
    inconclusive  anything else

Fewer than 3 pairs give no interval and no word: then the noise is unknown, and the verdict says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from harness.errors import SetupError
from harness.records import Run
from reports.measures import PARTS, pick

Verdict: TypeAlias = dict[str, Any]

MARGIN = 0.02
WAIT_NOTICED_S = (
    10.0  # two of the paper's ticks: below that a longer worst wait is no reason to think twice
)
LEAST_PAIRS = 3
RESAMPLES = 9999
BASELINE = "vllm"

LABELS = {
    "concurrency": "{:g} programs at a time",
    "request_rate": "{:g} programs/s",
    "arrival_times": "{:g} programs at given times",
}

# What is compared: path in a run's metrics, and whether more is better.
COMPARED: dict[str, tuple[tuple[str, ...], bool]] = {
    "steps_per_min": (("throughput", "steps_per_min"), True),
    "programs_per_h": (("throughput", "programs_per_h"), True),
    "worst_wait_s": (("fairness", "worst_wait_s"), False),
    "step_mean_s": (("latency", "step_s", "mean"), False),
}

# What is shown beside it: path in a run's metrics. Means over the repeats.
SHOWN: dict[str, tuple[str, ...]] = {
    "hit_rate_share": ("kv", "hit_rate_share"),
    "recomputed_tokens": ("kv", "recomputed_tokens"),
    "recomputed_share": ("kv", "recomputed_share"),
    "preemptions": ("kv", "preemptions"),
    "ttft_p50_s": ("latency", "ttft_s", "p50"),
    "ttft_p95_s": ("latency", "ttft_s", "p95"),
    "disk_peak_bytes": ("disk", "peak_bytes"),
    "leaked": ("sandboxes", "leaked"),
    **{f"{part}_s": ("latency", "split_s", part) for part in PARTS},
}


def verdict(runs: Sequence[Run]) -> Verdict:
    """Compare the runs of a study; the result is JSON-able.

    The baseline is vllm where it ran, else the scheduler that stands first. Raises SetupError when two
    runs to be compared did not work on the same programs.
    """
    return compare_all([facts(run) for run in runs])


def facts(run: Run) -> Verdict:
    """What is compared of a run: `scheduler`, `load`, `value`, `seed`, `simulated`, `plan_hash`, `metrics`.

    `load` is concurrency, request_rate or arrival_times; `value` a number of programs, programs per
    second, or how many times were given.
    """
    load = next(name for name in LABELS if run.spec.get(name))
    given = run.spec[load]
    return {
        "scheduler": run.provenance["policy"]["name"],
        "load": load,
        "value": len(given) if load == "arrival_times" else given[0],
        "seed": run.spec["seed"],
        "simulated": run.provenance.get("simulated", False),
        "plan_hash": run.provenance.get("plan_hash"),
        "metrics": run.summary,
    }


def compare_all(runs: Sequence[Verdict]) -> Verdict:
    """The verdict on runs, given as their `facts`."""
    _same_programs(runs)
    schedulers = list(dict.fromkeys(run["scheduler"] for run in runs))
    baseline = BASELINE if BASELINE in schedulers else next(iter(schedulers), None)
    loads = list(dict.fromkeys((run["load"], run["value"]) for run in runs))
    return {
        "simulated": any(run["simulated"] for run in runs),
        "baseline": baseline,
        "margin_share": MARGIN,
        "loads": [
            _of_load(load, [run for run in runs if (run["load"], run["value"]) == load], baseline)
            for load in loads
        ],
    }


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


def label(load: str, value: float) -> str:
    """A load in words: `96 programs at a time`."""
    return LABELS[load].format(value)


def _of_load(load: tuple[str, float], runs: Sequence[Verdict], baseline: str | None) -> Verdict:
    by_scheduler: dict[str, dict[int, Mapping[str, Any]]] = {}
    for run in runs:
        by_scheduler.setdefault(run["scheduler"], {})[run["seed"]] = run["metrics"]
    rows = [_row(name, list(found.values())) for name, found in by_scheduler.items()]
    found: Verdict = {"load": load[0], "value": load[1], "label": label(*load), "schedulers": rows}
    if baseline in by_scheduler:
        found["comparisons"] = [
            compare(name, by_scheduler[name], baseline, by_scheduler[baseline])
            for name in by_scheduler
            if name != baseline
        ]
    else:
        found["comparisons"] = []
    ranked = sorted(
        (row for row in rows if row["steps_per_min"] is not None), key=lambda row: -row["steps_per_min"]
    )
    if len(ranked) > 1:
        best = ranked[0]["scheduler"]
        rival = ranked[1]["scheduler"] if best == baseline or baseline not in by_scheduler else baseline
        found["best"] = compare(best, by_scheduler[best], rival, by_scheduler[rival])
        found["why"] = why(_find(rows, best), _find(rows, rival))
        found["sentences"] = sentences(found["best"], found["why"], rows)
    else:
        found |= {"best": None, "why": None, "sentences": _alone(rows)}
    return found


def _row(scheduler: str, metrics: Sequence[Mapping[str, Any]]) -> Verdict:
    """A scheduler's means over its repeats, of waits the worst; null where a repeat has no such number."""
    paths = {name: path for name, (path, _) in COMPARED.items()} | SHOWN
    values = {name: [pick(each, path) for each in metrics] for name, path in paths.items()}
    waits = [wait for wait in values["worst_wait_s"] if wait is not None]
    return {
        "scheduler": scheduler,
        "repeats": len(metrics),
        **{name: _mean(each) for name, each in values.items()},
        "worst_wait_s": max(waits, default=None),
    }


def compare(
    scheduler: str,
    ours: Mapping[int, Mapping[str, Any]],
    baseline: str,
    theirs: Mapping[int, Mapping[str, Any]],
) -> Verdict:
    """`scheduler` against `baseline`, paired by seed: per metric a ratio, an interval and a word."""
    seeds = sorted(ours.keys() & theirs.keys())
    found = {}
    for name, (path, more_is_better) in COMPARED.items():
        pairs = [(pick(ours[seed], path), pick(theirs[seed], path)) for seed in seeds]
        found[name] = judge(pairs, more_is_better=more_is_better)
    return {"scheduler": scheduler, "baseline": baseline, "pairs": len(seeds), "metrics": found}


def judge(pairs: Sequence[tuple[float | None, float | None]], *, more_is_better: bool) -> Verdict:
    """Ratio ours/theirs over pairs, its 95 % interval and its word, each null where `note` says why."""
    if not pairs or not all(ours and theirs for ours, theirs in pairs):
        missing = "a run has 0 or no value here" if pairs else "no seed that both ran"
        return {"ratio": None, "interval": None, "word": None, "note": missing}
    logs = np.log([ours / theirs for ours, theirs in pairs if ours and theirs])
    ratio = math.exp(float(logs.mean()))
    if len(logs) < LEAST_PAIRS:
        count = f"{len(logs)} repeat{'s' if len(logs) > 1 else ''}"
        few = f"{count}, so the noise is unknown and there is no interval; use --repeats 5"
        return {"ratio": ratio, "interval": None, "word": None, "note": few}
    low, high, note = _interval(logs)
    interval = [math.exp(low), math.exp(high)]
    return {
        "ratio": ratio,
        "interval": interval,
        "word": _word(interval, more_is_better=more_is_better),
        "note": note,
    }


def _interval(logs: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, str | None]:
    """95 % interval of the mean. Seeded, so that a study has one verdict."""
    spread = float(np.ptp(logs))
    if spread <= 1e-12:  # the rounding of a log
        only = float(logs.mean())
        return only, only, "degenerate: all repeats give the same ratio"
    from scipy import stats  # noqa: PLC0415 - half a second, needed with repeats only

    found = stats.bootstrap(
        (logs,), np.mean, n_resamples=RESAMPLES, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    if math.isfinite(found.low) and math.isfinite(found.high):
        return float(found.low), float(found.high), None
    return float(logs.min()), float(logs.max()), "degenerate: no BCa interval; the range of the repeats"


def _word(interval: Sequence[float], *, more_is_better: bool) -> str:
    low, high = interval
    if low >= 1 / (1 + MARGIN) and high <= 1 + MARGIN:
        return "equivalent"
    if low > 1:
        return "improved" if more_is_better else "regressed"
    if high < 1:
        return "regressed" if more_is_better else "improved"
    return "inconclusive"


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
    names = f"{best['scheduler']} and {rival['scheduler']}"
    numbers = f"{best['steps_per_min']:.1f} against {rival['steps_per_min']:.1f} steps/min"
    if steps["ratio"] is None:
        return f"{best['scheduler']} leads {rival['scheduler']}: {numbers}."
    ratio = f"{steps['ratio']:.2f}x"
    if steps["interval"] is not None:
        numbers += ", 95 % interval {:.2f}x to {:.2f}x".format(*steps["interval"])
    if steps["word"] == "equivalent" or (steps["word"] is None and abs(steps["ratio"] - 1) <= MARGIN):
        return f"No winner in steps/min: {names} are within {MARGIN:.0%} ({numbers})."
    if steps["word"] == "inconclusive":
        return f"No winner in steps/min: the difference of {names} is noise ({ratio}; {numbers})."
    return f"{best['scheduler']} wins over {rival['scheduler']} by {ratio}: {numbers}."


def _because(reasons: Verdict, best: Verdict, rival: Verdict) -> str:
    parts = []
    if None not in reasons["hit_rate_share"]:
        parts.append("KV hit rate {:.1%} against {:.1%}".format(*reasons["hit_rate_share"]))
    if None not in reasons["recomputed_share"]:
        parts.append(
            "recomputed {:.1%} against {:.1%} of prompt tokens".format(*reasons["recomputed_share"])
        )
    if reasons["part"] and None not in reasons["step_mean_s"]:
        parts.append(
            "a step takes {:.1f} s against {:.1f} s".format(*reasons["step_mean_s"])
            + f", and differs most in {reasons['part']} "
            + "({:.1f} s against {:.1f} s)".format(*reasons["part_s"])
        )
    return f"{best['scheduler']} against {rival['scheduler']}: {'; '.join(parts)}." if parts else ""


def _against(best: Verdict, rows: Sequence[Verdict]) -> list[str]:
    """Where the leader in steps/min is worse than another: fewer programs finished, a longer wait."""
    found = []
    for other in rows:
        if other is best:
            continue
        name = other["scheduler"]
        if _more(other["programs_per_h"], best["programs_per_h"]):
            found.append(
                f"But {best['scheduler']} finishes fewer programs than {name}: "
                f"{best['programs_per_h']:.1f} against {other['programs_per_h']:.1f} programs/h."
            )
        if _longer(best["worst_wait_s"], other["worst_wait_s"]):
            found.append(
                f"But {best['scheduler']} lets a program wait longer than {name}: "
                f"{best['worst_wait_s']:.0f} s against {other['worst_wait_s']:.0f} s at worst."
            )
    return found


def _alone(rows: Sequence[Verdict]) -> list[str]:
    measured = [row["scheduler"] for row in rows if row["steps_per_min"] is not None]
    return [f"Only {measured[0]} ran: nothing to compare."] if measured else ["Nothing was measured."]


def _longer(one: float | None, other: float | None) -> bool:
    """Whether a wait is longer by more than the margin, and by enough for anybody to notice."""
    return one is not None and other is not None and _more(one, other) and one - other > WAIT_NOTICED_S


def _more(one: float | None, other: float | None) -> bool:
    """Whether `one` is larger by more than the margin."""
    return one is not None and other is not None and one > other * (1 + MARGIN)


def _find(rows: Sequence[Verdict], scheduler: str) -> Verdict:
    return next(row for row in rows if row["scheduler"] == scheduler)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None

"""Where a run's steady state begins: found, not assumed.

The series is steps per minute over the whole run, from the first moment to the end of the window.

1. **What to cut.** MSER (White 1997; MSER-5 of White, Cobb and Spratt 2000 batches the observations first,
   and a minute of some hundred steps is such a batch): cut the first d minutes, where d makes the squared
   standard error of the mean of the others smallest, sum((x - mean)^2) / (n - d)^2. The last 5 minutes are
   never tried: a few alike values at the end would win by chance. A cut of more than half is an answer too:
   the run was still on its way.
2. **What is left of a trend.** Kendall's rank correlation of what is left with time (Mann-Kendall test), at
   1 %: a study has ten runs or more, and few of them should be turned down by chance. Minutes that follow
   each other are alike, which makes the plain test cry wolf; its statistic is divided by
   sqrt((1 + r) / (1 - r)), r the correlation of neighbours where positive (von Storch 1995, Yue and Wang
   2004).

When either says no, or the run is too short to ask, there is no steady state and no steady figure; `reason`
says why. Of 1,000 simulated steady hours 2 to 4 % are turned down, 10 % where neighbours correlate by 0.6.
`total` is always the measured window as run, after its fixed warm-up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.records import Run
from reports.measures import pick
from reports.text import shown
from reports.wording import counted

MINUTE_S = 60.0
LEAST_MINUTES = 20
MOST_CUT_SHARE = 0.5
NEVER_CUT = 5
TREND_LEVEL = 0.01

FIGURES = {"steps_per_min": "steps_per_min_steady", "hit_rate_share": "hit_rate_steady"}
"""Measure -> where `Steady` has its figure over the steady state."""

_ROUNDING = 1e-12  # of a sum of squares
_COUNTERS = ("hits_total", "queries_total")


@dataclass(frozen=True, slots=True)
class Steady:
    """The steady state of a run, and both figures: `total` over its window, `steady` from `start_s` on.

    Without a steady state `start_s` and the steady figures are null and `reason` is not empty.
    """

    found: bool
    start_s: float | None
    reason: str
    steps_per_min_total: float | None
    steps_per_min_steady: float | None
    hit_rate_total: float | None
    hit_rate_steady: float | None


def steady(run: Run) -> Steady:
    """The steady state of a finished run. Raises SetupError when its tables cannot be read."""
    end_s = pick(run.summary, ("window", "end_s")) or 0.0
    total = (
        pick(run.summary, ("throughput", "steps_per_min")),
        pick(run.summary, ("kv", "hit_rate_share")),
    )
    ended = _ended(run, end_s)
    cut, reason = found_in(np.histogram(ended, np.arange(int(end_s // MINUTE_S) + 1) * MINUTE_S)[0])
    if reason:
        return Steady(False, None, reason, total[0], None, total[1], None)  # noqa: FBT003 - the first field
    start_s = cut * MINUTE_S
    steps = float(np.count_nonzero(ended > start_s))
    return Steady(
        found=True,
        start_s=start_s,
        reason="",
        steps_per_min_total=total[0],
        steps_per_min_steady=steps * MINUTE_S / (end_s - start_s),
        hit_rate_total=total[1],
        hit_rate_steady=_hit_rate(run, start_s, end_s),
    )


def summed_up(found: Mapping[str, Steady]) -> dict[str, Any]:
    """Repeats, by name, together: how many are steady (`runs`), why others are not, means of the steady."""
    there = [each for each in found.values() if each.found]
    return {
        "runs": len(there),
        "reasons": {name: each.reason for name, each in found.items() if not each.found},
        **{name: _mean([getattr(each, field) for each in there]) for name, field in FIGURES.items()},
    }


def told(together: Mapping[str, Any], runs: int) -> str:
    """`steady state in 4 of 5 runs; vllm-c96-s0: still settling`, of what `summed_up` says of `runs`."""
    words = f"steady state in {together['runs']} of {counted(runs, 'run')}"
    name, reason = next(iter(together["reasons"].items()), ("", ""))
    return f"{words}; {shown(name, 60)}: {reason}" if reason else words


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def found_in(series: NDArray[np.number]) -> tuple[int, str]:
    """How many leading values of a series are on the way to its steady state; else why there is none."""
    minutes = len(series)
    if minutes < LEAST_MINUTES:
        return 0, f"too short: {minutes} minutes, at least {LEAST_MINUTES} are needed"
    cut = mser(series)
    if cut > MOST_CUT_SHARE * minutes:
        return 0, f"still settling: only the last {minutes - cut} of {minutes} minutes look alike"
    p_value, change = trend(series[cut:])
    if p_value < TREND_LEVEL:
        way = "rising" if change > 0 else "falling"
        return 0, f"still {way}, by {abs(change):.0%} from minute {cut} to {minutes} (p = {p_value:.2g})"
    return cut, ""


def mser(series: NDArray[np.number]) -> int:
    """How many leading values to cut, 0 to n - 5, so that the mean of the others is known best."""
    values = np.asarray(series, dtype=np.float64)
    values = values - values.mean()  # else the sums below cancel
    left = np.arange(len(values), 0, -1)
    sums, squares = (np.cumsum(each[::-1])[::-1] for each in (values, values**2))
    spreads = squares - sums**2 / left
    spreads[spreads < _ROUNDING * spreads[0]] = 0.0
    return int(np.argmin((spreads / left**2)[: max(1, len(values) - NEVER_CUT)]))


def trend(series: NDArray[np.number]) -> tuple[float, float]:
    """p-value of no trend, and the change from the first value to the last as a share of the mean."""
    from scipy import stats  # noqa: PLC0415 - half a second

    values = np.asarray(series, dtype=np.float64)
    mean = float(values.mean())
    if not np.ptp(values) or not mean:
        return 1.0, 0.0
    slope = float(stats.theilslopes(values)[0])
    change = slope * (len(values) - 1) / mean
    p_value = float(stats.kendalltau(np.arange(len(values)), values).pvalue)
    alike = _neighbours(values - slope * np.arange(len(values)))
    if alike > 0:
        statistic = float(stats.norm.isf(p_value / 2)) / math.sqrt((1 + alike) / (1 - alike))
        p_value = float(2 * stats.norm.sf(statistic))
    return p_value, change


def _neighbours(values: NDArray[np.float64]) -> float:
    """Correlation of each value with the next."""
    deviations = values - values.mean()
    spread = float((deviations**2).sum())
    return float((deviations[:-1] * deviations[1:]).sum()) / spread if spread else 0.0


def _ended(run: Run, end_s: float) -> NDArray[np.float64]:
    """When the steps ended, up to the end of the window."""
    parts = [batch["ended_s"].to_numpy() for batch in run.batches("calls", ["ended_s"])]
    ended = np.concatenate(parts) if parts else np.empty(0)
    return ended[ended <= end_s]


def _hit_rate(run: Run, start_s: float, end_s: float) -> float | None:
    """Hits / queries of all replicas between two times; null when nothing was queried, or nobody tells.

    Totals at a time are those of the last sample up to it, or of the first of a replica that came later. A
    total that fell is of a server that began anew: then nothing is known.
    """
    seen: set[str] = set()
    lasts: dict[str, list[float]] = {}
    fell = False
    before: dict[str, tuple[float, ...]] = {}
    after: dict[str, tuple[float, ...]] = {}
    for batch in run.batches("samples", ["time_s", "replica", *_COUNTERS]):
        part = pa.Table.from_batches([batch])
        for replica in pc.unique(part["replica"]).to_pylist():
            seen.add(replica)
            own = part.filter(pc.equal(part["replica"], replica)).drop_null()
            if not own.num_rows:
                continue
            inside = own.filter(
                pc.and_(pc.greater_equal(own["time_s"], start_s), pc.less_equal(own["time_s"], end_s))
            )
            fell |= _falls(inside, lasts.setdefault(replica, [0.0, 0.0]))
            for limit, kept in ((start_s, before), (end_s, after)):
                upto = own.filter(pc.less_equal(own["time_s"], limit))
                if upto.num_rows:
                    kept[replica] = _counters(upto, upto.num_rows - 1)
                elif replica not in kept:
                    kept[replica] = _counters(own, 0)
    if fell or seen != after.keys():
        return None
    hits, queries = (
        sum(after[replica][i] - before[replica][i] for replica in after) for i in range(len(_COUNTERS))
    )
    return hits / queries if queries else None


def _falls(samples: pa.Table, lasts: list[float]) -> bool:
    """Whether a total is ever below the one before it; `lasts` are those before, and then the last."""
    fell = False
    for i, name in enumerate(_COUNTERS):
        values = np.concatenate([[lasts[i]], samples[name].to_numpy()])
        fell |= bool((np.diff(values) < 0).any())
        lasts[i] = float(values[-1])
    return fell


def _counters(samples: pa.Table, row: int) -> tuple[float, ...]:
    return tuple(float(samples[name][row].as_py()) for name in _COUNTERS)

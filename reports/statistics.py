"""How sure a difference is: one effect per number, with an interval, a corrected p-value and a word.

**The unit is the repetition.** Steps of one run share an engine and a queue, so thousands of them are one
observation. Repeat k of every arm works on the same programs (same seed), so arms are compared pair by pair
and what the programs contribute to the noise cancels.

**Ratios are compared as logarithms:** the estimate is the geometric mean of the pairs' ratios. Shares are
compared as differences.

**The interval is Student's t over the pairs,** because it is the one that keeps its promise with as few
repeats as people run. Share of 4,000 simulated studies whose 95 % interval held the truth
(`tests/reports/test_statistics.py` measures it again):

    noise of the log-ratio     pairs   t       BCa bootstrap   bootstrap-t
    normal (arms log-normal)   3       0.950   0.724           0.837
                               5       0.947   0.843           0.948
                               10      0.948   0.897           0.947
                               20      0.949   0.924           0.951
    skewed (Gumbel)            3       0.937   0.713           0.833
                               5       0.933   0.822           0.939
                               10      0.937   0.890           0.944
    heavy-tailed (t, 3 df)     5       0.962   0.807           0.941
                               10      0.954   0.852           0.924
    exponential (the worst)    5       0.882   0.788           0.932
                               10      0.900   0.874           0.942

A bootstrap sees no values beyond the few it was given, so BCa, the usual choice, is too narrow for any
number of repeats that is run here. Bootstrap-t holds more often under extreme skew from 5 pairs on, pays
with intervals a third wider at 5, and fails at 3. The t interval is exact for log-normal noise, needs no
random numbers, and its p-value and its power can never disagree with it.

**The words.** With margin 2 % and level 95 %:

    equivalent    the interval lies within the margin
    improved      p, corrected by Holm, is at most 5 %, and the change is for the better
    regressed     the same, for the worse
    inconclusive  anything else

Asking for a 95 % interval within the margin is two one-sided tests at 2.5 %. Holm's correction is over the
numbers that are judged together (`corrected`); the intervals shown are not widened by it. Fewer than 3
pairs give no interval and no word: then the noise is unknown, and `note` says so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from reports.measures import Kind

Word: TypeAlias = Literal["improved", "regressed", "equivalent", "inconclusive"]
Pairs: TypeAlias = Sequence[tuple[float | None, float | None]]

MARGIN = 0.02
LEVEL = 0.95
POWER = 0.8
LEAST_PAIRS = 3
_ROUNDING = 1e-12  # of a logarithm, and of a share


@dataclass(frozen=True, slots=True)
class Effect:
    """A candidate against a baseline in one number. Whatever is null, `note` says why.

    `baseline` and `candidate` are means over the pairs. `value` is the geometric mean of
    candidate / baseline (kind `ratio`) or the mean of candidate - baseline (kind `difference`), `low` and
    `high` the ends of its interval. `p_value` is two-sided, for no change; `p_holm` is it after Holm's
    correction. `mde` is the smallest change, as a share of the baseline or as a difference, that as many
    pairs with as much noise would show in 4 of 5 studies.
    """

    metric: str
    kind: Kind
    more_is_better: bool
    pairs: int
    baseline: float | None = None
    candidate: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    mde: float | None = None
    word: Word | None = None
    note: str | None = None
    margin: float = MARGIN
    level: float = LEVEL

    def json(self) -> dict[str, Any]:
        """The effect as JSON, without NaN: `ratio` or `difference` by kind, `interval` as [low, high]."""
        found = asdict(self)
        value, low, high = (found.pop(name) for name in ("value", "low", "high"))
        found |= {"ratio": None, "difference": None, "interval": None if low is None else [low, high]}
        return found | {self.kind: value}


def effect(
    pairs: Pairs,
    *,
    metric: str,
    more_is_better: bool,
    kind: Kind = "ratio",
    margin: float = MARGIN,
    level: float = LEVEL,
) -> Effect:
    """The effect over pairs (candidate, baseline), one per seed; its word as if it were judged alone."""
    found = Effect(metric, kind, more_is_better, len(pairs), margin=margin, level=level)
    known = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
    if not pairs or len(known) < len(pairs):
        return replace(found, note="a run has no value here" if pairs else "no seed that both ran")
    found = replace(
        found,
        candidate=math.fsum(ours for ours, _ in known) / len(known),
        baseline=math.fsum(theirs for _, theirs in known) / len(known),
    )
    if kind == "ratio" and min(map(min, known)) <= 0:
        if all(ours == theirs == 0 for ours, theirs in known):
            return replace(found, note="0 in every run")
        return replace(found, note="0 in a run, so there is no ratio")
    return _measured(found, _changes(known, kind))


def _changes(known: Sequence[tuple[float, float]], kind: Kind) -> NDArray[np.float64]:
    """Per pair the change on the scale on which changes add up."""
    ours, theirs = np.array(known, dtype=np.float64).T
    changes: NDArray[np.float64] = np.log(ours / theirs) if kind == "ratio" else ours - theirs
    return changes


def _measured(found: Effect, changes: NDArray[np.float64]) -> Effect:
    """Estimate, interval, p-value and word; with too few pairs the estimate and a note."""
    ratio, count = found.kind == "ratio", len(changes)
    center = float(changes.mean())
    value = math.exp(center) if ratio else center
    if count < LEAST_PAIRS:
        repeats = f"{count} repeat{'s' if count > 1 else ''}"
        few = f"{repeats}, so the noise is unknown and there is no interval; use --repeats 5"
        return replace(found, value=value, note=few)
    error = float(changes.std(ddof=1)) / math.sqrt(count)
    if np.ptp(changes) <= _ROUNDING:
        error, p_value = 0.0, float(abs(center) <= _ROUNDING)
        found = replace(found, note="degenerate: all repeats give the same change")
    else:
        p_value = _p_value(center / error, count - 1)
    half = _quantile(found.level, count - 1) * error
    reach = _noncentrality(found.level, count - 1) * error
    found = replace(
        found,
        value=value,
        low=math.exp(center - half) if ratio else center - half,
        high=math.exp(center + half) if ratio else center + half,
        p_value=p_value,
        p_holm=p_value,
        mde=math.expm1(reach) if ratio else reach,
    )
    return replace(found, word=_word(found))


def _word(found: Effect) -> Word:
    assert found.value is not None
    assert found.low is not None
    assert found.high is not None
    assert found.p_holm is not None
    ratio = found.kind == "ratio"
    least, most = (1 / (1 + found.margin), 1 + found.margin) if ratio else (-found.margin, found.margin)
    if least <= found.low and found.high <= most:
        return "equivalent"
    if found.p_holm > 1 - found.level:
        return "inconclusive"
    return "improved" if (found.value > (1 if ratio else 0)) == found.more_is_better else "regressed"


def corrected(effects: Sequence[Effect]) -> list[Effect]:
    """The same effects as numbers judged together: `p_holm` and the words after Holm's correction."""
    found = []
    for each, p_holm in zip(effects, holm([each.p_value for each in effects]), strict=True):
        judged = replace(each, p_holm=p_holm)
        found.append(judged if p_holm is None else replace(judged, word=_word(judged)))
    return found


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction, in the given order; null stays null and does not count.

    The chance of any false alarm among them stays at the level, whatever their dependence (Holm 1979).
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        found[place] = largest
    return found


def _p_value(statistic: float, freedom: int) -> float:
    from scipy import stats  # noqa: PLC0415 - half a second, needed with repeats only

    return float(2 * stats.t.sf(abs(statistic), freedom))


@lru_cache(maxsize=256)
def _quantile(level: float, freedom: int) -> float:
    """Half the width of the interval, in standard errors."""
    from scipy import stats  # noqa: PLC0415

    return float(stats.t.ppf((1 + level) / 2, freedom))


@lru_cache(maxsize=256)
def _noncentrality(level: float, freedom: int) -> float:
    """The true change, in standard errors, that the test notices with probability `POWER`."""
    from scipy import optimize, stats  # noqa: PLC0415

    limit = _quantile(level, freedom)

    def lack(shift: float) -> float:  # what falls on the wrong side of the test is one in a million
        return float(stats.nct.sf(limit, freedom, shift)) - POWER

    return float(optimize.brentq(lack, 0.0, limit + 4))

"""How a number is distributed, in fixed memory.

Values are counted in bins whose edges grow by a constant factor, 40 to a decade, so any quantile read
from the bins is within 6 % of the exact one. The edges are the same for every run, so histograms of
repeats add up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PER_DECADE = 40
LOWEST, HIGHEST = -4, 8  # powers of ten: 0.1 ms to some three years, in seconds
# Bin i holds values in (EDGES[i - 1], EDGES[i]]; bin 0 what is not above the lowest edge, 0 too.
EDGES: NDArray[np.float64] = np.round(
    10.0 ** (np.arange(LOWEST * PER_DECADE, HIGHEST * PER_DECADE + 1) / PER_DECADE), 12
)


class Point(NamedTuple):
    """A point of a cumulative distribution: `share` of the values are at most `upto`."""

    upto: float
    share: float


class Histogram:
    """Counts of values >= 0 by bin. Not-a-numbers are values nobody knows; they count nowhere."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(EDGES) + 1, dtype=np.int64)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def add(self, values: NDArray[np.float64]) -> None:
        """Count more values."""
        known = values[~np.isnan(values)]
        self.counts += np.bincount(np.searchsorted(EDGES, known), minlength=len(self.counts))

    def __add__(self, other: Histogram) -> Histogram:
        both = Histogram()
        both.counts = self.counts + other.counts
        return both

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and bool((self.counts == other.counts).all())

    __hash__ = None  # type: ignore[assignment]  # it can change

    def cumulative(self) -> list[Point]:
        """The distribution at the upper edge of every bin that holds something, and where it starts.

        Empty for no values. Values above the highest edge are shown at it.
        """
        filled = np.flatnonzero(self.counts)
        if not len(filled):
            return []
        shares = np.cumsum(self.counts) / self.total
        first = int(filled[0])
        points = [Point(float(EDGES[first - 1]), 0.0)] if first else []
        last = len(EDGES) - 1
        return points + [Point(float(EDGES[min(i, last)]), float(shares[i])) for i in filled.tolist()]

    def quantile(self, share: float) -> float | None:
        """The upper edge of the bin that `share` of the values reach; null for no values."""
        return next((point.upto for point in self.cumulative() if point.share >= share - 1e-12), None)

    def at(self, edges: NDArray[np.float64]) -> list[float] | None:
        """The share of values at most each of `edges`, which are of `EDGES`; null for no values."""
        if not self.total:
            return None
        shares = np.cumsum(self.counts) / self.total
        return [float(share) for share in shares[np.searchsorted(EDGES, edges)]]

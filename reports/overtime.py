"""A run over time, in bins of equal width: rates and shares per bin, from tables that stream by."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS = 100  # at most: what a chart a few hundred pixels wide can show
SLIVER = 0.01  # of a bin: what a run on the wall clock goes on beyond its end is no bin of its own


class Grid(NamedTuple):
    """Bins (i * width_s, (i + 1) * width_s]; time 0 belongs to the first."""

    width_s: float
    bins: int

    def of(self, times: Floats) -> NDArray[np.intp]:
        """The bin of each time; what lies outside is put into the first or the last."""
        index = np.ceil(times / self.width_s).astype(np.intp) - 1
        return np.clip(index, 0, self.bins - 1)

    @property
    def middles(self) -> list[float]:
        """The middle of each bin, seconds."""
        return [(i + 0.5) * self.width_s for i in range(self.bins)]


def grid_upto(end_s: float, least_s: float) -> Grid:
    """At most `BINS` bins up to `end_s`, of a round width of at least `least_s`, both above 0."""
    exact = max(end_s / BINS, least_s)
    magnitude = 10.0 ** math.floor(math.log10(exact))
    width = next(
        factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= exact * (1 - 1e-9)
    )
    return Grid(width, max(1, math.ceil(end_s / width - SLIVER)))


@dataclass(frozen=True, slots=True)
class Series:
    """One number per bin; not-a-number where nothing was there to measure.

    `steps_per_min`: steps that ended, per minute of what there is of the last bin. `hit_rate_share`: hits /
    queries. `used_share`: KV held by running requests / capacity, mean over replicas and instants.
    `imbalance_share`: largest minus smallest such share among the replicas, mean over instants.
    `replica_used_share`: the same share by replica. `disk_bytes`: largest total of writable layers and
    images. `unreclaimed`: sandboxes at the end of the bin whose program has finished and whose disk is not
    freed.
    """

    steps_per_min: Floats = field(default_factory=lambda: np.empty(0))
    hit_rate_share: Floats = field(default_factory=lambda: np.empty(0))
    used_share: Floats = field(default_factory=lambda: np.empty(0))
    imbalance_share: Floats = field(default_factory=lambda: np.empty(0))
    replica_used_share: dict[str, Floats] = field(default_factory=dict)
    disk_bytes: Floats = field(default_factory=lambda: np.empty(0))
    unreclaimed: Floats = field(default_factory=lambda: np.empty(0))


class _Replica:
    """What is kept of one replica: first totals, those at the last sample of each bin, the used share.

    Totals are queries and hits of the samples that tell both.
    """

    def __init__(self, bins: int) -> None:
        self.began: tuple[float, float] | None = None
        self.queries, self.hits = np.full(bins, np.nan), np.full(bins, np.nan)
        self.used, self.instants = np.zeros(bins), np.zeros(bins)


class SeriesMaker:
    """Takes the tables part by part; `finish` gives the series."""

    SAMPLE_COLUMNS: ClassVar = (
        "time_s",
        "replica",
        "used_tokens",
        "capacity_tokens",
        "queries_total",
        "hits_total",
        "sandbox_writable_bytes",
        "sandbox_image_bytes",
    )
    SANDBOX_COLUMNS: ClassVar = ("released_s", "reclaimed_s")

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._steps = np.zeros(grid.bins)
        self._replicas: dict[str, _Replica] = {}
        self._disk = np.full(grid.bins, np.nan)
        self._unreclaimed = np.zeros(grid.bins + 1)
        self._reached = -1.0  # time of the last sample: beyond it nothing is known
        self._spread, self._instants = np.zeros(grid.bins), np.zeros(grid.bins)
        self._open_instant: tuple[float, Floats] = (math.nan, np.empty(0))

    def steps(self, ended_s: Floats) -> None:
        """Steps that ended at these times."""
        self._steps += np.bincount(self._grid.of(ended_s), minlength=self._grid.bins)

    def samples(self, batch: pa.RecordBatch) -> None:
        """Samples in order of time, `SAMPLE_COLUMNS`."""
        if not batch.num_rows:
            return
        columns = {
            name: batch[name].cast(pa.float64()).to_numpy(zero_copy_only=False)
            for name in self.SAMPLE_COLUMNS
            if name != "replica"
        }
        times = columns["time_s"]
        bins = self._grid.of(times)
        used = columns["used_tokens"] / columns["capacity_tokens"]
        self._reached = max(self._reached, float(times[-1]))
        np.fmax.at(self._disk, bins, columns["sandbox_writable_bytes"] + columns["sandbox_image_bytes"])
        names = batch["replica"].dictionary_encode()
        index = names.indices.to_numpy()
        for number, name in enumerate(names.dictionary.to_pylist()):
            rows = np.flatnonzero(index == number)
            one = self._replicas.setdefault(name, _Replica(self._grid.bins))
            self._totals(one, bins[rows], columns["queries_total"][rows], columns["hits_total"][rows])
            told = rows[~np.isnan(used[rows])]
            one.used += np.bincount(bins[told], weights=used[told], minlength=self._grid.bins)
            one.instants += np.bincount(bins[told], minlength=self._grid.bins)
        self._spreads(times, used)

    def _totals(self, one: _Replica, bins: NDArray[np.intp], queries: Floats, hits: Floats) -> None:
        told = np.flatnonzero(~np.isnan(queries) & ~np.isnan(hits))
        if len(told):
            one.began = one.began or (float(queries[told[0]]), float(hits[told[0]]))
            one.queries[bins[told]] = queries[told]  # of one bin the last one stays
            one.hits[bins[told]] = hits[told]

    def sandboxes(self, batch: pa.RecordBatch) -> None:
        """Sandboxes, `SANDBOX_COLUMNS`."""
        for column, sign in zip(self.SANDBOX_COLUMNS, (1, -1), strict=True):
            times = batch[column].drop_null().to_numpy()
            self._unreclaimed += sign * np.bincount(self._grid.of(times), minlength=self._grid.bins + 1)

    def finish(self) -> Series:
        """The series up to the last sample."""
        self._close_instant()
        bins = self._grid.bins
        last = self._grid.of(np.array([self._reached]))[0] if self._replicas else -1
        known = np.arange(bins) <= last
        lengths = np.full(bins, self._grid.width_s)
        lengths[last] = max(self._reached - last * self._grid.width_s, SLIVER * self._grid.width_s)
        gained = [
            (_gained(one.queries, one.began[0]), _gained(one.hits, one.began[1]))
            for one in self._replicas.values()
            if one.began
        ]
        queries = sum((pair[0] for pair in gained), np.zeros(bins))
        hits = sum((pair[1] for pair in gained), np.zeros(bins))
        used = sum((one.used for one in self._replicas.values()), np.zeros(bins))
        instants = sum((one.instants for one in self._replicas.values()), np.zeros(bins))
        nowhere = np.full(bins, np.nan)
        return Series(
            steps_per_min=np.where(known, self._steps * 60.0 / lengths, nowhere),
            hit_rate_share=_share(hits, queries),
            used_share=_share(used, instants),
            imbalance_share=_share(self._spread, self._instants) if len(self._replicas) > 1 else nowhere,
            replica_used_share={
                name: _share(one.used, one.instants) for name, one in sorted(self._replicas.items())
            },
            disk_bytes=self._disk,
            unreclaimed=np.where(known, np.cumsum(self._unreclaimed[:bins]), nowhere),
        )

    def _spreads(self, times: Floats, used: Floats) -> None:
        """Largest minus smallest used share by instant; the last one may go on in the next part.

        Of an instant at which one of the replicas did not tell it is not known.
        """
        before, held = self._open_instant
        times = np.concatenate([np.full(len(held), before), times])
        used = np.concatenate([held, used])
        starts = np.flatnonzero(np.diff(times, prepend=np.nan) != 0)
        self._open_instant = float(times[-1]), used[starts[-1] :]
        if len(starts) > 1:
            self._add_spreads(times[: starts[-1]], used[: starts[-1]], starts[:-1])

    def _close_instant(self) -> None:
        time, used = self._open_instant
        if len(used):
            self._add_spreads(np.full(len(used), time), used, np.zeros(1, dtype=np.intp))

    def _add_spreads(self, times: Floats, used: Floats, starts: NDArray[np.intp]) -> None:
        spread = np.maximum.reduceat(used, starts) - np.minimum.reduceat(used, starts)
        whole = np.diff(starts, append=len(used)) == len(self._replicas)
        told = whole & ~np.isnan(spread)
        bins, spread = self._grid.of(times[starts[told]]), spread[told]
        self._spread += np.bincount(bins, weights=spread, minlength=self._grid.bins)
        self._instants += np.bincount(bins, minlength=self._grid.bins)


def _gained(totals: Floats, began: float) -> Floats:
    """By how much a total grew in each bin, from what it was when it was first told.

    Where no sample was taken, nothing is known to have grown; not-a-number where it fell, as that of a
    server does that began anew.
    """
    known = np.flatnonzero(~np.isnan(totals))
    gained = np.zeros(len(totals))
    grown = np.diff(totals[known], prepend=began)
    gained[known] = np.where(grown < 0, np.nan, grown)
    return gained


def _share(part: Floats, of: Floats) -> Floats:
    """`part / of`, not-a-number where `of` is 0."""
    found = np.full(len(of), np.nan)
    np.divide(part, of, out=found, where=of != 0)
    return found

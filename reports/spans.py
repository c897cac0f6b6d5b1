"""A few programs of a run over a few minutes: what each was doing when.

A chart can show a few programs and a few hundred pieces of their time, not a run. So a run gives an
excerpt: from the beginning of the measured window, programs from the one that waited longest to the one
that waited least, at even ranks, and only as far in time as the pieces stay few.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PROGRAMS = 10
LENGTH_S = 600.0
CALLS = 500  # of all the programs together

# What a program does, in the order of a step. `open`: the step had not ended when the run did.
STATES = ("paused", "waiting", "reasoning", "acting", "open")


class Span(NamedTuple):
    """A piece of a program's time: what it was doing from `start_s` to `end_s`."""

    program_id: str
    state: str
    start_s: float
    end_s: float


class Excerpt(NamedTuple):
    """The spans of `programs` (longest wait first) from `start_s` to `end_s`, out of the `there` then."""

    start_s: float
    end_s: float
    there: int
    programs: list[str]
    spans: list[Span]


class _Live(NamedTuple):
    program_id: str
    arrived_s: float
    finished_s: float
    worst_wait_s: float


class ExcerptMaker:
    """Takes first the programs, then the calls, part by part; `finish` gives the excerpt."""

    CALL_COLUMNS: ClassVar = ("dispatched_s", "scheduled_s", "finished_s")
    _CUTS: ClassVar = ("arrived_s", "dispatched_s", "scheduled_s", "finished_s", "ended_s")

    def __init__(self, window: tuple[float, float]) -> None:
        self._start, self._end = window[0], min(window[1], window[0] + LENGTH_S)
        self._live: list[_Live] = []
        self._chosen: dict[str, _Live] = {}
        self._calls: list[tuple[str, list[float]]] = []
        self._full = False

    def programs(self, names: pa.Array, arrived: Floats, finished: Floats, waits: Floats) -> None:
        """Programs with when they arrived and finished (not-a-number: not) and their longest wait."""
        there = np.flatnonzero((arrived < self._end) & ~(finished <= self._start))
        columns = (values[there].tolist() for values in (arrived, finished, waits))
        self._live += map(_Live, names.take(pa.array(there)).to_pylist(), *columns)

    def calls(self, batch: pa.RecordBatch) -> None:
        """Calls in order of ending, with at least `CALL_COLUMNS`, names, arrivals and ends."""
        if not self._chosen:
            self._choose()
        mine = pc.is_in(batch["program_id"], pa.array(list(self._chosen), pa.string()))
        seen = pc.and_(pc.less(batch["arrived_s"], self._end), pc.greater(batch["ended_s"], self._start))
        part = batch.filter(pc.and_(mine, seen))
        columns = [part[self._CUTS[0]]]
        for cut in self._CUTS[
            1:
        ]:  # a moment that nobody told: the next known state begins at the one before
            columns.append(pc.coalesce(part[cut], columns[-1]))
        rows = zip(*(column.to_pylist() for column in columns), strict=True)
        for name, cuts in zip(part["program_id"].to_pylist(), rows, strict=True):
            if len(self._calls) == CALLS and not self._full:  # later calls end later: here the excerpt ends
                self._full, self._end = True, min(self._end, cuts[-1])
            if cuts[0] < self._end:
                self._calls.append((name, list(cuts)))

    def finish(self) -> Excerpt:
        """The excerpt."""
        if not self._chosen:
            self._choose()
        spans = [
            Span(name, state, max(begin, self._start), min(end, self._end))
            for name, cuts in self._calls
            for state, begin, end in zip(STATES[:4], cuts[:-1], cuts[1:], strict=True)
            if min(end, self._end) > max(begin, self._start)
        ]
        spans += self._unfinished()
        order = {name: rank for rank, name in enumerate(self._chosen)}
        spans.sort(key=lambda span: (order[span.program_id], span.start_s))
        return Excerpt(self._start, self._end, len(self._live), list(order), spans)

    def _unfinished(self) -> list[Span]:
        """The rest of each program's time: steps that never ended are in no table."""
        reached: dict[str, float] = {}
        for name, cuts in self._calls:
            reached[name] = max(reached.get(name, 0.0), cuts[-1])
        found = []
        for name, one in self._chosen.items():
            begin = max(reached.get(name, one.arrived_s), self._start)
            end = self._end if np.isnan(one.finished_s) else min(one.finished_s, self._end)
            if end > begin:
                found.append(Span(name, STATES[4], begin, end))
        return found

    def _choose(self) -> None:
        """Programs at even ranks of their longest wait."""
        ranked = sorted(self._live, key=lambda one: (-one.worst_wait_s, one.program_id))
        ranks = np.unique(np.linspace(0, len(ranked) - 1, min(PROGRAMS, len(ranked))).round().astype(int))
        self._chosen = {ranked[rank].program_id: ranked[rank] for rank in ranks.tolist()}

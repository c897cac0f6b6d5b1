"""What charts need of a run's tables, gathered while the tables stream by.

A table may have ten million rows; it is read in parts, and what is kept of it has a size of its own: bins
of time, bins of durations, the programs that waited longest, the steps of a few programs. Only the first
token of each program's last call is remembered by program. What `summary.json` holds already is not
computed again.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.records import Run
from reports.histogram import Histogram
from reports.overtime import Grid, Series, SeriesMaker
from reports.spans import Excerpt, ExcerptMaker

Floats = NDArray[np.float64]

WORST = 10  # programs named as those that waited longest


class Waiter(NamedTuple):
    """A program and the longest wait of one of its calls. `ended_at` as in `harness.rows.ProgramRow`."""

    worst_wait_s: float
    program_id: str
    steps_done: int
    ended_at: str


class Asked(NamedTuple):
    """What to gather of a run: its measured window, the bins of time, and whether to keep an excerpt."""

    window: tuple[float, float]
    grid: Grid
    excerpt: bool


@dataclass(slots=True)
class Aggregates:
    """What was gathered. Everything but `series` and `excerpt` is of the measured window.

    `ttft_s`, `step_s`: of the steps that ended in it. `program_s`, `answer_s`: of the programs that
    finished in it: arrival to end, and arrival to the first token of the call that ended last.
    `worst_wait_s`: of each program that was there; `waiters` are the worst, longest first.
    """

    ttft_s: Histogram = field(default_factory=Histogram)
    step_s: Histogram = field(default_factory=Histogram)
    program_s: Histogram = field(default_factory=Histogram)
    answer_s: Histogram = field(default_factory=Histogram)
    worst_wait_s: Histogram = field(default_factory=Histogram)
    waiters: list[Waiter] = field(default_factory=list)
    series: Series = field(default_factory=Series)
    excerpt: Excerpt | None = None


def aggregate(run: Run, asked: Asked) -> Aggregates:
    """Read the tables of a run once each. Raises SetupError when one cannot be read."""
    found = Aggregates()
    excerpt = ExcerptMaker(asked.window) if asked.excerpt else None
    series = SeriesMaker(asked.grid)
    finished = _programs(run, asked, found, excerpt)
    _calls(run, asked, found, series, excerpt, finished)
    for batch in run.batches("samples", series.SAMPLE_COLUMNS):
        series.samples(batch)
    for batch in run.batches("sandboxes", series.SANDBOX_COLUMNS):
        series.sandboxes(batch)
    found.series = series.finish()
    found.excerpt = excerpt.finish() if excerpt else None
    return found


def _programs(run: Run, asked: Asked, found: Aggregates, excerpt: ExcerptMaker | None) -> dict[str, float]:
    """Gather from the programs; when those arrived that finished in the window."""
    start, end = asked.window
    worst: list[Waiter] = []
    arrivals: dict[str, float] = {}
    columns = ["program_id", "arrived_s", "finished_s", "worst_wait_s", "steps_done", "ended_at"]
    for batch in run.batches("programs", columns):
        arrived, finished = numbers(batch, "arrived_s"), numbers(batch, "finished_s")
        names, ends = batch["program_id"], np.array(batch["ended_at"].to_pylist(), dtype=object)
        there = (arrived <= end) & ~(finished <= start)
        waits = numbers(batch, "worst_wait_s")
        found.worst_wait_s.add(waits[there])
        done = (finished > start) & (finished <= end) & (ends == "finished")
        found.program_s.add((finished - arrived)[done])
        arrivals.update(zip(names.filter(pa.array(done)).to_pylist(), arrived[done].tolist(), strict=True))
        for row in _longest(waits, there):
            steps = batch["steps_done"][row].as_py()
            worst.append(Waiter(float(waits[row]), names[row].as_py(), steps, ends[row]))
        if excerpt:
            excerpt.programs(names, arrived, finished, waits)
    found.waiters = heapq.nsmallest(WORST, worst, key=lambda one: (-one.worst_wait_s, one.program_id))
    return arrivals


def _longest(waits: Floats, there: NDArray[np.bool_]) -> list[int]:
    """Rows of the longest waits among those `there`; of equal ones the first."""
    rows = np.flatnonzero(there)
    order: list[int] = rows[np.argsort(-waits[rows], kind="stable")[:WORST]].tolist()
    return order


def _calls(
    run: Run,
    asked: Asked,
    found: Aggregates,
    series: SeriesMaker,
    excerpt: ExcerptMaker | None,
    finished: dict[str, float],
) -> None:
    """Gather from the calls, which stand in order of ending."""
    start, end = asked.window
    last_first_token: dict[str, float] = {}
    columns = ["program_id", "arrived_s", "first_token_s", "ended_s"]
    for batch in run.batches("calls", [*columns, *(ExcerptMaker.CALL_COLUMNS if excerpt else ())]):
        arrived, ended = numbers(batch, "arrived_s"), numbers(batch, "ended_s")
        first_token = numbers(batch, "first_token_s")
        inside = (ended > start) & (ended <= end)
        found.ttft_s.add((first_token - arrived)[inside])
        found.step_s.add((ended - arrived)[inside])
        series.steps(ended)
        names = batch["program_id"].dictionary_encode()
        last = np.full(len(names.dictionary), -1)
        last[names.indices.to_numpy()] = np.arange(batch.num_rows)  # of equal indices the last one stays
        latest = zip(names.dictionary.to_pylist(), first_token[last].tolist(), strict=True)
        last_first_token.update((name, value) for name, value in latest if name in finished)
        if excerpt:
            excerpt.calls(batch)
    found.answer_s.add(
        np.array([value - finished[name] for name, value in last_first_token.items()], dtype=np.float64)
    )


def numbers(batch: pa.RecordBatch, column: str) -> Floats:
    """A column as float64; null becomes not-a-number."""
    values: Floats = batch[column].cast(pa.float64()).to_numpy(zero_copy_only=False)
    return values

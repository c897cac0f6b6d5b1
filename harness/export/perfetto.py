"""Chrome trace events for ui.perfetto.dev (and chrome://tracing): the schedule, to look at.

A JSON array, one event per line, in no order of time. Process `programs` has a track per program with
the parts of its steps: hold, queue, prefill, decode, sandbox, tools; calls that run side by side get
tracks of their own, because slices of one track must nest. Every replica is a process whose tracks hold
the calls in its batch, laid out so that they do not overlap, and counters of its samples. An arrow leads
from the prefill of a program to the replica that does it. Times are whole microseconds of the run's
clock: viewers read fractions as floating point, and slices that touch would overlap.

What a live run does not know is left out: a part of a step is drawn with the next one that is known, a call
counts as in the batch from its dispatch on, one whose replica nobody told is on none.

Lanes of a replica need all its calls in order of time: for that, and for nothing else, 24 bytes per call
are kept.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, NamedTuple, TextIO

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from harness.export.base import Source, compact
from harness.export.programs import Played, call_columns
from harness.records import Run
from harness.rows import CallRow, ToolRow

PROGRAMS = 1  # process id; replicas follow
# Track ids are unique in the file, and none is that of a process.
_FIRST_PROGRAM_TRACK = 10_000
_FIRST_REPLICA_TRACK = 1_000_000_000
_TRACKS_PER_REPLICA = 1_000_000
_SAMPLE_COLUMNS = (
    "time_s",
    "replica",
    "running",
    "waiting",
    "held",
    "used_tokens",
    "idle_cached_tokens",
    "capacity_tokens",
)
_BEGINS = ("scheduled_s", "dispatched_s", "arrived_s")  # of a call in the batch: the first that is known
_TOTALS = "samples without totals, space-time and disk: the tracks show the cache and the requests"


class Perfetto:
    """See the module's text."""

    suffix = ".perfetto.json"

    def write(self, source: Source, out: TextIO) -> None:
        """The whole trace."""
        events = _Events(out)
        replicas = Replicas(source.run)
        _name_process(events, PROGRAMS, "programs")
        for name, process in replicas.processes.items():
            _name_process(events, process, f"replica {name}")
        track = _FIRST_PROGRAM_TRACK
        for played in source.programs():
            track = _program(events, played, track, replicas)
            source.account.kept["tool runs"] += sum(map(len, played.tools.values()))
        for process, name, lane in replicas.used_lanes():
            _name_track(events, process, replicas.track(process, lane), f"{name} lane {lane + 1}", lane)
        samples = _counters(events, source.run, replicas)
        source.account.kept["samples"] += samples
        source.account.dropped[_TOTALS] += samples
        events.close()


class _Events:
    """A JSON array that is written event by event."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._separator = "[\n"

    def add(self, **event: Any) -> None:
        """One event."""
        self._out.write(self._separator + compact(event))
        self._separator = ",\n"

    def close(self) -> None:
        """Nothing follows."""
        self._out.write("\n]\n")


class Part(NamedTuple):
    """A slice to be: name, begin and end in microseconds, arguments."""

    name: str
    begin: int
    end: int
    args: dict[str, Any]


class Replicas:
    """Which process stands for which replica, and on which lane of it a call runs."""

    def __init__(self, run: Run) -> None:
        calls = call_columns(run, ["replica", *_BEGINS, "finished_s"])
        names = set(pc.unique(calls["replica"].drop_null()).to_pylist()) if calls.num_rows else set()
        for batch in run.batches("samples", ["replica"]):
            names.update(pc.unique(batch.column("replica")).to_pylist())
        self.processes = {name: PROGRAMS + 1 + place for place, name in enumerate(sorted(names))}
        self._lanes: NDArray[np.int32] = np.zeros(calls.num_rows, dtype=np.int32)
        self._counts = dict.fromkeys(self.processes, 0)
        for name in self.processes if calls.num_rows else ():
            own = np.flatnonzero(pc.equal(calls["replica"].fill_null(""), name).to_numpy())
            begins = microseconds(pc.coalesce(*(calls[column] for column in _BEGINS)).to_numpy()[own])
            ends = microseconds(calls["finished_s"].to_numpy()[own])
            self._lanes[own] = found = lanes(begins, ends)
            self._counts[name] = int(found.max()) + 1 if len(found) else 0

    def lane(self, number: int) -> int:
        """Lane of the call in row `number` of the table."""
        return int(self._lanes[number])

    def track(self, process: int, lane: int) -> int:
        """Track id of a lane."""
        return _FIRST_REPLICA_TRACK + process * _TRACKS_PER_REPLICA + lane

    def used_lanes(self) -> Iterator[tuple[int, str, int]]:
        """Process, replica and lane, for all lanes with a call."""
        for name, count in self._counts.items():
            for lane in range(count):
                yield self.processes[name], name, lane


def microseconds(seconds: NDArray[np.float64]) -> NDArray[np.int64]:
    """Times as slices have them, rounded as `_us` does."""
    whole: NDArray[np.int64] = np.rint(seconds * 1e6).astype(np.int64)
    return whole


def lanes(begins: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int32]:
    """A lane for each interval so that no two of one lane overlap: the lowest one free when it begins."""
    found = np.zeros(len(begins), dtype=np.int32)
    busy: list[tuple[int, int]] = []  # (until, lane)
    free: list[int] = []
    count = 0
    for place in np.lexsort((ends, begins)).tolist():
        begin = int(begins[place])
        while busy and busy[0][0] <= begin:
            heapq.heappush(free, heapq.heappop(busy)[1])
        if free:
            lane = heapq.heappop(free)
        else:
            lane, count = count, count + 1
        heapq.heappush(busy, (int(ends[place]), lane))
        found[place] = lane
    return found


# ------------------------------------------------------------------ programs and their calls


class _Box(NamedTuple):
    """What has a stretch of a track to itself: a step, or a tool run that does not follow its call."""

    begin: int
    end: int
    parts: list[Part]
    row: CallRow | None
    number: int


def _program(events: _Events, played: Played, track: int, replicas: Replicas) -> int:
    """The tracks of a program, from `track` on; the next free one."""
    boxes = [
        box
        for row, number in zip(played.calls, played.numbers, strict=True)
        for box in _boxes(row, number, played.tools.get(row.call_id, []))
    ]
    places = lanes(np.array([box.begin for box in boxes]), np.array([box.end for box in boxes]))
    name = played.program.program_id
    count = int(places.max()) + 1
    for lane in range(count):
        label = name if lane == 0 else f"{name} (side by side, {lane + 1})"
        _name_track(events, PROGRAMS, track + lane, label, track + lane - _FIRST_PROGRAM_TRACK)
    for box, lane in zip(boxes, places.tolist(), strict=True):
        for part in box.parts:
            _slice(events, part, PROGRAMS, track + lane)
        if box.row is not None:
            _on_replica(events, box.row, box.number, track + lane, replicas)
    return track + count


def _boxes(row: CallRow, number: int, tools: list[ToolRow]) -> Iterator[_Box]:
    """A step, its tool runs included as far as they begin together once the call has ended."""
    after = [tool for tool in tools if tool.started_s >= row.finished_s]
    start_s = min((tool.started_s for tool in after), default=row.finished_s)
    # Longest first, so that they nest.
    together = sorted((t for t in after if t.started_s == start_s), key=lambda t: -t.finished_s)
    parts = [*_parts(row, start_s), *(_tool(tool) for tool in together)]
    yield _Box(_us(row.arrived_s), _us(row.ended_s), parts, row, number)
    for tool in tools:
        if tool.started_s != start_s:
            part = _tool(tool)
            yield _Box(part.begin, part.end, [part], None, number)


def _parts(row: CallRow, tools_from_s: float) -> Iterator[Part]:
    """The parts of a step that took time, but for its tools; each begins where the one before it ended."""
    args = {"call": row.call_id, "replica": row.replica}
    prompt = {"prompt_tokens": row.prompt_tokens, "cached_tokens": row.cached_tokens}
    prompt |= {"recomputed_tokens": row.recomputed_tokens, "preemptions": row.preemptions}
    ends: tuple[tuple[str, float | None, dict[str, Any]], ...] = (
        ("hold", row.dispatched_s, args),
        ("queue", row.scheduled_s, args),
        ("prefill", row.first_token_s, args | prompt),
        ("decode", row.finished_s, args | {"output_tokens": row.output_tokens}),
        ("sandbox", tools_from_s, args),
    )
    begin_s = row.arrived_s
    for name, end_s, given in ends:
        if end_s is not None:
            part = Part(name, _us(begin_s), _us(end_s), given)
            begin_s = end_s
            if part.end > part.begin:
                yield part


def _tool(tool: ToolRow) -> Part:
    args = {"call": tool.call_id, "observation_tokens": tool.observation_tokens}
    return Part(f"tool {tool.tool}", _us(tool.started_s), _us(tool.finished_s), args)


def _on_replica(events: _Events, row: CallRow, number: int, track: int, replicas: Replicas) -> None:
    """The call in the batch of its replica, and the arrow that leads there."""
    if row.replica is None:
        return
    process = replicas.processes[row.replica]
    lane = replicas.track(process, replicas.lane(number))
    args = {
        "call": row.call_id,
        "prompt_tokens": row.prompt_tokens,
        "cached_tokens": row.cached_tokens,
        "output_tokens": row.output_tokens,
        "preemptions": row.preemptions,
    }
    begin = _us(next(time for column in _BEGINS if (time := getattr(row, column)) is not None))
    _slice(events, Part(row.program_id, begin, _us(row.finished_s), args), process, lane)
    arrow = {"name": "call", "cat": "call", "id": number + 1, "ts": begin}
    events.add(ph="s", pid=PROGRAMS, tid=track, **arrow)
    events.add(ph="f", bp="e", pid=process, tid=lane, **arrow)


def _us(seconds: float) -> int:
    return round(seconds * 1e6)


# ------------------------------------------------------------------ events


def _slice(events: _Events, part: Part, process: int, track: int) -> None:
    events.add(
        ph="X",
        name=part.name,
        cat="call",
        ts=part.begin,
        dur=part.end - part.begin,
        pid=process,
        tid=track,
        args=part.args,
    )


def _name_process(events: _Events, process: int, name: str) -> None:
    for kind, args in (("process_name", {"name": name}), ("process_sort_index", {"sort_index": process})):
        events.add(ph="M", name=kind, ts=0, pid=process, tid=process, args=args)


def _name_track(events: _Events, process: int, track: int, name: str, place: int) -> None:
    for kind, args in (("thread_name", {"name": name}), ("thread_sort_index", {"sort_index": place})):
        events.add(ph="M", name=kind, ts=0, pid=process, tid=track, args=args)


def _counter(events: _Events, name: str, moment: int, process: int, args: dict[str, int | None]) -> None:
    """What is known of a counter at a moment."""
    known = {key: value for key, value in args.items() if value is not None}
    if known:
        events.add(ph="C", name=name, ts=moment, pid=process, tid=process, args=known)


def _counters(events: _Events, run: Run, replicas: Replicas) -> int:
    """KV and requests of every sample; the number of samples."""
    count = 0
    held_at = None
    for batch in run.batches("samples", _SAMPLE_COLUMNS):
        for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            sample = dict(zip(_SAMPLE_COLUMNS, values, strict=True))
            process, moment = replicas.processes[sample["replica"]], _us(sample["time_s"])
            used, idle = sample["used_tokens"], sample["idle_cached_tokens"]
            size = sample["capacity_tokens"]
            blank = None if None in {size, used, idle} else size - used - idle
            kv = {"used": used, "idle": idle, "blank": blank}
            requests = {"running": sample["running"], "waiting": sample["waiting"]}
            for name, args in (("KV tokens", kv), ("requests", requests)):
                _counter(events, name, moment, process, args)
            if moment != held_at:  # the same for all replicas
                _counter(events, "calls", moment, PROGRAMS, {"held": sample["held"]})
                held_at = moment
            count += 1
    return count


WRITER = Perfetto()

"""The virtual driver: agent programs, a policy and simulated engines on one virtual clock.

It only translates: what happens becomes an event for the policy, what the policy answers is carried
out, and rows are written down as programs go. Decisions are made by the policy and by the engines.

Order within one instant: engines complete their steps first; then everything that happens at that
instant, in order of cause, until nothing is left (a tool of no duration brings the next call at once);
then engines begin their next steps and see all of it. Facts are ordered by (time, sequence number).
"""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from math import inf
from typing import NamedTuple, Protocol, TypeVar, assert_never

from harness.errors import SetupError
from harness.rows import CallRow, ProgramRow, SampleRow, SandboxRow, ToolRow
from harness.virtual.engine import Engine, EngineOptions
from harness.virtual.programs import LiveCall, LiveProgram
from harness.virtual.sandbox import SandboxPool
from schedulers.contract import (
    Action,
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Capability,
    Dispatch,
    Event,
    Evict,
    FirstToken,
    Hold,
    Offload,
    PartialPrefill,
    Pause,
    Pin,
    Policy,
    Prefetch,
    PrepareSandbox,
    ProgramArrived,
    ProgramFinished,
    ReclaimSandbox,
    ReplicaUp,
    Replicate,
    Resume,
    Retain,
    SandboxReady,
    StartTool,
    Tick,
    ToolFinished,
    ToolStarted,
    Unpin,
    WakeAt,
)
from workloads.arrivals import ClosedLoop
from workloads.model import Program, ToolRun

PROGRESS_WALL_S = 0.2
PROGRESS_EVERY_INSTANTS = 512  # looking at the wall clock costs as much as a small event


_Row = TypeVar("_Row", contravariant=True)


class Progress(NamedTuple):
    """How far a run is; `hit_rate` is null before the first prompt."""

    now_s: float
    end_s: float | None
    programs_done: int
    steps_done: int
    steps_per_min: float
    hit_rate: float | None


class Rows(Protocol[_Row]):
    """Where rows of one table go."""

    def append(self, row: _Row, /) -> None: ...


class Recorder(Protocol):
    """Where a run is written down; `records.RunWriter` is one, and a bag of lists is another."""

    programs: Rows[ProgramRow]
    calls: Rows[CallRow]
    tools: Rows[ToolRow]
    samples: Rows[SampleRow]
    sandboxes: Rows[SandboxRow]

    def decide(self, now: float, event: Event, actions: list[Action], /) -> None: ...


class OpenLoop(Protocol):
    """Arrivals that do not wait for programs to finish."""

    def times(self) -> Iterator[float]: ...


def capabilities(options: EngineOptions) -> frozenset[Capability]:
    """What the virtual engines offer a policy."""
    if options.scheduling_policy == "priority":
        return frozenset({Capability.PRIORITY})
    return frozenset()


class VirtualRun:
    """One run. `kv_tokens` and `block_size` are what each replica announces to the policy.

    Measured is the window from `warmup_s` on for `duration_s` seconds; null runs until every program
    has ended. `policy` and `engines` must be fresh.
    """

    def __init__(
        self,
        *,
        programs: Callable[[int], Program],
        size: int | None,
        arrivals: ClosedLoop | OpenLoop,
        policy: Policy,
        engines: Mapping[str, Engine],
        kv_tokens: int,
        block_size: int,
        sandboxes: SandboxPool,
        recorder: Recorder,
        warmup_s: float,
        duration_s: float | None,
        sample_every_s: float = 5.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._programs, self._size, self._arrivals = programs, size, arrivals
        self._policy, self._engines, self._sandboxes = policy, engines, sandboxes
        self._kv_tokens, self._block_size = kv_tokens, block_size
        self._recorder = recorder
        self._warmup_s = warmup_s
        self.end_s = inf if duration_s is None else warmup_s + duration_s
        self._sample_every_s, self._on_progress = sample_every_s, on_progress
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._events: deque[Event] = deque()
        self._next_index = 0
        self._times: Iterator[float] | None = None  # null: no more arrivals
        self._live: dict[str, LiveProgram] = {}
        self._calls: dict[str, LiveCall] = {}  # from arrival to the end of generation
        self._held = 0
        self._to_begin: dict[str, Engine] = {}
        self._done = self._steps = 0
        self._wake_s = inf

    def run(self) -> None:
        """Play the run to its end; rows go to the recorder as they are known."""
        for replica in self._engines:
            self._tell(ReplicaUp(replica, self._kv_tokens, self._block_size))
        self._start_arrivals()
        self._at(0.0, self._sample_all)
        if self._warmup_s:
            self._at(self._warmup_s, self._sample)
        instants, wall = 0, time.monotonic()
        heap, engines = self._heap, list(self._engines.items())
        while True:
            now = heap[0][0] if heap else inf
            for _, engine in engines:
                now = min(now, engine.next_boundary)
            if now > self.end_s or now == inf or not self._going():
                break
            self._instant(now, engines)
            instants += 1
            if self._on_progress is not None and not instants % PROGRESS_EVERY_INSTANTS:
                if time.monotonic() - wall > PROGRESS_WALL_S:
                    wall = time.monotonic()
                    self._on_progress(self.progress())
        self._finish()

    def progress(self) -> Progress:
        """Where the run stands."""
        counters = [engine.counters for engine in self._engines.values()]
        queries = sum(c.queries for c in counters)
        return Progress(
            self.now,
            None if self.end_s == inf else self.end_s,
            self._done,
            self._steps,
            self._steps / self.now * 60 if self.now else 0.0,
            sum(c.hits for c in counters) / queries if queries else None,
        )

    # ---------------------------------------------------------------- the clock

    def _instant(self, now: float, engines: list[tuple[str, Engine]]) -> None:
        """Everything that happens at `now`."""
        self.now = now
        for replica, engine in engines:
            if engine.next_boundary == now:
                out = engine.complete(now)
                self._to_begin[replica] = engine
                for request in out.first_tokens:
                    live = self._calls[request.call_id]
                    self._tell(FirstToken(live.program.program.program_id, request.call_id))
                for request in out.finished:
                    self._call_finished(self._calls.pop(request.call_id))
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, happen, args = heapq.heappop(heap)
            happen(*args)
        for engine in self._to_begin.values():
            engine.begin(now)
        self._to_begin.clear()

    def _at(self, when: float, happen: Callable[..., None], *args: object) -> None:
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, happen, args))

    def _going(self) -> bool:
        """Whether anything is left to do (a policy's ticks alone are not)."""
        return bool(self._live) or not self._exhausted() or self.end_s != inf

    def _exhausted(self) -> bool:
        if self._size is not None and self._next_index >= self._size:
            return True
        return not isinstance(self._arrivals, ClosedLoop) and self._times is None

    # ---------------------------------------------------------------- the policy

    def _tell(self, event: Event) -> None:
        """Hand a fact to the policy and carry out its answer; facts that follow queue up behind."""
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            event = self._events[0]
            actions = self._policy.handle(event, self.now)
            self._recorder.decide(self.now, event, actions)
            for action in actions:
                self._carry_out(action)
            self._events.popleft()

    def _carry_out(self, action: Action) -> None:
        match action:
            case Dispatch():
                self._dispatch(action)
            case Hold() | Resume():
                pass  # the policy's own book-keeping: a call stays here until it is dispatched
            case Pause():
                if action.program_id in self._live:
                    self._live[action.program_id].pauses += 1
            case WakeAt():
                if action.time < self._wake_s:
                    self._wake_s = action.time
                    self._at(max(action.time, self.now), self._tick, action.time)
            case PrepareSandbox():
                self._prepare(self._live[action.program_id])
            case ReclaimSandbox():
                self._sandboxes.reclaim(action.program_id, self.now)
            case (
                Pin()
                | Unpin()
                | Evict()
                | Retain()
                | Offload()
                | Prefetch()
                | Replicate()
                | PartialPrefill()
                | StartTool()
            ):
                raise SetupError(
                    f"scheduler {self._policy.name!r} ordered {type(action).__name__}",
                    "only actions that the virtual engine offers",
                    "Let the policy state the capability in `needs`; it is then refused at start",
                )
            case _:
                assert_never(action)

    def _tick(self, asked: float) -> None:
        if asked == self._wake_s:
            self._wake_s = inf
        self._tell(Tick())

    # ---------------------------------------------------------------- programs

    def _start_arrivals(self) -> None:
        if isinstance(self._arrivals, ClosedLoop):
            for _ in range(self._arrivals.concurrency):
                self._at(0.0, self._next_program)
        else:
            self._times = self._arrivals.times()
            self._schedule_arrival()

    def _schedule_arrival(self) -> None:
        when = next(self._times, None) if self._times is not None else None
        if when is None:
            self._times = None
        else:
            self._at(when, self._open_arrival)

    def _open_arrival(self) -> None:
        self._next_program()
        self._schedule_arrival()

    def _next_program(self) -> None:
        if self._size is not None and self._next_index >= self._size:
            return
        program = self._programs(self._next_index)
        live = self._live[program.program_id] = LiveProgram(program, self._next_index, self.now)
        self._next_index += 1
        self._tell(ProgramArrived(program.program_id, program.sandbox is not None))
        if program.sandbox is not None and not self._policy.manages_sandboxes:
            self._prepare(live)
            self._sandboxes.needed(program.program_id, self.now)
        else:
            self._start_calls(live, live.roots())

    def _start_calls(self, program: LiveProgram, indices: list[int]) -> None:
        for index in indices:
            live = program.start(index, self.now)
            self._calls[live.call.call_id] = live
            self._held += 1
            self._tell(
                CallArrived(program.program.program_id, live.call.call_id, live.request.prompt_tokens)
            )

    def _dispatch(self, action: Dispatch) -> None:
        live = self._calls[action.call_id]
        engine = self._engines[action.replica]
        program_id = live.program.program.program_id
        self._held -= 1
        live.dispatched_s, live.replica = self.now, action.replica
        live.request.priority = action.priority
        idle = engine.next_boundary == inf
        try:
            engine.submit(live.request, self.now)
        except SetupError as error:
            del self._calls[action.call_id], live.program.open[live.index]
            live.program.failed = str(error)
            self._tell(CallFailed(program_id, action.call_id, str(error)))
            self._at(self.now, self._end_if_idle, live.program)
            return
        if idle:
            self._to_begin[action.replica] = engine
        self._tell(CallDispatched(program_id, action.call_id, action.replica))

    def _call_finished(self, live: LiveCall) -> None:
        request, program = live.request, live.program
        self._tell(
            CallFinished(
                program.program.program_id,
                request.call_id,
                request.prompt_tokens,
                request.output.tokens,
                request.cached_tokens,
            )
        )
        if not live.call.tools:
            self._step_ended(live)
            return
        need = any(tool.needs_sandbox for tool in live.call.tools)
        if need and program.program.sandbox is not None:
            self._sandboxes.needed(program.program.program_id, self.now)
            if program.sandbox == "none":
                self._prepare(program)
            if program.sandbox == "preparing":
                program.waiting_for_sandbox.append(live)
                return
        self._start_tools(live)

    # ---------------------------------------------------------------- tools and sandboxes

    def _start_tools(self, live: LiveCall) -> None:
        live.tools_started_s = self.now
        program_id = live.program.program.program_id
        for tool in live.call.tools:
            self._tell(ToolStarted(program_id, live.call.call_id, tool.name))
            self._at(self.now + tool.duration_s, self._tool_finished, live, tool)

    def _tool_finished(self, live: LiveCall, tool: ToolRun) -> None:
        program_id, call_id = live.program.program.program_id, live.call.call_id
        self._recorder.tools.append(
            ToolRow(
                program_id,
                call_id,
                tool.name,
                live.request.finished_s,
                live.tools_started_s,
                self.now,
                tool.observation_tokens,
            )
        )
        self._tell(ToolFinished(program_id, call_id, tool.name, tool.duration_s, tool.observation_tokens))
        live.tools_left -= 1
        if not live.tools_left:
            self._step_ended(live)

    def _step_ended(self, live: LiveCall) -> None:
        program = live.program
        self._recorder.calls.append(live.row(self.now))
        self._steps += 1
        ready = program.end(live, self.now)
        if program.failed is None:
            self._start_calls(program, ready)
        self._end_if_idle(program)

    def _end_if_idle(self, program: LiveProgram) -> None:
        program_id = program.program.program_id
        if program.open or program_id not in self._live:
            return
        del self._live[program_id]
        self._done += 1
        self._recorder.programs.append(program.row(self.now, finished=True))
        if program.sandbox != "none":
            self._sandboxes.release(program_id, self.now)
        self._tell(ProgramFinished(program_id))
        if isinstance(self._arrivals, ClosedLoop):
            self._next_program()

    def _prepare(self, program: LiveProgram) -> None:
        need = program.program.sandbox
        if need is None or program.sandbox != "none":
            return
        program.sandbox = "preparing"
        ready_s = self._sandboxes.request(program.program.program_id, need, self.now)
        self._at(ready_s, self._sandbox_ready, program)

    def _sandbox_ready(self, program: LiveProgram) -> None:
        program_id = program.program.program_id
        if program_id not in self._live:
            return  # reclaimed while it was still being prepared
        program.sandbox = "ready"
        self._sandboxes.ready(program_id, self.now)
        self._tell(SandboxReady(program_id))
        if not self._policy.manages_sandboxes:
            self._start_calls(program, program.roots())
        waiting, program.waiting_for_sandbox = program.waiting_for_sandbox, []
        for live in waiting:
            self._start_tools(live)

    # ---------------------------------------------------------------- rows

    def _sample_all(self) -> None:
        self._sample()
        self._at(self.now + self._sample_every_s, self._sample_all)

    def _sample(self) -> None:
        pool = self._sandboxes
        for replica, engine in self._engines.items():
            load, c = engine.load(self.now), engine.counters
            self._recorder.samples.append(
                SampleRow(
                    self.now,
                    replica,
                    load.running,
                    load.waiting,
                    self._held,
                    load.used_tokens,
                    load.cached_tokens,
                    load.capacity_tokens,
                    c.queries,
                    c.hits,
                    c.preemptions,
                    c.evicted_blocks,
                    c.stp_decode,
                    c.stp_prefill,
                    c.stp_recompute,
                    c.stp_unused,
                    c.stp_caching,
                    len(self._live),
                    pool.count,
                    pool.writable_bytes,
                    pool.image_bytes,
                )
            )

    def _finish(self) -> None:
        """Close the books at the end of the window, or when everything has ended."""
        if self.end_s == inf:
            self.end_s = self.now
        self.now = self.end_s
        self._sample()
        for program in self._live.values():
            self._recorder.programs.append(program.row(self.end_s, finished=False))
        for row in self._sandboxes.rows(self.end_s):
            self._recorder.sandboxes.append(row)

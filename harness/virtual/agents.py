"""The agents' side of a run: programs arrive, call, run their tools, and end.

The same in virtual time and on the wall clock: agents know no policy and no engine, and ask their clock
for the time. They tell what happened (`tell`), and somebody else takes the calls that have arrived
(`calls`) to an engine and reports their ends (`call_finished`, `call_failed`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from harness.errors import EngineFailed, SetupError
from harness.rows import CallRow, ProgramRow, SampleRow, SandboxRow, ToolRow
from harness.virtual.programs import LiveCall, LiveProgram, Preparation
from harness.virtual.sandbox import SandboxPool
from schedulers.contract import (
    Action,
    CallArrived,
    CallFailed,
    CallFinished,
    Event,
    ProgramArrived,
    ProgramFinished,
    SandboxReady,
    ToolCallParsed,
    ToolFinished,
    ToolStarted,
)
from workloads.arrivals import ClosedLoop
from workloads.model import Program, ToolRun

HOPELESS_FAILURES = 1000  # a closed loop replaces a failed program at once: without end it never ends

_Row = TypeVar("_Row", contravariant=True)  # noqa: PLC0105 - the name of the type, not of its variance


class Rows(Protocol[_Row]):
    """Where the rows of one table go."""

    def append(self, row: _Row, /) -> None:
        """Take one row."""
        ...


class Recorder(Protocol):
    """Where a run is written down; `records.RunWriter` is one, and a bag of lists is another."""

    @property
    def programs(self) -> Rows[ProgramRow]: ...  # noqa: D102 - the tables of rows.py
    @property
    def calls(self) -> Rows[CallRow]: ...  # noqa: D102
    @property
    def tools(self) -> Rows[ToolRow]: ...  # noqa: D102
    @property
    def samples(self) -> Rows[SampleRow]: ...  # noqa: D102
    @property
    def sandboxes(self) -> Rows[SandboxRow]: ...  # noqa: D102

    def decide(self, now: float, event: Event, actions: list[Action], /) -> None:
        """Take one decision: a fact and the policy's whole answer to it."""
        ...


class Clock(Protocol):
    """`harness.virtual.clock.Clock`, or one like it on an event loop."""

    @property
    def now(self) -> float:
        """Seconds of the run; while something happens, the time at which it was to happen."""
        ...

    def at(self, when: float, happen: Callable[..., None], /, *args: object) -> object:
        """Have `happen(*args)` called at `when`, which may be now."""
        ...


ToolEnded = Callable[[LiveCall, ToolRun], None]
RunTool = Callable[[LiveCall, ToolRun, ToolEnded], None]


class OpenLoop(Protocol):
    """Arrivals that do not wait for programs to finish."""

    def times(self) -> Iterator[float]:
        """Arrival times in seconds, ascending."""
        ...


class Agents:
    """All programs of one run.

    `programs(i)` is program i of the plan, of which there are `size` (null: endless). With
    `own_sandboxes` every agent prepares its sandbox before its first call, and nobody reclaims it;
    otherwise somebody calls `prepare`, at the latest the first tool that needs it does. Clients that do
    not `release` never say that a program is over. `before_arrival` is called just before a call arrives.
    The first programs of a closed loop arrive evenly over `start_spread_s`. Tools take the time they are
    recorded with, unless `run_tool(live, tool, ended)` runs them, which calls `ended(live, tool)` then.
    """

    def __init__(
        self,
        clock: Clock,
        tell: Callable[[Event], None],
        *,
        programs: Callable[[int], Program],
        size: int | None,
        arrivals: ClosedLoop | OpenLoop,
        sandboxes: SandboxPool,
        own_sandboxes: bool,
        recorder: Recorder,
        releases: bool = True,
        before_arrival: Callable[[LiveCall], None] | None = None,
        parses_tools: bool = False,
        start_spread_s: float = 0.0,
        run_tool: RunTool | None = None,
    ) -> None:
        self._clock, self._tell, self._recorder = clock, tell, recorder
        self._programs, self._size, self._arrivals = programs, size, arrivals
        self._sandboxes, self._own_sandboxes = sandboxes, own_sandboxes
        self._times: Iterator[float] | None = None  # of an open loop; null when all have arrived
        self._next_position = 0
        self.live: dict[str, LiveProgram] = {}
        self.calls: dict[str, LiveCall] = {}  # from arrival to the last token
        self.held = 0  # of them, those that nobody has dispatched yet
        self.programs_done = self.steps_done = 0
        self._failures_in_a_row = 0
        self._releases, self._parses_tools = releases, parses_tools
        self._before_arrival = before_arrival
        self._start_spread_s = start_spread_s
        self._run_tool = run_tool

    @property
    def over(self) -> bool:
        """Whether all programs have ended and none will arrive."""
        if self.live:
            return False
        if self._size is not None and self._next_position >= self._size:
            return True
        return self._times is None and not isinstance(self._arrivals, ClosedLoop)

    @property
    def only_held(self) -> bool:
        """Whether calls are held and no other call, tool or sandbox is under way."""
        programs = self.live.values()
        idle = all(program.preparation is not Preparation.UNDER_WAY for program in programs)
        return idle and 0 < self.held == sum(len(program.open) for program in programs)

    # ---------------------------------------------------------------- arrivals and ends

    def start(self) -> None:
        """Let the first programs arrive."""
        if isinstance(self._arrivals, ClosedLoop):
            slots = self._arrivals.concurrency
            for slot in range(slots):
                self._clock.at(slot * self._start_spread_s / slots, self._next_program)
        else:
            self._times = self._arrivals.times()
            self._await_next()

    def _await_next(self) -> None:
        when = next(self._times, None) if self._times is not None else None
        if when is None:
            self._times = None
        else:
            self._clock.at(when, self._arrive)

    def _arrive(self) -> None:
        self._next_program()
        self._await_next()

    def _next_program(self) -> None:
        if self._size is not None and self._next_position >= self._size:
            return
        now = self._clock.now
        program = LiveProgram(self._programs(self._next_position), self._next_position, now)
        self._next_position += 1
        if program.id in self.live:
            raise SetupError(
                f"two programs called {program.id!r}", "a program_id of its own for every program"
            )
        self.live[program.id] = program
        self._tell(ProgramArrived(program.id, program.program.sandbox is not None))
        if program.program.sandbox is not None and self._own_sandboxes:
            self._sandboxes.needed(program.id, now)
            self.prepare(program.id)
        else:
            self._start_calls(program, program.roots())

    def _end_if_idle(self, program: LiveProgram) -> None:
        if program.open or program.id not in self.live:
            return
        now = self._clock.now
        del self.live[program.id]
        self.programs_done += 1
        self._recorder.programs.append(program.row(now, ended=True))
        self._sandboxes.release(program.id, now)
        if self._releases:
            self._tell(ProgramFinished(program.id))
        if isinstance(self._arrivals, ClosedLoop):
            self._next_program()

    def close(self, end_s: float) -> None:
        """The run is over: write down what had not ended."""
        for program in self.live.values():
            self._recorder.programs.append(program.row(end_s, ended=False))
        for row in self._sandboxes.rows(end_s):
            self._recorder.sandboxes.append(row)

    # ---------------------------------------------------------------- calls

    def _start_calls(self, program: LiveProgram, positions: list[int]) -> None:
        for position in positions:
            live = program.start(position, self._clock.now)
            if live.call.call_id in self.calls:
                raise SetupError(
                    f"two calls called {live.call.call_id!r}", "a call_id of its own for every call"
                )
            self.calls[live.call.call_id] = live
            self.held += 1
            if self._before_arrival is not None:
                self._before_arrival(live)
            self._tell(CallArrived(program.id, live.call.call_id, live.request.prompt_tokens))

    def call_failed(self, live: LiveCall, reason: str) -> None:
        """A call ended without a result: its program starts no more and ends when nothing is open."""
        del self.calls[live.call.call_id]
        live.program.fail(live, reason, self._clock.now)
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= HOPELESS_FAILURES:
            raise EngineFailed(f"{HOPELESS_FAILURES} calls failed in a row, the last one because {reason}")
        self._tell(CallFailed(live.program.id, live.call.call_id, reason))
        self._clock.at(self._clock.now, self._end_if_idle, live.program)

    def call_finished(self, call_id: str) -> None:
        """The last token of a call came: its tools run now, or once their sandbox is ready."""
        live = self.calls.pop(call_id)
        request, program, tools = live.request, live.program, live.call.tools
        program.answered(live)
        for tool in tools if self._parses_tools else ():
            self._tell(ToolCallParsed(program.id, call_id, tool.name))
        self._tell(
            CallFinished(
                program.id,
                call_id,
                request.prompt_tokens,
                request.output.tokens,
                request.cached_tokens,
            )
        )
        if not tools:
            self._step_ended(live)
            return
        if program.program.sandbox is not None and any(tool.needs_sandbox for tool in tools):
            self._sandboxes.needed(program.id, self._clock.now)
            self.prepare(program.id)
            if program.preparation is Preparation.UNDER_WAY:
                program.waiting_for_sandbox.append(live)
                return
        self._start_tools(live)

    def _step_ended(self, live: LiveCall) -> None:
        program, now = live.program, self._clock.now
        self._recorder.calls.append(live.row(now))
        self.steps_done += 1
        self._failures_in_a_row = 0
        self._start_calls(program, program.end(live, now))
        self._end_if_idle(program)

    # ---------------------------------------------------------------- tools and sandboxes

    def _start_tools(self, live: LiveCall) -> None:
        now = live.tools_started_s = self._clock.now
        for tool in live.call.tools:
            self._tell(ToolStarted(live.program.id, live.call.call_id, tool.name))
            if self._run_tool is None:
                self._clock.at(now + tool.duration_s, self._tool_finished, live, tool)
            else:
                self._run_tool(live, tool, self._tool_finished)

    def _tool_finished(self, live: LiveCall, tool: ToolRun) -> None:
        program_id, call_id = live.program.id, live.call.call_id
        asked_s, started_s, tokens = live.request.finished_s, live.tools_started_s, tool.observation_tokens
        self._recorder.tools.append(
            ToolRow(program_id, call_id, tool.name, asked_s, started_s, self._clock.now, tokens)
        )
        took_s = tool.duration_s if self._run_tool is None else self._clock.now - started_s
        self._tell(ToolFinished(program_id, call_id, tool.name, took_s, tokens))
        live.tools_left -= 1
        if not live.tools_left:
            self._step_ended(live)

    def prepare(self, program_id: str) -> None:
        """Begin preparing a program's sandbox, unless that has begun or it needs none."""
        program = self.live[program_id]
        need = program.program.sandbox
        if need is None or program.preparation is not Preparation.NONE:
            return
        program.preparation = Preparation.UNDER_WAY
        ready_s = self._sandboxes.request(program_id, need, self._clock.now)
        self._clock.at(ready_s, self._sandbox_ready, program)

    def _sandbox_ready(self, program: LiveProgram) -> None:
        if not self._sandboxes.ready(program.id, self._clock.now):
            return  # abandoned while it was being prepared
        program.preparation = Preparation.DONE
        self._tell(SandboxReady(program.id))
        if self._own_sandboxes and program.first_call_s is None:
            self._start_calls(program, program.roots())
        waiting, program.waiting_for_sandbox = program.waiting_for_sandbox, []
        for live in waiting:
            self._start_tools(live)

    def reclaim(self, program_id: str) -> None:
        """Remove a program's sandbox; what waits for it, or needs one later, prepares a new one."""
        self._sandboxes.reclaim(program_id, self._clock.now)
        program = self.live.get(program_id)
        if program is None:
            return
        program.preparation = Preparation.NONE
        if program.waiting_for_sandbox or (self._own_sandboxes and program.first_call_s is None):
            self._sandboxes.needed(program_id, self._clock.now)
            self.prepare(program_id)

"""A gateway's traffic as a run on disk: decisions, and the rows that can be known from them.

Everything comes from the driver's decisions, in order: so what stands in the tables is what the policy was
told. Each finished call is a row, at its end: the gateway does not know which tools follow it, unless
agents report them. A program's context is taken to grow from call to call, so what its last call had
in the end are the tokens that its next one should find cached.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from harness.live.driver import LiveDriver
from harness.live.ports import ReplicaMetrics
from harness.live.server_samples import server_sample
from harness.records import RunWriter
from harness.rows import CallRow, ProgramRow, ToolRow
from schedulers.contract import (
    Action,
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Event,
    FirstToken,
    Pause,
    ProgramArrived,
    ProgramFinished,
    ToolFinished,
    ToolStarted,
)


@dataclass(slots=True)
class _Call:
    program: _Program
    position: int
    arrived_s: float
    replica: str | None = None
    dispatched_s: float | None = None
    first_token_s: float | None = None


@dataclass(slots=True)
class _Program:
    program_id: str
    position: int
    arrived_s: float
    first_call_s: float | None = None
    calls: dict[str, _Call] = field(default_factory=dict)  # open ones
    tools: dict[tuple[str, str], float] = field(default_factory=dict)  # running ones, since when
    calls_seen: int = 0
    steps: int = 0
    pauses: int = 0
    prompt_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = 0
    recomputed_tokens: int | None = 0
    context_tokens: int = 0  # of the call that finished last
    worst_wait_s: float = 0.0

    def waited(self, for_s: float) -> None:
        """A call of it waited so long for its first token."""
        self.worst_wait_s = max(self.worst_wait_s, for_s)


_OfCall: TypeAlias = CallDispatched | FirstToken | CallFinished | CallFailed


class Recorder:
    """Writes what happens to `writer`. `decide` is the driver's, `sampled` the monitor's `on_sample`."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._programs: dict[str, _Program] = {}
        self._seen = 0
        self.until_s = 0.0  # time of the last decision

    def decide(self, now: float, event: Event, actions: list[Action]) -> None:
        """A fact, and what the policy answered."""
        self._writer.decide(now, event, actions)
        self.until_s = now
        match event:
            case ProgramArrived():
                self._programs[event.program_id] = _Program(event.program_id, self._seen, now)
                self._seen += 1
            case ProgramFinished():
                self._write(self._programs.pop(event.program_id), now, "finished")
            case CallArrived():
                self._arrived(event, now)
            case CallDispatched() | FirstToken() | CallFinished() | CallFailed():
                self._call(event, now)
            case ToolStarted() | ToolFinished():
                self._tool(event, now)
            case _:
                pass
        for action in actions:
            if isinstance(action, Pause) and action.program_id in self._programs:
                self._programs[action.program_id].pauses += 1

    def sampled(self, driver: LiveDriver, replica: str, metrics: ReplicaMetrics) -> None:
        """What a replica says of its load."""
        held, programs = driver.held, len(driver.programs)
        self._writer.samples.append(
            server_sample(driver.now, replica, metrics, held=held, programs_live=programs)
        )

    def close(self, now: float) -> None:
        """The gateway stops: programs that are not over are written down as unfinished."""
        for program in self._programs.values():
            for call in program.calls.values():
                program.waited(now - call.arrived_s)
            self._write(program, None, "unfinished")
        self._programs.clear()

    # ---------------------------------------------------------------- facts

    def _arrived(self, event: CallArrived, now: float) -> None:
        program = self._programs[event.program_id]
        program.calls[event.call_id] = _Call(program, program.calls_seen, now)
        program.calls_seen += 1
        if program.first_call_s is None:
            program.first_call_s = now

    def _call(self, event: _OfCall, now: float) -> None:
        program = self._programs[event.program_id]
        call = program.calls[event.call_id]
        match event:
            case CallDispatched():
                call.replica, call.dispatched_s = event.replica, now
            case FirstToken():
                call.first_token_s = now
                program.waited(now - call.arrived_s)
            case CallFailed():
                del program.calls[event.call_id]
            case CallFinished():
                del program.calls[event.call_id]
                self._finished(call, event, now)

    def _finished(self, call: _Call, event: CallFinished, now: float) -> None:
        program, cached = call.program, event.cached_tokens
        known = min(program.context_tokens, event.prompt_tokens)
        recomputed = None if cached is None else max(0, known - cached)
        dispatched_s = call.arrived_s if call.dispatched_s is None else call.dispatched_s
        first_s = now if call.first_token_s is None else call.first_token_s
        program.steps += 1
        program.prompt_tokens += event.prompt_tokens
        program.output_tokens += event.output_tokens
        program.cached_tokens = _sum(program.cached_tokens, cached)
        program.recomputed_tokens = _sum(program.recomputed_tokens, recomputed)
        program.context_tokens = event.prompt_tokens + event.output_tokens
        self._writer.calls.append(
            CallRow(
                program_id=event.program_id,
                call_id=event.call_id,
                position=call.position,
                replica=call.replica,
                arrived_s=call.arrived_s,
                dispatched_s=call.dispatched_s,
                scheduled_s=None,
                first_token_s=first_s,
                finished_s=now,
                ended_s=now,
                prompt_tokens=event.prompt_tokens,
                cached_tokens=cached,
                known_tokens=known,
                recomputed_tokens=recomputed,
                output_tokens=event.output_tokens,
                preemptions=None,
                hold_s=dispatched_s - call.arrived_s,
                queue_s=None,
                prefill_s=first_s - dispatched_s,
                decode_s=now - first_s,
                sandbox_s=0.0,
                tool_s=0.0,
                retries=0,
                late_s=None,
            )
        )

    def _tool(self, event: ToolStarted | ToolFinished, now: float) -> None:
        program = self._programs.get(event.program_id)
        if program is None:
            return
        key = event.call_id, event.tool
        if isinstance(event, ToolStarted):
            program.tools[key] = now
            return
        began = program.tools.pop(key, now - event.duration_s)
        self._writer.tools.append(
            ToolRow(event.program_id, *key, began, began, now, event.observation_tokens)
        )

    def _write(self, program: _Program, finished_s: float | None, ended_at: str) -> None:
        self._writer.programs.append(
            ProgramRow(
                program_id=program.program_id,
                position=program.position,
                task_id=None,
                group_id=None,
                arrived_s=program.arrived_s,
                first_call_s=program.first_call_s,
                finished_s=finished_s,
                calls_planned=program.calls_seen,
                steps_done=program.steps,
                prompt_tokens=program.prompt_tokens,
                cached_tokens=program.cached_tokens,
                output_tokens=program.output_tokens,
                recomputed_tokens=program.recomputed_tokens,
                pauses=program.pauses,
                worst_wait_s=program.worst_wait_s,
                ended_at=ended_at,
            )
        )


def _sum(total: int | None, more: int | None) -> int | None:
    """Null when either is."""
    return None if total is None or more is None else total + more

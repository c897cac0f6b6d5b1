"""A program while it runs: which calls are open, what its context is, what its rows will say."""

from __future__ import annotations

from enum import Enum

from harness.rows import CallRow, ProgramRow
from harness.virtual.engine import EngineRequest, Piece
from workloads.model import Call, Program


class Preparation(Enum):
    """Of a program's sandbox."""

    NONE = "not asked for, or reclaimed"
    UNDER_WAY = "asked for"
    DONE = "ready"


class LiveCall:
    """One step in progress: a call and the tool runs after it. Times in seconds; -1: not yet, or not told.

    What a real server does not tell stays at -1: of the request `scheduled_s`, `cached_tokens` and
    `preemptions`, and `dispatched_s` and an empty `replica` where the gateway does not say.
    """

    __slots__ = (
        "arrived_s",
        "call",
        "decoded_told",
        "dispatched_s",
        "late_s",
        "position",
        "program",
        "replica",
        "request",
        "retries",
        "tools_left",
        "tools_started_s",
    )

    def __init__(self, program: LiveProgram, position: int, request: EngineRequest, now: float) -> None:
        self.program = program
        self.position = position
        self.call: Call = program.program.calls[position]
        self.request = request
        self.arrived_s = now
        self.dispatched_s = -1.0
        self.decoded_told = 0  # output tokens that the policy was told of
        self.replica = ""
        self.tools_left = len(self.call.tools)
        self.tools_started_s = -1.0
        self.retries = 0
        self.late_s = 0.0  # how much later than it was due the client sent it

    def waited_s(self, now: float) -> float:
        """From arrival to first scheduling, or first token, or to `now` while it still waits."""
        r = self.request
        began = r.scheduled_s if r.scheduled_s >= 0.0 else r.first_token_s
        return (began if began >= 0.0 else now) - self.arrived_s

    def cached(self) -> int | None:
        """Prompt tokens found in the cache; null when nobody said."""
        return self.request.cached_tokens if self.request.cached_tokens >= 0 else None

    def recomputed(self) -> int | None:
        """Tokens computed again: known before but no longer cached, or lost to preemptions."""
        r, cached = self.request, self.cached()
        return None if cached is None else max(0, r.known_tokens - cached) + r.preempted_tokens

    def row(self, now: float) -> CallRow:
        """The step's row; those of its six parts that are known add up to `now - arrived_s`."""
        r = self.request
        dispatched_s, hold_s, since_s = None, None, self.arrived_s
        if self.dispatched_s >= 0.0:
            dispatched_s = self.dispatched_s
            hold_s, since_s = dispatched_s - since_s, dispatched_s
        scheduled_s, queue_s = None, None
        if r.scheduled_s >= 0.0:
            scheduled_s = r.scheduled_s
            queue_s, since_s = scheduled_s - since_s, scheduled_s
        tools_from = self.tools_started_s if self.tools_started_s >= 0.0 else r.finished_s
        return CallRow(
            self.program.id,
            self.call.call_id,
            self.position,
            self.replica or None,
            self.arrived_s,
            dispatched_s,
            scheduled_s,
            r.first_token_s,
            r.finished_s,
            now,
            r.prompt_tokens,
            self.cached(),
            r.known_tokens,
            self.recomputed(),
            r.output.tokens,
            r.preemptions if r.preemptions >= 0 else None,
            hold_s,
            queue_s,
            r.first_token_s - since_s,
            r.finished_s - r.first_token_s,
            tools_from - r.finished_s,
            now - tools_from,
            self.retries,
            self.late_s,
        )


class LiveProgram:
    """A program that has arrived and not ended."""

    def __init__(self, program: Program, position: int, now: float) -> None:
        self.program = program
        self.id = program.program_id
        self.position = position
        self.arrived_s = now
        self.first_call_s: float | None = None
        self.preparation = Preparation.NONE
        self.waiting_for_sandbox: list[LiveCall] = []
        self.open: dict[int, LiveCall] = {}  # by position of the call
        self.failed: str | None = None
        self.pauses = self.steps = 0
        self._requests: dict[str, EngineRequest] = {}  # finished or running calls others may extend
        self.last: EngineRequest | None = None  # the call that ended last, and where it ran
        self.last_replica = ""
        self._positions = {call.call_id: i for i, call in enumerate(program.calls)}
        self._missing = [len(set(call.after)) for call in program.calls]
        self._followers: list[list[int]] = [[] for _ in program.calls]
        self._extenders = [0] * len(program.calls)
        for i, call in enumerate(program.calls):
            for before in set(call.after):
                self._followers[self._positions[before]].append(i)
            if call.parent is not None:
                self._extenders[self._positions[call.parent]] += 1
        self._prompt_tokens = self._output_tokens = 0  # of finished calls
        self._cached_tokens: int | None = 0  # null: not told of all
        self._recomputed_tokens: int | None = 0
        self._worst_wait_s = 0.0

    def roots(self) -> list[int]:
        """Positions of the calls that wait for nothing."""
        return [i for i, missing in enumerate(self._missing) if not missing]

    def start(self, position: int, now: float) -> LiveCall:
        """Build the request of a call whose predecessors have ended."""
        call = self.program.calls[position]
        new = tuple(Piece(segment.key, segment.tokens) for segment in call.new)
        output = Piece(call.output.key, call.output.tokens)
        parent = self._parent(call)
        if parent is None:
            request = EngineRequest(call.call_id, new, output, known_tokens=self._seen_before(new))
            request.prompt_tokens = sum(piece.tokens for piece in new)
        else:
            request = EngineRequest(
                call.call_id,
                (*parent.prompt, parent.output, *new),
                output,
                known_tokens=parent.prompt_tokens + parent.output.tokens - 1,
                extends=parent,
            )
            request.prompt_tokens = (
                parent.prompt_tokens + parent.output.tokens + sum(piece.tokens for piece in new)
            )
        if self._extenders[position]:
            self._requests[call.call_id] = request
        live = self.open[position] = LiveCall(self, position, request, now)
        if self.first_call_s is None:
            self.first_call_s = now
        return live

    def answered(self, live: LiveCall) -> None:
        """The last token of a call came."""
        self.last, self.last_replica = live.request, live.replica

    def end(self, live: LiveCall, now: float) -> list[int]:
        """A step ended; returns the positions of the calls that may start because of it."""
        del self.open[live.position]
        self.steps += 1
        r = live.request
        self._prompt_tokens += r.prompt_tokens
        self._output_tokens += r.output.tokens
        self._cached_tokens = _sum(self._cached_tokens, live.cached())
        self._recomputed_tokens = _sum(self._recomputed_tokens, live.recomputed())
        self._worst_wait_s = max(self._worst_wait_s, live.waited_s(now))
        if self.failed is not None:
            return []
        ready = []
        for follower in self._followers[live.position]:
            self._missing[follower] -= 1
            if not self._missing[follower]:
                ready.append(follower)
        return ready

    def fail(self, live: LiveCall, reason: str, now: float) -> None:
        """A call ended without a result; no further calls will start."""
        del self.open[live.position]
        self._worst_wait_s = max(self._worst_wait_s, live.waited_s(now))
        self.failed = reason

    def row(self, now: float, *, ended: bool) -> ProgramRow:
        """The program's row, when it ended or when the run did."""
        program = self.program
        waits = [live.waited_s(now) for live in self.open.values()]
        ended_at = "unfinished"
        if ended:
            ended_at = "finished" if self.failed is None else f"failed: {self.failed}"
        return ProgramRow(
            self.id,
            self.position,
            program.task_id,
            program.group,
            self.arrived_s,
            self.first_call_s,
            now if ended else None,
            len(program.calls),
            self.steps,
            self._prompt_tokens,
            self._cached_tokens,
            self._output_tokens,
            self._recomputed_tokens,
            self.pauses,
            max([self._worst_wait_s, *waits]),
            ended_at,
        )

    def _parent(self, call: Call) -> EngineRequest | None:
        if call.parent is None:
            return None
        parent = self._requests[call.parent]
        position = self._positions[call.parent]
        self._extenders[position] -= 1
        if not self._extenders[position]:
            del self._requests[call.parent]
        return parent

    def _seen_before(self, prompt: tuple[Piece, ...]) -> int:
        """Leading tokens of a rebuilt prompt that the call which ended last had computed."""
        if self.last is None:
            return 0
        seen = 0
        before = (*self.last.prompt, self.last.output)
        for mine, theirs in zip(prompt, before, strict=False):
            if mine.key != theirs.key:
                break
            seen += min(mine.tokens, theirs.tokens)
            if mine.tokens != theirs.tokens:
                break
        return min(seen, self.last.prompt_tokens + self.last.output.tokens - 1)


def _sum(known: int | None, more: int | None) -> int | None:
    """Null as soon as one part is."""
    return None if known is None or more is None else known + more

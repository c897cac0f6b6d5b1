"""The live driver: the policy on the wall clock, in front of real servers.

It only translates, as `harness.virtual.driver` does: what happens becomes an event for the policy, and
what the policy answers is carried out, in order. Facts are told one at a time; what follows from carrying
out an answer queues up behind it.

It knows no HTTP. Programs arrive with their first call, or before it when somebody tells so; they end
when they are released and no call of theirs is open. Every call ends once (`calls.OpenCall`). When the
policy raises, nothing can be decided any more: all calls fail, `fault` says why, and `on_fault` is called.

Not `async` anywhere: whoever waits for a placement awaits `OpenCall.placed`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from itertools import count
from typing import assert_never

from harness.errors import SetupError, ThunderbenchError
from harness.live.calls import OpenCall
from harness.live.clock import LoopClock
from harness.live.engine_orders import order
from harness.live.ports import Hooks, Placement, ReplicaMetrics, Sandboxes, Usage
from harness.virtual import complaints
from schedulers.contract import (
    Action,
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Decoded,
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
    PromptSeen,
    ReclaimSandbox,
    ReplicaDown,
    ReplicaSampled,
    Replicate,
    ReplicaUp,
    Resume,
    Retain,
    SandboxReady,
    StartTool,
    Tick,
    ToolCallParsed,
    ToolFinished,
    ToolProgressed,
    ToolStarted,
    Unpin,
    WakeAt,
)

Decide = Callable[[float, Event, list[Action]], None]
Told = ToolStarted | ToolProgressed | ToolFinished | SandboxReady  # facts that agents report themselves

EVENTS = frozenset({Decoded, PromptSeen, ReplicaSampled, ToolCallParsed, ToolProgressed})  # optional ones


class LiveProgram:
    """A program that has arrived and is not over. Times in seconds of the run's clock."""

    __slots__ = ("arrived_s", "calls", "calls_seen", "last_replica", "pauses", "quiet_since_s", "releasing")

    def __init__(self, now: float) -> None:
        self.arrived_s = self.quiet_since_s = now
        self.calls: dict[str, OpenCall] = {}
        self.calls_seen = self.pauses = 0
        self.releasing = False  # once its open calls have ended
        self.last_replica = ""  # where its last call ended that ended well


class LiveDriver:
    """Policy, programs, calls and replicas of one gateway.

    `decide` takes every decision (see `harness.records.RunWriter.decide`). `policy` is fresh. `hooks` and
    `sandboxes` may be null for a policy that does not need them. (Over our budget of 250 lines: every fact
    and every order of the contract has its place here, and nowhere else.)
    """

    def __init__(
        self,
        policy: Policy,
        clock: LoopClock,
        *,
        decide: Decide | None = None,
        hooks: Hooks | None = None,
        sandboxes: Sandboxes | None = None,
        on_fault: Callable[[ThunderbenchError], None] | None = None,
    ) -> None:
        self.policy, self.clock = policy, clock
        self.programs: dict[str, LiveProgram] = {}
        self.calls: dict[str, OpenCall] = {}  # open ones
        self.replicas: dict[str, ReplicaUp] = {}  # those that are up
        self.ends = {"finished": 0, "failed": 0, "cancelled": 0}
        self.fault: ThunderbenchError | None = None
        self.on_program_over: Callable[[str], None] | None = None
        self._decide, self._hooks, self._sandboxes, self._on_fault = decide, hooks, sandboxes, on_fault
        self._observes = policy.observes
        self._events: deque[Event] = deque()
        self._wakes: set[float] = set()  # times of ticks still to come
        self._numbers = count()

    @property
    def now(self) -> float:
        """Seconds of the run's clock."""
        return self.clock.now

    @property
    def held(self) -> int:
        """Calls that no replica has yet."""
        return sum(call.placement is None for call in self.calls.values())

    # ---------------------------------------------------------------- programs

    def arrive(self, program_id: str, *, needs_sandbox: bool = False) -> None:
        """A program exists; without effect when it is here already."""
        program = self.programs.get(program_id)
        if program is None:
            self.programs[program_id] = LiveProgram(self.now)
            self._tell(ProgramArrived(program_id, needs_sandbox))

    def release(self, program_id: str) -> bool:
        """A program is over, as soon as none of its calls is open; false when it is not here."""
        program = self.programs.get(program_id)
        if program is None:
            return False
        program.releasing = True
        self._end_if_released(program_id, program)
        return True

    def release_quiet(self, for_s: float) -> list[str]:
        """Release the programs without an open call for so many seconds; their names."""
        limit = self.now - for_s
        quiet = [name for name, p in self.programs.items() if not p.calls and p.quiet_since_s < limit]
        for name in quiet:
            self.release(name)
        return quiet

    def told(self, event: Told) -> None:
        """A fact that an agent reports; without effect when its program is not here."""
        program = self.programs.get(event.program_id)
        if program is not None:
            program.quiet_since_s = self.now
            if not isinstance(event, ToolProgressed) or ToolProgressed in self._observes:
                self._tell(event)

    # ---------------------------------------------------------------- calls

    def open(self, program_id: str, prompt_tokens: int, *, content: str | None = None) -> OpenCall:
        """A call arrived. `prompt_tokens` as well as they are known.

        `content` are the segments of the whole prompt, as `PromptSeen` has them, for policies that
        observe it. Raises `ThunderbenchError` once the policy has failed.
        """
        if self.fault is not None:
            raise self.fault
        self.arrive(program_id)
        program = self.programs[program_id]
        call = OpenCall(self, program_id, f"{program_id}/{next(self._numbers)}", prompt_tokens)
        program.releasing = False
        program.calls[call.call_id] = self.calls[call.call_id] = call
        program.calls_seen += 1
        if content is not None and PromptSeen in self._observes:
            self._tell(PromptSeen(program_id, call.call_id, None, content, f"{call.call_id} output"))
        self._tell(CallArrived(program_id, call.call_id, prompt_tokens))
        return call

    def call_showed_token(self, call: OpenCall) -> None:
        """For `OpenCall` only."""
        call.first_token_s = self.now
        self._tell(FirstToken(call.program_id, call.call_id))

    def call_ended(self, call: OpenCall, usage: Usage | None, reason: str) -> None:
        """For `OpenCall` only."""
        assert call.end is not None, "a call without an end"
        now = call.ended_s = self.now
        del self.calls[call.call_id]
        program = self.programs[call.program_id]
        del program.calls[call.call_id]
        program.quiet_since_s = now
        self.ends[call.end] += 1
        call.wake()
        names = call.program_id, call.call_id
        if usage is None:
            self._tell(CallFailed(*names, reason))
        else:
            assert call.placement is not None, "a call that ended well was placed"
            program.last_replica = call.placement.replica
            for tool in call.tools if ToolCallParsed in self._observes else ():
                self._tell(ToolCallParsed(*names, tool))
            self._tell(CallFinished(*names, usage.prompt_tokens, usage.output_tokens, usage.cached_tokens))
        self._end_if_released(call.program_id, program)

    def _end_if_released(self, program_id: str, program: LiveProgram) -> None:
        if program.releasing and not program.calls and self.programs.get(program_id) is program:
            del self.programs[program_id]
            self._tell(ProgramFinished(program_id))
            if self.on_program_over is not None:
                self.on_program_over(program_id)

    # ---------------------------------------------------------------- replicas

    def replica_up(self, replica: str, kv_tokens: int, block_size: int) -> None:
        """A replica serves; without effect when it is up already."""
        if replica not in self.replicas:
            self.replicas[replica] = ReplicaUp(replica, kv_tokens, block_size)
            self._tell(self.replicas[replica])

    def replica_down(self, replica: str, reason: str) -> None:
        """A replica is gone, and its calls fail; without effect when it is not up."""
        if replica not in self.replicas:
            return
        del self.replicas[replica]
        self._tell(ReplicaDown(replica))
        lost = [
            c for c in self.calls.values() if c.placement is not None and c.placement.replica == replica
        ]
        for call in lost:
            call.lose(f"replica {replica} is gone: {reason}")

    def sampled(self, replica: str, metrics: ReplicaMetrics) -> None:
        """What a replica that is up says of its load, for policies that observe it."""
        used = metrics.kv_used_tokens
        if ReplicaSampled not in self._observes or replica not in self.replicas or used is None:
            return
        if metrics.running is not None and metrics.waiting is not None:
            self._tell(ReplicaSampled(replica, metrics.running, metrics.waiting, used))

    # ---------------------------------------------------------------- the policy

    def _tell(self, event: Event) -> None:
        """Hand a fact to the policy and carry out its answer; facts that follow queue up behind."""
        if self.fault is not None:
            return
        events = self._events
        events.append(event)
        if len(events) > 1:
            return
        try:
            while events:
                self._handle(events[0])
                events.popleft()
        except ThunderbenchError as error:
            self._fail(error)
        except BaseException as error:  # a bug of ours: shown by whoever told the fact, and nothing goes on
            self._fail(ThunderbenchError(f"a bug of ours: {type(error).__name__}: {error}"))
            raise

    def _handle(self, event: Event) -> None:
        now = self.now
        if isinstance(event, Tick):  # by the time that the policy is told: it goes on while we work
            self._wakes = {time for time in self._wakes if time > now}
        try:
            actions = self.policy.handle(event, now)
        except Exception as error:
            raise complaints.raised(self.policy.name, error, event, now) from error
        if not isinstance(actions, list):
            raise complaints.gave(self.policy.name, actions, event, now)
        if self._decide is not None:
            self._decide(now, event, actions)
        for action in actions:
            self._carry_out(action)

    def _fail(self, error: ThunderbenchError) -> None:
        """The policy failed, or ordered what cannot be done: nobody decides any more."""
        self.fault = error
        self._events.clear()
        for call in list(self.calls.values()):
            call.lose("the scheduler failed")
        if self._on_fault is not None:
            self._on_fault(error)

    def _carry_out(self, action: Action) -> None:  # noqa: C901, PLR0912 - one line per action
        match action:
            case Dispatch():
                self._dispatch(action)
            case Hold() | Resume():
                pass  # the policy's own book-keeping: a call stays here until it is dispatched
            case Pause():
                if action.program_id in self.programs:
                    self.programs[action.program_id].pauses += 1
            case WakeAt():
                if action.time not in self._wakes:
                    self._wakes.add(action.time)
                    self.clock.at(action.time, self._tick, action.time)
            case PrepareSandbox():
                if self._sandboxes is not None:
                    self._sandboxes.prepare(action.program_id)
            case ReclaimSandbox():
                if self._sandboxes is not None:
                    self._sandboxes.reclaim(action.program_id)
            case Pin() | Unpin() | Evict() | Retain():
                if self._hooks is None:
                    raise complaints.not_offered(self.policy.name, action)
                program = self.programs.get(action.program_id)
                last = None if program is None else program.last_replica
                order(self._hooks, action, last, self.replicas, self.now)
            case Offload() | Prefetch() | Replicate() | PartialPrefill() | StartTool():
                raise complaints.not_offered(self.policy.name, action)
            case _:
                assert_never(action)

    def _dispatch(self, action: Dispatch) -> None:
        call = self.calls.get(action.call_id)
        if call is None or call.placement is not None or action.replica not in self.replicas:
            raise complaints.cannot_dispatch(self.policy.name, action, self.replicas)
        call.place(Placement(action.replica, action.priority), self.now)
        self._tell(CallDispatched(call.program_id, call.call_id, action.replica))

    def _tick(self, asked_s: float) -> None:
        """One tick for all times that have come: timers are late here, so there can be several."""
        if asked_s not in self._wakes:
            return
        if Decoded in self._observes:
            self._tell_decoded()
        self._tell(Tick())

    def _tell_decoded(self) -> None:
        """How far each call in flight got since the last time."""
        for call in list(self.calls.values()):
            tokens = call.decoded_tokens - call.decoded_told
            if tokens and call.placement is not None:
                call.decoded_told = call.decoded_tokens
                self._tell(Decoded(call.program_id, call.call_id, tokens))

    def check_invariants(self) -> None:
        """Recompute what is known twice; raises AssertionError on a difference."""
        ours = {call.call_id for program in self.programs.values() for call in program.calls.values()}
        assert ours == set(self.calls), f"open calls {set(self.calls)}, of programs {ours}"
        assert all(call.end is None for call in self.calls.values()), "an ended call is open"
        if self.fault is None:
            self.policy.check_invariants()


def refuse_unmet_needs(policy: Policy, offered: frozenset[object], how: str) -> None:
    """Raise `SetupError` when a policy needs or observes what is not offered; `how` says the mend."""
    unmet = sorted(str(need) for need in policy.needs - offered)
    if unmet:
        needs = " and ".join(f"`{need}`" for need in unmet)
        raise SetupError(f"scheduler {policy.name!r} needs {needs}", "servers that offer it", how)
    refuse_untold_events(policy.name, policy.observes)


def refuse_untold_events(name: str, observed: AbstractSet[type]) -> None:
    """Raise `SetupError` when scheduler `name` observes optional events that no live server tells."""
    unseen = sorted(event.__name__ for event in observed - EVENTS)
    if unseen:
        told = ", ".join(sorted(event.__name__ for event in EVENTS))
        raise SetupError(
            f"scheduler {name!r} observes {' and '.join(unseen)}, which no live server tells",
            f"of the optional events {told} only",
            "Such as with another router" if "KvChanged" in unseen else "",
        )

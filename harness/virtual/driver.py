"""The virtual driver: agents, a policy and simulated engines on one virtual clock.

It only translates: what happens becomes an event for the policy, and what the policy answers is carried
out, in order. Decisions are the policy's and the engines'.

Order within one instant: engines complete their steps first; then everything that happens at that
instant, in order of cause, until nothing is left (a tool of no duration brings the next call at once);
then engines begin their next steps and see all of it. Facts are ordered by (time, sequence number).
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import NamedTuple, assert_never

from harness.errors import SetupError
from harness.virtual import complaints
from harness.virtual.agents import Agents, OpenLoop, Recorder
from harness.virtual.clock import Clock
from harness.virtual.engine import Engine
from harness.virtual.programs import LiveCall
from harness.virtual.sampling import sample
from harness.virtual.sandbox import SandboxPool
from schedulers.contract import (
    Action,
    CallDispatched,
    Decoded,
    Dispatch,
    Event,
    Evict,
    FirstToken,
    Hold,
    KvChanged,
    Offload,
    PartialPrefill,
    Pause,
    Pin,
    Policy,
    Prefetch,
    PrepareSandbox,
    PromptSeen,
    ReclaimSandbox,
    Replicate,
    ReplicaUp,
    Resume,
    Retain,
    StartTool,
    Tick,
    ToolCallParsed,
    Unpin,
    WakeAt,
)
from workloads.arrivals import ClosedLoop
from workloads.model import Program

PROGRESS_WALL_S = 0.2
WATCH_INSTANTS = 512  # looking at the wall clock costs as much as a small event
STALLED_S = 6 * 3600.0  # of virtual time in which no step ends and only the policy could change that


class Progress(NamedTuple):
    """How far a run is; `hit_rate` is null before the first prompt."""

    now_s: float
    end_s: float | None
    programs_done: int
    steps_done: int
    steps_per_min: float
    hit_rate: float | None


class VirtualRun:
    """One run. `kv_tokens` and `block_size` are what each replica announces to the policy.

    Measured is the window from `warmup_s` on for `duration_s` seconds; null runs until every program
    has ended. `start_spread_s`: see `Agents`. `policy`, `engines` (by replica name) and `sandboxes` must
    be fresh.
    """

    client = servers = None  # what is known of real ones: here there are none

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
        clients_release: bool = True,
        recorder: Recorder,
        warmup_s: float,
        duration_s: float | None,
        sample_every_s: float = 5.0,
        start_spread_s: float = 0.0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.clock = Clock()
        self.end_s = inf if duration_s is None else warmup_s + duration_s
        self._policy, self._engines = policy, engines
        self._replica_up = [ReplicaUp(replica, kv_tokens, block_size) for replica in engines]
        self._sandboxes, self._recorder = sandboxes, recorder
        self._warmup_s, self._sample_every_s = warmup_s, sample_every_s
        self._on_progress, self._reported = on_progress, time.monotonic()
        self._stepped = (0, 0.0)  # steps ended when last looked, and when that number last changed
        self._events: deque[Event] = deque()
        self._to_begin: dict[str, Engine] = {}
        self._wakes: set[float] = set()  # times of ticks still to come
        self._observes = policy.observes
        self._told_cached: dict[tuple[str, str], int] = {}  # by replica and program
        self._agents = Agents(
            self.clock,
            self._tell,
            programs=programs,
            size=size,
            arrivals=arrivals,
            sandboxes=sandboxes,
            own_sandboxes=not policy.manages_sandboxes,
            releases=clients_release,
            before_arrival=self._describe if self._observes & {PromptSeen, KvChanged} else None,
            parses_tools=ToolCallParsed in self._observes,
            recorder=recorder,
            start_spread_s=start_spread_s,
        )

    def run(self) -> None:
        """Play the run to its end; rows go to the recorder as they are known.

        Raises `EngineFailed` when the policy leaves calls undispatched for hours, `PolicyFailed` when it
        raises.
        """
        clock, engines = self.clock, list(self._engines.items())
        for event in self._replica_up:
            self._tell(event)
        self._agents.start()
        clock.at(0.0, self._sample_regularly)
        if self._warmup_s:
            clock.at(self._warmup_s, self._sample)
        instants = 0
        while True:
            now = clock.next
            for _, engine in engines:
                now = min(now, engine.next_boundary)
            if now > self.end_s or (self.end_s == inf and self._agents.over):
                break
            self._instant(now, engines)
            instants += 1
            if not instants % WATCH_INSTANTS:
                self._watch()
        if self.end_s == inf:
            self.end_s = clock.now
        clock.now = self.end_s
        self._sample()
        self._agents.close(self.end_s)

    def progress(self) -> Progress:
        """Where the run stands."""
        now, agents = self.clock.now, self._agents
        counters = [engine.counters for engine in self._engines.values()]
        queries = sum(c.queries for c in counters)
        return Progress(
            now,
            None if self.end_s == inf else self.end_s,
            agents.programs_done,
            agents.steps_done,
            agents.steps_done / now * 60 if now else 0.0,
            sum(c.hits for c in counters) / queries if queries else None,
        )

    def _watch(self) -> None:
        """Report progress now and then; end a run in which nothing can happen any more."""
        now = self.clock.now
        if self._agents.steps_done > self._stepped[0]:
            self._stepped = (self._agents.steps_done, now)
        elif now - self._stepped[1] > STALLED_S and self._agents.only_held:
            raise complaints.stalled(self._policy.name, now - self._stepped[1], self._agents.held)
        wall = time.monotonic()
        if self._on_progress is not None and wall - self._reported > PROGRESS_WALL_S:
            self._reported = wall
            self._on_progress(self.progress())

    # ---------------------------------------------------------------- one instant

    def _instant(self, now: float, engines: list[tuple[str, Engine]]) -> None:
        self.clock.now = now
        agents = self._agents
        for replica, engine in engines:
            if engine.next_boundary == now:
                out = engine.complete(now)
                self._to_begin[replica] = engine
                for request in out.first_tokens:
                    call_id = request.call_id
                    self._tell(FirstToken(agents.calls[call_id].program.id, call_id))
                for request in out.finished:
                    agents.call_finished(request.call_id)
        self.clock.run_due()
        if self._to_begin:
            for engine in self._to_begin.values():
                engine.begin(now)
            self._to_begin.clear()

    def _tell(self, event: Event) -> None:
        """Hand a fact to the policy and carry out its answer; facts that follow queue up behind."""
        events = self._events
        events.append(event)
        if len(events) > 1:
            return
        while events:
            event = events[0]
            try:
                actions = self._policy.handle(event, self.clock.now)
            except Exception as error:
                raise complaints.raised(self._policy.name, error, event, self.clock.now) from error
            if not isinstance(actions, list):
                raise complaints.gave(self._policy.name, actions, event, self.clock.now)
            self._recorder.decide(self.clock.now, event, actions)
            for action in actions:
                self._carry_out(action)
            events.popleft()

    def _carry_out(self, action: Action) -> None:  # noqa: C901, PLR0912 - one line per action
        match action:
            case Dispatch():
                self._dispatch(action)
            case Hold() | Resume():
                pass  # the policy's own book-keeping: a call stays here until it is dispatched
            case Pause():
                if action.program_id in self._agents.live:
                    self._agents.live[action.program_id].pauses += 1
            case WakeAt():
                if action.time not in self._wakes:
                    self._wakes.add(action.time)
                    self.clock.at(max(action.time, self.clock.now), self._tick, action.time)
            case PrepareSandbox():
                if action.program_id in self._agents.live:
                    self._agents.prepare(action.program_id)
            case ReclaimSandbox():
                self._agents.reclaim(action.program_id)
            case Pin():
                self._pin(action)
            case Unpin():
                for engine in self._engines.values():
                    engine.unpin(action.program_id, self.clock.now)
            case Evict() | Retain() | Offload() | Prefetch() | Replicate() | PartialPrefill() | StartTool():
                raise complaints.not_offered(self._policy.name, action)
            case _:
                assert_never(action)

    def _tick(self, asked_s: float) -> None:
        self._wakes.discard(asked_s)
        if Decoded in self._observes:
            self._tell_decoded()
        self._tell(Tick())

    def _tell_decoded(self) -> None:
        """How far each call in flight got since the last time."""
        for call_id, live in list(self._agents.calls.items()):
            if live.replica:
                tokens = self._engines[live.replica].decoded(live.request, self.clock.now)
                if tokens > live.decoded_told:
                    self._tell(Decoded(live.program.id, call_id, tokens - live.decoded_told))
                    live.decoded_told = tokens

    def _describe(self, live: LiveCall) -> None:
        """What a policy may want to know of a prompt that is about to arrive."""
        program_id = live.program.id
        if PromptSeen in self._observes:
            call = live.call
            content = "\n".join(f"{segment.tokens} {segment.key}" for segment in call.new)
            self._tell(PromptSeen(program_id, call.call_id, call.parent, content, call.output.key))
        if KvChanged in self._observes:
            for replica, engine in self._engines.items():
                found = engine.cached(live.request, self.clock.now)
                change = found - self._told_cached.get((replica, program_id), 0)
                if change:
                    self._told_cached[replica, program_id] = found
                    self._tell(KvChanged(replica, program_id, change))

    def _pin(self, action: Pin) -> None:
        """Keep the context of the call that ended last; a program without one has nothing to keep."""
        program = self._agents.live.get(action.program_id)
        request = None if program is None else program.last
        if program is not None and request is not None:
            engine = self._engines[program.last_replica]
            engine.pin(program.id, request, action.until, self.clock.now, yields=action.yields)

    def _dispatch(self, action: Dispatch) -> None:
        live, engine = self._agents.calls.get(action.call_id), self._engines.get(action.replica)
        if live is None or engine is None or live.replica:
            raise complaints.cannot_dispatch(self._policy.name, action, self._engines)
        now = self.clock.now
        self._agents.held -= 1
        live.dispatched_s, live.replica = now, action.replica
        live.request.priority = action.priority
        idle = engine.next_boundary == inf
        try:
            engine.submit(live.request, now)
        except SetupError as error:  # an outcome of this program on this server: the run goes on
            self._agents.call_failed(live, str(error))
            return
        if idle:
            self._to_begin[action.replica] = engine
        self._tell(CallDispatched(live.program.id, action.call_id, action.replica))

    # ---------------------------------------------------------------- samples

    def _sample_regularly(self) -> None:
        self._sample()
        self.clock.at(self.clock.now + self._sample_every_s, self._sample_regularly)

    def _sample(self) -> None:
        for row in sample(self.clock.now, self._engines, self._agents, self._sandboxes):
            self._recorder.samples.append(row)

"""A run on the wall clock: replay agents against a gateway, ours or somebody else's.

An ordinary function outside, an event loop inside. Time begins when everything stands: servers known, their
totals read, the gateway listening. At the end of the window, or when every program has ended, what is open
is cut, and the rows say how far it was. Whatever goes wrong, no task is left behind.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from math import inf
from random import Random
from typing import Any, NamedTuple

from harness.live.driver import LiveDriver
from harness.live.ports import Upstream
from harness.live.replay.agents import ReplayAgents
from harness.live.replay.client import SESSION_HEADERS, HttpCaller
from harness.live.replay.clock import AgentClock, HeldClock
from harness.live.replay.commands import ToolCommands
from harness.live.replay.health import Health
from harness.live.replay.prompts import Dialect
from harness.live.replay.sandboxes import AgentSandboxes
from harness.live.sampler import Probe, Sampler
from harness.open_files import allow_many_connections
from harness.virtual.agents import Agents, OpenLoop, Recorder
from harness.virtual.driver import Progress
from harness.virtual.sandbox import SandboxPool
from workloads.arrivals import ClosedLoop
from workloads.model import Program

PROGRESS_S = 0.2


class Scene(NamedTuple):
    """What agents play in front of.

    Calls go to the server `target` of `upstream`. `driver` is that of a gateway of ours, null of others.
    `probe` tells what the `replicas` say of themselves, `facts` what else is known of them in the end.
    """

    upstream: Upstream
    target: str
    model: str
    dialect: Dialect
    driver: LiveDriver | None
    probe: Probe
    replicas: tuple[str, ...]
    facts: Callable[[], dict[str, Any]] = dict


class Stage(NamedTuple):
    """What a scene is built on. The policy's orders about sandboxes go to `sandboxes`, errors to `fail`."""

    clock: HeldClock
    sandboxes: AgentSandboxes
    fail: Callable[[Exception], None]


OpenScene = Callable[[Stage], AbstractAsyncContextManager[Scene]]


class LiveRun:
    """One run.

    Measured is the window from `warmup_s` on for `duration_s` seconds (null: until every program has
    ended); both count from the time at which the agents begin. `sandboxes` must be fresh.
    """

    def __init__(
        self,
        open_scene: OpenScene,
        *,
        programs: Callable[[int], Program],
        size: int | None,
        arrivals: ClosedLoop | OpenLoop,
        sandboxes: SandboxPool,
        own_sandboxes: bool,
        recorder: Recorder,
        warmup_s: float,
        duration_s: float | None,
        sample_every_s: float = 5.0,
        start_spread_s: float = 0.0,
        clients_release: bool = True,
        retries: int = 2,
        request_timeout_s: float = 3600.0,
        identity_headers: tuple[str, ...] = SESSION_HEADERS,
        tool_command: str | None = None,
        tool_timeout_s: float = 600.0,
        seed: int = 0,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self.end_s = inf if duration_s is None else warmup_s + duration_s
        self.client: dict[str, Any] = {}  # how the client fared; see `health.Health.summary`
        self.servers: dict[str, Any] = {}  # what is known of the servers (`Scene.facts`)
        self._open_scene, self._recorder, self._sandboxes = open_scene, recorder, sandboxes
        self._programs, self._size, self._arrivals = programs, size, arrivals
        self._own_sandboxes, self._releases = own_sandboxes, clients_release
        self._warmup_s, self._sample_every_s, self._start_spread_s = (
            warmup_s,
            sample_every_s,
            start_spread_s,
        )
        self._retries, self._timeout_s, self._seed = retries, request_timeout_s, seed
        self._identity_headers = identity_headers
        self._tool_command, self._tool_timeout_s = tool_command, tool_timeout_s
        self._on_progress = on_progress

    def run(self) -> None:
        """Play the run to its end; rows go to the recorder as they are known.

        SIGTERM ends it with `SystemExit`. Raises `SetupError`, `EngineFailed` and `PolicyFailed`.
        """
        allow_many_connections()
        with asyncio.Runner(loop_factory=_loop) as runner:
            runner.run(self._until_stopped())

    async def _until_stopped(self) -> None:
        loop = asyncio.get_running_loop()
        playing = loop.create_task(self.play(), name="run")
        loop.add_signal_handler(signal.SIGTERM, playing.cancel)
        try:
            await playing
        except asyncio.CancelledError:
            raise SystemExit(128 + signal.SIGTERM) from None
        finally:
            loop.remove_signal_handler(signal.SIGTERM)

    async def play(self) -> None:
        """`run` for a loop that runs already."""
        clock, over = HeldClock(), asyncio.get_running_loop().create_future()

        def fail(error: Exception) -> None:
            if not over.done():
                over.set_exception(error)

        seam = AgentSandboxes()
        try:
            async with self._open_scene(Stage(clock, seam, fail)) as scene:
                parts = self._build(scene, clock, over, fail)
                seam.agents = parts.agents
                await self._play(parts, clock, over)
                self.servers = scene.facts()
        finally:
            if over.done() and not over.cancelled():
                over.exception()  # whoever left early has an error of its own to tell

    def _build(
        self,
        scene: Scene,
        clock: HeldClock,
        over: asyncio.Future[None],
        fail: Callable[[Exception], None],
    ) -> _Parts:
        """Connect the agents to the scene; without an end, `over` is set once all programs have ended."""

        def look() -> None:
            if self.end_s == inf and agents.over and not over.done():
                over.set_result(None)

        health, time = Health(clock), AgentClock(clock, after=look, on_error=fail)
        caller = HttpCaller(
            scene.upstream,
            scene.target,
            clock,
            health,
            retries=self._retries,
            timeout_s=self._timeout_s,
            identity_headers=self._identity_headers,
            rng=Random(self._seed),
        )
        commands = None
        if self._tool_command is not None:
            commands = ToolCommands(self._tool_command, self._tool_timeout_s, time, fail)
        replay = ReplayAgents(
            time,
            caller,
            scene.dialect,
            health,
            model=scene.model,
            driver=scene.driver,
            releases=self._releases,
            on_error=fail,
            on_over=None if commands is None else commands.program_over,
        )
        agents = replay.agents = Agents(
            time,
            replay.tell,
            programs=self._programs,
            size=self._size,
            arrivals=self._arrivals,
            sandboxes=self._sandboxes,
            own_sandboxes=self._own_sandboxes,
            recorder=self._recorder,
            start_spread_s=self._start_spread_s,
            run_tool=None if commands is None else commands.run,
        )
        sampler = Sampler(
            scene.probe, scene.replicas, agents, self._sandboxes, scene.driver, self._recorder
        )
        return _Parts(time, health, replay, agents, sampler, commands)

    async def _play(self, parts: _Parts, clock: HeldClock, over: asyncio.Future[None]) -> None:
        """From the beginning of time to the last row."""
        time, health, replay, agents, sampler, commands = parts
        reporter = _Reporter(self._on_progress, time, self.end_s, agents, replay)
        await sampler.begin()
        clock.begin()
        health.begin()
        if self.end_s < inf:
            time.at(self.end_s, lambda: None if over.done() else over.set_result(None))
        agents.start()
        sampler.watch(time, self._sample_every_s, self._warmup_s)
        reporter.start()
        try:
            await over
            time.stop()
            self.end_s = time.now
            await replay.flush()
        finally:
            time.stop()
            reporter.stop()
            health.stop()
            await replay.stop()
            await sampler.stop()
            if commands is not None:
                await commands.stop()
        await replay.leave()
        self.client = health.summary() | {
            "tool_commands": None if commands is None else dict(commands.ends)
        }
        await sampler.sample(self.end_s)
        for program_id in agents.live:
            replay.count_pauses(program_id)
        agents.close(self.end_s)


class _Parts(NamedTuple):
    """What plays a run."""

    time: AgentClock
    health: Health
    replay: ReplayAgents
    agents: Agents
    sampler: Sampler
    commands: ToolCommands | None


class _Reporter:
    """Tells how far a run is, now and then."""

    def __init__(
        self,
        tell: Callable[[Progress], None] | None,
        clock: AgentClock,
        end_s: float,
        agents: Agents,
        replay: ReplayAgents,
    ) -> None:
        self._tell, self._clock, self._end_s = tell, clock, end_s
        self._agents, self._replay = agents, replay
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Tell in a while, and again."""
        if self._tell is not None:
            self._timer = asyncio.get_running_loop().call_later(PROGRESS_S, self._report)

    def stop(self) -> None:
        """Tell no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _report(self) -> None:
        assert self._tell is not None, "nobody listens"
        now, agents, replay = self._clock.now, self._agents, self._replay
        self._tell(
            Progress(
                now,
                None if self._end_s == inf else self._end_s,
                agents.programs_done,
                agents.steps_done,
                agents.steps_done / now * 60 if now else 0.0,
                replay.cached_tokens / replay.prompt_tokens if replay.prompt_tokens else None,
            )
        )
        self.start()


def _loop() -> asyncio.AbstractEventLoop:
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - whoever plays a run live pays for it

    return uvloop.new_event_loop()

"""Samples of a live run: what every replica says of itself at one instant, and what the agents hold.

Servers are asked at each instant, so a sample is as fresh as its answer. Totals count from the run's
beginning: what a server had counted before is taken off. For the sample of that beginning servers are
asked just before it: writing its metrics holds a server up, and so would delay the first calls.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from harness.live.driver import LiveDriver
from harness.live.ports import ReplicaMetrics, UpstreamFailed
from harness.live.replay.clock import AgentClock
from harness.live.server_samples import server_sample
from harness.rows import SampleRow
from harness.virtual.agents import Agents, Recorder
from harness.virtual.sandbox import SandboxPool

TIMEOUT_S = 5.0  # of a server that is asked


class Probe(Protocol):
    """Whoever asks servers; `monitor.HttpProbe` is one."""

    async def metrics(self, replica: str) -> ReplicaMetrics | None:
        """What it says of itself; null when it is a server that says nothing. Raises `UpstreamFailed`."""
        ...


class Sampler:
    """Writes samples. Call `begin` before time begins, `watch` then, `stop` and `sample` at the end."""

    def __init__(
        self,
        probe: Probe,
        replicas: tuple[str, ...],
        agents: Agents,
        sandboxes: SandboxPool,
        driver: LiveDriver | None,
        recorder: Recorder,
    ) -> None:
        self._probe, self._replicas, self._recorder = probe, replicas, recorder
        self._agents, self._sandboxes, self._driver = agents, sandboxes, driver
        self._before: dict[str, ReplicaMetrics] = {}
        self._first: dict[str, ReplicaMetrics | None] = {}
        self._instants: asyncio.Queue[float] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Note what the servers have counted so far."""
        self._first = await self._ask()
        self._before = {name: metrics for name, metrics in self._first.items() if metrics is not None}

    def watch(self, clock: AgentClock, every_s: float, extra_s: float) -> None:
        """Sample now, every so many seconds, and at `extra_s`; the agents have begun."""
        clock.at(0.0, self._append, 0.0, self._first)
        self._task = asyncio.get_running_loop().create_task(self._take(), name="sampling")
        if extra_s:
            clock.at(extra_s, self._instants.put_nowait, extra_s)

        def regularly() -> None:
            self._instants.put_nowait(clock.now)
            clock.at(clock.now + every_s, regularly)

        clock.at(every_s, regularly)

    async def stop(self) -> None:
        """Sample no more. Raises what stopped it, if that was a bug."""
        if self._task is not None:
            self._task.cancel()
            (end,) = await asyncio.gather(self._task, return_exceptions=True)
            if isinstance(end, Exception):
                raise end

    async def sample(self, now: float) -> None:
        """One row per replica, of the instant `now`."""
        self._append(now, await self._ask())

    def _append(self, now: float, told: dict[str, ReplicaMetrics | None]) -> None:
        for name, metrics in told.items():
            self._recorder.samples.append(self._row(now, name, metrics or ReplicaMetrics()))

    async def _take(self) -> None:
        while True:
            await self.sample(await self._instants.get())

    async def _ask(self) -> dict[str, ReplicaMetrics | None]:
        answers = await asyncio.gather(*(self._ask_one(name) for name in self._replicas))
        return dict(zip(self._replicas, answers, strict=True))

    async def _ask_one(self, replica: str) -> ReplicaMetrics | None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await self._probe.metrics(replica)
        except (UpstreamFailed, TimeoutError):
            return None

    def _row(self, now: float, replica: str, metrics: ReplicaMetrics) -> SampleRow:
        before = self._before.get(replica, ReplicaMetrics())
        row = server_sample(
            now,
            replica,
            metrics,
            held=None if self._driver is None else self._driver.held,
            programs_live=len(self._agents.live),
            sandboxes=self._sandboxes,
        )
        return row._replace(
            queries_total=_since(before.queries_total, metrics.queries_total),
            hits_total=_since(before.hits_total, metrics.hits_total),
            preemptions_total=_since(before.preemptions_total, metrics.preemptions_total),
        )


def _since(before: int | None, now: int | None) -> int | None:
    """What a total grew by; null where it is not known, or where the server began to count anew."""
    if before is None or now is None or now < before:
        return None
    return now - before

"""The whole gateway without its HTTP, before engines in memory, as a scene for live runs."""

from contextlib import asynccontextmanager

from harness.live.answers import Incoming
from harness.live.driver import LiveDriver
from harness.live.live_run import Scene
from harness.live.memory_engine import MemoryReplica, MemoryUpstream
from harness.live.relay import Relay
from harness.live.replay.prompts import TokenPrompts
from harness.live.routes import Control
from harness.virtual.content import ContentTree
from harness.virtual.engine import EngineOptions
from harness.virtual.fast import FastEngine
from harness.virtual.steptime import StepTime

STEPS = StepTime(1e-3, 5e-3, 1e-2, 8, 2, 1e-7, 1e-6, 4e-3)


class ToHeaders(dict):
    """Headers that are looked up in any case, as aiohttp's."""

    def get(self, name, default=None):
        return next((value for key, value in self.items() if key.lower() == name.lower()), default)


class RelayUpstream:
    """A gateway of ours without its HTTP."""

    def __init__(self, relay, control):
        self._relay, self._control = relay, control

    async def send(self, replica, request):
        assert replica == "server"
        if request.path == "/programs/release":
            return self._control.release(request.body)
        return await self._relay.call(
            Incoming(request.method, request.path, ToHeaders(request.headers), request.body)
        )


class MemoryProbe:
    """Asks replicas in memory."""

    def __init__(self, upstream):
        self._upstream = upstream

    async def metrics(self, replica):
        return self._upstream.replicas[replica].metrics()


def gateway(policy, *, replicas=2, kv_tokens=4096, decide=None, found=None):
    """A scene with a policy of ours before engines in memory. `found` gets the driver and upstream."""

    @asynccontextmanager
    async def opened(stage):
        driver = LiveDriver(
            policy, stage.clock, decide=decide, sandboxes=stage.sandboxes, on_fault=stage.fail
        )
        options, names = EngineOptions(kv_tokens, 16, 32, 2048), [f"r{i}" for i in range(replicas)]
        contents = ContentTree()
        upstream = MemoryUpstream(
            {n: MemoryReplica(stage.clock, lambda: FastEngine(options, STEPS, contents)) for n in names}
        )
        relay = Relay(driver, upstream)
        control = Control(
            driver, scheduler="x", replicas=tuple(names), metrics=bytes, draining=lambda: False
        )
        for name in names:
            driver.replica_up(name, kv_tokens, 16)
        if found is not None:
            found.update(driver=driver, upstream=upstream)
        yield Scene(
            RelayUpstream(relay, control),
            "server",
            "tiny",
            TokenPrompts(),
            driver,
            MemoryProbe(upstream),
            tuple(names),
        )

    return opened

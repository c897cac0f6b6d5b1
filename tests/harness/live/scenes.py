"""Live runs without sockets: what is played before a scripted server, on a virtual loop."""

import asyncio
from contextlib import asynccontextmanager

from harness.live.live_run import LiveRun, Scene
from harness.live.ports import ReplicaMetrics
from harness.live.replay.prompts import TokenPrompts
from harness.live.virtual_loop import VirtualLoop
from harness.virtual.sandbox import SandboxPool
from tests.harness.virtual.bag import Bag
from workloads.arrivals import ClosedLoop


class Silent:
    """Servers that say nothing of themselves."""

    async def metrics(self, _replica):
        return ReplicaMetrics()


def scripted(server, *, dialect=None, probe=None, replicas=()):
    """A scene before somebody else's server; returns what `LiveRun` wants to open."""

    @asynccontextmanager
    async def opened(_stage):
        yield Scene(server, "server", "tiny", dialect or TokenPrompts(), None, probe or Silent(), replicas)

    return opened


def run_of(open_scene, programs, bag, *, arrivals=None, pool=None, own_sandboxes=True, **more):
    """A live run of a list of programs."""
    programs = list(programs)
    options = {"warmup_s": 0.0, "duration_s": None, "sample_every_s": 5.0, **more}
    return LiveRun(
        open_scene,
        programs=programs.__getitem__,
        size=len(programs),
        arrivals=arrivals or ClosedLoop(len(programs)),
        sandboxes=pool or SandboxPool(),
        own_sandboxes=own_sandboxes,
        recorder=bag,
        **options,
    )


def play_live(open_scene, programs, *, bag=None, **more):
    """Play a list of programs on a virtual loop; returns the recorder and the run."""
    bag = bag or Bag()
    run = run_of(open_scene, programs, bag, **more)
    with VirtualLoop() as loop:
        try:
            loop.run_until_complete(run.play())
        finally:
            bag.left = {task.get_name() for task in asyncio.all_tasks(loop)}
    return bag, run

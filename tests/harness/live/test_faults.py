"""Nothing is lost or doubled, whatever servers and clients do: calls end once, and the books close."""

import asyncio
import gc
import json
import sys
from random import Random

import pytest

from harness.live.answers import Incoming
from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.memory_engine import MemoryAnswer, MemoryReplica, MemoryUpstream
from harness.live.relay import Relay
from harness.live.virtual_loop import VirtualLoop
from harness.virtual.content import ContentTree
from harness.virtual.engine import EngineOptions
from harness.virtual.fast import FastEngine
from schedulers import registry
from schedulers.contract import CallArrived, CallFailed, CallFinished, ProgramArrived, ProgramFinished
from tests.harness.live.chaos import Crowd, Faulty
from tests.harness.live.test_driver import Hooks
from tests.harness.live.test_memory_engine import STEP

KV_TOKENS = 8_192
PROGRAMS, CALLS = 200, 6
SCHEDULERS = [*(name for name in registry.NAMES if name not in {"cap", "unlimited"}), "cap:32"]


async def killer(driver, replicas, rng):
    """Kill and restart replicas for ever.

    The driver hears of it a little later, as from a health check, or first, as of a server that hangs.
    """
    while True:
        await asyncio.sleep(rng.expovariate(0.2))
        name = rng.choice(list(replicas))
        if name not in driver.replicas:
            continue
        if rng.random() < 0.5:
            replicas[name].kill()
            await asyncio.sleep(rng.random())
            driver.replica_down(name, "no answer")
        else:
            driver.replica_down(name, "no answer")
            replicas[name].kill()
        driver.check_invariants()
        await asyncio.sleep(rng.expovariate(1.0))
        replicas[name].start()
        driver.replica_up(name, KV_TOKENS, 16)
        driver.check_invariants()


async def checker(driver):
    while True:
        await asyncio.sleep(3.0)
        driver.check_invariants()


async def storm(scheduler, seed):
    rng, clock, log = Random(seed), LoopClock(), []
    replicas = {
        f"r{i}": MemoryReplica(clock, lambda: FastEngine(EngineOptions(KV_TOKENS), STEP, ContentTree()))
        for i in range(2)
    }
    driver = LiveDriver(
        registry.build(scheduler, {}, seed),
        clock,
        decide=lambda *decision: log.append(decision),
        hooks=Hooks(),
    )
    for name in replicas:
        driver.replica_up(name, KV_TOKENS, 16)
    upstream = Faulty(MemoryUpstream(replicas), 0.15, rng)
    relay = Relay(driver, upstream)
    crowd = Crowd(relay, rng, programs=PROGRAMS, calls=CALLS, hang_up=0.1)
    others = [asyncio.ensure_future(killer(driver, replicas, rng)), asyncio.ensure_future(checker(driver))]
    try:
        await crowd.play()
        assert not any(task.done() for task in others), "the books did not close on the way"
    finally:
        for task in others:
            task.cancel()
    released = driver.release_quiet(-1.0)
    driver.check_invariants()
    return driver, crowd, upstream, log, released


@pytest.mark.parametrize("late_s", [0.0, 0.1])
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_call_ends_once_while_replicas_die_clients_leave_and_servers_lie(scheduler, late_s):
    """On time, and on a machine that is so busy that timers are up to 100 ms late."""
    seed, lateness = 0, Random(0)
    with VirtualLoop(late=lambda: lateness.random() * late_s) as loop:
        driver, crowd, upstream, log, released = loop.run_until_complete(storm(scheduler, seed))
    assert driver.fault is None
    assert (driver.calls, driver.programs) == ({}, {})
    events = [event for _, event, _ in log]
    arrived = [e.call_id for e in events if isinstance(e, CallArrived)]
    ended = [e.call_id for e in events if isinstance(e, (CallFinished, CallFailed))]
    assert len(arrived) == len(set(arrived)) >= PROGRAMS * CALLS
    assert sorted(arrived) == sorted(ended)
    assert sum(driver.ends.values()) == len(arrived) == sum(crowd.heard.values())
    assert driver.ends["finished"] == sum(isinstance(e, CallFinished) for e in events)
    programs = [sum(isinstance(e, kind) for e in events) for kind in (ProgramArrived, ProgramFinished)]
    assert programs[0] == programs[1]
    assert released, "programs whose clients never released"
    # all that can go wrong did: else this test says nothing
    assert set(crowd.heard) == {"200", "429", "500", "502", "503", "504", "broken", "hung up"}
    assert min(upstream.done.values()) > 0
    assert min(driver.ends.values()) > 0
    again = registry.build(scheduler, {}, seed)
    assert all(again.handle(event, now) == actions for now, event, actions in log), "replay differs"


class Instant:
    """A server that answers at once."""

    def __init__(self):
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
        first, last = {"choices": [{"index": 0, "text": "x"}]}, {"choices": [], "usage": usage}
        self._events = [b"data: %s\n\n" % json.dumps(e).encode() for e in (first, last)]

    async def send(self, replica, request):  # noqa: ARG002 - an upstream's signature
        return MemoryAnswer(200, self._stream(), "text/event-stream")

    async def _stream(self):
        for event in self._events:
            yield event
        yield b"data: [DONE]\n\n"


async def soak(requests):
    driver = LiveDriver(registry.build("thunder", {}, 0), LoopClock())
    driver.replica_up("r0", 1_000_000, 16)
    relay = Relay(driver, Instant())
    blocks = []
    for number in range(requests):
        program = f"p{number // 10}"
        body = json.dumps({"prompt": "a b c", "stream": True, "program_id": program}).encode()
        answer = await relay.call(Incoming("POST", "/v1/completions", {}, body))
        async for _ in answer.chunks():
            pass
        await answer.close()
        if number % 10 == 9:
            driver.release(program)
            await asyncio.sleep(0.5)
        if number % (requests // 10) == requests // 10 - 1:
            gc.collect()
            blocks.append(sys.getallocatedblocks())
    return driver, blocks


def test_a_hundred_thousand_calls_leave_nothing_behind():
    with VirtualLoop() as loop:
        driver, blocks = loop.run_until_complete(soak(100_000))
    assert driver.ends == {"finished": 100_000, "failed": 0, "cancelled": 0}
    assert (driver.programs, driver.calls) == ({}, {})
    # what is remembered of finished programs is bounded, and full after a fifth of them
    assert abs(blocks[-1] - blocks[1]) < 1000, blocks

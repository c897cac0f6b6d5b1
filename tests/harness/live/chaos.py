"""Servers and clients that misbehave, on a virtual-time loop: for the tests of what may not be lost.

`Faulty` stands before replicas in memory and, with given odds, answers 429, 500 or garbage, breaks off in
the middle of a chunk, or never answers. `Crowd` are programs that call again and again through a relay,
hang up in the middle, and count what they were told.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from random import Random

from harness.live.answers import Incoming
from harness.live.memory_engine import MemoryAnswer, MemoryUpstream
from harness.live.ports import Outgoing, UpstreamFailed, UpstreamTimedOut
from harness.live.relay import Relay

SILENCE_S = 4.0
KINDS = ("429", "500", "garbage", "half a chunk", "silence", "refused")


async def _body(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _half(answer: MemoryAnswer) -> AsyncIterator[bytes]:
    async for chunk in answer.chunks():
        yield chunk[: len(chunk) // 2]
        raise UpstreamFailed("the connection broke off")


class Faulty:
    """An upstream of which a share `odds` of the requests goes wrong, each kind alike."""

    def __init__(self, upstream: MemoryUpstream, odds: float, rng: Random) -> None:
        self._upstream, self._odds, self._rng = upstream, odds, rng
        self.done: Counter[str] = Counter()

    async def send(self, replica: str, request: Outgoing) -> MemoryAnswer:
        kind = self._rng.choice(KINDS) if self._rng.random() < self._odds else ""
        self.done[kind or "well"] += 1
        if kind == "refused":
            raise UpstreamFailed("connection refused")
        if kind == "silence":
            await asyncio.sleep(SILENCE_S)
            raise UpstreamTimedOut(f"no answer for {SILENCE_S:g} s")
        if kind in {"429", "500"}:
            return MemoryAnswer(int(kind), _body(b'{"error": {"message": "no"}}'), "application/json")
        if kind == "garbage":
            return MemoryAnswer(200, _body(b"\xff\xfe{not json", b"\r\n\x00"), "text/event-stream")
        answer = await self._upstream.send(replica, request)
        if kind == "half a chunk":
            return MemoryAnswer(answer.status, _half(answer), "text/event-stream")
        return answer


class Crowd:
    """`programs` programs side by side, each of `calls` calls; some hang up, some never release.

    `heard` counts what clients got: a status, `broken` for a stream that broke off, `hung up`.
    """

    def __init__(self, relay: Relay, rng: Random, *, programs: int, calls: int, hang_up: float) -> None:
        self._relay, self._rng = relay, rng
        self._programs, self._calls, self._hang_up = programs, calls, hang_up
        self.heard: Counter[str] = Counter()

    async def play(self) -> None:
        await asyncio.gather(*(self._program(i) for i in range(self._programs)))

    async def _program(self, number: int) -> None:
        rng, ids = self._rng, [number % 7] * 40
        await asyncio.sleep(rng.random() * 20)
        for _ in range(self._calls):
            calls = [self._call(number, ids) for _ in range(1 + (rng.random() < 0.2))]  # or two sub-agents
            await asyncio.gather(*calls)
            ids = [*ids, *(rng.randrange(30_000) for _ in range(rng.randrange(60)))]
            await asyncio.sleep(rng.expovariate(1.0))
        if number % 3:
            self._relay.driver.release(f"p{number}")

    async def _call(self, number: int, ids: list[int]) -> None:
        body = {"prompt": ids, "max_tokens": self._rng.randrange(1, 40), "stream": self._rng.random() < 0.8}
        if number % 4:
            body["thunderbench"] = {"tools": ["bash"]}
        if number % 5:
            body["program_id"] = f"p{number}"  # the others are nobody's
        incoming = Incoming("POST", "/v1/completions", {}, json.dumps(body).encode())
        task = asyncio.ensure_future(self._listen(incoming))
        patience = self._rng.expovariate(1.0) if self._rng.random() < self._hang_up else 1e6
        done, _ = await asyncio.wait([task], timeout=patience)
        if not done:
            task.cancel()
        try:
            self.heard[await task] += 1
        except asyncio.CancelledError:
            self.heard["hung up"] += 1

    async def _listen(self, incoming: Incoming) -> str:
        answer = await self._relay.call(incoming)
        try:
            async for _ in answer.chunks():
                pass
        except UpstreamFailed:
            return "broken"
        finally:
            await answer.close()
        return str(answer.status)

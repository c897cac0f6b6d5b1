"""Replicas in memory: the simulated engines behind the seam at which real servers stand.

With `virtual_loop` the whole gateway (relay, driver, policy) runs without ports and without waiting. What
comes back is what vLLM sends for `/v1/completions` with a token-id prompt: server-sent events or one JSON
body, with usage. The prefix cache is that of the engine: prompts share blocks as far as their ids agree.

For tests of some thousand calls: every context is remembered, and looked through for each prompt.

Two things differ from a server. Tokens between the first and the last come with the last, and a request
whose client left runs on to its end: the engines know no abort.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from itertools import count
from math import inf

from harness.errors import SetupError
from harness.live.clock import LoopClock
from harness.live.ports import Outgoing, ReplicaMetrics, UpstreamFailed
from harness.virtual.engine import Engine, EngineRequest, Piece

_IDS_PER_PIECE = 16  # prompts are cut into pieces of so many ids: no block is smaller than vLLM's default


class MemoryReplica:
    """One engine on the loop's clock. `make` builds a fresh one; `kill` and `start` are a server's."""

    def __init__(self, clock: LoopClock, make: Callable[[], Engine]) -> None:
        self._clock, self._make = clock, make
        self._engine: Engine | None = None
        self._waiting: dict[str, _Waiting] = {}
        self._boundary = inf
        self._generation = 0
        self.start()

    @property
    def engine(self) -> Engine:
        """The engine; raises `UpstreamFailed` while the replica is dead."""
        if self._engine is None:
            raise UpstreamFailed("connection refused")
        return self._engine

    def start(self) -> None:
        """Serve, with a cold cache."""
        self._engine, self._boundary = self._make(), inf
        self._generation += 1

    def kill(self) -> None:
        """Stop serving; what is under way breaks off."""
        self._engine = None
        self._generation += 1
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.broke()

    def submit(self, request: EngineRequest) -> _Waiting:
        """Queue a request. Raises `UpstreamFailed` while dead, `SetupError` for one that is too long."""
        engine, now = self.engine, self._clock.now
        engine.submit(request, now)
        waiting = self._waiting[request.call_id] = _Waiting(request)
        if engine.next_boundary == inf:
            self._clock.at(now, self._begin, self._generation)
        else:
            self._await_boundary(engine)  # which may be sooner now
        return waiting

    def metrics(self) -> ReplicaMetrics:
        """What `/metrics` of a server would say. Raises `UpstreamFailed` while dead."""
        engine = self.engine
        load, counters = engine.load(self._clock.now), engine.counters
        return ReplicaMetrics(
            running=load.running,
            waiting=load.waiting,
            kv_usage_share=load.used_tokens / load.capacity_tokens,
            kv_tokens=load.capacity_tokens,
            block_size=_IDS_PER_PIECE,
            queries_total=counters.queries,
            hits_total=counters.hits,
            preemptions_total=counters.preemptions,
        )

    def _begin(self, generation: int) -> None:
        engine = self._engine
        if engine is None or generation != self._generation:
            return
        if engine.next_boundary == inf:
            engine.begin(self._clock.now)
        self._await_boundary(engine)

    def _await_boundary(self, engine: Engine) -> None:
        if engine.next_boundary < inf and engine.next_boundary != self._boundary:
            self._boundary = engine.next_boundary
            self._clock.at(self._boundary, self._complete, self._generation, self._boundary)

    def _complete(self, generation: int, boundary: float) -> None:
        engine = self._engine
        if engine is None or generation != self._generation:
            return
        if engine.next_boundary == boundary:  # an arrival may have cut the stretch of steps short
            out = engine.complete(boundary)
            for request in out.first_tokens:
                if request.call_id in self._waiting:
                    self._waiting[request.call_id].first.set()
            for request in out.finished:
                waiting = self._waiting.pop(request.call_id, None)
                if waiting is not None:
                    waiting.last.set()
            engine.begin(boundary)
        self._await_boundary(engine)


class _Waiting:
    """A request in an engine."""

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.first, self.last = asyncio.Event(), asyncio.Event()
        self.broken = False

    def broke(self) -> None:
        """Its replica died."""
        self.broken = True
        self.first.set()
        self.last.set()

    async def until(self, event: asyncio.Event) -> None:
        """Wait. Raises `UpstreamFailed` when the replica died."""
        await event.wait()
        if self.broken:
            raise UpstreamFailed("the connection broke off")


class MemoryAnswer:
    """See `ports.Answer`."""

    def __init__(self, status: int, body: AsyncIterator[bytes], kind: str) -> None:
        self.status, self._body = status, body
        self.headers = [("Content-Type", kind)]
        self.closed = False

    def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        return self._body

    async def close(self) -> None:
        """Nothing is held."""
        self.closed = True


class MemoryUpstream:
    """Replicas by name, as `ports.Upstream`. A request without `max_tokens` generates 16, as in vLLM."""

    def __init__(self, replicas: Mapping[str, MemoryReplica]) -> None:
        self.replicas = replicas
        self._numbers = count()
        self._contexts: dict[tuple[int, ...], tuple[Piece, ...]] = {}  # prompts with what came of them

    def _pieces(self, ids: list[int]) -> tuple[Piece, ...]:
        """A prompt as content: the longest context known that it extends, then the rest of it."""
        known = (context for context in self._contexts if tuple(ids[: len(context)]) == context)
        longest = max(known, key=len, default=())
        cut = [ids[at : at + _IDS_PER_PIECE] for at in range(len(longest), len(ids), _IDS_PER_PIECE)]
        return (*self._contexts.get(longest, ()), *(Piece(_key(part), len(part)) for part in cut))

    async def send(self, replica: str, request: Outgoing) -> MemoryAnswer:
        """Answer once the request is queued, as servers do that stream."""
        body = json.loads(request.body)
        ids, tokens = body["prompt"], body.get("max_tokens", 16)
        number = next(self._numbers)
        pieces = self._pieces(ids)
        call = EngineRequest(f"m{number}", pieces, Piece(f"output {number}", tokens))
        call.priority = body.get("priority", 0)
        call.prompt_tokens = len(ids)
        output = [(number * 7919 + i) % 30_000 for i in range(tokens)]
        self._contexts[(*ids, *output)] = (*pieces, call.output)
        try:
            waiting = self.replicas[replica].submit(call)
        except SetupError as error:
            text = json.dumps({"error": {"message": str(error), "code": 400}}).encode()
            return MemoryAnswer(400, _once(text), "application/json")
        if body.get("stream"):
            return MemoryAnswer(200, _events(waiting, output), "text/event-stream; charset=utf-8")
        await waiting.until(waiting.last)
        choice = {"index": 0, "text": "", "token_ids": output, "finish_reason": "length"}
        text = json.dumps({"choices": [choice], "usage": _usage(waiting.request)}).encode()
        return MemoryAnswer(200, _once(text), "application/json")


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


async def _events(waiting: _Waiting, output: list[int]) -> AsyncIterator[bytes]:
    await waiting.until(waiting.first)
    yield _event({"choices": [{"index": 0, "text": "", "token_ids": output[:1]}]})
    await waiting.until(waiting.last)
    if output[1:]:
        yield _event({"choices": [{"index": 0, "text": "", "token_ids": output[1:]}]})
    yield _event({"choices": [], "usage": _usage(waiting.request)})
    yield b"data: [DONE]\n\n"


def _event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def _usage(request: EngineRequest) -> dict[str, object]:
    return {
        "prompt_tokens": request.prompt_tokens,
        "completion_tokens": request.output.tokens,
        "total_tokens": request.prompt_tokens + request.output.tokens,
        "prompt_tokens_details": {"cached_tokens": request.cached_tokens},
    }


def _key(ids: list[int]) -> str:
    return f"{zlib.crc32(json.dumps(ids).encode()):08x} {ids[0]}"

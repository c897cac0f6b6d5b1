"""A model server that goes wrong: `python -m tests.bench.faulty_server PORT ODDS SEED`.

With some odds it answers 429 or 500, garbage or half a chunk, hangs, or breaks off; otherwise it
streams six events, or answers in one piece.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sys

import uvloop
from aiohttp import web

FAULTS = ("429", "500", "garbage", "half a chunk", "silence", "cut")  # each alike
KV_BLOCKS = 750  # 16 tokens each: too few for all programs of the storm at once, so calls are held

_METRICS = f'vllm:cache_config_info{{block_size="16",num_gpu_blocks="{KV_BLOCKS}"}} 1.0\n'


class Server:
    """A model server that goes wrong with some odds, and otherwise streams six events, or answers."""

    def __init__(self, odds: float, seed: int) -> None:
        self._odds, self._rng = odds, random.Random(seed)
        self._pace_s = 0.01 if odds else 0.0  # between events, so that clients leave in the middle

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.path in {"/metrics", "/health"}:
            return web.Response(text=_METRICS)
        asked = json.loads(await request.read())
        fault = self._rng.choice(FAULTS) if self._rng.random() < self._odds else ""
        if fault in {"429", "500"}:
            return web.json_response({"error": {"message": "no"}}, status=int(fault))
        transport = request.transport
        assert transport is not None, "a request without a connection"
        if fault == "garbage":
            transport.write(b"\xff\xfe no HTTP at all\r\n\r\n")
        if fault == "cut":
            transport.abort()
        if fault in {"garbage", "cut", "silence"}:
            await asyncio.Event().wait()
        return await self._well(request, asked, breaks=fault == "half a chunk")

    async def _well(
        self, request: web.BaseRequest, asked: dict[str, object], *, breaks: bool
    ) -> web.Response:
        words = len(str(asked["messages"])) // 4
        usage = {"prompt_tokens": words, "completion_tokens": 6, "total_tokens": words + 6}
        if not asked.get("stream") and not breaks:
            return web.json_response({"choices": [{"message": {"content": "a b"}}], "usage": usage})
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for _ in range(6):
            await response.write(_event({"choices": [{"index": 0, "delta": {"content": "word"}}]}))
            await asyncio.sleep(self._pace_s)
            if breaks and request.transport is not None:
                request.transport.write(b"ff\r\ndata: {")
                request.transport.close()
                await asyncio.Event().wait()
        await response.write(_event({"choices": [], "usage": usage}) + b"data: [DONE]\n\n")
        await response.write_eof()
        return response


def _event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


async def serve(port: int, odds: float, seed: int) -> None:
    """Listen on the port (0: any), print it, and go on until killed."""
    quiet = logging.getLogger("clients that left")
    quiet.disabled = True
    server = web.Server(Server(odds, seed).answer, access_log=None, handler_cancellation=True, logger=quiet)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", port, backlog=1024)
    print(json.dumps({"port": listener.sockets[0].getsockname()[1]}), flush=True)
    await asyncio.Event().wait()


def main() -> None:
    port, odds, seed = sys.argv[1:]
    uvloop.run(serve(int(port), float(odds), int(seed)))


if __name__ == "__main__":
    main()

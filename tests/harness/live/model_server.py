"""A model server over loopback, in a thread: vLLM's routes and a prefix cache of blocks, but no model.

Outputs are a function of the prompt, so any two runs generate the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from typing import Any

from aiohttp import web

BLOCK = 16
BLOCKS = 64  # told as its capacity; nothing is evicted


class ModelServer:
    """What it was asked is in `bodies` and `headers`, in order of arrival; probes included."""

    def __init__(self, *, routes_release: bool = False) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.released: list[str] = []
        self.cached: set[int] = set()
        self.queries = self.hits = self.resets = 0
        self.app = web.Application()
        self.app.router.add_get("/health", self._health)
        self.app.router.add_get("/metrics", self._metrics)
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_post("/v1/completions", self._complete)
        self.app.router.add_post("/v1/chat/completions", self._chat)
        self.app.router.add_post("/reset_prefix_cache", self._reset)
        if routes_release:
            self.app.router.add_post("/programs/release", self._release)

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response()

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny", "max_model_len": 4096}]})

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(
            text=f'vllm:cache_config_info{{block_size="{BLOCK}",num_gpu_blocks="{BLOCKS}"}} 1.0\n'
            "vllm:num_requests_running 0.0\nvllm:num_requests_waiting 0.0\nvllm:kv_cache_usage_perc 0.25\n"
            f"vllm:prefix_cache_queries_total {self.queries}.0\n"
            f"vllm:prefix_cache_hits_total {self.hits}.0\nvllm:num_preemptions_total 0.0\n"
        )

    async def _reset(self, _: web.Request) -> web.Response:
        self.cached.clear()
        self.resets += 1
        return web.json_response({"success": True})

    async def _release(self, request: web.Request) -> web.Response:
        self.released.append((await request.json())["program_id"])
        return web.json_response({})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        prompt, count = body["prompt"], body["max_tokens"]
        hit = self._look_up(prompt)
        ids = [(sum(prompt) + i) % 400 + 4 for i in range(count)]
        self._keep([*prompt, *ids])
        choices = [{"index": 0, "text": "x" * count, "token_ids": ids, "finish_reason": "length"}]
        return await self._answer(request, body, choices, (len(prompt), count, hit))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await self._note(request)
        prompt = sum(3 + len(message["content"]) for message in body["messages"])
        text = "word " * body["max_tokens"]
        choice = {"index": 0, "finish_reason": "length"}
        choice |= {"delta" if body.get("stream") else "message": {"role": "assistant", "content": text}}
        return await self._answer(request, body, [choice], (prompt, body["max_tokens"], 0))

    async def _note(self, request: web.Request) -> dict[str, Any]:
        body: dict[str, Any] = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        return body

    async def _answer(
        self, request: web.Request, body: dict[str, Any], choices: list[Any], counts: tuple[int, int, int]
    ) -> web.StreamResponse:
        usage = {
            "prompt_tokens": counts[0],
            "completion_tokens": counts[1],
            "prompt_tokens_details": {"cached_tokens": counts[2]},
        }
        if not body.get("stream"):
            return web.json_response({"choices": choices, "usage": usage})
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        events = [{"choices": choices}, {"choices": [], "usage": usage}]
        for event in events:
            await answer.write(b"data: " + json.dumps(event).encode() + b"\n\n")
        await answer.write(b"data: [DONE]\n\n")
        return answer

    def _look_up(self, ids: list[int]) -> int:
        hit = 0
        while hit + BLOCK < len(ids) and hash(tuple(ids[: hit + BLOCK])) in self.cached:
            hit += BLOCK
        self.queries += len(ids)
        self.hits += hit
        return hit

    def _keep(self, ids: list[int]) -> None:
        self.cached.update(hash(tuple(ids[:end])) for end in range(BLOCK, len(ids) + 1, BLOCK))

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """Its address, while it serves."""
        ready, address = threading.Event(), []
        loop = asyncio.new_event_loop()
        stopped = asyncio.Event()

        async def serve() -> None:
            runner = web.AppRunner(self.app, shutdown_timeout=0)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                address.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
                ready.set()
                await stopped.wait()
            finally:
                ready.set()
                await runner.cleanup()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
        thread.start()
        ready.wait()
        try:
            yield address[0]
        finally:
            loop.call_soon_threadsafe(stopped.set)
            thread.join()
            loop.close()

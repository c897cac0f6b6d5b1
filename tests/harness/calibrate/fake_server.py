"""A server on an ephemeral port that answers at once, as vLLM would, or badly."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from aiohttp import web

PAGE = (
    'vllm:cache_config_info{block_size="128",cache_dtype="auto",engine="0",num_gpu_blocks="512"} 1.0\n'
    'vllm:num_requests_running{engine="0"} 0.0\n'
)


class FakeServer:
    """Use it as an asynchronous context manager.

    `completions` answers in its place; after `breaks_after` requests it cuts every connection.
    """

    def __init__(
        self,
        *,
        version: str | None = "0.32.0",
        page: str | None = PAGE,
        max_model_len: int | None = 4096,
        models: str | None = None,
        completions: Callable[[dict[str, Any]], web.Response] | None = None,
        breaks_after: int | None = None,
    ) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self._version, self._page, self._models = version, page, models
        self._max_model_len, self._completions, self._breaks_after = (
            max_model_len,
            completions,
            breaks_after,
        )
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=2**24)
        app.router.add_get("/v1/models", self._list_models)
        app.router.add_get("/version", self._tell_version)
        app.router.add_get("/metrics", self._tell_metrics)
        app.router.add_post("/v1/completions", self._complete)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _list_models(self, request: web.Request) -> web.Response:
        self.headers.append(dict(request.headers))
        if self._models is not None:
            return web.Response(text=self._models)
        model = {"id": "tiny", "object": "model", "max_model_len": self._max_model_len}
        return web.json_response({"object": "list", "data": [model]})

    async def _tell_version(self, _: web.Request) -> web.Response:
        return web.json_response({"version": self._version}) if self._version else web.Response(status=404)

    async def _tell_metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self._page) if self._page else web.Response(status=404)

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        if self._completions is not None:
            return self._completions(body)
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await answer.prepare(request)
        if self._breaks_after is not None and len(self.bodies) > self._breaks_after:
            assert request.transport is not None
            request.transport.abort()
            return answer
        usage = {"prompt_tokens": len(body["prompt"])}
        for k in range(body["max_tokens"]):
            told = {**usage, "completion_tokens": k + 1}
            await answer.write(_event({"choices": [{"index": 0, "text": "a"}], "usage": told}))
        await answer.write(
            _event({"choices": [], "usage": {**usage, "completion_tokens": body["max_tokens"]}})
        )
        await answer.write(b"data: [DONE]\n\n")
        return answer


def _event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"

"""A real server as what is measured: what it says of itself, and one request to it.

Any OpenAI-compatible server will do whose `/v1/completions` takes a prompt as token ids and streams, and
that generates as many tokens as it is asked for (`ignore_eos`, `min_tokens`), such as vLLM's.

A chunk of an answer is noted with the time at which its bytes were there, and read once the answer is
over: so no time of the client's falls into a stretch that is measured.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp

from harness.calibrate.measure import Ask, Mark, Reply
from harness.errors import EngineFailed, SetupError
from harness.live.exposition import read_metrics

ANSWER_TIMEOUT_S = 300.0
_ASK_TIMEOUT_S = 10.0
_DTYPE = re.compile(r'^vllm:cache_config_info\{.*?\bcache_dtype="([^"]*)"', re.MULTILINE)
_START = "Start one, such as `vllm serve MODEL --enable-prompt-tokens-details`, and name its URL"


class About(NamedTuple):
    """What a server says of itself; null where it does not."""

    url: str
    model: str
    max_model_len: int | None
    version: str | None
    kv_tokens: int | None
    block_size: int | None
    kv_dtype: str | None


class HttpServer:
    """A server behind a URL, for one event loop. Use it as an asynchronous context manager.

    Raises `SetupError` when it is no server of this kind, `EngineFailed` when it stops in the middle.
    """

    def __init__(self, url: str, api_key: str = "") -> None:
        self.url = base_url(url)
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._session: aiohttp.ClientSession | None = None
        self._model = ""

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            headers=self._headers,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S),
            auto_decompress=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def about(self) -> About:
        """Ask it. Afterwards `send` can be used."""
        found = _first_model(self.url, await self._get("/v1/models"))
        self._model = str(found["id"])
        version = _parsed(await self._get("/version", optional=True)).get("version")
        page = await self._get("/metrics", optional=True)
        metrics = read_metrics(page)
        dtype = _DTYPE.search(page)
        length = found.get("max_model_len")
        return About(
            self.url,
            self._model,
            length if isinstance(length, int) and length > 0 else None,
            version if isinstance(version, str) else None,
            metrics.kv_tokens,
            metrics.block_size,
            dtype[1] if dtype else None,
        )

    async def send(self, ask: Ask) -> Reply:
        """One request, from its sending to the end of its answer."""
        assert self._session is not None, "a server that was not entered"
        body = {
            "model": self._model,
            "prompt": ask.prompt,
            "max_tokens": ask.output,
            "min_tokens": ask.output,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        }
        data = json.dumps(body).encode()
        loop = asyncio.get_running_loop()
        sent = loop.time()
        try:
            async with self._session.post(
                f"{self.url}/v1/completions", data=data, headers={"Content-Type": "application/json"}
            ) as answer:
                chunks = [(loop.time(), chunk) async for chunk in answer.content.iter_any()]
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EngineFailed(
                f"{self.url} stopped answering while it was measured: {_why(error)}"
            ) from error
        if answer.status != 200:
            raise _refused(self.url, answer.status, b"".join(chunk for _, chunk in chunks))
        return read_reply(self.url, ask, sent, chunks)

    async def _get(self, path: str, *, optional: bool = False) -> str:
        assert self._session is not None, "a server that was not entered"
        timeout = aiohttp.ClientTimeout(total=_ASK_TIMEOUT_S)
        try:
            async with self._session.get(self.url + path, timeout=timeout) as answer:
                text = await answer.text(errors="replace")
                if answer.status == 200:
                    return text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if optional:
                return ""
            raise SetupError(
                f"no server at {self.url} ({_why(error)})", "a running server", _START
            ) from error
        if optional:
            return ""
        fix = "Set OPENAI_API_KEY to its key" if answer.status in {401, 403} else _START
        raise SetupError(f"{self.url}{path} answers {answer.status}", "an OpenAI-compatible server", fix)


def base_url(url: str) -> str:
    """A server's URL without its end, with or without `/v1`. Raises `SetupError` for what is none."""
    base = url.strip().rstrip("/").removesuffix("/v1").rstrip("/")
    if not re.fullmatch(r"https?://[^/\s?#]+(/[^\s?#]*)?", base):
        raise SetupError(f"backend {url!r}", "a server's URL, such as http://127.0.0.1:8000")
    return base


def read_reply(url: str, ask: Ask, sent_s: float, chunks: Sequence[tuple[float, bytes]]) -> Reply:
    """Read server-sent events from the chunks of an answer and their times. Raises as `HttpServer` does."""
    marks: list[Mark] = []
    usage: Mapping[str, Any] = {}
    for at, event in _events(chunks):
        if "error" in event:
            raise EngineFailed(f"{url} failed while it was measured: {json.dumps(event['error'])[:300]}")
        told = event.get("usage")
        usage = told if isinstance(told, dict) else usage
        if event.get("choices"):
            before = marks[-1].tokens if marks else 0
            tokens = told.get("completion_tokens") if isinstance(told, dict) else None
            marks.append(Mark(at, tokens if isinstance(tokens, int) else before + 1))
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if not isinstance(prompt, int) or not isinstance(output, int) or not marks:
        raise SetupError(
            f"{url} streams no tokens with their usage",
            "server-sent events, the last with usage (stream_options.include_usage)",
            "Measure the engine itself, not what stands before it.",
        )
    if output != ask.output or prompt < len(ask.prompt):
        raise SetupError(
            f"{url} generated {output} tokens for a prompt of {prompt}",
            f"the {ask.output} tokens and the prompt of {len(ask.prompt)} it was asked for",
            "Measure a server that takes token ids and obeys ignore_eos and min_tokens, such as vLLM's.",
        )
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return Reply(sent_s, tuple(marks), prompt, cached if isinstance(cached, int) else None)


def _events(chunks: Sequence[tuple[float, bytes]]) -> list[tuple[float, dict[str, Any]]]:
    """Server-sent events that are JSON objects, each with the time at which its line was there."""
    found = []
    rest = b""
    for at, chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                event = _parsed(line[5:].decode("utf-8", "replace"))
                if event:
                    found.append((at, event))
    return found


def _first_model(url: str, text: str) -> Mapping[str, Any]:
    listed = _parsed(text).get("data")
    if isinstance(listed, list) and listed and isinstance(listed[0], dict) and listed[0].get("id"):
        return listed[0]
    raise SetupError(f"{url}/v1/models names no model", "an OpenAI-compatible server", _START)


def _refused(url: str, status: int, body: bytes) -> SetupError | EngineFailed:
    said = " ".join(body.decode("utf-8", "replace").split())[:300]
    if status >= 500 or status == 429:
        return EngineFailed(f"{url} failed while it was measured: {status} {said}")
    return SetupError(
        f"{url} refuses a completion of token ids: {status} {said}",
        "a server that takes prompts as token ids, such as vLLM's",
        "Give less --max-prompt if it was too long",
    )


def _parsed(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _why(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, OSError) and error.errno and error.errno > 0:
        return os.strerror(error.errno)
    return str(error) or type(error).__name__

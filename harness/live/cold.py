"""Empty the prefix cache of a running server between two arms, and see that it is empty.

A server can answer that it did and not have done it: vLLM's `POST /reset_prefix_cache` says 200 with
`{"success": false}` while any block is in use, old versions say 200 with nothing, and a cache behind the
GPU's may be left as it was. So the answer's body is read, and a probe looks:

    prompt P            (random, so nobody has it)      0 cached
    P again             all whole blocks cached: this server caches, and says so
    reset
    P again             0 cached: cold
    reset               the probe's own blocks go too

Counts come from `usage.prompt_tokens_details.cached_tokens`, else from the server's counters of prefix
cache hits. A server that tells neither can be reset but not verified, and `Cold` says that.

The probe's calls count in the server's own totals: take those of an arm as differences, from after this.
Pins of the engine hooks hold blocks: release them before.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from harness.errors import EngineFailed, SetupError
from harness.live.exposition import read_metrics

if TYPE_CHECKING:
    import aiohttp

    from harness.live.ports import ReplicaMetrics

PATIENCE_S = 30.0  # for calls that still run
RETRY_S = 0.2
COUNTED_WITHIN_S = 5.0  # a server counts a call after it has answered it
PROBE_BLOCKS = 4
PROBE_TOKENS = 256  # at least, for pages of a single token
LARGEST_BLOCK = 128  # tokens, where the server does not say: vLLM's default on CPU, 16 on GPUs
FIRST_TOKEN, TOKENS = 16, 200  # ids of the probe: in every vocabulary, and no special ones of most

_ABSENT = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED})


@dataclass(frozen=True, slots=True)
class Cold:
    """What became of a reset. `reason` says why it could not be verified, empty when it was.

    `route` is the one that did it, `resets` how often it was asked, `seen_by` where the counts came from.
    """

    url: str
    route: Literal["/reset_prefix_cache", "/flush_cache"]
    resets: int
    verified: bool
    seen_by: Literal["usage", "metrics", ""] = ""
    reason: str = ""


class _Route(NamedTuple):
    """How a kind of server is asked. `query` also empties what lies behind the GPU's cache."""

    path: Literal["/reset_prefix_cache", "/flush_cache"]
    query: str


# vLLM's and SGLang's; the latter refuses with 400, in older versions with 200 and another text.
_ROUTES = (_Route("/reset_prefix_cache", "?reset_external=true"), _Route("/flush_cache", ""))
_FLUSHED = "Cache flushed"


async def make_cold(
    session: aiohttp.ClientSession,
    url: str,
    *,
    model: str | None = None,
    headers: Mapping[str, str] | None = None,
    patience_s: float = PATIENCE_S,
    rng: random.Random | None = None,
) -> Cold:
    """Empty the prefix cache of the server at `url` (without `/v1`) and probe it.

    `model` is asked for when null; `headers` go with every request (a key, say). Waits up to `patience_s`
    seconds for calls that still run. Raises `SetupError` for a server that cannot be reset, stays busy or
    is not cold after it; `EngineFailed` for one that does not answer.
    """
    import aiohttp  # noqa: PLC0415 - whoever has a session has paid for it

    server = _Server(session, url.rstrip("/"), model, dict(headers or {}), patience_s)
    try:
        return await server.make_cold(rng or random.Random())
    except (aiohttp.ClientError, TimeoutError) as error:
        raise EngineFailed(f"{server.url} does not answer: {error or type(error).__name__}") from error


class _Answer(NamedTuple):
    """An answer read to its end."""

    status: int
    text: str

    def json(self) -> Any:
        """The body as JSON; null when it is none."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    def brief(self) -> str:
        return f"{self.status} {' '.join(self.text.split())[:200]!r}"


class _Seen(NamedTuple):
    """Cached tokens of one probe, and who counted them; null: nobody did."""

    cached_tokens: int | None
    by: Literal["usage", "metrics", ""]


class _Server:
    """One server to be made cold."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        url: str,
        model: str | None,
        headers: dict[str, str],
        patience_s: float,
    ) -> None:
        self._session, self.url, self._model = session, url, model
        self._headers, self._patience_s = headers, patience_s
        self._resets = 0
        self._longest: int | None = None

    async def make_cold(self, rng: random.Random) -> Cold:
        route = await self._find_route()  # before any probe: a server without one is left alone
        await self._read_model()
        prompt = await self._prompt(rng)
        first = await self._probe(prompt)
        warm = await self._probe(prompt)
        await self._reset(route)
        after = await self._probe(prompt)
        reason = _doubt(first, warm, after)
        if after.cached_tokens and not reason:
            raise SetupError(
                f"{self.url}{route.path} says that the cache is empty, but {after.cached_tokens} of "
                f"{len(prompt)} tokens of a prompt from before were found in it",
                "a cold cache",
                "Restart the server between arms.",
            )
        await self._reset(route)
        seen_by = "" if reason else after.by or warm.by
        return Cold(self.url, route.path, self._resets, not reason, seen_by, reason)

    async def _find_route(self) -> _Route:
        for route in _ROUTES:
            if await self._reset(route):
                return route
        raise SetupError(
            f"{self.url} has no route that empties the prefix cache "
            f"({' and '.join(route.path for route in _ROUTES)} are absent)",
            "a vLLM server in development mode, or SGLang",
            "Start it with VLLM_SERVER_DEV_MODE=1.",
        )

    async def _reset(self, route: _Route) -> bool:
        """Empty the cache, waiting while calls run; false when there is no such route."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            answer = await self._ask("POST", route.path + route.query)
            if answer.status in _ABSENT:
                return False
            self._resets += 1
            if _done(route, answer):
                return True
            if answer.status not in {HTTPStatus.OK, HTTPStatus.BAD_REQUEST}:
                raise SetupError(
                    f"POST {self.url}{route.path} answers {answer.brief()}", "a server that can be reset"
                )
            if loop.time() >= deadline:
                raise SetupError(
                    f"{self.url}{route.path} still refuses after {self._patience_s:g} s "
                    f"({answer.brief()}), as it does while calls run or blocks are pinned",
                    "an idle server between arms",
                    "Stop whoever else uses it, or restart it.",
                )
            await asyncio.sleep(RETRY_S)

    async def _read_model(self) -> None:
        """Its name, where none was given, and the longest context, where it says."""
        answer = await self._ask("GET", "/v1/models")
        listed = answer.json()
        models = listed.get("data") if isinstance(listed, dict) else None
        if not models:
            raise SetupError(f"GET {self.url}/v1/models answers {answer.brief()}", "a list of models")
        card = next((card for card in models if card.get("id") == self._model), models[0])
        self._model = self._model or card["id"]
        self._longest = card.get("max_model_len")

    async def _prompt(self, rng: random.Random) -> list[int]:
        """Random token ids over several blocks, and one more: a whole prompt is never taken as cached."""
        metrics = await self._metrics()
        block = (metrics.block_size if metrics else None) or LARGEST_BLOCK
        length = max(PROBE_BLOCKS * block, PROBE_TOKENS) + 1
        if self._longest is not None:
            length = min(length, self._longest - 1)  # and one to generate
        return [FIRST_TOKEN + rng.randrange(TOKENS) for _ in range(length)]

    async def _probe(self, prompt: list[int]) -> _Seen:
        """Send the prompt for one token; how much of it was cached."""
        before = await self._metrics()
        body = {"model": self._model, "prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        answer = await self._ask("POST", "/v1/completions", body)
        found = answer.json()
        if answer.status != HTTPStatus.OK or not isinstance(found, dict):
            raise SetupError(
                f"POST {self.url}/v1/completions answers {answer.brief()}",
                "a server that completes a prompt of token ids",
            )
        details = (found.get("usage") or {}).get("prompt_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("cached_tokens"), int):
            return _Seen(details["cached_tokens"], "usage")
        hits = await self._hits_since(before, len(prompt))
        return _Seen(hits, "" if hits is None else "metrics")

    async def _hits_since(self, before: ReplicaMetrics | None, tokens: int) -> int | None:
        """Hits counted since `before`, once a prompt of so many tokens is counted; null: not counted."""
        if before is None or before.queries_total is None or before.hits_total is None:
            return None
        loop = asyncio.get_running_loop()
        deadline = loop.time() + COUNTED_WITHIN_S
        while True:
            now = await self._metrics()
            if now is None or now.queries_total is None or now.hits_total is None:
                return None
            if now.queries_total - before.queries_total >= tokens:
                behind = (now.offload_hits_total or 0) - (before.offload_hits_total or 0)
                return now.hits_total - before.hits_total + behind
            if loop.time() >= deadline:
                return None
            await asyncio.sleep(RETRY_S)

    async def _metrics(self) -> ReplicaMetrics | None:
        answer = await self._ask("GET", "/metrics")
        try:
            return read_metrics(answer.text) if answer.status == HTTPStatus.OK else None
        except ValueError:  # a page that breaks off tells nothing
            return None

    async def _ask(self, method: str, path: str, body: object = None) -> _Answer:
        async with self._session.request(
            method, self.url + path, json=body, headers=self._headers
        ) as answer:
            return _Answer(answer.status, await answer.text(errors="replace"))


def _done(route: _Route, answer: _Answer) -> bool:
    """Whether an answer says that the cache was emptied."""
    if answer.status != HTTPStatus.OK:
        return False
    if route.path == "/flush_cache":
        return answer.text.startswith(_FLUSHED)
    said = answer.json()
    # vLLM before it told: 200 and nothing. The probe finds out.
    return bool(said.get("success")) if isinstance(said, dict) else not answer.text.strip()


def _doubt(first: _Seen, warm: _Seen, after: _Seen) -> str:
    """Why the probes prove nothing; empty when they do."""
    # Usage may leave out a count of zero. A counter that missed one call shows it with the next.
    missed = warm.by != "usage" and None in {first.cached_tokens, after.cached_tokens}
    if warm.cached_tokens is None or missed:
        return (
            "the server tells no cached tokens: neither in usage (start vLLM with "
            "--enable-prompt-tokens-details, SGLang with --enable-cache-report) nor in /metrics"
        )
    if first.cached_tokens:
        return f"a random prompt was found cached ({first.cached_tokens} tokens): others use the server"
    if not warm.cached_tokens:
        return "a prompt sent twice was not found cached before the reset either: prefix caching seems off"
    return ""

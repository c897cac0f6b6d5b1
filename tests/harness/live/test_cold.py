"""A reset is believed when a probe says so: servers that refuse, lie, keep silent, or have no route."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harness.errors import EngineFailed, SetupError
from harness.live import cold
from harness.live.cold import Cold, make_cold

BLOCK = 32
VLLM, SGLANG = "/reset_prefix_cache", "/flush_cache"
UNSEEN = (
    "the server tells no cached tokens: neither in usage (start vLLM with "
    "--enable-prompt-tokens-details, SGLang with --enable-cache-report) nor in /metrics"
)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "RETRY_S", 0.0)


@dataclass
class Fake:
    """A server whose prefix cache is a set of prompts, with a switch per behaviour."""

    route: str | None = VLLM
    busy: int = 0  # how often it refuses first
    lies: bool = False  # says that the cache is empty, and keeps it
    silent: bool = False  # an answer without a body, as vLLM once gave
    caches: bool = True
    in_usage: bool = True
    zero_in_usage: bool = True
    in_metrics: bool = True
    late: int = 0  # how many pages of metrics a call is missing from
    key: str = ""
    longest: int = 4096
    fails_with: int = 200
    cached: set[tuple[int, ...]] = field(default_factory=set)
    prompts: list[list[int]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    queries: int = 0
    hits: int = 0
    pages: list[str] = field(default_factory=list)

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._check_key])
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/completions", self._complete)
        if self.in_metrics:
            app.router.add_get("/metrics", self._metrics)
        if self.route is not None:
            app.router.add_post(self.route, self._reset)
        return app

    @web.middleware
    async def _check_key(
        self, request: web.Request, handler: Callable[[web.Request], object]
    ) -> web.StreamResponse:
        self.asked.append(request.path)
        if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
            return web.json_response({"error": "no key"}, status=401)
        return await handler(request)  # type: ignore[misc]

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "tiny", "max_model_len": self.longest}]})

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        assert (body["model"], body["max_tokens"]) == ("tiny", 1)
        prompt = tuple(body["prompt"])
        self.prompts.append(body["prompt"])
        hit = (len(prompt) - 1) // BLOCK * BLOCK if prompt in self.cached else 0
        if self.caches:
            self.cached.add(prompt)
        self.pages = [self._page()] * self.late
        self.queries += len(prompt)
        self.hits += hit
        usage = {"prompt_tokens": len(prompt), "completion_tokens": 1, "prompt_tokens_details": None}
        if self.in_usage and (hit or self.zero_in_usage):
            usage["prompt_tokens_details"] = {"cached_tokens": hit}
        return web.json_response({"usage": usage})

    def _page(self) -> str:
        return (
            f'vllm:cache_config_info{{block_size="{BLOCK}",engine="0",num_gpu_blocks="64"}} 1.0\n'
            f'vllm:prefix_cache_queries_total{{engine="0"}} {self.queries}.0\n'
            f'vllm:prefix_cache_hits_total{{engine="0"}} {self.hits}.0\n'
        )

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text=self.pages.pop() if self.pages else self._page())

    async def _reset(self, request: web.Request) -> web.Response:
        if self.fails_with != 200:
            return web.Response(status=self.fails_with, text="broken\nfor good")
        sglang = self.route == SGLANG
        assert request.query_string == ("" if sglang else "reset_external=true")
        refused = self.busy > 0
        self.busy -= refused
        if not refused and not self.lies:
            self.cached.clear()
        if sglang:
            return web.Response(status=400 if refused else 200, text="Cache flushed.\nPlease check ...")
        return web.Response() if self.silent else web.json_response({"success": not refused})


def play(fake: Fake, **options: object) -> tuple[Cold, str]:
    """What `make_cold` makes of it, and the server's address."""

    async def go() -> tuple[Cold, str]:
        async with TestServer(fake.app()) as server, aiohttp.ClientSession() as session:
            url = str(server.make_url("")).rstrip("/")
            return await make_cold(session, url + "/", rng=random.Random(1), **options), url  # type: ignore[arg-type]

    return asyncio.run(go())


def refusal(fake: Fake, **options: object) -> SetupError:
    with pytest.raises(SetupError) as caught:
        play(fake, **options)
    return caught.value


def test_a_server_that_does_as_it_says_is_verified_and_left_without_the_probe() -> None:
    fake = Fake()
    found, url = play(fake)
    assert found == Cold(url, VLLM, resets=3, verified=True, seen_by="usage")
    assert fake.cached == set()


def test_the_probe_is_one_random_prompt_of_whole_blocks_and_a_token() -> None:
    fake = Fake()
    play(fake)
    assert fake.prompts == [fake.prompts[0]] * 3
    (length,) = {len(prompt) for prompt in fake.prompts}
    assert (length - 1) % BLOCK == 0
    assert length - 1 >= cold.PROBE_BLOCKS * BLOCK
    assert set(fake.prompts[0]) <= set(range(16, 216))


def test_a_probe_fits_the_longest_context() -> None:
    fake = Fake(longest=100)
    assert play(fake)[0].verified
    assert len(fake.prompts[0]) == 99


def test_a_busy_server_is_asked_again() -> None:
    found, url = play(Fake(busy=5))
    assert found == Cold(url, VLLM, resets=8, verified=True, seen_by="usage")


@pytest.mark.parametrize("route", [VLLM, SGLANG])
def test_a_server_that_stays_busy_is_refused(route: str) -> None:
    error = refusal(Fake(route=route, busy=10**6), patience_s=0.0)
    assert f"{route} still refuses after 0 s (" in error.found
    assert error.expected == "an idle server between arms"


@pytest.mark.parametrize("in_usage", [True, False])
def test_a_server_that_lies_is_found_out(in_usage: bool) -> None:  # noqa: FBT001
    error = refusal(Fake(lies=True, in_usage=in_usage))
    assert "/reset_prefix_cache says that the cache is empty, but 256 of 257 tokens" in error.found
    assert error.fix == "Restart the server between arms."


def test_an_answer_without_a_body_is_left_to_the_probe() -> None:
    assert play(Fake(silent=True))[0].verified
    assert "says that the cache is empty" in refusal(Fake(silent=True, lies=True)).found


def test_a_server_without_a_route_is_left_alone_and_the_mend_told() -> None:
    fake = Fake(route=None)
    error = refusal(fake)
    assert error.fix == "Start it with VLLM_SERVER_DEV_MODE=1."
    assert fake.asked == [VLLM, SGLANG]


def test_sglang_is_flushed() -> None:
    found, url = play(Fake(route=SGLANG, busy=2))
    assert found == Cold(url, SGLANG, resets=5, verified=True, seen_by="usage")


def test_usage_that_leaves_out_a_zero_is_understood() -> None:
    found, url = play(Fake(route=SGLANG, zero_in_usage=False, in_metrics=False))
    assert found == Cold(url, SGLANG, resets=3, verified=True, seen_by="usage")
    lying = Fake(route=SGLANG, zero_in_usage=False, in_metrics=False, lies=True)
    assert "says that the cache is empty" in refusal(lying).found


def test_counters_stand_in_for_usage_also_when_they_come_late() -> None:
    """A call may be answered before it is counted; then its hits are not counted yet either."""
    found, url = play(Fake(in_usage=False, late=2))
    assert found == Cold(url, VLLM, resets=3, verified=True, seen_by="metrics")


def test_calls_that_are_never_counted_verify_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cold, "COUNTED_WITHIN_S", 0.0)
    found, url = play(Fake(in_usage=False, late=10**3))
    assert found == Cold(url, VLLM, resets=3, verified=False, reason=UNSEEN)


def test_a_server_that_tells_nothing_is_reset_but_not_verified() -> None:
    fake = Fake(in_usage=False, in_metrics=False)
    found, url = play(fake)
    assert found == Cold(url, VLLM, resets=3, verified=False, reason=UNSEEN)
    assert fake.cached == set()


def test_a_server_that_caches_nothing_proves_nothing() -> None:
    found, _ = play(Fake(caches=False))
    assert not found.verified
    assert found.reason.endswith("prefix caching seems off")


def test_a_key_goes_with_every_request() -> None:
    assert play(Fake(key="k"), headers={"Authorization": "Bearer k"})[0].verified


def test_a_server_that_wants_a_key_says_so() -> None:
    assert 'answers 401 \'{"error": "no key"}\'' in refusal(Fake(key="k")).found


def test_a_route_that_fails_is_not_asked_again() -> None:
    error = refusal(Fake(fails_with=500))
    assert error.found.endswith("/reset_prefix_cache answers 500 'broken for good'")


def test_a_server_that_is_not_there_is_the_servers_fault() -> None:
    async def go() -> None:
        server = TestServer(Fake().app())
        async with server, aiohttp.ClientSession() as session:
            url = server.make_url("")
            await server.close()
            await make_cold(session, str(url))

    with pytest.raises(EngineFailed, match="does not answer: "):
        asyncio.run(go())

"""The monitor on virtual time with scripted servers; its questions over HTTP on loopback."""

from __future__ import annotations

import asyncio
import socket
from dataclasses import replace

import aiohttp
import pytest
from aiohttp import web

from harness.errors import SetupError
from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.monitor import HttpProbe, Monitor, ReplicaHealth
from harness.live.ports import ReplicaMetrics, UpstreamFailed
from harness.live.virtual_loop import VirtualLoop
from schedulers.contract import Dispatch, ReplicaDown, ReplicaSampled, ReplicaUp

SAYS = ReplicaMetrics(running=1, waiting=2, kv_usage_share=0.5, kv_tokens=1000, block_size=16)


class Server:
    """A scripted server: why it is ill, what it says (an error raises), how long it takes to answer."""

    def __init__(self, ill="", says=SAYS, takes_s=0.0):
        self.ill, self.says, self.takes_s, self.says_takes_s = ill, says, takes_s, 0.0


class Scripted:
    """A probe of scripted servers that remembers what it was asked, and when."""

    def __init__(self, **servers: Server) -> None:
        self.servers, self.asked = servers, []

    def times(self, what, replica="a"):
        return [at for at, question, name in self.asked if (question, name) == (what, replica)]

    def _ask(self, what, replica):
        self.asked.append((round(asyncio.get_running_loop().time(), 6), what, replica))
        return self.servers[replica]

    async def health(self, replica):
        server = self._ask("health", replica)
        await asyncio.sleep(server.takes_s)
        if server.ill:
            raise UpstreamFailed(server.ill)

    async def metrics(self, replica):
        server = self._ask("metrics", replica)
        await asyncio.sleep(server.says_takes_s)
        if isinstance(server.says, UpstreamFailed):
            raise server.says
        return None if server.says is None else replace(server.says)


class Noting:
    """A policy that remembers what it was told of replicas, and sends every call to `a`."""

    name = "noting"
    needs = frozenset()
    manages_sandboxes = False
    observes = frozenset({ReplicaSampled})

    def __init__(self):
        self.told = []

    def handle(self, event, now):
        if isinstance(event, ReplicaUp | ReplicaDown):
            self.told.append((round(now, 6), event))
        if type(event).__name__ == "CallArrived":
            return [Dispatch(event.call_id, "a")]
        return []

    def check_invariants(self):
        pass


class Stage:
    """A monitor over scripted servers, run until `until_s`; `at` changes things on the way."""

    def __init__(self, probe, **options):
        self.probe, self.options, self.changes = probe, options, []

    def at(self, when, change):
        self.changes.append((when, change))
        return self

    def run(self, until_s):
        with VirtualLoop() as loop:
            loop.run_until_complete(self._run(loop, until_s))
        return self.policy.told

    async def _run(self, loop, until_s):
        self.policy = Noting()
        self.driver = LiveDriver(self.policy, LoopClock(loop))
        replicas = dict.fromkeys(self.probe.servers, "")
        self.monitor = Monitor(self.driver, replicas, probe=self.probe, **self.options)
        await self.monitor.start()
        for when, change in self.changes:
            loop.call_at(when, change)
        await asyncio.sleep(until_s - loop.time())
        self.driver.check_invariants()
        await self.monitor.stop()


UP = ReplicaUp("a", 1000, 16)


def test_those_that_answer_the_first_look_are_told_up_in_the_order_given() -> None:
    """Whoever answers first; the one that does not is up when it does."""
    probe = Scripted(a=Server(takes_s=0.5), b=Server("refused"), c=Server())
    stage = Stage(probe).at(1.6, lambda: setattr(probe.servers["b"], "ill", ""))
    assert stage.run(3) == [
        (0.5, ReplicaUp("a", 1000, 16)),
        (0.5, ReplicaUp("c", 1000, 16)),
        (2.5, ReplicaUp("b", 1000, 16)),
    ]


def test_a_replica_is_out_after_fall_failed_looks_in_a_row_and_back_after_rise_good_ones() -> None:
    probe = Scripted(a=Server())
    a = probe.servers["a"]
    stage = Stage(probe, fall=3, rise=2, health_every_s=1.0)
    stage.at(1.5, lambda: setattr(a, "ill", "/health answered 503"))
    stage.at(3.5, lambda: setattr(a, "ill", ""))  # two failed looks, then a good one
    stage.at(4.5, lambda: setattr(a, "ill", "/health answered 503"))
    stage.at(7.5, lambda: setattr(a, "ill", ""))
    assert stage.run(11) == [(0.0, UP), (7.0, ReplicaDown("a")), (9.0, UP)]
    assert stage.monitor.health == {
        "a": ReplicaHealth("up", 9.0, "/health answered 503", SAYS, failures=0, good=3)
    }


def test_calls_of_a_replica_that_is_out_fail() -> None:
    probe = Scripted(a=Server())
    calls = []
    stage = Stage(probe, fall=1, health_every_s=1.0)
    stage.at(0.5, lambda: calls.append(stage.driver.open("p", 10)))
    stage.at(0.6, lambda: setattr(probe.servers["a"], "ill", "/health: refused"))
    stage.run(2)
    assert [(call.end, call.reason) for call in calls] == [
        ("failed", "replica a is gone: /health: refused")
    ]


def test_one_that_is_down_is_looked_at_ever_more_rarely() -> None:
    probe = Scripted(a=Server("refused"))
    stage = Stage(probe, fall=2)
    assert stage.run(40) == []
    assert probe.asked == [(at, "health", "a") for at in (0, 1, 2, 4, 8, 16, 26, 36)]
    assert stage.monitor.health["a"].state == "down"


def test_metrics_are_asked_every_second_and_health_when_it_is_due() -> None:
    probe = Scripted(a=Server())
    Stage(probe, every_s=1.0, health_every_s=3.0).run(6.5)
    assert probe.times("metrics") == [0, 1, 2, 3, 4, 5, 6]
    assert probe.times("health") == [0, 3, 6]


def test_metrics_that_fail_ask_for_the_health_at_once_and_do_not_fail_the_look() -> None:
    probe = Scripted(a=Server())
    samples = []
    stage = Stage(probe, health_every_s=100.0, on_sample=lambda name, says: samples.append((name, says)))
    stage.at(0.5, lambda: setattr(probe.servers["a"], "says", UpstreamFailed("/metrics answered 500")))
    assert stage.run(3.5) == [(0.0, UP)]
    assert probe.times("health") == [0, 1, 2, 3]
    assert samples == [("a", SAYS)]
    assert stage.monitor.health["a"] == ReplicaHealth(
        "up", 0.0, "/metrics answered 500", None, failures=0, good=4
    )


def test_a_server_without_metrics_is_still_asked_for_its_health() -> None:
    probe = Scripted(a=Server(says=None))
    stage = Stage(probe, kv_tokens=512, block_size=128, health_every_s=2.0, fall=2)
    stage.at(3.0, lambda: setattr(probe.servers["a"], "ill", "gone"))
    assert stage.run(5.5) == [(0.0, ReplicaUp("a", 512, 128)), (5.0, ReplicaDown("a"))]
    assert probe.times("health") == [0, 2, 4, 5]


def test_a_slow_replica_delays_nobody_and_falls_by_its_time_outs() -> None:
    probe = Scripted(a=Server(), b=Server())
    stage = Stage(probe, fall=2, timeout_s=2.0, health_every_s=1.0)
    stage.at(0.5, lambda: setattr(probe.servers["b"], "takes_s", 1000.0))
    assert stage.run(6.5) == [(0.0, UP), (0.0, ReplicaUp("b", 1000, 16)), (5.0, ReplicaDown("b"))]
    assert probe.times("health", "a") == [0, 1, 2, 3, 4, 5, 6]
    assert stage.monitor.health["b"].last_error == "health: no answer within 2 s"


def test_slow_metrics_are_no_illness() -> None:
    probe = Scripted(a=Server())
    stage = Stage(probe, timeout_s=2.0)
    stage.at(0.5, lambda: setattr(probe.servers["a"], "says_takes_s", 1000.0))
    assert stage.run(20) == [(0.0, UP)]
    assert stage.monitor.health["a"].last_error == "metrics: no answer within 2 s"


def test_a_failed_call_brings_the_look_forward_and_counts() -> None:
    """One call and one look make two strikes, long before the next look was due."""
    probe = Scripted(a=Server())
    stage = Stage(probe, every_s=10.0, fall=2)
    stage.at(3.0, lambda: setattr(probe.servers["a"], "ill", "refused"))
    stage.at(4.0, lambda: stage.monitor.note_failure("a", "connection reset"))
    assert stage.run(5) == [(0.0, UP), (4.0, ReplicaDown("a"))]


def test_failed_calls_alone_take_no_replica_out() -> None:
    """However many: the look they ask for finds it well, and forgets them. The looks keep a distance."""
    probe = Scripted(a=Server())
    stage = Stage(probe, every_s=10.0, health_every_s=10.0, fall=2)
    for when in (4.0, 4.0, 4.0, 4.01, 4.02, 4.09, 4.3):
        stage.at(when, lambda: stage.monitor.note_failure("a", "connection reset"))
    assert stage.run(5) == [(0.0, UP)]
    assert probe.times("health") == [0, 4.0, 4.1, 4.3]
    assert stage.monitor.health["a"] == ReplicaHealth("up", 0.0, "connection reset", SAYS, 0, 4)


def test_a_failed_call_of_one_that_is_out_changes_nothing() -> None:
    probe = Scripted(a=Server("refused"))
    stage = Stage(probe, fall=1)
    stage.at(0.5, lambda: stage.monitor.note_failure("a", "connection reset"))
    stage.run(0.9)
    assert probe.times("health") == [0]
    assert stage.monitor.health["a"] == ReplicaHealth("down", 0.0, "refused", None, failures=1)


def test_one_that_came_back_with_another_capacity_is_told_with_it() -> None:
    probe = Scripted(a=Server())
    a = probe.servers["a"]
    stage = Stage(probe, health_every_s=1.0)
    stage.at(0.5, lambda: setattr(a, "ill", "refused"))
    stage.at(2.5, lambda: setattr(a, "ill", "") or setattr(a, "says", replace(SAYS, kv_tokens=2000)))
    assert stage.run(4) == [(0.0, UP), (2.0, ReplicaDown("a")), (3.0, ReplicaUp("a", 2000, 16))]


def test_a_restart_between_two_looks_shows_by_its_capacity() -> None:
    probe = Scripted(a=Server())
    stage = Stage(probe)
    stage.at(0.5, lambda: setattr(probe.servers["a"], "says", replace(SAYS, kv_tokens=2000)))
    assert stage.run(3) == [(0.0, UP), (1.0, ReplicaDown("a")), (1.0, ReplicaUp("a", 2000, 16))]
    health = stage.monitor.health["a"]
    assert (health.state, health.since_s, health.last_error) == (
        "up",
        1.0,
        "restarted: room for 2,000 tokens instead of 1,000",
    )


def test_what_is_given_stands_in_for_what_a_server_does_not_say() -> None:
    says = ReplicaMetrics(running=1, waiting=0, kv_usage_share=0.5)
    stage = Stage(Scripted(a=Server(says=says)), kv_tokens=512)
    assert stage.run(1.5) == [(0.0, ReplicaUp("a", 512, 16))]
    metrics = stage.monitor.health["a"].metrics
    assert metrics is not None
    assert metrics.kv_used_tokens == 256


def test_what_a_server_says_goes_before_what_is_given() -> None:
    stage = Stage(Scripted(a=Server()), kv_tokens=512, block_size=128)
    assert stage.run(0.5) == [(0.0, UP)]


def test_a_capacity_that_nobody_knows_is_refused_with_what_to_give() -> None:
    stage = Stage(Scripted(a=Server(says=ReplicaMetrics(running=0))))
    with pytest.raises(SetupError, match=r"server a does not say how many tokens .* --kv-tokens TOKENS"):
        stage.run(1)


def test_one_that_comes_later_without_a_capacity_stays_out_and_says_why() -> None:
    probe = Scripted(a=Server("refused"))
    stage = Stage(probe, fall=2)
    stage.at(
        0.5, lambda: setattr(probe.servers["a"], "ill", "") or setattr(probe.servers["a"], "says", None)
    )
    assert stage.run(5) == []
    health = stage.monitor.health["a"]
    assert (health.state, "--kv-tokens" in health.last_error) == ("down", True)


def test_a_bug_in_a_look_is_shown_at_once_and_raised_at_the_end() -> None:
    shown = []

    def samples(_name: str, _says: ReplicaMetrics) -> None:
        if asyncio.get_running_loop().time() > 0:
            raise ZeroDivisionError

    async def main(loop: VirtualLoop) -> None:
        loop.set_exception_handler(lambda _, context: shown.append(context["message"]))
        driver = LiveDriver(Noting(), LoopClock(loop))
        monitor = Monitor(driver, {"a": ""}, probe=Scripted(a=Server()), on_sample=samples)
        await monitor.start()
        await asyncio.sleep(2)
        assert shown == ["watching a stopped"]
        with pytest.raises(ZeroDivisionError):
            await monitor.stop()

    with VirtualLoop() as loop:
        loop.run_until_complete(main(loop))


# ------------------------------------------------------------------ over HTTP

VLLM_PAGE = (
    "vllm:num_requests_running 2\nvllm:cache_config_info{block_size='16',num_gpu_blocks='8'} 1\n".replace(
        "'", '"'
    )
)


class Site:
    """An HTTP server on loopback: path -> (status, body); what it does not have is 404."""

    def __init__(self, **pages):
        self.pages = {f"/{name.replace('__', '/')}": page for name, page in pages.items()}
        self.asked = []

    async def __aenter__(self):
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._session = aiohttp.ClientSession(auto_decompress=False)
        self.probe = HttpProbe(self._session, {"a": f"{self.url}/v1/"})
        return self

    async def __aexit__(self, *_):
        await self._session.close()
        await self._runner.cleanup()

    async def _answer(self, request):
        self.asked.append(request.path)
        status, body = self.pages.get(request.path, (404, ""))
        response = web.Response(status=status, text=body)
        response.enable_compression()  # as the request allows
        return response


def ask(site, question):
    """What `question(probe)` gives, or the reason why it failed."""

    async def main():
        async with site:
            try:
                return await question(site.probe)
            except UpstreamFailed as error:
                return error.reason

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("pages", "expected", "asked"),
    [
        ({"health": (200, "")}, None, ["/health"]),
        ({"health": (503, "")}, "/health answered 503", ["/health"]),
        ({"v1__models": (200, "{}")}, None, ["/health", "/v1/models"]),
        ({"v1__models": (401, "")}, "/v1/models answered 401", ["/health", "/v1/models"]),
        ({}, "/v1/models answered 404", ["/health", "/v1/models"]),
    ],
)
def test_health_is_its_page_or_else_the_list_of_models(pages, expected, asked) -> None:
    site = Site(**pages)
    assert ask(site, lambda probe: probe.health("a")) == expected
    assert site.asked == asked


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        ({}, None),
        ({"metrics": (200, "go_goroutines 3\n")}, ReplicaMetrics()),
        ({"metrics": (500, "")}, "/metrics answered 500"),
        ({"get_server_info": (200, '{"max_total_num_tokens": 9}')}, ReplicaMetrics(kv_tokens=9)),
        ({"server_info": (200, '{"max_total_num_tokens": 9}')}, ReplicaMetrics(kv_tokens=9)),
        ({"get_server_info": (200, "<html>")}, None),
        ({"get_server_info": (200, "[]")}, None),
        (
            {
                "metrics": (200, "sglang:num_running_reqs 2\nsglang:page_size 4\n"),
                "get_server_info": (200, '{"max_total_num_tokens": 9, "page_size": 1}'),
            },
            ReplicaMetrics(running=2, kv_tokens=9, block_size=4),
        ),
    ],
)
def test_metrics_are_its_page_and_the_server_info_of_sglang(pages, expected) -> None:
    found = ask(Site(**pages), lambda probe: probe.metrics("a"))
    if isinstance(found, ReplicaMetrics):
        found.raw = {}
    assert found == expected


def test_a_page_that_is_no_prometheus_text_is_a_failure() -> None:
    reason = ask(Site(metrics=(200, "vllm:num_requests_running x\n")), lambda probe: probe.metrics("a"))
    assert reason.startswith("/metrics is no text of Prometheus: ")


def test_the_server_info_is_asked_for_once_until_the_replica_is_ill() -> None:
    site = Site(health=(200, ""), metrics=(200, "vllm:num_requests_running 2\n"))

    async def question(probe):
        for status in (200, 200, 503, 200):
            site.pages["/health"] = (status, "")
            try:
                await probe.health("a")
                await probe.metrics("a")
            except UpstreamFailed:
                assert status == 503

    ask(site, question)
    looks = ["/health", "/metrics"]
    info = ["/get_server_info", "/server_info"]
    assert site.asked == [*looks, *info, *looks, "/health", *looks, *info]


def test_vllm_is_asked_for_its_page_only() -> None:
    site = Site(metrics=(200, VLLM_PAGE))
    found = ask(site, lambda probe: probe.metrics("a"))
    assert (found.running, found.kv_tokens, site.asked) == (2, 128, ["/metrics"])


def test_a_port_where_nobody_listens_is_a_failure() -> None:
    async def main() -> None:
        with socket.socket() as held:
            held.bind(("127.0.0.1", 0))  # bound, and nobody listens
            url = f"http://127.0.0.1:{held.getsockname()[1]}"
            async with aiohttp.ClientSession() as session:
                with pytest.raises(UpstreamFailed, match=r"/health: .*Connect"):
                    await HttpProbe(session, {"a": url}).health("a")

    asyncio.run(main())


def test_the_monitor_looks_over_http_of_its_own() -> None:
    """The whole of it on a real loop: a server is up, and what it said is there."""

    async def main() -> None:
        async with (
            Site(health=(200, ""), metrics=(200, VLLM_PAGE)) as site,
            aiohttp.ClientSession() as session,
        ):
            driver = LiveDriver(Noting(), LoopClock())
            monitor = Monitor(driver, {"a": site.url}, session=session)
            await monitor.start()
            await monitor.stop()
            assert driver.replicas == {"a": ReplicaUp("a", 128, 16)}

    asyncio.run(main())

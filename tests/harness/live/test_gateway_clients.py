"""Clients over real sockets: they leave, share programs, have no key, send too much, or are told to go."""

import asyncio
import json

import pytest

from harness.live.limits import Limits
from schedulers.contract import CallFailed, CallFinished, ProgramArrived, ProgramFinished
from tests.harness.live.scripted_server import (
    BODY,
    ENDLESS,
    STREAM,
    TEXT,
    ScriptedServer,
    ask,
    chat,
    chunk,
    events,
    gateway,
    head,
    saying,
    through,
    until,
    usual,
)

# ------------------------------------------------------------------ clients that leave, and programs


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_cancels_its_call_and_the_server_is_told(stream):
    async def run():
        async def script(_):
            if stream:
                yield ENDLESS
            await asyncio.Event().wait()

        async with ScriptedServer(script) as server, gateway(server.url) as front:
            asking = asyncio.ensure_future(ask(front.url, body=chat(stream=stream)))
            await until(lambda: server.requests)
            if stream:
                await until(lambda: front.driver.calls["p/0"].first_token_s is not None)
            asking.cancel()
            await asyncio.wait_for(server.cut.wait(), 20)
            await until(lambda: front.ended)
            return front

    front = asyncio.run(run())
    assert front.driver.ends == {"finished": 0, "failed": 0, "cancelled": 1}
    assert [call.status for call in front.ended] == [200 if stream else 0]


def test_a_client_that_leaves_while_it_is_held_is_cancelled():
    async def run():
        async with gateway("http://127.0.0.1:9", up=False) as front:
            asking = asyncio.ensure_future(ask(front.url, body=chat()))
            await until(lambda: front.driver.held)
            asking.cancel()
            await until(lambda: front.ended)
            return front

    front = asyncio.run(run())
    assert front.driver.ends == {"finished": 0, "failed": 0, "cancelled": 1}


def test_traffic_without_identity_is_served_each_request_its_own_program():
    async def run():
        answer = head(200, "application/json", length=len(BODY)) + BODY
        async with ScriptedServer(saying(answer)) as server, gateway(server.url) as front:
            got = [await ask(front.url, body=chat(None)) for _ in range(3)]
            got.append(await ask(front.url, body=b'{"no": "model", "stream": 1'))
            return got, front

    got, front = asyncio.run(run())
    assert [answer.status for answer in got] == [200] * 4
    names = [told.program_id for told in events(front, ProgramArrived)]
    assert names == [told.program_id for told in events(front, ProgramFinished)]
    assert len(set(names)) == 4
    assert front.driver.programs == {}


def test_identity_comes_from_headers_too_and_final_releases():
    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url) as front:
            await ask(front.url, "POST", "/v1/chat/completions", chat(None), "X-Session-Id: s1")
            await ask(
                front.url, "POST", "/v1/chat/completions", chat(None), "x-dynamo-session-id: kid",
                "x-dynamo-parent-session-id: s1",
            )  # fmt: skip
            before = list(front.driver.programs), front.driver.programs["s1"].calls_seen
            last = ("x-dynamo-session-id: s1", "x-dynamo-session-final: true")
            await ask(front.url, "POST", "/v1/chat/completions", chat(None), *last)
            return before, front

    before, front = asyncio.run(run())
    assert before == (["s1"], 2)
    assert front.driver.programs == {}
    assert events(front, ProgramFinished) == [ProgramFinished("s1")]


def test_overlapping_calls_of_sub_agents_under_one_program_all_end():
    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url, scheduler="thunder") as front:
            bodies = [chat("p", stream=bool(number % 2)) for number in range(12)]
            got = await asyncio.gather(*(ask(front.url, body=body) for body in bodies))
            released = await ask(front.url, "POST", "/programs/release", b'{"program_id": "p"}')
            return got, released, front

    got, released, front = asyncio.run(run())
    assert [answer.status for answer in got] == [200] * 12
    assert json.loads(released.body) == {"program_id": "p", "released": True}
    assert len(events(front, CallFinished)) == 12
    assert front.driver.programs == {}


def test_two_replicas_share_the_work_and_one_that_comes_back_serves_again():
    async def run():
        async with (
            ScriptedServer(usual) as one,
            ScriptedServer(usual) as two,
            gateway(one.url, two.url) as front,
        ):
            await asyncio.gather(*(ask(front.url, body=chat(f"p{n}")) for n in range(20)))
            both = len(one.requests), len(two.requests)
            front.driver.replica_down("r0", "test")
            await asyncio.gather(*(ask(front.url, body=chat(f"q{n}")) for n in range(4)))
            only_two = len(one.requests) - both[0], len(two.requests) - both[1]
            front.driver.replica_up("r0", 100_000, 16)
            front.driver.replica_down("r1", "test")
            got = await ask(front.url, body=chat("z"))
            return both, only_two, got

    both, only_two, got = asyncio.run(run())
    assert sum(both) == 20
    assert min(both) > 0
    assert only_two == (0, 4)
    assert got.headers["x-thunderbench-replica"] == "r0"


# ------------------------------------------------------------------ who may come in, and how much


def test_without_the_key_nothing_but_health_is_answered_and_the_key_is_not_passed_on():
    async def run():
        async with (
            ScriptedServer(usual) as server,
            gateway(server.url, key="s3cret", headers={"Authorization": "Bearer upstream"}) as front,
        ):
            paths = [("POST", "/v1/chat/completions"), ("GET", "/programs"), ("GET", "/metrics")]
            paths += [("POST", "/programs/release"), ("POST", "/programs/events"), ("GET", "/v1/models")]
            paths += [("GET", "/nowhere"), ("GET", "/health")]
            wrong = (
                "Authorization: Bearer s3cre",
                "Authorization: Basic s3cret",
                "X-Api-Key: \u00fc",
                "X: y",
            )
            refused = [
                (await ask(front.url, method, path, chat(), field)).status
                for method, path in paths
                for field in wrong
            ]
            seen = len(server.requests)
            health = await ask(front.url, "GET", "/health")
            right = ("Authorization: Bearer s3cret", "authorization: bearer s3cret", "X-Api-Key: s3cret")
            got = [await ask(front.url, "POST", "/v1/messages", chat(), field) for field in right]
            metrics = await ask(front.url, "GET", "/metrics", b"", right[0])
            return refused, seen, health, got, metrics, server.requests

    refused, seen, health, got, metrics, asked = asyncio.run(run())
    assert refused == [401] * 28 + [200] * 4
    assert seen == 0
    assert json.loads(health.body) == {"status": "ok"}
    assert [answer.status for answer in got] == [200] * 3
    assert metrics.body == b"metrics 1\n"
    assert [(r.headers["authorization"], r.headers.get("x-api-key")) for r in asked] == [
        ("Bearer upstream", None)
    ] * 3


def test_a_body_that_is_too_long_is_refused_unread_or_when_it_gets_too_long():
    async def run():
        async with (
            ScriptedServer(usual) as server,
            gateway(server.url, limits=Limits(body_bytes=1000)) as front,
        ):
            long = await ask(front.url, body=b"x" * 1001)
            fits = await ask(front.url, body=chat() + b" " * (1000 - len(chat())))
            host, port = front.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            writer.write(chunk(b"y" * 700) + chunk(b"y" * 700))
            line = await reader.readline()
            writer.transport.abort()
            return long.status, fits.status, line[:12], len(server.requests)

    assert asyncio.run(run()) == (413, 200, b"HTTP/1.1 413", 1)


def test_long_and_many_headers_are_refused():
    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url) as front:
            long = await ask(front.url, "POST", "/v1/completions", b"", "X: " + "y" * 9000)
            many = await ask(front.url, "POST", "/v1/completions", b"", *(f"X-{n}: y" for n in range(200)))
            return long.status, many.status, len(server.requests)

    assert asyncio.run(run()) == (400, 400, 0)


def test_a_request_that_does_not_come_and_a_client_that_does_not_read_are_cut():
    async def run():
        async def flood(_):
            yield head(200, "text/event-stream", chunked=True)
            while True:
                yield chunk(b": " + b"x" * 65_536 + b"\n\n")

        limits = Limits(read_s=0.05, write_s=0.05, keep_alive_s=0.05)
        async with ScriptedServer(flood) as server, gateway(server.url, limits=limits) as front:
            host, port = front.url.removeprefix("http://").split(":")
            silent, late, deaf = [await asyncio.open_connection(host, int(port)) for _ in range(3)]
            late[1].write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            body = chat(stream=True)
            deaf[1].transport.pause_reading()
            deaf[1].write(
                b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            )
            deaf[1].write(body)
            first = await silent[0].read()
            second = await late[0].readline()
            await asyncio.wait_for(server.cut.wait(), 20)
            await until(lambda: front.ended)
            for _, writer in (silent, late, deaf):
                writer.transport.abort()
            return first, second, front.driver.ends

    first, second, ends = asyncio.run(run())
    assert first == b""
    assert second == b"HTTP/1.1 408 Request Timeout\r\n"
    assert ends == {"finished": 0, "failed": 0, "cancelled": 1}


def test_a_client_may_ask_before_it_sends_and_old_clients_get_what_ends_with_the_connection():
    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url) as front:
            host, port = front.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            body = chat()
            top = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
            writer.write(f"{top}Content-Length: {len(body)}\r\n\r\n".encode())
            go_on = await reader.readuntil(b"\r\n\r\n")
            writer.write(body)
            line = await reader.readline()
            writer.transport.abort()
            reader, writer = await asyncio.open_connection(host, int(port))
            body = chat(stream=True)
            old = f"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(old.encode() + body)
            raw = await reader.read()
            writer.transport.abort()
            return go_on, line, raw, server.requests[0].headers

    go_on, line, raw, sent = asyncio.run(run())
    assert (go_on, line) == (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n")
    assert "expect" not in sent
    front, _, body = raw.partition(b"\r\n\r\n")
    assert body == b"".join([*TEXT, STREAM[-1]])
    assert b"Connection: close" in front
    assert b"Transfer-Encoding" not in front


def test_unknown_paths_are_404_and_head_has_no_body():
    got, asked, _ = through(b"", path="/admin", method="GET")
    assert (got.status, asked) == (404, [])
    got, _, _ = through(b"", path="/metrics", method="HEAD")
    assert (got.status, got.body) == (200, b"")
    got, _, _ = through(b"", saying(head(200, "a/b", length=5)), "/v1/models", method="HEAD")
    assert (got.status, got.headers["content-length"], got.body) == (200, "5", b"")


# ------------------------------------------------------------------ draining


def test_draining_finishes_streams_and_sends_the_rest_away():
    async def run():
        more = asyncio.Event()

        async def script(_):
            yield ENDLESS
            await more.wait()
            yield chunk(STREAM[-1]) + b"0\r\n\r\n"

        async with ScriptedServer(script) as server, gateway(server.url, scheduler="cap:1") as front:
            streaming = asyncio.ensure_future(ask(front.url, body=chat("a", stream=True)))
            await until(lambda: front.driver.calls and front.driver.calls["a/0"].first_token_s is not None)
            held = asyncio.ensure_future(ask(front.url, body=chat("b")))
            await until(lambda: front.driver.held == 1)
            front.relay.drain()
            answers = [
                await held,
                await ask(front.url, body=chat("c")),
                await ask(front.url, "GET", "/v1/models"),
            ]
            health = await ask(front.url, "GET", "/health")
            more.set()
            return await streaming, answers, health, front

    stream, away, health, front = asyncio.run(run())
    assert (stream.body, stream.whole) == (TEXT[0] + STREAM[-1], True)
    assert [(answer.status, answer.headers["retry-after"]) for answer in away] == [(503, "5")] * 3
    assert (health.status, json.loads(health.body)["status"]) == (503, "draining")
    assert front.driver.ends == {"finished": 1, "failed": 1, "cancelled": 0}
    assert events(front, CallFailed) == [CallFailed("b", "b/1", "this server is shutting down")]

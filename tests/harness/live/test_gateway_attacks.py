"""Clients who try to get round the gateway: odd paths, requests of two readings, unread answers."""

import asyncio
import json

import pytest

from harness.live.gateway import PatientServer
from harness.live.virtual_loop import VirtualLoop
from tests.harness.live.scripted_server import ScriptedServer, chat, chunk, gateway, through, usual


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../metrics",
        "/v1/%2e%2E/metrics",
        "/v1/..%2fmetrics",
        "/v1/..\\metrics",
        "/v1/./models",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/%63hat/completions",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions/",
        "/v1/chat/completions;x=1",
        "/v1/chat/completions#x",
        "/v1/models%00",
        "http://elsewhere/v1/../metrics",
    ],
)
def test_a_path_that_a_server_may_take_for_another_is_refused_so_nobody_gets_round_the_scheduler(path):
    got, asked, front = through(chat(), path=path)
    assert (got.status, asked, front.ended) == (400, [], [])
    assert json.loads(got.body)["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("path", ["/v1/models/a%2Fb", "/v1/models/", "/v1/x?y=/../&z=%00", "/v1/a.b/..c"])
def test_other_paths_pass_as_they_were_written(path):
    got, asked, _ = through(b"", path=path, method="GET")
    assert (got.status, asked[0].path) == (200, path)


def test_calls_are_calls_whatever_their_query_and_the_form_of_their_target():
    for path in ("/v1/chat/completions?a=%20", "http://elsewhere/v1/chat/completions"):
        got, asked, front = through(chat(), path=path)
        assert (got.status, len(front.ended)) == (200, 1)
        assert asked[0].path == path.removeprefix("http://elsewhere")


def connected(*pieces):
    """What comes back over one connection, up to its end."""

    async def run():
        async with ScriptedServer(usual) as server, gateway(server.url) as front:
            host, port = front.url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            for piece in pieces:
                writer.write(piece)
            got = await asyncio.wait_for(reader.read(-1), 20)
            writer.transport.abort()
            return got, [request.path for request in server.requests]

    return asyncio.run(run())


def test_who_asks_for_another_protocol_is_answered_and_the_connection_ends():
    asking = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    got, _ = connected(asking, asking)
    assert got.count(b"HTTP/1.1 200") == 1
    assert b"Connection: close" in got


def test_a_body_in_a_coding_that_stays_on_it_is_refused():
    top = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"
    got, asked = connected(top + chunk(b"{}") + b"0\r\n\r\n")
    assert (got[:12], asked) == (b"HTTP/1.1 501", [])


def test_an_old_client_is_not_told_to_go_on():
    top = b"POST /v1/completions HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"
    got, asked = connected(top)
    assert (got[:12], asked) == (b"HTTP/1.1 200", ["/v1/completions"])


@pytest.mark.parametrize(
    "top",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2, 2\r\n\r\n",
        b"POST / HTTP/1.1\nHost: x\nContent-Length: 2\n\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nA: b\0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n",
    ],
)
def test_what_two_readers_could_read_as_different_requests_is_refused_and_the_connection_ends(top):
    got, asked = connected(top + b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got[8:12] == b" 400"
    assert (got.count(b" 200 OK"), asked) == (0, [])


class _Transport:
    """A client of which `takes` bytes are taken between two looks."""

    def __init__(self, waiting, takes=0):
        self.waiting, self.takes, self.cut = waiting, takes, False

    def get_write_buffer_size(self):
        now, self.waiting = self.waiting, max(self.waiting - self.takes, 0)
        return now

    def abort(self):
        self.cut = True


class _Handler:
    """A connection, as aiohttp's server knows it."""

    _task_handler = None


def test_clients_that_take_nothing_of_what_waits_for_them_are_cut_and_slow_ones_are_not():
    async def run():
        server = PatientServer(usual, 60.0)
        clients = [_Transport(500), _Transport(500, takes=1), _Transport(0), _Transport(500)]
        handlers = [_Handler() for _ in clients]
        for handler, client in zip(handlers, clients, strict=True):
            server.connection_made(handler, client)
        server.connection_lost(handlers[3])
        await asyncio.sleep(61)
        early = [client.cut for client in clients]
        await asyncio.sleep(60)
        for handler in handlers[:3]:
            server.connection_lost(handler)
        return early, [client.cut for client in clients]

    with VirtualLoop() as loop:
        early, late = loop.run_until_complete(run())
    assert early == [False] * 4
    assert late == [True, False, False, False]

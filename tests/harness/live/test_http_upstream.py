"""Requests reach replicas over kept connections; answers come as they come, and broken ones say so."""

import asyncio
import socket
import ssl

import pytest

from harness.errors import SetupError
from harness.live.http_upstream import HttpUpstream, address_of
from harness.live.ports import Outgoing, UpstreamFailed, UpstreamTimedOut
from tests.harness.live.scripted_server import Cut, ScriptedServer, chunk, head, saying, until

HELLO = head(200, "a/b", length=5) + b"hello"


def post(body=b"x", path="/v1/x", **headers):
    return Outgoing("POST", path, headers, body)


async def whole(upstream, request=None, replica="r0"):
    answer = await upstream.send(replica, request or post())
    try:
        return answer.status, b"".join([part async for part in answer.chunks()])
    finally:
        await answer.close()


class Counting(ScriptedServer):
    def __init__(self, script):
        super().__init__(script)
        self.peers = []

    async def _connected(self, reader, writer):
        self.peers.append(writer.get_extra_info("peername"))
        await super()._connected(reader, writer)


def test_a_connection_is_used_again_and_one_more_opened_while_it_is_busy():
    async def run():
        async with Counting(saying(HELLO)) as server:
            upstream = HttpUpstream({"r0": server.url})
            one_by_one = [await whole(upstream) for _ in range(3)]
            first = len(server.peers)
            at_once = await asyncio.gather(*(whole(upstream) for _ in range(3)))
            await upstream.close()
            return one_by_one + list(at_once), first, len(server.peers)

    assert asyncio.run(run()) == ([(200, b"hello")] * 6, 1, 3)


@pytest.mark.parametrize(
    "answer",
    [
        head(200, "a/b", "Connection: close", length=5) + b"hello",
        HELLO.replace(b"HTTP/1.1", b"HTTP/1.0"),
        head(200, "a/b", chunked=True) + chunk(b"hello") + b"0\r\n\r\n",
    ],
)
def test_a_connection_that_cannot_be_kept_is_not(answer):
    async def run():
        async with Counting(saying(answer)) as server:
            upstream = HttpUpstream({"r0": server.url})
            got = [await whole(upstream), await whole(upstream)]
            await upstream.close()
            return got, len(server.peers)

    assert asyncio.run(run()) == ([(200, b"hello")] * 2, 1 if b"chunked" in answer else 2)


@pytest.mark.parametrize(("method", "times"), [("POST", 1), ("GET", 2), ("HEAD", 2)])
def test_a_call_is_never_sent_twice_and_what_changes_nothing_once_more_at_most(method, times):
    async def run():
        async def script(request):
            if request.path == "/die":  # a server that crashes on it, whoever asks
                raise Cut
            yield HELLO

        async with Counting(script) as server:
            upstream = HttpUpstream({"r0": server.url})
            kept = [await upstream.send("r0", post()) for _ in range(5)]
            for answer in kept:
                assert [part async for part in answer.chunks()] == [b"hello"]
                await answer.close()
            with pytest.raises(UpstreamFailed, match="the connection"):
                await upstream.send("r0", Outgoing(method, "/die", {}, b""))
            await upstream.close()
            return [request.path for request in server.requests].count("/die")

    assert asyncio.run(run()) == times


def test_a_kept_connection_that_the_server_has_closed_is_not_written_to():
    async def run():
        with socket.create_server(("127.0.0.1", 0)) as listening:
            listening.settimeout(20)
            upstream = HttpUpstream({"r0": f"http://127.0.0.1:{listening.getsockname()[1]}"})

            def answer(received):
                peer, _ = listening.accept()
                received.append(peer.recv(65_536))
                peer.sendall(HELLO)
                return peer

            got = []
            first = asyncio.ensure_future(whole(upstream))
            peer = await asyncio.to_thread(answer, got)
            await first
            peer.close()  # and the loop has no turn to hear of it before the next request
            second = asyncio.ensure_future(whole(upstream, post(b"second")))
            (await asyncio.to_thread(answer, got)).close()
            await upstream.close()
            return await second, len(got), got[1][-6:]

    assert asyncio.run(run()) == ((200, b"hello"), 2, b"second")


def test_a_request_is_not_sent_again_once_a_byte_of_its_answer_came():
    async def run():
        async def script(_):
            yield HELLO if len(server.requests) == 1 else b"HTTP/1.1 2"
            if len(server.requests) > 1:
                raise Cut

        async with ScriptedServer(script) as server:
            upstream = HttpUpstream({"r0": server.url})
            await whole(upstream)
            with pytest.raises(UpstreamFailed, match="the connection"):
                await whole(upstream)
            await upstream.close()
            return len(server.requests)

    assert asyncio.run(run()) == 2


def test_an_answer_that_is_closed_early_is_cut():
    async def run():
        async def script(_):
            yield head(200, "a/b", chunked=True) + chunk(b"some")
            await asyncio.Event().wait()

        async with ScriptedServer(script) as server:
            upstream = HttpUpstream({"r0": server.url})
            answer = await upstream.send("r0", post())
            assert await anext(answer.chunks()) == b"some"
            await answer.close()
            await answer.close()
            await asyncio.wait_for(server.cut.wait(), 20)
            asking = asyncio.ensure_future(upstream.send("r0", post()))
            await until(lambda: len(server.requests) == 2)
            server.cut.clear()
            asking.cancel()
            await upstream.close()

    asyncio.run(run())


def test_nobody_reading_stops_the_server_from_sending():
    async def run():
        sent = 0

        async def script(_):
            nonlocal sent
            yield head(200, "a/b", chunked=True)
            for _ in range(4000):
                sent += 65_536
                yield chunk(b"x" * 65_536)
            yield b"0\r\n\r\n"

        async with ScriptedServer(script) as server:
            upstream = HttpUpstream({"r0": server.url})
            answer = await upstream.send("r0", post())
            before = -1
            while before < sent:  # as long as there is more
                before = sent
                for _ in range(200):
                    await asyncio.sleep(0)
            stopped = sent
            size = 0
            async for part in answer.chunks():
                size += len(part)
            await answer.close()
            await upstream.close()
            return stopped, size

    stopped, size = asyncio.run(run())
    assert stopped < 4000 * 65_536 / 2  # what lies in the sockets' buffers and ours
    assert size == 4000 * 65_536


def test_silence_is_told_from_failure():
    async def run():
        async def script(request):
            if request.path == "/half":
                yield head(200, "a/b", length=9) + b"half"
            await asyncio.Event().wait()

        async with ScriptedServer(script) as server:
            upstream = HttpUpstream({"r0": server.url}, idle_s=0.05)
            with pytest.raises(UpstreamTimedOut, match=r"no byte for 0\.05 s"):
                await whole(upstream)
            with pytest.raises(UpstreamTimedOut):
                await whole(upstream, post(path="/half"))
            await upstream.close()

    asyncio.run(run())


def test_where_nobody_listens_and_what_is_no_tls_are_failures():
    async def run():
        async with ScriptedServer(saying(HELLO)) as server:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                urls = {
                    "r0": f"http://127.0.0.1:{free.getsockname()[1]}",
                    "r1": server.url.replace("http", "https"),
                }
                upstream = HttpUpstream(urls, connect_s=5.0)
                for replica in urls:
                    with pytest.raises(UpstreamFailed, match="no connection"):
                        await upstream.send(replica, post())
            await upstream.close()
            return upstream

    context = asyncio.run(run())._tls
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)


def test_what_is_sent_is_the_request_and_the_servers_own_headers():
    async def run():
        async with ScriptedServer(saying(HELLO)) as server:
            upstream = HttpUpstream({"r0": server.url + "/base/v1/"}, headers={"Authorization": "Bearer k"})
            await whole(upstream, post(b"ab", "/v1/x?y=%20", A="ü"))
            await whole(upstream, Outgoing("GET", "/z", {}, b""))
            await upstream.close()
            return server.url.removeprefix("http://"), server.requests

    host, (one, two) = asyncio.run(run())
    own = ("Authorization", "Bearer k")
    assert (one.method, one.path, one.body) == ("POST", "/base/v1/x?y=%20", b"ab")
    assert one.fields == (("Host", host), ("A", "ü"), own, ("Content-Length", "2"))
    assert (two.method, two.path, two.fields) == ("GET", "/base/z", (("Host", host), own))


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://gpu1", ("gpu1", 80, False, "", "gpu1")),
        ("https://gpu1/v1", ("gpu1", 443, True, "", "gpu1")),
        ("https://gpu1:8443/a/", ("gpu1", 8443, True, "/a", "gpu1:8443")),
        ("http://[::1]:8000", ("::1", 8000, False, "", "[::1]:8000")),
    ],
)
def test_addresses(url, parts):
    address = address_of(url)
    assert (*address, address.authority) == parts


@pytest.mark.parametrize(
    "url", ["gpu1:8000", "ftp://x", "http://", "http://x:99999", "http://a?b", "http://u:p@x"]
)
def test_odd_addresses_are_refused(url):
    with pytest.raises(SetupError, match="expected an address such as"):
        address_of(url)


def test_certificates_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(SetupError, match="expected a readable PEM file"):
        HttpUpstream({"r0": "https://x"}, ca_file=str(tmp_path / "none.pem"))

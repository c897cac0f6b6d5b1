"""A real server on loopback that says exactly what a test wants, and remembers what it was asked.

    async def script(request):          # one call per request, in order of arrival
        yield head(200, "text/event-stream", chunked=True)
        yield chunk(b"data: [DONE]\n\n")
        ...

    async with ScriptedServer(script) as server:
        server.url, server.requests, server.cut

A script that raises `Cut` breaks the connection off. `answers(...)` makes the common ones.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import NamedTuple, Self

from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.gateway import Gateway
from harness.live.http_upstream import HttpUpstream
from harness.live.limits import KEY_HEADERS, Door, Limits
from harness.live.relay import Relay
from harness.live.routes import Control
from schedulers import registry


class Cut(Exception):
    """Break the connection off."""


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    path: str
    fields: tuple[tuple[str, str], ...]
    body: bytes

    @property
    def headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.fields}

    @property
    def json(self) -> dict[str, object]:
        return json.loads(self.body)


Script = Callable[[Received], AsyncIterator[bytes]]


class ScriptedServer:
    """Listens on a free port. `cut` is set when a client left in the middle of an answer."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.requests: list[Received] = []
        self.cut = asyncio.Event()
        self.url = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2**26)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop listening, and break off what is under way."""
        assert self._server is not None
        self._server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            while (received := await _read(reader)) is not None:
                self.requests.append(received)
                await self._answer(received, reader, writer)
        except Cut:
            writer.transport.abort()
        except ConnectionError:
            self.cut.set()
        finally:
            writer.transport.abort()

    async def _answer(
        self, received: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Play the script, and notice when the client leaves."""

        async def play() -> None:
            async for piece in self.script(received):
                writer.write(piece)
                await writer.drain()

        playing = asyncio.ensure_future(play())
        leaving = asyncio.ensure_future(_left(reader))
        try:
            await asyncio.wait((playing, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not playing.done():
                raise ConnectionError("the client left")
            playing.result()
        finally:
            playing.cancel()
            leaving.cancel()
            await asyncio.gather(playing, leaving, return_exceptions=True)


async def _left(reader: asyncio.StreamReader) -> None:
    assert not await reader.read(1), "a request before the last one was answered"


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    request, *lines = head[:-4].decode("utf-8", "surrogateescape").split("\r\n")
    method, path, _ = request.split(" ")
    fields = tuple(tuple(line.split(": ", 1)) for line in lines)
    length = int({name.lower(): value for name, value in fields}.get("content-length", 0))
    return Received(method, path, fields, await reader.readexactly(length))


# ------------------------------------------------------------------ what servers say


def head(status: int, kind: str, *fields: str, chunked: bool = False, length: int | None = None) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", f"Content-Type: {kind}", *fields]
    lines += ["Transfer-Encoding: chunked"] if chunked else []
    lines += [f"Content-Length: {length}"] if length is not None else []
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}
TEXT = [event({"choices": [{"index": 0, "delta": {"content": word}}]}) for word in ("a", "b", "c")]
STREAM = [*TEXT, event({"choices": [], "usage": USAGE}), b"data: [DONE]\n\n"]
BODY = json.dumps({"choices": [{"message": {"content": "abc"}}], "usage": USAGE}).encode()


async def usual(request: Received) -> AsyncIterator[bytes]:
    """A chat server: streams when asked, tells usage when asked."""
    if request.body and request.json.get("stream"):
        asked = request.json.get("stream_options") or {}
        yield head(200, "text/event-stream; charset=utf-8", chunked=True)
        for part in STREAM:
            if b'"usage"' not in part or asked.get("include_usage"):
                yield chunk(part)
        yield b"0\r\n\r\n"
    else:
        yield head(200, "application/json", length=len(BODY)) + BODY


def saying(*pieces: bytes) -> Script:
    """The same bytes to everybody, in these pieces."""

    async def script(_: Received) -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            await asyncio.sleep(0)

    return script


# ------------------------------------------------------------------ a gateway before them


class Front(NamedTuple):
    """A gateway that listens at `url`; `log` are its decisions, `ended` the calls that are over."""

    url: str
    driver: LiveDriver
    relay: Relay
    log: list[tuple[float, object, list[object]]]
    ended: list[object]
    unreached: list[tuple[str, str]]


@asynccontextmanager
async def gateway(
    *servers: str,
    scheduler: str = "vllm",
    key: str | None = None,
    limits: Limits | None = None,
    idle_s: float = 60.0,
    up: bool = True,
    headers: dict[str, str] | None = None,
    keep_bodies: bool = False,
) -> AsyncIterator[Front]:
    """A gateway with these servers, r0, r1, ... behind it."""
    loop = asyncio.get_running_loop()
    log, ended, unreached = [], [], []
    driver = LiveDriver(registry.build(scheduler, {}, 0), LoopClock(), decide=lambda *d: log.append(d))
    urls = {f"r{number}": url for number, url in enumerate(servers)}
    upstream = HttpUpstream(urls, idle_s=idle_s, headers=headers)
    relay = Relay(
        driver,
        upstream,
        own_headers=KEY_HEADERS if key else frozenset(),
        keep_bodies=keep_bodies,
        on_end=ended.append,
        on_unreachable=lambda *told: unreached.append(told),
    )
    control = Control(
        driver,
        scheduler=scheduler,
        replicas=tuple(urls),
        metrics=lambda: b"metrics 1\n",
        draining=lambda: relay.draining,
    )
    server = Gateway(relay, control, door=Door(key), limits=limits).server()
    listener = await loop.create_server(server, "127.0.0.1", 0)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(upstream.close)
        stack.push_async_callback(server.shutdown, 1.0)
        stack.callback(listener.close)
        for name in urls if up else ():
            driver.replica_up(name, 100_000, 16)
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        yield Front(url, driver, relay, log, ended, unreached)
        driver.check_invariants()


class Got(NamedTuple):
    """An answer as its bytes came; `whole`: its end came, too."""

    status: int
    headers: dict[str, str]
    body: bytes
    whole: bool


async def ask(
    url: str, method: str = "POST", path: str = "/v1/chat/completions", body: bytes = b"", *fields: str
) -> Got:
    """One request over a connection of its own, written and read byte by byte."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=2**26)
    lines = [f"{method} {path} HTTP/1.1", "Host: x", *fields, f"Content-Length: {len(body)}"]
    writer.write("\r\n".join([*lines, "Connection: close", "", ""]).encode() + body)
    try:
        return parsed(await reader.read(-1), method)
    finally:
        writer.transport.abort()


def parsed(raw: bytes, method: str = "POST") -> Got:
    """What a server said until it closed the connection; status 0 when that was nothing."""
    if not raw:
        return Got(0, {}, b"", whole=False)
    front, _, rest = raw.partition(b"\r\n\r\n")
    line, *lines = front.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in lines)}
    status = int(line.split(" ")[1])
    if headers.get("transfer-encoding") == "chunked":
        body, whole = b"", False
        while rest:
            size, _, rest = rest.partition(b"\r\n")
            if int(size, 16) == 0:
                whole = rest == b"\r\n"
                break
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
        return Got(status, headers, body, whole)
    whole = method == "HEAD" or len(rest) == int(headers.get("content-length", -1))
    return Got(status, headers, rest, whole)


def chat(program: str | None = "p", *, stream: bool = False, **more: object) -> bytes:
    """A chat request."""
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": stream, **more}
    return json.dumps(asked if program is None else {**asked, "program_id": program}).encode()


ENDLESS = head(200, "text/event-stream", chunked=True) + chunk(TEXT[0])


def events(front, *kinds):
    return [told for _, told, _ in front.log if isinstance(told, kinds)]


async def until(condition):
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - what happens behind a socket tells nobody here
            await asyncio.sleep(0)


def through(body, script=usual, path="/v1/chat/completions", fields=(), method="POST", **options):
    """The answer through a gateway, what the server was asked, and the gateway."""

    async def run():
        async with ScriptedServer(script) as server, gateway(server.url, **options) as front:
            got = await ask(front.url, method, path, body, *fields)
            await until(lambda: not front.driver.calls)
            return got, server.requests, front

    return asyncio.run(run())

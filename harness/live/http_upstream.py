"""`ports.Upstream` over HTTP/1.1: kept connections to every replica, and answers read as they come.

A protocol of our own on asyncio's transports (`http1` reads the answers), because every byte of every
stream passes here. What one wake-up of the loop brought is handed on in one piece. Reading pauses while
nobody takes what has come. An exchange has one timer, which looks whether anything came since.

A kept connection may have been closed by the server meanwhile. The system is asked for that just before a
request is written, and then nothing is written to it. Once any of a request was written, what becomes of
it is not known: a server that died of it would die again. So only what changes nothing (GET, HEAD,
OPTIONS) is sent once more, over a new connection; a call has failed, and its client decides.
"""

from __future__ import annotations

import asyncio
import select
import ssl
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from harness.errors import SetupError
from harness.live.http1 import AnswerParser, BadAnswer, Head
from harness.live.ports import Outgoing, UpstreamFailed, UpstreamTimedOut

KEPT_S = 4.0  # a connection unused for longer is not used again: uvicorn closes after 5
KEPT = 512  # unused connections per replica
PAUSE_BYTES = 262_144  # of an answer that nobody takes
_CHANGE_NOTHING = frozenset({"GET", "HEAD", "OPTIONS"})  # may be sent twice (RFC 9110, section 9.2.1)


class Address(NamedTuple):
    """A replica: where it listens, and what stands before every path."""

    host: str
    port: int
    tls: bool
    prefix: str

    @property
    def authority(self) -> str:
        """The value of `Host`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def address_of(url: str) -> Address:
    """Read `http://host:8000`; a path before the API's own is kept, `/v1` at its end is not.

    Raises `SetupError`.
    """
    expected = "an address such as http://127.0.0.1:8000"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise SetupError(f"backend {url!r}", expected) from None
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.username:
        raise SetupError(f"backend {url!r}", expected)
    tls = parts.scheme == "https"
    prefix = parts.path.rstrip("/").removesuffix("/v1")
    return Address(parts.hostname, port or (443 if tls else 80), tls, prefix)


class _Connection(asyncio.Protocol):
    """A connection to a replica: unused, or with one exchange on it."""

    def __init__(self, upstream: HttpUpstream, replica: str) -> None:
        self._upstream, self._replica = upstream, replica
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport | None = None
        self.unused_since = 0.0
        self.answered = False  # a byte of the present answer came
        self._parser: AnswerParser | None = None
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._waiter: asyncio.Future[None] | None = None
        self._error: UpstreamFailed | None = None
        self._heard_s = 0.0
        self._timer: asyncio.TimerHandle | None = None

    # ------------------------------------------------------------ exchange

    def start(self, method: str, request: bytes, body: bytes) -> None:
        """Send a request. Raises `UpstreamFailed`."""
        if self.transport is None:
            raise UpstreamFailed("the connection was closed at once")
        self._parser, self.answered, self._error = AnswerParser(method), False, None
        self._heard_s = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._upstream.idle_s, self._look)
        if len(body) < 65_536:
            self.transport.write(request + body)
        else:
            self.transport.writelines((request, body))

    async def head(self) -> Head:
        """The answer's head. Raises `UpstreamFailed`."""
        parser = self._parser
        assert parser is not None, "no request was sent"
        while parser.head is None:
            if self._error is not None:
                raise self._error
            await self._wait()
        return parser.head

    async def chunks(self) -> AsyncIterator[bytes]:
        """The answer's body, once; all that has come in one piece. Raises `UpstreamFailed`."""
        parser, pieces = self._parser, self._pieces
        assert parser is not None, "no request was sent"
        while True:
            if pieces:
                data = pieces.popleft() if len(pieces) == 1 else b"".join(pieces)
                pieces.clear()
                self._size = 0
                if self._paused and self.transport is not None:
                    self._paused = False
                    self.transport.resume_reading()
                yield data
            elif parser.complete:
                return
            elif self._error is not None:
                raise self._error
            else:
                await self._wait()

    @property
    def usable(self) -> bool:
        """Whether an unused connection takes another request: the server has not closed its side."""
        transport = self.transport
        if transport is None or transport.is_closing():
            return False
        poll = select.poll()  # the loop hears of it only in its next turn
        poll.register(transport.get_extra_info("socket").fileno(), select.POLLRDHUP)
        return not poll.poll(0)

    def close(self) -> None:
        """Keep the connection for another request when this one is through, else cut it."""
        parser, self._parser = self._parser, None
        self._pieces.clear()
        if self._timer is not None and not self._upstream.closed:
            self._timer.cancel()
            self._timer = None
        if self.transport is None:
            return
        through = parser is not None and parser.complete and parser.head is not None and parser.head.keeps
        if through and self._error is None and not self._upstream.closed:
            if self._paused:
                self._paused = False
                self.transport.resume_reading()
            self._upstream.keep(self._replica, self)
        else:
            self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.transport is not None:
            self.transport.abort()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, error: UpstreamFailed) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _look(self) -> None:
        """Whether anything came for so long; else look again when it would be too long."""
        self._timer = None
        left = self._heard_s + self._upstream.idle_s - self._loop.time()
        if self._paused:  # it is we who do not listen
            left = self._upstream.idle_s
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._fail(UpstreamTimedOut(f"no byte for {self._upstream.idle_s:g} s"))
            self.abort()

    # ------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        parser = self._parser
        if parser is None or parser.complete:  # nobody asked for anything: a 408, or garbage
            self._fail(UpstreamFailed("bytes that belong to no answer"))
            self.abort()
            return
        self.answered = True
        self._heard_s = self._loop.time()
        try:
            body = parser.feed(data)
        except BadAnswer as error:
            self._fail(UpstreamFailed(f"no valid answer: {error}"))
            self.abort()
            return
        if body:
            self._pieces.append(body)
            self._size += len(body)
            if self._size > PAUSE_BYTES and not self._paused and self.transport is not None:
                self._paused = True
                self.transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        """The server has no more to say; asyncio closes the connection then."""
        if self._parser is not None:
            with suppress(BadAnswer):
                self._parser.end()

    def connection_lost(self, exc: Exception | None) -> None:
        """Gone: at the end of an answer, or too early."""
        self.transport = None
        self._upstream.forget(self._replica, self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._parser is not None and not self._parser.complete:
            if exc is not None:
                self._fail(UpstreamFailed(f"the connection broke: {exc}"))
            else:
                try:
                    self._parser.end()
                except BadAnswer as error:
                    self._fail(UpstreamFailed(str(error)))
        self._wake()


class HttpAnswer:
    """See `ports.Answer`."""

    __slots__ = ("_connection", "headers", "status")

    def __init__(self, connection: _Connection, head: Head) -> None:
        self._connection: _Connection | None = connection
        self.status, self.headers = head.status, head.headers

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `UpstreamFailed` when it breaks off."""
        assert self._connection is not None, "an answer that was closed"
        return self._connection.chunks()

    async def close(self) -> None:
        """Give the connection back, or cut it; without effect the second time."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class HttpUpstream:
    """Replicas by name, each at the base address `urls` gives. Raises `SetupError` for an odd one.

    `idle_s`: an answer that brings no byte for so long has failed (a server that does not stream is
    silent until its last token). `headers` are added to every request, such as the servers' key.
    `ca_file` holds certificates to trust instead of the system's. Certificates are always verified.
    """

    def __init__(
        self,
        urls: Mapping[str, str],
        *,
        idle_s: float = 900.0,
        connect_s: float = 10.0,
        headers: Mapping[str, str] | None = None,
        ca_file: str | None = None,
    ) -> None:
        self.idle_s, self.connect_s = idle_s, connect_s
        self.closed = False
        self._addresses = {name: address_of(url) for name, url in urls.items()}
        self._own = dict(headers or {})
        self._unused: dict[str, deque[_Connection]] = {name: deque() for name in urls}
        self._tls: ssl.SSLContext | None = None
        if any(address.tls for address in self._addresses.values()):
            self._tls = _trusting(ca_file)

    async def send(self, replica: str, request: Outgoing) -> HttpAnswer:
        """Send a request; returns with the answer's head. Raises `UpstreamFailed`."""
        head = self._head(replica, request)
        kept = self._reuse(replica)
        if kept is not None:
            try:
                return await _ask(kept, request, head)
            except UpstreamTimedOut:
                raise
            except UpstreamFailed:
                if kept.answered or request.method not in _CHANGE_NOTHING:
                    raise
        return await _ask(await self._connect(replica), request, head)

    async def close(self) -> None:
        """Close every unused connection; those in use are closed when they have ended."""
        self.closed = True
        for unused in self._unused.values():
            for connection in list(unused):
                connection.abort()
            unused.clear()

    # ------------------------------------------------------------ connections

    def _head(self, replica: str, request: Outgoing) -> bytes:
        address = self._addresses[replica]
        lines = [
            f"{request.method} {address.prefix}{request.path} HTTP/1.1\r\nHost: {address.authority}\r\n"
        ]
        lines += [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        lines += [f"{name}: {value}\r\n" for name, value in self._own.items()]
        if request.body or request.method not in {"GET", "HEAD"}:
            lines.append(f"Content-Length: {len(request.body)}\r\n")
        lines.append("\r\n")
        return "".join(lines).encode("utf-8", "surrogateescape")

    def _reuse(self, replica: str) -> _Connection | None:
        unused = self._unused[replica]
        oldest = asyncio.get_running_loop().time() - KEPT_S
        while unused and unused[0].unused_since < oldest:
            unused.popleft().abort()
        while unused:
            connection = unused.pop()
            if connection.usable:
                return connection
            connection.abort()
        return None

    async def _connect(self, replica: str) -> _Connection:
        address = self._addresses[replica]
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.connect_s):
                _, connection = await loop.create_connection(
                    lambda: _Connection(self, replica),
                    address.host,
                    address.port,
                    ssl=self._tls if address.tls else None,
                )
        except TimeoutError:
            raise UpstreamTimedOut(f"no connection within {self.connect_s:g} s") from None
        except (OSError, ssl.CertificateError) as error:
            raise UpstreamFailed(f"no connection: {_one_line(error)}") from None
        return connection

    def keep(self, replica: str, connection: _Connection) -> None:
        """For connections only: one that can take another request."""
        unused = self._unused[replica]
        connection.unused_since = asyncio.get_running_loop().time()
        unused.append(connection)
        if len(unused) > KEPT:
            unused.popleft().abort()

    def forget(self, replica: str, connection: _Connection) -> None:
        """For connections only: one that is gone."""
        with suppress(ValueError):
            self._unused[replica].remove(connection)


async def _ask(connection: _Connection, request: Outgoing, head: bytes) -> HttpAnswer:
    try:
        connection.start(request.method, head, request.body)
        return HttpAnswer(connection, await connection.head())
    except BaseException:
        connection.abort()  # whoever waited has left: the server is to stop working on it
        raise


def _trusting(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise SetupError(f"certificates {ca_file}: {_one_line(error)}", "a readable PEM file") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

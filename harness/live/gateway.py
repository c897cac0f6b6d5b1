"""The gateway's HTTP side: reads requests, asks the relay or answers itself, writes answers as they come.

aiohttp's low-level server reads requests (its parser is hardened, ours need not be); answers are
written to its connections directly, because a response object per call and a coroutine per chunk cost
more than the policy. Nothing is written that a replica did not say, apart from the framing.

A client that leaves cancels its handler, wherever that stands; a client that stops reading is cut after
`Limits.write_s` or twice that; an answer that breaks off is cut, so that nobody takes it for a whole one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler

from harness.live.answers import Incoming, Outward, Plain, refused
from harness.live.limits import Door, Limits
from harness.live.ports import UpstreamFailed
from harness.live.relay import Relay
from harness.live.routes import Control

logger = logging.getLogger(__name__)

CALLS = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"})
PASSED_ON = frozenset(  # of vLLM's servers, beside everything under /v1/
    {"/tokenize", "/detokenize", "/version", "/pooling", "/classify", "/score", "/rerank", "/v2/rerank"}
    | {"/invocations", "/inference/v1/generate"}
)
_ONE_PIECE = 65_536  # more than that is not copied to be written at once
_GO_ON = "100-continue"
_FRAMING = frozenset({"content-length", "transfer-encoding", "connection"})


class _Written(web.StreamResponse):
    """Tells aiohttp that the answer is written already, and whether the connection may go on."""

    def __init__(self, *, keeps: bool) -> None:
        super().__init__()
        self._keep_alive = keeps

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Nothing is left to do."""
        del request
        return self._payload_writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to do."""
        del data


class _Unread(Exception):
    """A request that is answered without being read to its end; the connection cannot go on."""

    def __init__(self, answer: Plain) -> None:
        super().__init__(answer.status)
        self.answer = answer


class PatientServer(web.Server):
    """Cuts connections whose clients took nothing of what waits for them for `write_s` seconds.

    An answer that fits into the buffers is not waited for, and closing a connection first sends what is
    in them: without this, clients that never read would keep connections for ever.
    """

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
        write_s: float,
        **more: Any,
    ) -> None:
        super().__init__(handler, **more)
        self._write_s = write_s
        self._open: dict[RequestHandler, asyncio.Transport] = {}
        self._waited: dict[RequestHandler, int] = {}  # bytes that waited at the last look
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """A client came."""
        super().connection_made(handler, transport)
        self._open[handler] = transport
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._write_s, self._look)

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """A client left."""
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)

    def _look(self) -> None:
        self._timer = None
        waiting = {one: size for one, t in self._open.items() if (size := t.get_write_buffer_size())}
        for handler, size in waiting.items():
            if self._waited.get(handler) == size:
                self._open[handler].abort()
        self._waited = waiting
        if self._open:
            self._timer = asyncio.get_running_loop().call_later(self._write_s, self._look)


class Gateway:
    """The front of one gateway. `server` is what listens to connections; see `serve`."""

    def __init__(self, relay: Relay, control: Control, *, door: Door, limits: Limits | None = None) -> None:
        self._relay, self._control, self._door = relay, control, door
        self._limits = limits or Limits()
        self._routes: dict[tuple[str, str], Callable[[bytes], Plain]] = {
            ("GET", "/programs"): lambda _: control.programs(),
            ("HEAD", "/programs"): lambda _: control.programs(),
            ("POST", "/programs/release"): control.release,
            ("POST", "/programs/events"): control.event,
            ("GET", "/metrics"): lambda _: control.metrics(),
            ("HEAD", "/metrics"): lambda _: control.metrics(),
        }

    def server(self) -> web.Server:
        """A server for `loop.create_server`."""
        limits = self._limits
        return PatientServer(
            self._handle,
            limits.write_s,
            request_factory=self._request,
            handler_cancellation=True,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=limits.keep_alive_s,
            max_line_size=limits.line_bytes,
            max_field_size=limits.line_bytes,
            max_headers=limits.headers,
            lingering_time=2.0,
            logger=_http_logger(),
        )

    def _request(
        self,
        message: RawRequestMessage,
        payload: StreamReader,
        protocol: RequestHandler,
        writer: AbstractStreamWriter,
        task: asyncio.Task[None],
    ) -> web.BaseRequest:
        if message.upgrade:  # to what we do not speak: the parser reads nothing more on this connection
            message = message._replace(should_close=True)
        return web.BaseRequest(
            message,
            payload,
            protocol,
            writer,
            task,
            task.get_loop(),
            client_max_size=self._limits.body_bytes,
        )

    # ---------------------------------------------------------------- requests

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        keeps = request.keep_alive
        try:
            answer = await self._answer(request)
        except _Unread as unread:
            answer, keeps = unread.answer, False
        except Exception:
            logger.exception("a bug of ours")
            answer, keeps = refused(500, "the gateway failed", "internal_error"), False
        try:
            keeps = await self._write(request, answer, keeps=keeps)
        finally:
            await answer.close()
        return _Written(keeps=keeps)

    async def _answer(self, request: web.BaseRequest) -> Outward:
        target = request.raw_path if request.raw_path.startswith("/") else request.path_qs
        path = target.partition("?")[0]
        method, headers = request.method, request.headers
        knows = self._door.lets_in(headers)
        if path == "/health" and method in {"GET", "HEAD"}:
            return self._control.health(brief=not knows)
        if not knows:
            unread = refused(401, "no valid API key", "authentication_error", code="invalid_api_key")
            unread.headers.append(("WWW-Authenticate", "Bearer"))
            raise _Unread(unread)
        if path not in CALLS and (odd := _odd(path)):
            raise _Unread(refused(400, odd, "invalid_request_error"))
        body = await self._read(request)
        if path in CALLS and method == "POST":
            return await self._relay.call(Incoming(method, target, headers, body))
        route = self._routes.get((method, path))
        if route is not None:
            return route(body)
        if path.startswith("/v1/") or path in PASSED_ON:
            return await self._relay.pass_on(Incoming(method, target, headers, body))
        return refused(404, f"no route {method} {path}", "not_found_error")

    async def _read(self, request: web.BaseRequest) -> bytes:
        """The body. Raises `_Unread` for one that is too long or comes too slowly."""
        if not request.body_exists:
            return b""
        most = self._limits.body_bytes
        coding = request.headers.get("Transfer-Encoding", "chunked")
        if coding.lower() != "chunked":  # aiohttp takes off the chunks, and would leave the rest
            raise _Unread(refused(501, f"transfer-encoding {coding}", "invalid_request_error"))
        if (request.content_length or 0) > most:
            raise _Unread(_too_long(most))
        waits = request.version >= HttpVersion11 and request.headers.get("Expect", "").lower() == _GO_ON
        if waits and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        try:
            if request.content.is_eof():
                return await request.read()
            async with asyncio.timeout(self._limits.read_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise _Unread(_too_long(most)) from None
        except TimeoutError:
            late = f"the request did not come within {self._limits.read_s:g} s"
            raise _Unread(refused(408, late, "timeout")) from None
        except web.RequestPayloadError as error:
            raise _Unread(refused(400, f"no valid request: {error}", "invalid_request_error")) from None

    # ---------------------------------------------------------------- answers

    async def _write(self, request: web.BaseRequest, answer: Outward, *, keeps: bool) -> bool:
        """Write the answer; whether the connection may carry another request."""
        transport = request.transport
        if transport is None:  # the client is gone
            return False
        frame = _frame(request, answer, keeps=keeps)
        head, whole = _head(request, answer, frame), answer.whole
        if frame.empty:
            transport.write(head)
        elif whole is None:
            transport.write(head)
            if not await self._stream(request, transport, answer, frame):
                return False
        elif len(whole) < _ONE_PIECE:
            transport.write(head + whole)
        else:
            transport.writelines((head, whole))
        return await self._flushed(request) and frame.keeps

    async def _stream(
        self, request: web.BaseRequest, transport: asyncio.Transport, answer: Outward, frame: _Frame
    ) -> bool:
        """Write the body as it comes; whether it was written to its end."""
        protocol, chunked = request.protocol, frame.chunked
        try:
            async for data in answer.chunks():
                transport.write(b"%x\r\n%b\r\n" % (len(data), data) if chunked else data)
                if protocol.writing_paused and not await self._flushed(request):
                    return False
        except UpstreamFailed:
            if not chunked and frame.length is None:
                transport.abort()  # closing would look like the body's end
            return False
        if chunked:
            transport.write(b"0\r\n\r\n")
        return True

    async def _flushed(self, request: web.BaseRequest) -> bool:
        """Wait until the client has taken most of what was written; false when it does not."""
        if not request.protocol.writing_paused:
            return True
        try:
            async with asyncio.timeout(self._limits.write_s):
                await request.writer.drain()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
            return False
        except ConnectionError:
            return False
        return True


class _Frame(NamedTuple):
    """How a body is bounded: by its length (null: it is not), by chunks, or not at all (`empty`: none)."""

    length: str | None
    chunked: bool
    empty: bool
    keeps: bool


def _odd(path: str) -> str:
    """Why a path that is no call's is refused; empty for a plain one.

    What a server takes for another path than we do would get round the scheduler, or out of `/v1/`.
    """
    plain = unquote_to_bytes(path).decode("utf-8", "replace")
    segments = plain.split("/")[1:]
    if "" in segments[:-1] or not {".", ".."}.isdisjoint(segments) or not plain.isprintable():
        return f"a path with empty or dot segments, or control characters: {path}"
    if not {"\\", "#", ";"}.isdisjoint(plain):
        return f"a path with one of \\ # ; : {path}"
    if plain.rstrip("/") in CALLS:
        return f"a path that is to be written {plain.rstrip('/')}: {path}"
    return ""


def _frame(request: web.BaseRequest, answer: Outward, *, keeps: bool) -> _Frame:
    whole = answer.whole
    empty = request.method == "HEAD" or answer.status in {204, 304}
    length = _header(answer, "content-length") if whole is None or empty else str(len(whole))
    unbounded = length is None and not empty
    chunked = unbounded and request.version >= HttpVersion11
    # HTTP/1.0: only the end of the connection ends such a body
    return _Frame(length, chunked, empty, keeps and (chunked or not unbounded))


def _head(request: web.BaseRequest, answer: Outward, frame: _Frame) -> bytes:
    lines = [_status_line(answer.status)]
    lines += [f"{name}: {value}\r\n" for name, value in answer.headers if name.lower() not in _FRAMING]
    if frame.length is not None and answer.status != 204:
        lines.append(f"Content-Length: {frame.length}\r\n")
    if frame.chunked:
        lines.append("Transfer-Encoding: chunked\r\n")
    if not frame.keeps:
        lines.append("Connection: close\r\n")
    elif request.version < HttpVersion11:
        lines.append("Connection: keep-alive\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1")


def _status_line(status: int) -> str:
    try:
        return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
    except ValueError:
        return f"HTTP/1.1 {status} \r\n"


def _header(answer: Outward, wanted: str) -> str | None:
    return next((value for name, value in answer.headers if name.lower() == wanted), None)


def _too_long(most: int) -> Plain:
    return refused(413, f"a request of more than {most} bytes", "invalid_request_error")


def _http_logger() -> logging.Logger:
    """What aiohttp says of clients that speak no HTTP: for those who debug, not for the terminal."""
    quiet = logging.getLogger("harness.live.gateway.http")
    quiet.propagate = False
    if not quiet.handlers:
        quiet.addHandler(logging.NullHandler())
    return quiet

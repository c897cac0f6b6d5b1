"""Reading an HTTP/1.1 answer without I/O: bytes go in, its head and the bytes of its body come out.

The gateway spends most of its time on streams of small chunks, and a client library's cost per chunk is
several times that of the policy. What a model server sends is simple, so this is all it takes (RFC 9112):
a status line, headers, and a body that is counted, chunked, or ends with the connection.

    parser = AnswerParser("POST")
    body = parser.feed(data)     # again and again; `parser.head` is there once the blank line came
    parser.complete              # the body has ended
    parser.end()                 # the connection has: raises unless that may end the body

Strict where bytes could be taken for another answer's: whatever is not well-formed raises `BadAnswer`.
Limits keep a broken server from filling memory; bodies are handed out as they come.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_HEAD_BYTES = 65_536
MAX_INTERIM = 100  # answers of status 1xx before the real one
MAX_CHUNK_LINE_BYTES = 1024  # a size in hexadecimal and extensions that nobody sends

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2

# Headers of a connection, not of the answer (RFC 9110, 7.6.1, and two of long habit).
HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)


class BadAnswer(ValueError):
    """What came is no HTTP/1.1 answer; the text says why."""


class Head(NamedTuple):
    """Status line and headers, those of the connection left out; `keeps`: it may carry another request."""

    status: int
    headers: list[tuple[str, str]]
    keeps: bool


class AnswerParser:
    """One answer to a request with `method`. Whatever is fed beyond its end raises `BadAnswer`."""

    __slots__ = ("_buffer", "_chunked", "_interim", "_left", "_method", "_read", "complete", "head")

    def __init__(self, method: str) -> None:
        self.head: Head | None = None
        self.complete = False
        self._method = method
        self._buffer = b""
        self._interim = 0
        self._chunked = False
        self._left: int | None = None  # bytes of the body, or of the chunk, to come; null: until the end
        self._read = self._read_head

    def feed(self, data: bytes) -> bytes:
        """Take what the connection brought; the bytes of the body among it. Raises `BadAnswer`."""
        if self._buffer:
            data, self._buffer = self._buffer + data, b""
        return self._nothing(data) if self.complete else self._read(data)

    def end(self) -> None:
        """The connection is at its end. Raises `BadAnswer` when the answer is not."""
        if self.complete:
            return
        if self.head is None:
            raise BadAnswer("the connection was closed before an answer came")
        if self._chunked or self._left is not None:
            raise BadAnswer("the connection was closed in the middle of the answer")
        self.complete = True

    # ---------------------------------------------------------------- head

    def _read_head(self, data: bytes) -> bytes:
        at = 0
        while (end := data.find(b"\r\n\r\n", at)) >= 0:
            lines = data[at:end].decode("latin-1").split("\r\n")
            at = end + 4
            version, status = _status_line(lines[0])
            fields = [_field(line) for line in lines[1:]]
            if status // 100 != 1:
                self._frame(status, version, fields)
                rest = data[at:]
                return self._read(rest) if rest and not self.complete else self._nothing(rest)
            if status == 101:
                raise BadAnswer("an upgrade that nobody asked for")
            self._interim += 1  # the real answer follows
            if self._interim > MAX_INTERIM:
                raise BadAnswer(f"more than {MAX_INTERIM} interim answers")
        rest = data[at:]
        if len(rest) > MAX_HEAD_BYTES:
            raise BadAnswer(f"headers of more than {MAX_HEAD_BYTES} bytes")
        if not b"HTTP/1.".startswith(rest[:7]):
            raise BadAnswer(f"no HTTP: {rest[:40]!r}")
        self._buffer = rest
        return b""

    def _frame(self, status: int, version: str, fields: list[tuple[str, str]]) -> None:
        """Find out from the headers how the body ends."""
        said: dict[str, str] = {}  # of the connection's own headers, repeated ones joined
        for name, value in fields:
            key = name.lower()
            if key in {"connection", "transfer-encoding", "content-length"}:
                said[key] = f"{said[key]}, {value}" if key in said else value
        hops = {hop.strip().lower() for hop in said.get("connection", "").split(",")}
        keeps = "close" not in hops and (version == "1" or "keep-alive" in hops)
        length = said.get("content-length")
        size = None if length is None or "transfer-encoding" in said else _length(length)
        if self._method == "HEAD" or status in {204, 304}:
            self.complete = True
        elif "transfer-encoding" in said:
            if said["transfer-encoding"].lower() != "chunked":
                raise BadAnswer(f"transfer-encoding {said['transfer-encoding']!r}")
            self._chunked, self._left, self._read = True, 0, self._read_chunks
        elif size is not None:
            self._left, self._read = size, self._read_counted
            self.complete = not size
        else:
            keeps, self._read = False, self._read_to_end
        leave_out = HOP_BY_HOP | hops
        # a length beside chunks says nothing, and must not be passed on
        if self._chunked:
            leave_out |= {"content-length"}
        headers = [field for field in fields if field[0].lower() not in leave_out]
        self.head = Head(status, headers, keeps)

    # ---------------------------------------------------------------- body

    def _nothing(self, rest: bytes) -> bytes:
        if rest:
            raise BadAnswer("more bytes than the answer has")
        return b""

    def _read_to_end(self, data: bytes) -> bytes:
        return data

    def _read_counted(self, data: bytes) -> bytes:
        left = self._left
        assert left is not None, "a counted body without a count"
        if len(data) > left:
            raise BadAnswer("more bytes than the answer has")
        self._left = left - len(data)
        self.complete = not self._left
        return data

    def _read_chunks(self, data: bytes) -> bytes:
        """All whole chunks in `data`, and what is there of the last."""
        parts: list[bytes] = []
        left, at, size = self._left, 0, len(data)
        assert left is not None, "a chunked body without a count"
        while at < size:
            if left > 2:  # within a chunk: its bytes, then CR LF
                take = min(left - 2, size - at)
                parts.append(data[at : at + take])
                at, left = at + take, left - take
                continue
            if left:  # CR LF behind a chunk
                take = min(left, size - at)
                if data[at : at + take] != b"\r\n"[2 - left : 2 - left + take]:
                    raise BadAnswer("a chunk that is longer than it said")
                at, left = at + take, left - take
                continue
            line = data.find(b"\r\n", at)
            if line < 0:
                if size - at > MAX_CHUNK_LINE_BYTES:
                    raise BadAnswer("a chunk without a size")
                self._buffer = data[at:]
                break
            left = _chunk_size(data[at:line])
            at = line + 2
            if not left:
                self._read = self._read_trailers
                self._left = 0
                return b"".join(parts) + self._read_trailers(data[at:])
            left += 2
        self._left = left
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _read_trailers(self, data: bytes) -> bytes:
        """Trailers are read and dropped; a blank line ends them."""
        while (end := data.find(b"\r\n")) > 0:
            _field(data[:end].decode("latin-1"))
            data = data[end + 2 :]
        if end < 0:
            if len(data) > MAX_HEAD_BYTES:
                raise BadAnswer(f"trailers of more than {MAX_HEAD_BYTES} bytes")
            self._buffer = data
            return b""
        self.complete = True
        return self._nothing(data[2:])


def _status_line(line: str) -> tuple[str, int]:
    """Minor version and status."""
    if line[:7] != "HTTP/1." or line[7:9] not in {"0 ", "1 "} or not _digits(line[9:12], 3):
        raise BadAnswer(f"no HTTP: {line[:40]!r}")
    if line[12:13] not in {"", " "} or line[9] == "0":
        raise BadAnswer(f"no HTTP status: {line[:40]!r}")
    return line[7], int(line[9:12])


def _field(line: str) -> tuple[str, str]:
    name, colon, value = line.partition(":")
    if not colon or not _NAME.fullmatch(name) or "\n" in line or "\0" in line or "\r" in line:
        raise BadAnswer(f"no header: {line[:40]!r}")
    return name, value.strip(" \t")


def _length(text: str) -> int:
    if not _digits(text, 18):  # a list, even of equal ones, must not be passed on either
        raise BadAnswer(f"content-length {text[:40]!r}")
    return int(text)


def _chunk_size(line: bytes) -> int:
    size = line.partition(b";")[0].strip(b" \t")
    if not size or len(size) > 15 or size.strip(b"0123456789abcdefABCDEF"):
        raise BadAnswer(f"no chunk size: {line[:40]!r}")
    return int(size, 16)


def _digits(text: str, most: int) -> bool:
    """Whether it is a decimal number of at most so many ASCII digits."""
    return 0 < len(text) <= most and text.isascii() and text.isdigit()

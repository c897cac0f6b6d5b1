"""Unpacks the two encodings of HTTP that the standard library knows, in bounded memory."""

from __future__ import annotations

import zlib
from typing import Self

_GZIP = zlib.MAX_WBITS | 16
_LONGEST_BODY = 256 * 2**20  # bytes unpacked: no answer that means anything is longer


class Inflate:
    """Unpacks a stream piece by piece; `limit` bounds what one piece may become."""

    __slots__ = ("_head", "_is_gzip", "_limit", "_unpack")

    def __init__(self, *, is_gzip: bool, limit: int) -> None:
        self._is_gzip, self._limit = is_gzip, limit
        self._unpack = zlib.decompressobj(_GZIP) if is_gzip else None
        self._head = b""

    @classmethod
    def of(cls, encoding: str, limit: int) -> Self | None:
        """For a `Content-Encoding`; null when it is unknown, or none."""
        name = encoding.strip().lower()
        return (
            cls(is_gzip=name != "deflate", limit=limit) if name in {"gzip", "x-gzip", "deflate"} else None
        )

    def feed(self, chunk: bytes) -> bytes | None:
        """The bytes unpacked; null when it is broken or becomes too long, and then for good."""
        found = []
        room = self._limit
        while chunk:
            unpack = self._unpack
            if unpack is None:
                self._head = chunk = self._head + chunk
                if len(chunk) < 2:
                    break
                unpack = self._unpack = _deflate(chunk)
            try:
                found.append(unpack.decompress(chunk, room + 1))
            except zlib.error:
                return None
            room -= len(found[-1])
            if room < 0:
                return None
            chunk = unpack.unconsumed_tail
            if unpack.eof:  # gzip may go on with another member
                chunk = unpack.unused_data
                if not self._is_gzip:
                    break
                self._unpack = zlib.decompressobj(_GZIP)
        return b"".join(found)


def inflated(body: bytes, encoding: str) -> bytes | None:
    """A whole body unpacked; null when its encoding is unknown, or it is broken or too long."""
    if encoding.strip().lower() in {"", "identity"}:
        return body
    inflate = Inflate.of(encoding, _LONGEST_BODY)
    return None if inflate is None else inflate.feed(body)


def _deflate(head: bytes) -> zlib._Decompress:
    """HTTP's deflate has zlib's header; many servers leave it out. Two bytes tell."""
    is_zlib = head[0] & 15 == 8 and int.from_bytes(head[:2], "big") % 31 == 0
    return zlib.decompressobj(zlib.MAX_WBITS if is_zlib else -zlib.MAX_WBITS)

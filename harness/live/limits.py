"""What the gateway puts up with from its clients, and who may come in."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass

# Headers a key may come in: OpenAI's clients send the first, Anthropic's the second.
KEY_HEADERS = frozenset({"authorization", "x-api-key"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes in bytes, times in seconds.

    `read_s` bounds the reading of a request's body, `write_s` the time in which a client that stopped
    reading must take the next part of its answer, `keep_alive_s` a connection without a request,
    and so the time in which headers must have come.
    """

    body_bytes: int = 64 * 2**20
    line_bytes: int = 8190  # of the request line, and of one header
    headers: int = 128
    read_s: float = 60.0
    write_s: float = 60.0
    keep_alive_s: float = 75.0


class Door:
    """Whether a request has the key; `key` null: everybody may come in."""

    def __init__(self, key: str | None) -> None:
        self._key = None if key is None else key.encode()

    def lets_in(self, headers: Mapping[str, str]) -> bool:
        """Whether the headers hold the key. Takes the same time whatever they hold instead."""
        if self._key is None:
            return True
        scheme, _, token = headers.get("authorization", "").partition(" ")
        bearer = token if scheme.lower() == "bearer" else ""
        said = bearer, headers.get("x-api-key", "")  # some clients send both
        right = [
            hmac.compare_digest(one.strip().encode("utf-8", "surrogateescape"), self._key) for one in said
        ]
        return any(right)

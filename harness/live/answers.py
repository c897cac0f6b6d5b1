"""Answers of the gateway's own, in the shape that clients of OpenAI's API expect, and what is known of one.

Both ends use the same shape as `ports.Answer`: whoever writes to a client need not know who answered.
`whole` is the body where it is there at once, so that it can be written in one go.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from harness.live.ports import Answer, UpstreamFailed, UpstreamTimedOut

RETRY_AFTER_S = 5


@dataclass(frozen=True, slots=True)
class Incoming:
    """A client's request. `path` as it stood in the request line; `headers` are looked up in any case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Outward(Answer, Protocol):
    """An answer for a client."""

    @property
    def whole(self) -> bytes | None:
        """All of the body; null for one that comes in pieces."""
        ...


class Plain:
    """An answer that is there at once."""

    __slots__ = ("headers", "status", "whole")

    def __init__(self, status: int, headers: list[tuple[str, str]], whole: bytes) -> None:
        self.status, self.headers, self.whole = status, headers, whole

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body."""
        yield self.whole

    async def close(self) -> None:
        """Nothing is held."""


def told(content: Mapping[str, Any], status: int = 200) -> Plain:
    """An answer of JSON."""
    return Plain(status, [("Content-Type", "application/json")], json.dumps(content).encode())


def refused(
    status: int, message: str, kind: str, *, retry_after_s: int | None = None, code: str | None = None
) -> Plain:
    """An error as OpenAI's API words it; `retry_after_s` tells clients that trying again may help."""
    answer = told(
        {"error": {"message": message, "type": kind, "param": None, "code": code or kind}}, status
    )
    if retry_after_s is not None:
        answer.headers.append(("Retry-After", str(retry_after_s)))
    return answer


def unavailable(message: str) -> Plain:
    """503: not now."""
    return refused(503, message, "service_unavailable", retry_after_s=RETRY_AFTER_S)


def bad_gateway(error: UpstreamFailed) -> Plain:
    """502, or 504 where the server was silent for too long."""
    if isinstance(error, UpstreamTimedOut):
        return refused(504, f"the server did not answer: {error.reason}", "gateway_timeout")
    return refused(502, f"the server failed: {error.reason}", "bad_gateway")

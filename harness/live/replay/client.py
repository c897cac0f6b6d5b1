"""Playing one call over HTTP, as an agent's client library would: sent, streamed, tried again, given up.

Tried again are answers 408, 429 and 5xx, connections that fail or break off, streams that are garbage or
end too early, and silence; after a pause that doubles (as in OpenAI's client), or as long as the server's
Retry-After says. Every attempt is a new request. Any other error of the server is final.

Counts come from the server's usage alone. What the client sees it writes into the `LiveCall`: times in
seconds of the run, and counts; what nobody tells stays at -1 (see there).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from random import Random
from urllib.parse import quote

from harness.live.clock import LoopClock
from harness.live.ports import Answer, Outgoing, Upstream, UpstreamFailed, Usage
from harness.live.replay.events import AnswerReader, BadStream, ServerError, one_line
from harness.live.replay.health import Health
from harness.live.replay.prompts import Heard
from harness.virtual.engine import Piece
from harness.virtual.programs import LiveCall

HOLD_HEADER, REPLICA_HEADER = "x-thunderbench-hold-s", "x-thunderbench-replica"  # of our gateway's answers
SESSION_HEADERS = ("X-Program-Id", "X-Session-Id", "X-Correlation-ID", "x-dynamo-session-id")
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
_SAFE = "".join(map(chr, range(33, 127))).replace("%", "")  # of an identity in a header
_ERROR_BYTES = 65_536  # of an error's body that are read


class CallLost(Exception):
    """A call has failed for good. The text says why, in one line."""


class _Again(Exception):
    """An attempt failed; another may succeed, after `pause_s` if the server says when."""

    def __init__(self, reason: str, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.pause_s = pause_s


class HttpCaller:
    """Sends calls to the server `target` of `upstream`. `rng` spreads the pauses.

    `timeout_s`: an attempt that has not ended after so long has failed. `identity_headers`: by which
    gateways know whose call it is, the same for every one of them.
    """

    def __init__(
        self,
        upstream: Upstream,
        target: str,
        clock: LoopClock,
        health: Health,
        *,
        retries: int = 3,
        timeout_s: float = 3600.0,
        identity_headers: Sequence[str] = SESSION_HEADERS,
        rng: Random | None = None,
    ) -> None:
        self._upstream, self._target, self._clock, self._health = upstream, target, clock, health
        self._retries, self._timeout_s, self._identity_headers = retries, timeout_s, identity_headers
        self._rng = Random(0) if rng is None else rng

    async def call(self, live: LiveCall, path: str, body: bytes) -> Heard:
        """Play one call; what was generated. Raises `CallLost`."""
        while True:
            try:
                return await self._attempt(live, path, body)
            except _Again as failed:
                live.request.first_token_s = -1.0
                if live.retries >= self._retries:
                    self._health.failed_calls += 1
                    raise CallLost(f"{failed} (tried {live.retries + 1} times)") from None
                pause_s = self._pause_s(live.retries) if failed.pause_s is None else failed.pause_s
                live.retries += 1
                self._health.retries += 1
                await asyncio.sleep(pause_s)
            except CallLost:
                self._health.failed_calls += 1
                raise

    async def post(self, path: str, body: bytes, program_id: str) -> int:
        """A request whose answer nobody reads; its status. Raises `UpstreamFailed`."""
        headers = {"Content-Type": "application/json", **self._identity(program_id)}
        answer = await self._upstream.send(self._target, Outgoing("POST", path, headers, body))
        try:
            async for _ in answer.chunks():
                pass
        finally:
            await answer.close()
        return answer.status

    def _identity(self, program_id: str) -> dict[str, str]:
        return dict.fromkeys(self._identity_headers, quote(program_id, safe=_SAFE))

    def _pause_s(self, retries: int) -> float:
        pause_s: float = min(FIRST_PAUSE_S * 2**retries, LONGEST_PAUSE_S)
        return pause_s * (1 - 0.25 * self._rng.random())

    async def _attempt(self, live: LiveCall, path: str, body: bytes) -> Heard:
        sent_s = self._clock.now
        request_id = live.call.call_id if not live.retries else f"{live.call.call_id}~{live.retries}"
        headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "X-Request-ID": quote(request_id, safe=_SAFE),
            **self._identity(live.program.id),
        }
        if not live.retries:
            live.late_s = sent_s - live.arrived_s
            self._health.sent(live.late_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                answer = await self._upstream.send(self._target, Outgoing("POST", path, headers, body))
                try:
                    if answer.status != 200:
                        raise await _refused(answer)
                    reader, ended_s = await self._read(answer, live)
                finally:
                    await answer.close()
            self._ended(live, answer, sent_s, ended_s, reader.end())
        except TimeoutError:
            raise _Again(f"no end of the answer within {self._timeout_s:g} s") from None
        except UpstreamFailed as failed:
            raise _Again(failed.reason) from None
        except BadStream as bad:
            raise _Again(str(bad)) from None
        except ServerError as error:
            raise _judged(error.status, f"the server says {error.status}: {error}", None) from None
        return reader.heard

    async def _read(self, answer: Answer, live: LiveCall) -> tuple[AnswerReader, float]:
        """The answer, and when its last byte came."""
        reader, request = AnswerReader(), live.request
        ended_s = self._clock.now
        async for chunk in answer.chunks():
            ended_s = self._clock.now
            reader.feed(chunk)
            if request.first_token_s < 0.0 and reader.spoke:
                request.first_token_s = ended_s
        return reader, ended_s

    def _ended(self, live: LiveCall, answer: Answer, sent_s: float, ended_s: float, usage: Usage) -> None:
        """Write down a call that ended well."""
        request = live.request
        if request.first_token_s < 0.0:
            raise BadStream("an answer without output")
        told = {name.lower(): value for name, value in answer.headers}
        hold_s = _seconds(told.get(HOLD_HEADER))
        live.replica = told.get(REPLICA_HEADER, "")
        live.dispatched_s = -1.0 if hold_s is None else sent_s + hold_s
        if usage.output_tokens != live.call.output.tokens:
            self._health.odd_lengths += 1
        request.finished_s = ended_s
        request.prompt_tokens = usage.prompt_tokens
        request.cached_tokens = -1 if usage.cached_tokens is None else usage.cached_tokens
        request.preemptions = -1
        request.output = Piece(live.call.output.key, usage.output_tokens)


async def _refused(answer: Answer) -> _Again | CallLost:
    """What an answer that is not 200 means."""
    text = b""
    async for chunk in answer.chunks():
        text += chunk
        if len(text) > _ERROR_BYTES:
            break
    reason = f"HTTP {answer.status}: {one_line(text.decode(errors='replace'))}"
    after = next((value for name, value in answer.headers if name.lower() == "retry-after"), None)
    return _judged(answer.status, reason, after)


def _judged(status: int, reason: str, after: str | None) -> _Again | CallLost:
    if status in {408, 429} or status >= 500:
        return _Again(reason, None if after is None else retry_after_s(after, time.time()))
    return CallLost(reason)


def retry_after_s(value: str, now_utc: float) -> float | None:
    """Seconds that a Retry-After asks for (RFC 9110, 10.2.3: seconds or a date); null for nonsense."""
    seconds = _seconds(value)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now_utc)  # a date that has passed: now
    except ValueError:
        return None


def _seconds(value: str | None) -> float | None:
    """A finite number of seconds from 0 on; null for anything else."""
    try:
        seconds = float(value) if value is not None else -1.0
    except ValueError:
        return None
    return seconds if 0.0 <= seconds < float("inf") else None

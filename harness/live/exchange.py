"""What a replica answers to a call: read along, handed on byte for byte, and told to the driver.

A body is read whole before any of it is handed on, because its usage stands in it and the policy is told
first. A stream is handed on as it comes; `sse.StreamWatcher` says how far it is. A compressed answer
stays as it is: it is only read along.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import quote

from harness.live.answers import Plain, bad_gateway, unavailable
from harness.live.calls import OpenCall
from harness.live.ports import Answer, UpstreamFailed, Usage
from harness.live.prompt_sizes import PromptSizes
from harness.live.sse import StreamWatcher, read_body
from harness.live.wire import Looked

PLAIN = frozenset({"", "identity"})  # encodings of what is not compressed
SUCCESS = range(200, 300)
BYTES_PER_TOKEN = 4  # of an answer whose server counts nothing: English text has a little more


class Ended(NamedTuple):
    """A call that is over, for logs and counters. `status` is what its client was told; 0: nothing."""

    call: OpenCall
    path: str
    model: str | None
    stream: bool
    body: bytes  # of the request; empty unless bodies are logged
    status: int


class Lost(Exception):
    """The call's replica is gone, or the policy failed."""


class Loss:
    """Wakes the task that waits for a replica when that replica is lost.

    `with loss: await ...` raises `Lost`. The task is cancelled for it, as `asyncio.timeout` does; a
    cancellation that somebody else asked for passes.
    """

    __slots__ = ("_task", "reason")

    def __init__(self, call: OpenCall) -> None:
        self._task: asyncio.Task[object] | None = None
        self.reason: str | None = None
        call.on_lost = self._lost

    def _lost(self, reason: str) -> None:
        self.reason = reason
        if self._task is not None:
            self._task.cancel()

    def __enter__(self) -> Self:
        if self.reason is not None:
            raise Lost(self.reason)
        self._task = asyncio.current_task()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        task, self._task = self._task, None
        if self.reason is None or task is None:
            return
        others = task.uncancel()
        if not others and kind is asyncio.CancelledError:
            raise Lost(self.reason) from None


class Exchange:
    """A call that was sent, and the head of its answer. `over(status)` is called once, at its very end."""

    __slots__ = ("answer", "call", "headers", "looked", "loss", "over", "sizes", "status")

    def __init__(
        self,
        call: OpenCall,
        looked: Looked,
        answer: Answer,
        loss: Loss,
        sizes: PromptSizes,
        over: Callable[[int], None],
    ) -> None:
        self.call, self.looked, self.answer, self.loss = call, looked, answer, loss
        self.sizes, self.over = sizes, over
        self.status = answer.status
        own = headers_of(call)
        names = {name for name, _ in own}  # of a gateway behind this one
        self.headers = [field for field in answer.headers if field[0].lower() not in names] + own

    def finished(self, usage: Usage | None, output_tokens: int, tools: list[str]) -> None:
        """It ended well; where the server says no usage, this is what it takes it for."""
        call = self.call
        if usage is None:
            usage = Usage(call.prompt_tokens, output_tokens, None)
        else:
            self.sizes.learn(call.program_id, self.looked, usage)
        call.tools = tools or list(self.looked.tools)
        call.first_token()  # at the latest now: a stream may have shown nothing but empty texts
        call.finished(usage)

    async def read_whole(self) -> Plain:
        """An answer that is no stream. Its call has ended then."""
        try:
            with self.loss:
                body = b"".join([chunk async for chunk in self.answer.chunks()])
        except Lost as lost:
            return self._instead(unavailable(str(lost)))
        except UpstreamFailed as error:
            self.call.failed(error.reason)
            return self._instead(bad_gateway(error))
        finally:
            await self.answer.close()
        call = self.call
        if self.status not in SUCCESS:  # a redirect, too: nothing was generated
            call.failed(f"HTTP {self.status}")
        else:
            read = read_body(body, encoding_of(self.answer))
            if read.error is not None:
                call.failed(read.error)
            else:
                self.finished(read.usage, len(body) // BYTES_PER_TOKEN, read.tools)
        self.over(self.status)
        return Plain(self.status, self.headers, body)

    def _instead(self, answer: Plain) -> Plain:
        """An answer of our own."""
        answer.headers += headers_of(self.call)
        self.over(answer.status)
        return answer


class Relayed:
    """A stream on its way to the client, as `answers.Outward`. Closing it ends the call."""

    __slots__ = ("_closed", "_exchange", "_watcher", "headers", "status")

    whole = None

    def __init__(self, exchange: Exchange, *, hide_usage: bool) -> None:
        self._exchange = exchange
        self.status, self.headers = exchange.status, exchange.headers
        self._closed = False
        encoding = encoding_of(exchange.answer)
        self._watcher = StreamWatcher(hide_usage, encoding)
        if hide_usage and encoding in PLAIN:  # a length that counts the event which is taken out
            self.headers = [field for field in self.headers if field[0].lower() != "content-length"]

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stream as it comes. Raises `UpstreamFailed` when it breaks off."""
        exchange, watcher = self._exchange, self._watcher
        loss, source = exchange.loss, exchange.answer.chunks()
        while True:
            try:
                with loss:
                    data = await anext(source)
            except StopAsyncIteration:
                break
            except Lost as lost:
                raise UpstreamFailed(str(lost)) from None
            except UpstreamFailed as error:
                exchange.call.failed(error.reason)
                raise
            data = watcher.feed(data)
            self._tell()
            if data:
                yield data
        rest = watcher.end()
        self._tell()
        self._end()
        if rest:
            yield rest

    def _tell(self) -> None:
        """Let the driver know how far the answer is."""
        call, watcher = self._exchange.call, self._watcher
        if call.end is not None:
            return
        if watcher.tokens_seen != call.decoded_tokens:
            call.decoded_tokens = watcher.tokens_seen
            if call.first_token_s is None:
                call.first_token()
        if watcher.error is not None:
            call.failed(watcher.error)
        elif watcher.done:
            self._finish()

    def _finish(self) -> None:
        watcher = self._watcher
        self._exchange.finished(watcher.usage, watcher.tokens_seen, list(watcher.tools))

    def _end(self) -> None:
        """The server has no more to say, and did not say that it was done."""
        call, watcher = self._exchange.call, self._watcher
        if call.end is not None:
            return
        if watcher.usage is not None or encoding_of(self._exchange.answer) not in PLAIN:
            self._finish()
        else:
            call.failed("the stream stopped before its end")

    async def close(self) -> None:
        """End the call: `cancelled` when the stream was not read to its end."""
        if self._closed:
            return
        self._closed = True
        exchange = self._exchange
        exchange.call.cancelled()
        try:
            await exchange.answer.close()
        finally:
            exchange.over(self.status)


class Passed:
    """An answer that belongs to no call, as `answers.Outward`."""

    __slots__ = ("_answer", "headers", "status")

    whole = None

    def __init__(self, answer: Answer, replica: str) -> None:
        self._answer = answer
        self.status = answer.status
        self.headers = [*answer.headers, ("x-thunderbench-replica", replica)]

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes. Raises `UpstreamFailed` when it breaks off."""
        return self._answer.chunks()

    async def close(self) -> None:
        """Give the connection back, or cut it."""
        await self._answer.close()


def headers_of(call: OpenCall) -> list[tuple[str, str]]:
    """What a client is told of its call: its name, its replica, how long it was held (seconds)."""
    name = call.call_id
    # what a client called its program must not end a header, nor leave its alphabet
    told = [("x-thunderbench-call", name if name.isascii() and name.isprintable() else quote(name))]
    if call.placement is not None:
        told.append(("x-thunderbench-replica", call.placement.replica))
    held_until = call.placed_s if call.placed_s is not None else call.ended_s
    if held_until is not None:
        told.append(("x-thunderbench-hold-s", f"{held_until - call.arrived_s:.6f}"))
    return told


def encoding_of(answer: Answer) -> str:
    """How the body is compressed, in lower case; empty where it is not."""
    return next((v.strip().lower() for n, v in answer.headers if n.lower() == "content-encoding"), "")


def is_stream(answer: Answer) -> bool:
    """Whether the answer is one of events."""
    kind = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
    return kind.lower().startswith("text/event-stream")

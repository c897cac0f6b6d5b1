"""The stream of one answer, read for what an agent wants of it: when tokens came, which, and the usage.

Only the fields named here are looked at; msgspec skips the rest (vLLM repeats the prompt's ids in the first
event, a megabyte at times) without building it.
"""

from __future__ import annotations

from typing import Any

import msgspec

from harness.live.ports import Usage
from harness.live.replay.prompts import Heard

MAX_EVENT_BYTES = 1 << 26  # what is longer is no event of a model server
_DONE = b"[DONE]"


class BadStream(Exception):
    """What came is no stream of completions. The text is one line."""


class ServerError(Exception):
    """An error that the server told inside its stream; `status` as for HTTP, 500 where it told none."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Details(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int = 0
    prompt_tokens_details: _Details | None = None


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(msgspec.Struct):
    text: str | None = None
    delta: _Delta | None = None
    token_ids: list[int] | None = None
    finish_reason: str | None = None


class _Event(msgspec.Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


_decoder = msgspec.json.Decoder(_Event)


class AnswerReader:
    """Takes the chunks of one answer as they come. Raises `BadStream` and `ServerError`."""

    def __init__(self) -> None:
        self.heard = Heard()
        self.usage: Usage | None = None
        self.spoke = False  # an event with output came
        self.complete = False  # the server said that this was all
        self._begun: list[bytes] = []  # of a line whose end has not come
        self._begun_bytes = 0

    def feed(self, chunk: bytes) -> None:
        """Bytes came."""
        first, *others = chunk.split(b"\n")
        self._begun.append(first)
        self._begun_bytes += len(first)
        if self._begun_bytes > MAX_EVENT_BYTES:
            raise BadStream(f"a line of more than {MAX_EVENT_BYTES} bytes")
        for begins in others:
            self._line(b"".join(self._begun))
            self._begun, self._begun_bytes = [begins], len(begins)

    def end(self) -> Usage:
        """Nothing follows; the call's usage."""
        self._line(b"".join(self._begun))
        if not self.complete:
            raise BadStream("the stream ended in the middle")
        if self.usage is None:
            raise BadStream("no usage in the stream")
        return self.usage

    def _line(self, line: bytes) -> None:
        if not line.startswith(b"data:"):
            return
        data = line[5:].strip()
        if data == _DONE:
            self.complete = True
            return
        try:
            event = _decoder.decode(data)
        except msgspec.MsgspecError as error:
            raise BadStream(f"an event that is none: {error}") from None
        except UnicodeDecodeError:
            raise BadStream("an event that is no UTF-8") from None
        if event.error is not None:
            raise _told(event.error)
        for choice in event.choices:
            self._choice(choice)
        if event.usage is not None:
            details = event.usage.prompt_tokens_details
            cached = None if details is None else details.cached_tokens
            self.usage = Usage(event.usage.prompt_tokens, event.usage.completion_tokens, cached)

    def _choice(self, choice: _Choice) -> None:
        if choice.token_ids:
            self.heard.ids.extend(choice.token_ids)
        text = choice.text
        if choice.delta is not None:
            text = choice.delta.content or choice.delta.reasoning or choice.delta.reasoning_content
        if text:
            self.heard.text.append(text)
        if choice.finish_reason is not None:
            self.complete = True
        if text or choice.token_ids or choice.finish_reason is not None:
            self.spoke = True


def _told(error: Any) -> ServerError:
    if not isinstance(error, dict):
        return ServerError(500, one_line(str(error)))
    status = error.get("code")
    return ServerError(status if isinstance(status, int) else 500, one_line(str(error.get("message"))))


def one_line(text: str) -> str:
    """The first 200 characters of a server's words, on one line."""
    return " ".join(text.split())[:200]

"""Reads what a server answers while it passes: usage, tool calls, errors, and how many events had output.

The bytes of a stream go to the client as they came. What is read on the way follows the server-sent
events format: lines end in LF, CR LF or CR, a blank line ends an event, lines that begin with `data:`
are the event's data, everything else (comments, names, ids) has no meaning here. Three dialects are told
apart by the content of an event:

- OpenAI chat and completions: `choices`; `usage` in any event, vLLM's continuous one too; `[DONE]`;
- OpenAI responses: `type` is `response.*`; usage stands in the `response` that completed;
- Anthropic messages: `type` is `message_*` or `content_block_*`; usage comes in parts.

An event is decoded into a few typed fields. That costs less than a single search for a word in it, so
there is no guessing from words. An event that is no JSON, or whose fields have other types, has no
meaning, except that usage and errors are looked for in it once more.

A stream is read as far as is affordable: with an event longer than `LONGEST_EVENT_BYTES`, or in a
compressed stream a chunk that unpacks to more, reading stops and the bytes keep passing.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import Struct
from msgspec.json import Decoder

from harness.live.inflate import Inflate
from harness.live.ports import Usage
from harness.live.said import COUNTS, Read, call_names, one_line, part, read_body, usage_of

__all__ = ["LONGEST_EVENT_BYTES", "Read", "StreamWatcher", "read_body"]

LONGEST_EVENT_BYTES = 16 * 2**20
_LAST = frozenset({"message_stop", "response.completed", "response.incomplete", "response.failed"})

# The end of an event: two ends of lines. A CR at the very end may be half of a CR LF, so it waits.
_END = re.compile(rb"(?:\r\n|\n|\r(?=[^\n])){2}")
_LINE = re.compile(rb"\r\n|\n|\r")


class _Function(Struct, gc=False):
    name: str | None = None


class _ToolCall(Struct, gc=False):
    index: int | None = None
    function: _Function | None = None


class _Delta(Struct, gc=False):
    content: Any = None
    reasoning: Any = None
    reasoning_content: Any = None
    refusal: Any = None
    tool_calls: list[_ToolCall] | None = None


class _Choice(Struct, gc=False):
    index: int | None = None
    delta: _Delta | None = None
    text: Any = None


class _Told(Struct):
    """What matters of an event or answer, whatever the dialect; a `response` or `message` is one too."""

    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None
    type: Any = None
    delta: Any = None
    message: Any = None
    response: Any = None
    content_block: Any = None
    item: Any = None


class _Loose(Struct):
    """The same for an event in which something has an unknown type."""

    usage: Any = None
    error: Any = None
    type: Any = None
    message: Any = None
    response: Any = None


_told = Decoder(_Told).decode
_loose = Decoder(_Loose).decode


class StreamWatcher:
    """Watches one stream. `feed` it each chunk and pass on what it returns, then do so with `end`.

    With `hide_usage` the events that carry usage and no choices are taken out: those that a server sends
    because usage was asked for on the client's behalf. Then an event that is not complete waits for its
    rest; otherwise every chunk is returned as it is, at once. `encoding` is the stream's
    `Content-Encoding`: a compressed stream is read, but nothing is taken out of it; of an unknown
    encoding nothing is read. Neither method raises.

    `tokens_seen` counts events that carried output, `usage` is the last one told (complete once `done`),
    `tools` are the names of tool calls in the order in which they begin, `done` says that the server
    ended the stream properly, `error` is what the first error event says.
    """

    __slots__ = (
        "_begun",
        "_counts",
        "_hides",
        "_inflate",
        "_pending",
        "_searched",
        "_watches",
        "_whole",
        "done",
        "error",
        "tokens_seen",
        "tools",
    )

    def __init__(self, hide_usage: bool, encoding: str = "") -> None:  # noqa: FBT001 - the one thing to say
        self.tokens_seen = 0
        self.tools: list[str] = []
        self.done = False
        self.error: str | None = None
        self._counts: dict[str, Any] = {}  # what was told of usage, put together
        self._begun: set[tuple[int | None, int]] = set()  # tool calls, by choice and index
        self._pending = bytearray()  # an event that is not complete
        self._searched = 0  # bytes of it in which no end was found
        self._inflate = Inflate.of(encoding, LONGEST_EVENT_BYTES)
        self._watches = self._inflate is not None or encoding.strip().lower() in {"", "identity"}
        self._hides = hide_usage and self._watches and self._inflate is None
        self._whole = self._watches and self._inflate is None  # between two events of a plain stream

    @property
    def usage(self) -> Usage | None:
        """The token counts told so far; null: none."""
        return usage_of(self._counts)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes from the server; returns what the client gets now."""
        if self._whole:
            end = len(chunk) - 2
            if (  # one event in one line, as vLLM writes them: nothing to cut or to keep
                chunk.find(b"\n") == end
                and chunk.endswith(b"\n\n")
                and chunk.startswith(b"data: ")
                and b"\r" not in chunk
                and end < LONGEST_EVENT_BYTES - 1
            ):
                return b"" if self._take(chunk[6:end]) and self._hides else chunk
        elif not self._watches:
            return chunk
        if self._inflate is None:
            return self._cut(chunk)
        plain = self._inflate.feed(chunk)
        if plain is None:
            self._stop()
        else:
            self._cut(plain)
        return chunk

    def end(self) -> bytes:
        """The stream is over; returns what was still kept for the client."""
        rest = bytes(self._pending)
        is_hidden = bool(rest) and self._event(rest)
        hides = self._hides
        self._stop()
        return rest if hides and not is_hidden else b""

    # ------------------------------------------------------------ bytes

    def _stop(self) -> None:
        self._watches = self._whole = self._hides = False
        self._inflate = None
        self._pending = bytearray()

    def _cut(self, chunk: bytes) -> bytes:
        """Take the events that are complete now; returns what the client gets of a plain stream."""
        pending = self._pending
        if pending or b"\r" in chunk or len(chunk) > LONGEST_EVENT_BYTES:
            events = self._events(chunk)
        else:  # whole events in lines that end in LF: the usual
            *events, rest = chunk.split(b"\n\n")
            events = [event + b"\n\n" for event in events]
            pending += rest
            self._searched = len(rest)
        hidden = [self._event(event) for event in events]
        out = chunk
        if self._hides:
            out = b"".join(event for event, is_hidden in zip(events, hidden, strict=True) if not is_hidden)
        if len(pending) > LONGEST_EVENT_BYTES:
            if self._hides:
                out += pending
            self._stop()
        else:
            self._whole = not pending and self._inflate is None
        return out

    def _events(self, chunk: bytes) -> list[bytes]:
        """Add to what is pending and take from it the events that are complete, up to one too long."""
        pending = self._pending
        pending += chunk
        ends = [match.end() for match in _END.finditer(pending, max(self._searched - 3, 0))]
        events: list[bytes] = []
        start = 0
        for end in ends:
            if end - start > LONGEST_EVENT_BYTES:
                break
            events.append(bytes(pending[start:end]))
            start = end
        del pending[:start]
        self._searched = len(pending)
        return events

    # ------------------------------------------------------------ events

    def _event(self, event: bytes) -> bool:
        """Take one event, or what is there of the last; whether it is one to hide."""
        lines = _LINE.split(event) if b"\r" in event else event.split(b"\n")
        lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
        return bool(data) and self._take(data[0] if len(data) == 1 else b"\n".join(data))

    def _take(self, data: bytes) -> bool:
        """Take the data of an event; whether it carries usage and no choices."""
        try:
            told = _told(data)
        except (ValueError, RecursionError):
            if data.strip() == b"[DONE]":
                self.done = True
            else:
                self._take_odd(data)
            return False
        if told.choices:
            if self._choices(told.choices):
                self.tokens_seen += 1
        elif told.type is not None:
            self._typed(told)
        if told.error is not None:
            self._failed(told.error)
        if told.usage is None:
            return False
        self._count(told.usage)
        return told.choices == []

    def _take_odd(self, data: bytes) -> None:
        """An event that is no JSON object, or not of the types that were expected."""
        try:
            told = _loose(data)
        except (ValueError, RecursionError):
            return
        self._count(told.usage)
        if told.error is not None:
            self._failed(told.error)

    def _choices(self, choices: list[_Choice]) -> bool:
        """Whether there is output in an event of a chat or completion; notes the tool calls."""
        found = False
        for choice in choices:
            delta = choice.delta
            if delta is None:
                found = found or bool(choice.text)
            elif delta.content or delta.reasoning or delta.reasoning_content or delta.refusal:
                found = True
            if delta is not None and delta.tool_calls:
                found = True
                for call in delta.tool_calls:
                    self._begins(choice.index, call)
        return found

    def _begins(self, choice: int | None, call: _ToolCall) -> None:
        """The name comes when a call begins; some servers repeat it with every piece of arguments."""
        if call.function is None or not call.function.name:
            return
        if call.index is not None:
            if (choice, call.index) in self._begun:
                return
            self._begun.add((choice, call.index))
        self.tools.append(call.function.name)

    def _typed(self, told: _Told) -> None:
        """An event of the other two dialects."""
        kind = told.type
        if kind == "content_block_delta":
            pieces = told.delta if isinstance(told.delta, dict) else {}
            self.tokens_seen += any(pieces.get(name) for name in ("text", "partial_json", "thinking"))
        elif kind in {"content_block_start", "response.output_item.added"}:
            self.tools += call_names([told.content_block, told.item])
        elif kind == "message_start":
            self._count(part(told.message, "usage"))
        elif kind == "error":
            if told.error is None:
                self._failed(told.message)
        elif isinstance(kind, str):
            if kind.startswith("response.") and kind.endswith(".delta"):
                self.tokens_seen += bool(told.delta)
            elif kind in _LAST:
                self.done = True
                self._count(part(told.response, "usage"))
                error = part(told.response, "error")
                if error is not None:
                    self._failed(error)

    def _failed(self, error: object) -> None:
        if self.error is None:
            self.error = one_line(error)

    def _count(self, usage: object) -> None:
        if isinstance(usage, dict):
            for name in COUNTS:
                if (value := usage.get(name)) is not None:
                    self._counts[name] = value

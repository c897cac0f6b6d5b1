"""What the engine plug-in and its client say to each other. Both sides import this file.

It needs the standard library only, as it is loaded inside the process of vLLM's engine.

The talk is JSON, one object per line, UTF-8, over a Unix socket or over TCP on loopback. A client says:

    {"do": "hello"}                                                     who are you
    {"do": "stats", "program": "p1"}                                    without `program`: of all
    {"do": "pin", "program": "p1", "for_s": 3.5, "yields": true}        keep the last context
    {"do": "unpin", "program": "p1"}                                    undo it
    {"do": "evict", "program": "p1", "tail_tokens": 4096}               null: the whole context
    {"do": "retain", "program": "p1", "kind": "task", "priority": 2, "for_s": 60}
    {"do": "order", "program": "p1", "priority": -3}                    of its waiting requests

`hello` and `stats` are answered at once with `{"hello": {...}}` and `{"stats": {...}}`, also while the
engine is idle. The others are orders: they are not answered, and the engine follows them, in order of
arrival, when it next schedules. Whatever cannot be followed is answered with `{"error": "one line"}`. An
`id` in a question (a whole number) comes back in its answer. Unknown keys are ignored.

Times `for_s` are seconds from when the engine reads the order: it has a clock of its own.
"""

from __future__ import annotations

import ipaddress
import json
import os
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, TypeAlias

from harness.errors import SetupError

PLUGIN = "thunderbench-hooks"
PROTOCOL = 1  # raised when an old client would misunderstand a new plug-in
PLUGIN_VERSION = "1.0.0"
TESTED_VLLM = ("0.32.0",)

SCHEDULER_CLASS = "harness.live.vllm_hooks.HookedScheduler"
ADDRESS_VARIABLE = "THUNDERBENCH_HOOKS"
PROGRAM_ARGUMENT = "program_id"  # keys of `vllm_xargs` in the body of a request
SEGMENTS_ARGUMENT = "segments"

MAX_LINE_BYTES = 64 * 1024  # of a client's line; the plug-in's own may be longer
MAX_NAME_CHARS = 1024
_MAX_SECONDS = 1e9
_MAX_PRIORITY = 1 << 31
_MAX_TOKENS = 1 << 53
_MAX_PATH_BYTES = 107  # of `sun_path` on Linux, less its end

_MEND = f"Set {ADDRESS_VARIABLE} to unix:/path.sock or tcp:127.0.0.1:7700."


# ------------------------------------------------------------------ where


class Address(NamedTuple):
    """Where a plug-in listens: a Unix socket's `path`, or else `host` and `port` on loopback."""

    path: str
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"unix:{self.path}" if self.path else f"tcp:{host}:{self.port}"


def parse_address(text: str) -> Address:
    """Read `unix:/path.sock` or `tcp:127.0.0.1:7700`.

    Raises `SetupError` for anything else, and for TCP beyond loopback: whoever reaches the plug-in can
    change what the engine keeps.
    """
    scheme, _, rest = text.partition(":")
    if scheme == "unix" and rest.startswith("/") and "\0" not in rest:
        if len(os.fsencode(rest)) > _MAX_PATH_BYTES:
            raise SetupError(
                f"a socket path of {len(os.fsencode(rest))} bytes",
                f"at most {_MAX_PATH_BYTES}: the system allows no more",
                "Use a shorter path.",
            )
        return Address(rest)
    host, colon, port = rest.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if scheme != "tcp" or not colon or not port.isascii() or not port.isdigit() or int(port) >= 1 << 16:
        raise SetupError(f"the engine hooks' address {text!r}", "a Unix socket, or TCP on loopback", _MEND)
    if not is_loopback(host):
        raise SetupError(f"engine hooks at {host!r}", "an address of this machine only", _MEND)
    return Address("", host, int(port))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# ------------------------------------------------------------------ what


class BadMessage(ValueError):
    """A line that says nothing one could follow; the text is one line."""


@dataclass(frozen=True, slots=True)
class Hello:
    """Ask who listens."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Ask for the counts of one program, or of all."""

    program: str | None = None


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep what is cached of the program's last context, in place of its earlier pin."""

    program: str
    for_s: float
    yields: bool


@dataclass(frozen=True, slots=True)
class Unpin:
    """Undo `Pin`."""

    program: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Drop the last `tail_tokens` of what is cached of the program's last context, all when null."""

    program: str
    tail_tokens: int | None


@dataclass(frozen=True, slots=True)
class Retain:
    """Keep segments of one kind; of what is retained, lower `priority` gives way first."""

    program: str
    kind: str
    priority: int
    for_s: float


@dataclass(frozen=True, slots=True)
class Order:
    """Give the program's waiting requests another priority; smaller runs earlier."""

    program: str
    priority: int


Question: TypeAlias = Hello | Stats
Command: TypeAlias = Pin | Unpin | Evict | Retain | Order
Message: TypeAlias = Question | Command


def encode(message: Message, number: int | None = None) -> bytes:
    """A message as a line; `number` is what its answer shall carry."""
    fields: dict[str, Any] = {"do": type(message).__name__.lower(), **asdict(message)}
    if number is not None:
        fields["id"] = number
    return encode_line(fields)


def encode_line(fields: dict[str, Any]) -> bytes:
    """An object as a line."""
    return json.dumps(fields, separators=(",", ":")).encode() + b"\n"


def decode_line(line: bytes) -> dict[str, Any]:
    """A line as an object. Raises `BadMessage`."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:  # deep nesting within the line's length
        raise BadMessage(f"not JSON: {type(error).__name__}") from error
    if not isinstance(fields, dict):
        raise BadMessage(f"a JSON object expected, not {type(fields).__name__}")
    return fields


def decode(fields: dict[str, Any]) -> Message:  # noqa: PLR0911 - one line per message
    """A client's message. Raises `BadMessage` when it is none, or says what makes no sense."""
    match fields.get("do"):
        case "hello":
            return Hello()
        case "stats":
            return Stats(None if fields.get("program") is None else _text(fields, "program"))
        case "pin":
            return Pin(_text(fields, "program"), _seconds(fields), _truth(fields, "yields"))
        case "unpin":
            return Unpin(_text(fields, "program"))
        case "evict":
            everything = fields.get("tail_tokens") is None
            tail = None if everything else _whole(fields, "tail_tokens", 0, _MAX_TOKENS)
            return Evict(_text(fields, "program"), tail)
        case "retain":
            names = _text(fields, "program"), _text(fields, "kind")
            return Retain(*names, _priority(fields), _seconds(fields))
        case "order":
            return Order(_text(fields, "program"), _priority(fields))
        case _:
            raise BadMessage("`do` must be one of hello, stats, pin, unpin, evict, retain, order")


def number_of(fields: dict[str, Any]) -> int | None:
    """The `id` of a question, null when it has none that could be sent back."""
    number = fields.get("id")
    return number if type(number) is int and 0 <= number < _MAX_TOKENS else None


def _text(fields: dict[str, Any], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_NAME_CHARS:
        raise BadMessage(f"`{name}` must be a text of 1 to {MAX_NAME_CHARS} characters")
    return value


def _whole(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if type(value) is not int or not least <= value <= most:
        raise BadMessage(f"`{name}` must be a whole number from {least} to {most}")
    return value


def _priority(fields: dict[str, Any]) -> int:
    return _whole(fields, "priority", -_MAX_PRIORITY, _MAX_PRIORITY)


def _seconds(fields: dict[str, Any]) -> float:
    value = fields.get("for_s")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if value is None or not is_number or not 0 <= value <= _MAX_SECONDS:  # NaN is not between them
        raise BadMessage(f"`for_s` must be a number from 0 to {_MAX_SECONDS:g}")
    return float(value)


def _truth(fields: dict[str, Any], name: str) -> bool:
    value = fields.get(name)
    if not isinstance(value, bool):
        raise BadMessage(f"`{name}` must be true or false")
    return value


# ------------------------------------------------------------------ segments


class Segment(NamedTuple):
    """`tokens` tokens of a prompt that are of one kind."""

    kind: str
    tokens: int


def parse_segments(text: object) -> tuple[Segment, ...]:
    """Read `system_prompt:1200,task:300`: what a prompt consists of, in order.

    Nothing for what is not written so: a request must not fail because of a hint.
    """
    if not isinstance(text, str):
        return ()
    found = []
    for part in text.split(","):
        kind, _, tokens = part.strip().rpartition(":")
        if not kind or not tokens.isascii() or not tokens.isdigit() or len(tokens) > len(str(_MAX_TOKENS)):
            return ()
        found.append(Segment(kind, int(tokens)))
    return tuple(found)

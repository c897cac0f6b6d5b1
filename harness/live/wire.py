"""Looks into request bodies, and adds to them, without building them.

A body is read as one object whose values stay text (`msgspec.Raw`), and only the few small ones that
matter are decoded. Additions are spliced into the text, so every byte that the client wrote passes as it
is: floats, large numbers, order of keys, unknown fields. Nothing is removed but the body field
`thunderbench`, which is ours and which a strict server would refuse.

What is odd about a body:

- a field of the wrong type counts as absent; the server may have its say about it;
- of a key that occurs twice the last counts, as in Python's `json`, and there additions are made;
- NaN, lone surrogates and a UTF-8 byte-order mark are no JSON, but Python servers read them, so they are
  read here too, more slowly; UTF-16 is not;
- broken UTF-8 inside a string is the server's to refuse: it passes;
- a body that is too deeply nested to be read is a problem, like one that is no JSON object.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Raw, Struct, ValidationError
from msgspec.json import Decoder

BYTES_PER_TOKEN = 4  # of text in `content_of`: lines must not change when an estimate learns
IDS_PER_LINE = 256  # token ids under one key in `content_of`
OURS = "thunderbench"  # the body field that replay agents use

_PROMPT = (
    "tools",
    "functions",
    "system",
    "instructions",
    "messages",
    "prompt",
    "input",
)  # in a prompt's order
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_USAGE_ON_DEMAND = ("/chat/completions", "/completions")  # the others tell usage in every stream

_TRUE, _NULL = Raw(b"true"), Raw(b"null")  # a Raw equals no bytes
_fields = Decoder(dict[str, Raw]).decode
_string = Decoder(str).decode
_name = Decoder(str | int).decode
_whole = Decoder(int).decode
_anything = Decoder().decode
_ids = Decoder(list[Annotated[int, Meta(ge=0, le=2**63 - 1)]]).decode
_parts = Decoder(list[Raw]).decode


class Looked(Struct, frozen=True):
    """What a request says; null, false or empty where it does not say.

    `wants_usage`: the client itself asked for usage in the stream. `exact_prompt_tokens`: the length of a
    prompt given as one list of token ids. `prompt_bytes` is the size of messages, prompt or input, system
    and tools, as JSON. `max_tokens`: of the output. `tools` and `needs_sandbox` are declared by a replay
    agent (`thunderbench: {"tools": [...], "needs_sandbox": true}`): the tools that will follow this call.
    `has_xargs`, `has_priority`: the client has such a field itself. `problem` is one line that says why
    the body cannot be read; then all else is empty. `fields` are the top-level values as text.
    """

    path: str
    program_id: str | None = None
    model: str | None = None
    stream: bool = False
    wants_usage: bool = False
    exact_prompt_tokens: int | None = None
    prompt_bytes: int = 0
    max_tokens: int | None = None
    tools: tuple[str, ...] = ()
    needs_sandbox: bool = False
    has_xargs: bool = False
    has_priority: bool = False
    problem: str | None = None
    fields: dict[str, Raw] = {}  # a Struct copies it

    @property
    def can_ask_usage(self) -> bool:
        """Whether `prepare` would ask for usage on the client's behalf."""
        if not self.stream or self.wants_usage:
            return False
        on_demand = self.path.partition("?")[0].endswith(_USAGE_ON_DEMAND)
        return on_demand and _entries(self.fields.get("stream_options")) is not None


def look(path: str, body: bytes) -> Looked:
    """Read what matters of a request; never raises (see `Looked.problem`)."""
    try:
        fields = _fields(body)
    except ValidationError as error:
        return Looked(path, problem=_problem(str(error)))
    except (ValueError, RecursionError) as error:
        try:
            fields = _lenient(body)
        except (ValueError, RecursionError):
            return Looked(path, problem=_problem(str(error)))
    ours = _object(fields.get(OURS))
    tools = ours.get("tools")
    options = _object(fields.get("stream_options"))
    limits = (_decoded(_whole, fields.get(name)) for name in _LIMITS)
    return Looked(
        path,
        _program_id(fields),
        _decoded(_string, fields.get("model")),
        stream=fields.get("stream") == _TRUE,
        wants_usage=options.get("include_usage") is True,
        exact_prompt_tokens=_exact_tokens(fields),
        prompt_bytes=sum(len(fields[name]) for name in _PROMPT if name in fields),
        max_tokens=next((limit for limit in limits if limit is not None), None),
        tools=tuple(t for t in tools if isinstance(t, str)) if isinstance(tools, list) else (),
        needs_sandbox=ours.get("needs_sandbox") is True,
        has_xargs="vllm_xargs" in fields,
        has_priority="priority" in fields,
        fields=fields,
    )


def prepare(
    looked: Looked,
    body: bytes,
    *,
    priority: int = 0,
    xargs: Mapping[str, str] | None = None,
    ask_usage: bool = False,
) -> bytes:
    """The body for the server: `body` itself when there is nothing to add or to remove.

    `priority` is added unless it is 0 or the client has its own. `xargs` become entries of `vllm_xargs`,
    before equal names of the client. `ask_usage` asks for usage in the stream where that must be asked
    for (`Looked.can_ask_usage`). A field that is null counts as absent; one that should be an object and
    is something else stays, for the server to refuse. An unreadable body stays as it is.
    """
    if looked.problem is not None:
        return body
    fields = looked.fields
    changes: dict[str, bytes] = {}
    if priority and not looked.has_priority:
        changes["priority"] = str(priority).encode()
    if xargs:
        added = {name: json.dumps(value).encode() for name, value in xargs.items()}
        _change(changes, "vllm_xargs", fields, added)
    if ask_usage and looked.can_ask_usage:
        _change(changes, "stream_options", fields, {"include_usage": b"true"})
    return _spliced(body, fields, changes) if changes or OURS in fields else body


# ------------------------------------------------------------------ fields


def _decoded(decode: Any, raw: Raw | None) -> Any:
    """The value of a field; null when it is absent or of another type."""
    if raw is None:
        return None
    try:
        return decode(raw)
    except (ValueError, RecursionError):
        return None


def _object(raw: Raw | None) -> dict[str, Any]:
    value = _decoded(_anything, raw)
    return value if isinstance(value, dict) else {}


def _program_id(fields: Mapping[str, Raw]) -> str | None:
    """ThunderAgent's clients may also put it into `extra_body`, and give a number."""
    found = _decoded(_name, fields.get("program_id"))
    if found is None:
        found = _object(fields.get("extra_body")).get("program_id")
    return str(found) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _exact_tokens(fields: Mapping[str, Raw]) -> int | None:
    for name in ("prompt", "input"):
        if name in fields:
            ids = _id_list(fields[name])
            return None if ids is None else ids.count(b",") + 1 if ids[1:-1].strip() else 0
    return None


def _id_list(raw: Raw) -> bytes | None:
    """The text of a list of token ids, also when it is the only item of a list; null: it is none.

    The text is valid JSON, so a list without any of the characters that other values begin with or
    consist of is a flat list of whole numbers; looking for one character is the fastest there is.
    """
    text = bytes(raw)
    if text[:1] != b"[":
        return None
    inner = text.find(b"[", 1)
    if inner > 0:
        end = text.rfind(b"]", 0, -1)
        if text[1:inner].strip() or text[end + 1 : -1].strip() or text.find(b"[", inner + 1) > 0:
            return None
        text = text[inner : end + 1]
    return None if any(char in text for char in (b'"', b"{", b".", b"e", b"E", b"n", b"-")) else text


def _problem(found: str) -> str:
    found = " ".join(found.split())
    return f"the body cannot be read ({found}); expected one JSON object in UTF-8. Send such a body"


# ------------------------------------------------------------------ text

_OPENING = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*\{")
_KEY = re.compile(rb'[ \t\r\n]*("(?:[^"\\]++|\\.)*+")[ \t\r\n]*:[ \t\r\n]*', re.DOTALL)
_AFTER = re.compile(rb"[ \t\r\n]*([,}])")
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_SCALAR = re.compile(rb"[^ \t\r\n,\]}]++")
_NEXT = re.compile(rb'[^"\[\]{}]*+(?:"(?:[^"\\]++|\\.)*+"|[\[\]{}])', re.DOTALL)


class _Member(NamedTuple):
    """A member of an object, by offsets: `{` or a comma, the value, its end, a comma or `}`."""

    key: str
    before: int
    value: int
    end: int
    after: int


def _lenient(body: bytes) -> dict[str, Raw]:
    """The fields of what is no JSON but what Python reads; raises ValueError or RecursionError."""
    if not isinstance(json.loads(body.decode("utf-8-sig")), dict):
        raise ValueError  # noqa: TRY004 - the caller has the reason
    return {m.key: Raw(body[m.value : m.end]) for m in _members(body, {})}


def _members(text: bytes, fields: Mapping[str, Raw]) -> Iterator[_Member]:
    """The members of a valid object, in order, also repeated ones.

    `fields` says how long values are, so that most need not be gone through.
    """
    opening = _OPENING.match(text)
    assert opening is not None, "no object"
    before = opening.end() - 1
    while (match := _KEY.match(text, before + 1)) is not None:
        key, value = json.loads(match[1]), match.end()
        known = bytes(fields.get(key, b""))
        end = value + len(known)
        after = _AFTER.match(text, end) if known and text.startswith(known, value) else None
        if after is None:  # not this one: the key occurs again
            end = _end_of(text, value)
            after = _AFTER.match(text, end)
        assert after is not None, "a value is followed by a comma or a brace"
        yield _Member(key, before, value, end, after.start(1))
        before = after.start(1)


def _end_of(text: bytes, at: int) -> int:
    """Where the value that begins at `at` ends."""
    first = text[at : at + 1]
    depth = 0
    while first in {b"{", b"["}:
        match = _NEXT.match(text, at)
        assert match is not None, "brackets match"
        at = match.end()
        depth += {123: 1, 91: 1, 125: -1, 93: -1}.get(text[at - 1], 0)  # {[ }]
        if not depth:
            return at
    match = (_STRING if first == b'"' else _SCALAR).match(text, at)
    assert match is not None, "a value is there"
    return match.end()


def _entries(raw: Raw | None) -> dict[str, Raw] | None:
    """The members of a small object, none of an absent or null field; null: it is neither."""
    if raw is None or raw == _NULL:
        return {}
    text = bytes(raw)
    try:
        return {m.key: Raw(text[m.value : m.end]) for m in _members(text, {})} if text[:1] == b"{" else None
    except ValueError:  # a name in it is no UTF-8
        return None


def _change(
    changes: dict[str, bytes], name: str, fields: Mapping[str, Raw], added: Mapping[str, bytes]
) -> None:
    """Note that the object in the field `name` gets the entries `added`, unless it is no object."""
    raw = fields.get(name)
    before = _entries(raw)
    if before is not None:
        text = b"{}" if raw is None or raw == _NULL else bytes(raw)
        changes[name] = _spliced(text, before, added)


def _spliced(text: bytes, fields: Mapping[str, Raw], changes: Mapping[str, bytes]) -> bytes:
    """The text of an object with `changes`, in place of equal keys or else in front; without `OURS`."""
    opening = _OPENING.match(text)
    assert opening is not None, "no object"
    start = opening.end()
    added = b",".join(
        b"%b:%b" % (json.dumps(key).encode(), value) for key, value in changes.items() if key not in fields
    )
    if OURS not in fields and not any(key in fields for key in changes):
        rest = memoryview(text)[start:]
        return b"".join((text[:start], added, b"," if added and fields else b"", rest))
    members = list(_members(text, fields))
    last = {member.key: member for member in members}
    pieces = [text[:start], added]
    is_first = not added
    for member in members:
        if member.key == OURS:
            continue
        comma = b"" if is_first else b","
        is_first = False
        if member.key in changes and member is last[member.key]:
            pieces += (comma, text[member.before + 1 : member.value], changes[member.key])
            pieces.append(text[member.end : member.after])
        else:
            pieces += (comma, text[member.before + 1 : member.after])
    pieces.append(text[members[-1].after :])
    return b"".join(pieces)


# ------------------------------------------------------------------ content


def content_of(looked: Looked, body: bytes) -> str:  # noqa: ARG001 - `looked.fields` are views of it
    """The prompt as lines `TOKENS KEY`, as `schedulers.contract.PromptSeen` has them.

    Tools and system come first. A line is a message, a part of a message whose content is a list, a tool,
    a stretch of a text prompt, or 256 token ids. Its key is a hash of its text and of nothing before it,
    so two prompts share a prefix as far as their lines agree, never further than they really do. Tokens
    are exact for ids, else a quarter of the bytes, at least 1. Empty for an unreadable body.
    """
    fields = looked.fields
    return "\n".join(line for name in _PROMPT if name in fields for line in _lines(name, fields[name]))


def _lines(name: str, raw: Raw) -> Iterator[str]:
    text = bytes(raw)
    ids = _decoded(_ids, _as_raw(_id_list(raw))) if name in {"prompt", "input"} else None
    if ids is not None:
        yield from _id_lines(ids)
    elif text[:1] == b'"':  # a text that grows from call to call shares its beginning
        step = BYTES_PER_TOKEN * IDS_PER_LINE
        for at in range(0, len(text), step):
            yield _line(text[at : at + step])
    elif text[:1] == b"[":
        for item in _decoded(_parts, raw) or ():
            yield from _message_lines(item)
    elif text != b"null":
        yield _line(text)


def _as_raw(text: bytes | None) -> Raw | None:
    return None if text is None else Raw(text)


def _id_lines(ids: list[int]) -> Iterator[str]:
    for at in range(0, len(ids), IDS_PER_LINE):
        some = ids[at : at + IDS_PER_LINE]
        yield f"{len(some)} {_key(array('Q', some).tobytes())}"


def _message_lines(item: Raw) -> Iterator[str]:
    message = _decoded(_fields, item) if bytes(item)[:1] == b"{" else None
    parts = _decoded(_parts, (message or {}).get("content"))
    if not message or not parts:
        yield _line(bytes(item))
        return
    head = b"".join(b"%b:%b," % (k.encode(), bytes(v)) for k, v in message.items() if k != "content")
    for part in parts:
        yield _line(bytes(part), head)


def _line(text: bytes, head: bytes = b"") -> str:
    return f"{-(-len(text) // BYTES_PER_TOKEN)} {_key(head + text)}"


def _key(content: bytes) -> str:
    return blake2b(content, digest_size=8).hexdigest()

"""Prompts of replayed calls: contexts that grow piece by piece, and are made into JSON once.

A context is a chain: what a call added stands behind what was there before it, so calls that extend one
context share it, and a context of 100,000 tokens that grows by 200 costs 200. Each piece is kept as the
JSON that is sent, a list without its brackets.

What the model really generated stands in the contexts that follow, not what the plan calls it: the KV
cache of the server holds that. A later segment with the key of an output quotes it.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from workloads.model import Call, Segment
from workloads.tokens import token_ids

# Ids below the first belong to markers in many vocabularies (padding, begin and end of text, unknown), and
# no model has a vocabulary smaller than the end. Which ids they are changes neither lengths nor sharing.
FIRST_ID, DEFAULT_VOCABULARY = 4, 500

_ROOTS_BYTES = 1 << 26  # of segments that begin prompts, such as a system prompt of all programs


@dataclass(slots=True)
class Heard:
    """What a server answered to one call. `ids` are empty where it returned none."""

    ids: array[int] = field(default_factory=lambda: array("I"))
    text: list[str] = field(default_factory=list)


class Context:
    """The end of a chain of pieces."""

    __slots__ = ("_before", "_piece")

    def __init__(self, before: Context | None, piece: bytes) -> None:
        self._before, self._piece = before, piece

    @property
    def empty(self) -> bool:
        """Whether nothing is in it."""
        return not self._piece and (self._before is None or self._before.empty)

    def json(self) -> bytes:
        """The whole list, with its brackets."""
        pieces = [piece for piece in self._backwards() if piece]
        return b"[" + b",".join(reversed(pieces)) + b"]"

    def _backwards(self) -> Iterator[bytes]:
        context: Context | None = self
        while context is not None:
            yield context._piece  # noqa: SLF001 - of its own class
            context = context._before  # noqa: SLF001


class Dialect(Protocol):
    """How prompts are said to a server: as token ids, or as messages."""

    path: str
    prompt_field: bytes  # the body's field that takes the prompt
    fields: Mapping[str, Any]  # of every body

    def ask(self, new: Sequence[Segment], heard: Mapping[str, Heard], *, begins: bool) -> bytes:
        """What a call adds to a context; `begins`: it is a context of its own. `heard`: outputs by key."""
        ...

    def answer(self, output: Segment, heard: Heard) -> tuple[bytes, bool]:
        """What an output adds to the contexts that extend it, and whether it is what was generated."""
        ...


class TokenPrompts:
    """Prompts as token ids for `/v1/completions`, exact to the token."""

    path = "/v1/completions"
    prompt_field = b"prompt"
    fields: Mapping[str, Any] = {"return_token_ids": True}

    def __init__(self, vocabulary: int = DEFAULT_VOCABULARY) -> None:
        self._size = vocabulary - FIRST_ID
        self._roots: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._roots_bytes = 0

    def ask(self, new: Sequence[Segment], heard: Mapping[str, Heard], *, begins: bool) -> bytes:
        """The ids of the new segments."""
        return b",".join(self._segment(segment, heard, keep=begins) for segment in new)

    def answer(self, output: Segment, heard: Heard) -> tuple[bytes, bool]:
        """The ids that were generated, or those of the output's key where the server returned none."""
        if heard.ids:
            return _joined(heard.ids), True
        return _joined(self._ids(output.key, 0, output.tokens)), False

    def _segment(self, segment: Segment, heard: Mapping[str, Heard], *, keep: bool) -> bytes:
        known = heard.get(segment.key)
        if known is not None and known.ids:
            ids = [*known.ids[: segment.tokens]]
            return _joined(ids + self._ids(segment.key, len(ids), segment.tokens - len(ids)))
        name = segment.key, segment.tokens
        if not keep:
            return _joined(self._ids(segment.key, 0, segment.tokens))
        if name in self._roots:
            self._roots.move_to_end(name)
            return self._roots[name]
        made = self._roots[name] = _joined(self._ids(segment.key, 0, segment.tokens))
        self._roots_bytes += len(made)
        while self._roots_bytes > _ROOTS_BYTES:
            self._roots_bytes -= len(self._roots.popitem(last=False)[1])
        return made

    def _ids(self, key: str, start: int, count: int) -> list[int]:
        return [FIRST_ID + token for token in token_ids(key, start, count, self._size)]


class Conversation:
    """What one program has said and heard."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._contexts: dict[str, Context] = {}  # by call, its output included
        self._heard: dict[str, Heard] = {}  # by key of the output

    def prompt(self, call: Call) -> Context:
        """The context of a call whose parent has been answered."""
        before = None if call.parent is None else self._contexts[call.parent]
        begins = before is None or before.empty
        return Context(before, self._dialect.ask(call.new, self._heard, begins=begins))

    def answered(self, call: Call, prompt: Context, heard: Heard) -> bool:
        """Carry on what was generated; false when it is not known and something else stands for it."""
        piece, real = self._dialect.answer(call.output, heard)
        self._contexts[call.call_id] = Context(prompt, piece)
        self._heard[call.output.key] = Heard(heard.ids, ["".join(heard.text)])
        return real


def _joined(ids: Sequence[int]) -> bytes:
    return ",".join(map(str, ids)).encode()

"""How many tokens a prompt has, before the server has counted them.

    exact                      a prompt of token ids
    t + (b - b0) / r           the program's last call had t prompt tokens in b0 bytes, this one has b >= b0
    t * b / b0                 this one has fewer bytes: another context, of the same kind of text
    b / r                      nothing is known of the program

`r` is the bytes per token of the model: the exponentially weighted mean of bytes / tokens over the calls
whose usage came back (a fifth of the newest), 4 before the first, as is usual for English text. Results
are rounded up, so only an empty prompt has 0 tokens. Both memories are bounded: what was used longest ago
goes.
"""

from __future__ import annotations

from math import ceil
from typing import Generic, NamedTuple, TypeVar

from harness.live.ports import Usage
from harness.live.wire import Looked

START_RATIO = 4.0  # bytes per token
NEWEST_SHARE = 0.2  # of the newest call in the mean: five calls outweigh the start
PROGRAMS_KEPT = 65_536  # about 10 MB
MODELS_KEPT = 256  # clients name models, so there may be any number

_V = TypeVar("_V")


class _Last(NamedTuple):
    """A program's last call: the size of its prompt."""

    tokens: int
    bytes: int


class PromptSizes:
    """Estimates prompt lengths, and learns from usage."""

    def __init__(self, programs_kept: int = PROGRAMS_KEPT, models_kept: int = MODELS_KEPT) -> None:
        self._last: _Lru[_Last] = _Lru(programs_kept)
        self._ratios: _Lru[float] = _Lru(models_kept)

    def estimate(self, program_id: str | None, looked: Looked) -> int:
        """Tokens of the prompt of a request of a program (null: of none), as well as they are known."""
        if looked.exact_prompt_tokens is not None:
            return looked.exact_prompt_tokens
        size = looked.prompt_bytes
        last = None if program_id is None else self._last.get(program_id)
        if last is not None and size < last.bytes:
            return ceil(last.tokens * size / last.bytes)
        ratio = self._ratio(looked)
        return ceil(size / ratio) if last is None else last.tokens + ceil((size - last.bytes) / ratio)

    def learn(self, program_id: str | None, looked: Looked, usage: Usage) -> None:
        """The server counted the prompt of a request. Of token ids there is nothing to learn."""
        tokens, size = usage.prompt_tokens, looked.prompt_bytes
        if looked.exact_prompt_tokens is not None or not tokens or not size:
            return
        before = self._ratio(looked)
        self._ratios.put(looked.model or "", before + NEWEST_SHARE * (size / tokens - before))
        if program_id is not None:
            self._last.put(program_id, _Last(tokens, size))

    def forget(self, program_id: str) -> None:
        """A program is over; without effect when it is not known."""
        self._last.drop(program_id)

    def _ratio(self, looked: Looked) -> float:
        ratio = self._ratios.get(looked.model or "")
        return START_RATIO if ratio is None else ratio


class _Lru(Generic[_V]):
    """The `kept` values used last."""

    def __init__(self, kept: int) -> None:
        self._kept = kept
        self._values: dict[str, _V] = {}  # used last, last

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> _V | None:
        value = self._values.pop(key, None)
        if value is not None:
            self._values[key] = value
        return value

    def put(self, key: str, value: _V) -> None:
        self._values.pop(key, None)
        self._values[key] = value
        if len(self._values) > self._kept:
            del self._values[next(iter(self._values))]

    def drop(self, key: str) -> None:
        self._values.pop(key, None)

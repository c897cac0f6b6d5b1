"""Which sizes to measure a server at: geometric grids within what it can take and what time allows.

Prefills: prompts alone on the server, each twice, new and then again from the cache. Decodes: so many
requests of one context at a time, long enough that all of them decode together for a stretch. The order is
drawn from the seed round by round, every size once per round: a drift of the machine falls on all sizes
alike, and when time runs out every size has about as many repeats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import ceil
from random import Random
from typing import NamedTuple

from harness.errors import SetupError

STRETCH = 48  # tokens of each request that all decode together
_ROOM = 0.9  # of the KV cache, so that nothing is preempted
_SHORTEST = 32  # tokens
_SLACK = 8  # steps for what is not exact
_STEPS_PER_ARRIVAL = 2  # that a small model takes while a front end hands it the next request of a batch
_MOST_PREFILLED = 262_144  # tokens of the prompts of one decode: beyond, they take longer than they tell


class Room(NamedTuple):
    """What the server can take and what the user allows, in tokens and requests; null: not known."""

    max_model_len: int
    kv_tokens: int | None
    budget: int  # max_num_batched_tokens
    max_batch: int
    max_prompt: int
    max_context: int


class Size(NamedTuple):
    """One thing to measure; a batch of 0 is a prefill. `output` tokens are asked of every request."""

    batch: int
    prompt: int
    output: int

    @property
    def requests(self) -> int:
        """How many requests one measurement takes; a prefill is sent twice."""
        return self.batch or 2

    @property
    def tokens(self) -> int:
        """Prompt and output tokens of all of them."""
        return self.requests * (self.prompt + self.output)


class Plan(NamedTuple):
    """Sizes, and how often each is measured after one round that warms up."""

    sizes: tuple[Size, ...]
    repeats: int
    seed: int

    @property
    def requests(self) -> int:
        """Requests at the most, those that warm up included."""
        return sum(size.requests for size in self.warmup()) + self.repeats * sum(
            size.requests for size in self.sizes
        )

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens at the most."""
        return self._total(lambda size: size.prompt)

    @property
    def output_tokens(self) -> int:
        """Output tokens at the most."""
        return self._total(lambda size: size.output)

    def warmup(self) -> tuple[Size, ...]:
        """A few sizes, measured and forgotten."""
        prefills = [size for size in self.sizes if not size.batch]
        decodes = [size for size in self.sizes if size.batch]
        return tuple(size for kind in (prefills, decodes) for size in dict.fromkeys(kind[:1] + kind[-1:]))

    def rounds(self) -> Iterator[Size]:
        """Every size once per round, in an order of its own each time."""
        for round_ in range(self.repeats):
            yield from Random(f"{self.seed}/{round_}").sample(self.sizes, len(self.sizes))

    def _total(self, tokens: Callable[[Size], int]) -> int:
        every = [*self.warmup(), *self.sizes * self.repeats]
        return sum(size.requests * tokens(size) for size in every)


def make_plan(room: Room, *, repeats: int, seed: int) -> Plan:
    """The sizes that fit. Raises `SetupError` where hardly any does."""
    prefills = [Size(0, prompt, 1) for prompt in _lengths(room)]
    decodes = list(_decodes(room))
    if len(prefills) < 4 or len(decodes) < 4:
        known = "an unknown number of" if room.kv_tokens is None else f"{room.kv_tokens:,}"
        raise SetupError(
            f"a server that takes {room.max_model_len:,} tokens per request and keeps {known} tokens",
            "room for at least 4 prompts and 4 batches of different sizes",
            "Start it with a larger --max-model-len or KV cache, or give more --max-prompt or --max-batch.",
        )
    return Plan((*prefills, *decodes), repeats, seed)


def _lengths(room: Room) -> list[int]:
    """Prompts, from short to as long as they may be: twice as long each."""
    longest = min(room.max_model_len - 1, room.max_prompt, _share(room.kv_tokens, room.max_prompt))
    return _doubling(_SHORTEST, longest)


def _decodes(room: Room) -> Iterator[Size]:
    """Batches of contexts, where the whole batch fits the KV cache."""
    for context in _doubling(_SHORTEST * 4, min(room.max_context, room.max_model_len), 8):
        for batch in _doubling(1, room.max_batch):
            output = output_tokens(batch, context, room.budget)
            prompt = min(context, room.max_model_len - output)
            if prompt >= 1 and batch * (prompt + output) <= _share(room.kv_tokens, _MOST_PREFILLED):
                yield Size(batch, prompt, output)


def output_tokens(batch: int, context: int, budget: int) -> int:
    """Enough that the first request still decodes a stretch when the last one begins to."""
    return STRETCH + _SLACK + ceil(batch * context / budget) + _STEPS_PER_ARRIVAL * batch


def _share(kv_tokens: int | None, otherwise: int) -> int:
    return min(otherwise, int(kv_tokens * _ROOM)) if kv_tokens is not None else otherwise


def _doubling(first: int, last: int, factor: int = 2) -> list[int]:
    """A geometric row from `first` on, with `last` as its end where that is well above the one before."""
    found: list[int] = []
    size = first
    while size <= last:
        found.append(size)
        size *= factor
    if found and last > found[-1] * 1.4:
        found.append(last)
    return found


def describe(plan: Plan) -> Sequence[str]:
    """What is going to be sent, in lines."""
    prefills = [size.prompt for size in plan.sizes if not size.batch]
    batches = sorted({size.batch for size in plan.sizes if size.batch})
    contexts = sorted({size.prompt for size in plan.sizes if size.batch})
    decodes = f"{len(plan.sizes) - len(prefills)} of batches {_listed(batches)}"
    tokens = f"{plan.prompt_tokens:,} prompt and {plan.output_tokens:,} output tokens"
    return (
        f"prefills: prompts of {_listed(prefills)} tokens, each new and then cached",
        f"decodes: {decodes} and contexts {_listed(contexts)}, as far as they fit",
        f"{plan.repeats} rounds after a warm-up: at most {plan.requests:,} requests with {tokens}",
    )


def _listed(values: Sequence[int]) -> str:
    return ", ".join(f"{value:,}" for value in values)

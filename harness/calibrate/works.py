"""What a server was measured doing, as the work of engine steps: the columns that constants are fitted on.

A **prefill** is one request alone on the server, timed to its first token: as many steps as its prompt has
budgets of batched tokens, and what passes outside the engine once. A **decode** is one step in which
`batch` requests each get a token, every one at about `context` tokens.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from harness.calibrate.predict import Outside
from harness.virtual.steptime import StepTime

Kind = Literal["cold prefill", "cached prefill", "decode"]
KINDS: tuple[Kind, ...] = ("cold prefill", "cached prefill", "decode")


class Work(NamedTuple):
    """Work of some steps: new tokens of each, pairs attended and tokens read by all, and what is outside.

    `calls` is 1 where the time holds the way of a request to the engine and back, else 0; `prompt_tokens`
    are those that such a way is with, else 0.
    """

    steps: tuple[int, ...]
    pairs: float
    read_tokens: float
    calls: int = 0
    prompt_tokens: int = 0

    def seconds(self, step_time: StepTime, outside: Outside) -> float:
        """How long it takes."""
        return (
            sum(step_time.base(new) for new in self.steps)
            + self.pairs * step_time.attention_s_per_pair
            + self.read_tokens * step_time.kv_read_s_per_token
            + self.calls * outside.per_call_s
            + self.prompt_tokens * outside.per_prompt_token_s
        )


class Point(NamedTuple):
    """One size, measured a few times: the median and the range of its seconds.

    `batch` and `context` are of the decode; `context` of a prefill is its prompt, `cached` of it were not
    computed.
    """

    kind: Kind
    batch: int
    context: float
    cached: int
    seconds: float
    low_s: float
    high_s: float
    repeats: int

    @property
    def spread_share(self) -> float:
        """Range of the repeats over their median."""
        return (self.high_s - self.low_s) / self.seconds

    def work(self, budget: int) -> Work:
        """Its work on an engine that takes so many tokens per step."""
        if self.kind == "decode":
            return decode_work(self.batch, self.context)
        return prefill_work(round(self.context), self.cached, budget)


def prefill_work(prompt: int, cached: int, budget: int) -> Work:
    """A prompt alone on the engine, of which `cached` tokens need no computing."""
    steps, pairs, read = [], 0, 0
    done = cached
    while done < prompt:
        new = min(budget, prompt - done)
        pairs += new * done + new * (new + 1) // 2
        done += new
        read += done
        steps.append(new)
    return Work(tuple(steps), pairs, read, 1, prompt)


def decode_work(batch: int, context: float) -> Work:
    """One step of so many requests; `context` is the mean of their lengths, the new token included."""
    return Work((batch,), batch * context, batch * context)

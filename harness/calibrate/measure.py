"""Carry out a plan: requests to a server, timed where their bytes arrive.

Nothing here knows HTTP or a real clock: `Send` is one request, and times are those of the running loop, so
the same code measures a server and, on a loop in virtual time, an engine in memory.

*Prefill.* A new prompt alone on the server, one token asked: the time to first token. The same prompt at
once again: what is left when the engine finds it in its cache. *Decode.* All requests of a batch at once;
the stretch begins when the last of them has its first token and ends when the first of them ends; the time
per token of each request in it, the median of them.

*The client.* While it measures, a timer on the same loop notes how late it fires. A measurement during
which that was more than a tenth of what was measured, or the process used more than 90 % of a core, is not
used. When that leaves nothing of more than a quarter of the sizes, the client was the bottleneck, and all
is refused.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from statistics import median
from typing import NamedTuple, Self

from harness.calibrate.plan import Plan, Size
from harness.calibrate.works import Kind, Point
from harness.errors import SetupError

TICK_S = 0.002
LATE_SHARE = 0.1
BUSY_SHARE = 0.9
REFUSED_SHARE = 0.25
_EXACT_S = 0.001  # event loops wait for whole milliseconds
_LEAST_STRETCH = 8  # tokens that all requests of a batch must have decoded together
_IDS = range(32, 256)  # token ids of prompts: every tokenizer has them


class Ask(NamedTuple):
    """A request: a prompt as token ids, and exactly so many tokens to generate."""

    prompt: tuple[int, ...]
    output: int


class Mark(NamedTuple):
    """When how many output tokens had come, in seconds of the loop."""

    at_s: float
    tokens: int


class Reply(NamedTuple):
    """What came back. `cached` is null where the server does not say."""

    sent_s: float
    marks: tuple[Mark, ...]
    prompt: int
    cached: int | None


Send = Callable[[Ask], Awaitable[Reply]]


class Timing(NamedTuple):
    """One measurement. `lag_s` is how late the client's timer was at most, `busy_share` its CPU use."""

    kind: Kind
    size: Size
    context: float
    cached: int
    seconds: float
    lasted_s: float
    lag_s: float
    busy_share: float

    @property
    def by_client(self) -> bool:
        """Whether the client may have been what was measured."""
        return self.lag_s > LATE_SHARE * self.lasted_s or self.busy_share > BUSY_SHARE


class Measured(NamedTuple):
    """Points, and what to know about them. `cached_known`: whether the server tells cached tokens."""

    points: list[Point]
    cached_known: bool
    left_out: int  # measurements during which the client was too slow
    cut: int  # sizes that no measurement is left of
    rounds_cut: bool  # time ran out before the plan did
    lag_s: float  # median over the measurements of the most by which the client was late in each
    busy_share: float  # median share of a core that the client used
    seconds: float


class Lag:
    """How late a timer on the running loop fires, while it is entered, beyond what timers are exact to."""

    def __init__(self, cpu: Callable[[], float]) -> None:
        self._loop, self._cpu = asyncio.get_running_loop(), cpu
        self._ticks: list[tuple[float, float]] = []  # due and fired
        self.busy_share = 0.0

    def __enter__(self) -> Self:
        self._began, self._cpu_before = self._loop.time(), self._cpu()
        self._due = self._began + TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        now = self._loop.time()
        self._ticks.append((self._due, now))  # it may be overdue
        lasted = now - self._began
        self.busy_share = (self._cpu() - self._cpu_before) / lasted if lasted > 0 else 0.0

    def most_s(self, begin_s: float, end_s: float) -> float:
        """The most by which a tick that fell into this time was late."""
        late = [fired - due for due, fired in self._ticks if due <= end_s and fired >= begin_s]
        return max(0.0, max(late, default=0.0) - _EXACT_S)

    def _tick(self) -> None:
        now = self._loop.time()
        self._ticks.append((self._due, now))
        self._due = now + TICK_S
        self._timer = self._loop.call_at(self._due, self._tick)


async def measure(
    plan: Plan,
    send: Send,
    *,
    time_limit_s: float,
    on_progress: Callable[[int, int], None] | None = None,
    cpu: Callable[[], float] = time.process_time,
) -> Measured:
    """Measure every size of the plan as often as time allows. Raises `SetupError`, and as `send`."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    run = _Run(send, Random(f"{plan.seed}/prompts"), cpu)
    warmup = plan.warmup()
    total = len(warmup) + plan.repeats * len(plan.sizes)
    for done, size in enumerate(warmup):
        await run.one(size)
        _tell(on_progress, done + 1, total)
    run.forget()
    cut = False
    for done, size in enumerate(plan.rounds(), len(warmup)):
        if loop.time() - began > time_limit_s:
            cut = True
            break
        await run.one(size)
        _tell(on_progress, done + 1, total)
    return run.measured(plan, loop.time() - began, rounds_cut=cut)


def _tell(on_progress: Callable[[int, int], None] | None, done: int, total: int) -> None:
    if on_progress is not None:
        on_progress(done, total)


class _Run:
    """The measurements of one plan."""

    def __init__(self, send: Send, random: Random, cpu: Callable[[], float]) -> None:
        self._send, self._random, self._cpu = send, random, cpu
        self._timings: list[Timing] = []
        self._batches: dict[Size, list[tuple[int, ...]]] = {}
        self._cached_known = False

    def forget(self) -> None:
        """What was measured so far was the warm-up."""
        self._timings.clear()

    async def one(self, size: Size) -> None:
        """Measure a size once."""
        await (self._decode(size) if size.batch else self._prefill(size))

    def _prompt(self, tokens: int) -> tuple[int, ...]:
        return tuple(self._random.choices(_IDS, k=tokens))

    async def _prefill(self, size: Size) -> None:
        """A new prompt, then the same again, used where the server says how much of it was cached."""
        prompt = self._prompt(size.prompt)
        kinds: tuple[Kind, Kind] = ("cold prefill", "cached prefill")
        for kind in kinds:
            with Lag(self._cpu) as lag:
                reply = await self._send(Ask(prompt, size.output))
            first = reply.marks[0].at_s
            self._cached_known |= reply.cached is not None
            cached = reply.cached or 0  # servers that tell it at all leave a 0 out
            if bool(cached) == (kind == "cached prefill"):
                span = (reply.sent_s, first)
                self._add(kind, size, float(reply.prompt), cached, first - reply.sent_s, span, lag)

    async def _decode(self, size: Size) -> None:
        """All requests at once; their prompts stay the same, so later rounds find them cached."""
        prompts = self._batches.get(size)
        if prompts is None:
            prompts = self._batches[size] = [self._prompt(size.prompt) for _ in range(size.batch)]
        with Lag(self._cpu) as lag:
            replies = await _all(self._send, [Ask(prompt, size.output) for prompt in prompts])
        begin = max(reply.marks[0].at_s for reply in replies)
        end = min(reply.marks[-1].at_s for reply in replies)
        stretches = [[mark for mark in reply.marks if begin <= mark.at_s <= end] for reply in replies]
        if min(_tokens(each) for each in stretches) < _LEAST_STRETCH:
            return  # they never decoded together for long: a size that no measurement is left of
        per_token = [(s[-1].at_s - s[0].at_s) / _tokens(s) for s in stretches]
        contexts = [  # the step that gives token c reads the prompt and c - 1 tokens after it
            reply.prompt + (s[0].tokens + s[-1].tokens - 1) / 2
            for reply, s in zip(replies, stretches, strict=True)
        ]
        context = sum(contexts) / len(contexts)
        self._add("decode", size, context, 0, median(per_token), (begin, end), lag)

    def _add(
        self,
        kind: Kind,
        size: Size,
        context: float,
        cached: int,
        seconds: float,
        span: tuple[float, float],
        lag: Lag,
    ) -> None:
        if seconds > 0:
            lasted, late = span[1] - span[0], lag.most_s(*span)
            self._timings.append(Timing(kind, size, context, cached, seconds, lasted, late, lag.busy_share))

    def measured(self, plan: Plan, seconds: float, *, rounds_cut: bool) -> Measured:
        """The medians. Raises `SetupError` when the client was the bottleneck."""
        slow = [timing for timing in self._timings if timing.by_client]
        by_size: dict[tuple[Kind, Size], list[Timing]] = defaultdict(list)
        for timing in self._timings:
            if not timing.by_client:
                by_size[timing.kind, timing.size].append(timing)
        lost = {(timing.kind, timing.size) for timing in slow} - set(by_size)
        if len(lost) > REFUSED_SHARE * (len(lost) + len(by_size)):
            raise SetupError(
                f"the client was the bottleneck at {len(lost)} of {len(lost) + len(by_size)} sizes "
                f"(its timer up to {max(t.lag_s for t in slow) * 1e3:.1f} ms late, up to "
                f"{max(t.busy_share for t in slow):.0%} of a core used)",
                "a client that waits for the server",
                "Measure from an idle machine, or give less --max-batch",
            )
        points = [_point(timings) for timings in by_size.values()]
        sizes = {size for _, size in by_size}
        return Measured(
            sorted(points),
            self._cached_known,
            len(slow),
            len(set(plan.sizes) - sizes),
            rounds_cut,
            median([t.lag_s for t in self._timings] or [0.0]),
            median([t.busy_share for t in self._timings] or [0.0]),
            seconds,
        )


async def _all(send: Send, asks: Sequence[Ask]) -> list[Reply]:
    """All at once; when one fails, the others are cancelled and over before it is told."""
    tasks = [asyncio.ensure_future(send(ask)) for ask in asks]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


def _tokens(stretch: Sequence[Mark]) -> int:
    return stretch[-1].tokens - stretch[0].tokens if stretch else 0


def _point(timings: Sequence[Timing]) -> Point:
    first = timings[0]
    seconds = [timing.seconds for timing in timings]
    return Point(
        first.kind,
        first.size.batch or 1,
        median(timing.context for timing in timings),
        round(median(timing.cached for timing in timings)),
        median(seconds),
        min(seconds),
        max(seconds),
        len(seconds),
    )

"""An engine in memory behind `Send`: steps follow each other, each as long as its work, on the loop's time.

It decodes all that have their prompt, then computes prompts with what is left of the budget, as vLLM does.
Prompts it has seen are cached up to their last block.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from harness.calibrate.measure import Ask, Mark, Reply
from harness.calibrate.predict import Outside
from harness.calibrate.works import Point
from harness.virtual.steptime import StepTime

BLOCK = 16
STEP_TIME = StepTime(3.5e-5, 0.006, 0.0, 0, 0, 1.5e-9, 3e-8, 0.002)
OUTSIDE = Outside(0.012, 2e-6)


@dataclass(slots=True, eq=False)
class _Request:
    ask: Ask
    computed: int
    cached: int
    marks: list[Mark] = field(default_factory=list)
    done: asyncio.Event = field(default_factory=asyncio.Event)


class Engine:
    """`cpu` is the client's CPU time, for tests to charge; `told` says whether cached tokens are told."""

    def __init__(
        self,
        step_time: StepTime = STEP_TIME,
        outside: Outside = OUTSIDE,
        budget: int = 8192,
        *,
        told: bool = True,
    ) -> None:
        self.step_time, self.outside, self.budget, self.told = step_time, outside, budget, told
        self.asked: list[Ask] = []
        self.most_at_once = 0
        self.dies_after: int | None = None
        self._running: list[_Request] = []
        self._seen: set[tuple[int, ...]] = set()
        self._stepping: asyncio.Task[None] | None = None

    async def send(self, ask: Ask) -> Reply:
        """One request."""
        loop = asyncio.get_running_loop()
        self.asked.append(ask)
        if self.dies_after is not None and len(self.asked) > self.dies_after:
            raise ConnectionError("gone")
        sent = loop.time()
        await asyncio.sleep(self.outside.per_call_s + self.outside.per_prompt_token_s * len(ask.prompt))
        cached = (len(ask.prompt) - 1) // BLOCK * BLOCK if ask.prompt in self._seen else 0
        self._seen.add(ask.prompt)
        request = _Request(ask, cached, cached)
        self._running.append(request)
        self.most_at_once = max(self.most_at_once, len(self._running))
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._steps())
        await request.done.wait()
        return Reply(sent, tuple(request.marks), len(ask.prompt), cached or None if self.told else None)

    async def _steps(self) -> None:
        loop = asyncio.get_running_loop()
        while self._running:
            left, pairs, read = self.budget, 0, 0
            stepped = []
            for request in sorted(self._running, key=lambda each: not each.marks):
                new = 1 if request.marks else min(left, len(request.ask.prompt) - request.computed)
                left -= new
                if new:
                    pairs += new * request.computed + new * (new + 1) // 2
                    read += request.computed + new
                    stepped.append((request, new))
            await asyncio.sleep(self.step_time.step(self.budget - left, pairs, read))
            for request, new in stepped:
                request.computed += new
                if request.computed >= len(request.ask.prompt):
                    request.marks.append(Mark(loop.time(), len(request.marks) + 1))
                if len(request.marks) == request.ask.output:
                    self._running.remove(request)
                    request.done.set()


def truth(point: Point, engine: Engine) -> float:
    """Seconds of a point by the engine's own constants."""
    return point.work(engine.budget).seconds(engine.step_time, engine.outside)

"""The agents' clock on an event loop: what happens late still happens as of the time it was due.

`harness.virtual.agents.Agents` runs on it unchanged. While it lets something happen, `now` is the time at
which that was due, so a tool that ends at 5 s brings its next call at 5 s, even if the loop was busy until
5.03 s: the call is 0.03 s late, and its latency counts from 5 s (no coordinated omission). Things happen
one at a time in order of their times, then of being asked for, as in virtual time.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

from harness.live.clock import LoopClock


class HeldClock(LoopClock):
    """The run's clock: it stands at 0 until `begin`, while servers are looked at and told of."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        super().__init__(loop)
        self._held = True

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return 0.0 if self._held else super().now

    def begin(self) -> None:
        """Let time pass."""
        self._held, self._start = False, self._read()

    def at(self, when: float, happen: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """See `LoopClock.at`. What is asked for before the beginning is asked for again when it fires."""
        if self._held:
            return self._loop.call_later(when, self._happen, when, happen, args)
        return super().at(when, happen, *args)


class AgentClock:
    """A heap over one timer of `clock`, with whose zero its seconds begin.

    `after` is called whenever something has happened. What raises stops the clock, and `on_error` is told:
    an event loop would log the error and go on.
    """

    def __init__(
        self, clock: LoopClock, *, after: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        self._clock, self._after, self._on_error = clock, after, on_error
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0
        self._as_of: float | None = None  # of what is happening
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False

    @property
    def now(self) -> float:
        """Seconds of the run; while something happens, the time at which it was due."""
        return self._clock.now if self._as_of is None else self._as_of

    def at(self, when: float, happen: Callable[..., None], /, *args: object) -> None:
        """Have `happen(*args)` called at `when`, which may be now; never, once the clock was stopped."""
        if self._stopped:
            return
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, happen, args))
        if self._as_of is None:
            self._arm()

    def as_of(self, when: float, happen: Callable[..., None], /, *args: object) -> None:
        """Call `happen(*args)` now, as what happened at `when`, a time not long ago."""
        if not self._stopped:
            self._happen(when, happen, args)
            self._arm()

    def stop(self) -> None:
        """Nothing happens any more, and time stands still."""
        if not self._stopped:
            self._stopped, self._as_of = True, self._clock.now
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self) -> None:
        """Set the timer to the first thing to come."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._heap and not self._stopped:
            self._timer = self._clock.at(self._heap[0][0], self._run_due)

    def _run_due(self) -> None:
        self._timer = None
        now = self._clock.now
        while self._heap and self._heap[0][0] <= now:
            when, _, happen, args = heapq.heappop(self._heap)
            self._happen(when, happen, args)
        self._arm()

    def _happen(self, when: float, happen: Callable[..., None], args: tuple[object, ...]) -> None:
        outer, self._as_of = self._as_of, when
        try:
            happen(*args)
        except Exception as error:  # noqa: BLE001 - whatever it is, it ends the run
            self.stop()
            self._on_error(error)
            return
        if not self._stopped:
            self._as_of = outer
            self._after()

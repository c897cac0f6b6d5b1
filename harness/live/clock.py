"""The run's clock over an event loop: seconds since it was made, never falling.

It has the shape of `harness.virtual.clock.Clock` (`now`, `at`), so that what was written for virtual time
runs on an event loop. Under `virtual_loop.VirtualLoop` the loop's own time is virtual.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_ROUNDING_S = 1e-6  # more than floats lose in a subtraction, less than anybody waits for


class LoopClock:
    """Seconds of the running loop since the clock was made.

    Nothing happens before its time, although event loops may be early by the resolution of their timers
    (a millisecond under uvloop). `lateness_s` is the most by which anything happened too late.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self._loop = asyncio.get_running_loop() if loop is None else loop
        self._read = _seconds_of(self._loop)
        self._start = self._read()
        self._floor = 0.0
        self.lateness_s = 0.0

    @property
    def now(self) -> float:
        """Seconds since the clock was made."""
        return max(self._read() - self._start, self._floor)

    def at(self, when: float, happen: Callable[..., None], *args: object) -> asyncio.TimerHandle:
        """Have `happen(*args)` called at `when` or, if that has passed, soon."""
        return self._loop.call_at(self._start + when, self._happen, when, happen, args)

    def _happen(self, when: float, happen: Callable[..., None], args: tuple[object, ...]) -> None:
        late = self.now - when
        if late < -_ROUNDING_S:
            self.at(when, happen, *args)
            return
        self._floor = max(self._floor, when)
        self.lateness_s = max(self.lateness_s, late)
        happen(*args)


def _seconds_of(loop: asyncio.AbstractEventLoop) -> Callable[[], float]:
    """What tells the time of a loop.

    uvloop tells whole milliseconds, those at which the present turn of the loop began: a wait of less is
    nothing to it, and so is all that happens within one turn. The clock beneath it is finer.
    """
    same = type(loop).__module__.startswith("uvloop") and abs(loop.time() - time.monotonic()) < 1.0
    return time.monotonic if same else loop.time

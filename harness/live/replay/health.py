"""Whether the client kept up: what it measured is worth something only if it did.

Late: how long after a call was due its request was sent. Lag: how much later than asked a timer of the
event loop fires. CPU share: of one core, over the run.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable
from typing import Any

from harness.live.clock import LoopClock

LAG_EVERY_S = 1 / 32  # a power of two: its multiples are exact, so it moves no other timer's time


class Health:
    """Counts of one run. `cpu_s` reads the process's CPU seconds."""

    def __init__(self, clock: LoopClock, cpu_s: Callable[[], float] = time.process_time) -> None:
        self._clock, self._cpu_s = clock, cpu_s
        self._began_s: float | None = None
        self._cpu_at_begin_s = 0.0
        self._late, self._lags = array("d"), array("d")
        self._timer: asyncio.TimerHandle | None = None
        self.retries = self.failed_calls = 0
        self.outputs_lost = 0  # answers that did not say what was generated
        self.odd_lengths = 0  # outputs of another length than was asked for

    def sent(self, late_s: float) -> None:
        """A call was sent so long after it was due."""
        self._late.append(late_s)

    def begin(self) -> None:
        """The run begins: count CPU from now, and watch the loop's lag until `stop`."""
        self._began_s, self._cpu_at_begin_s = self._clock.now, self._cpu_s()
        self._expect(self._clock.now + LAG_EVERY_S)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def summary(self) -> dict[str, Any]:
        """JSON-able; null where nothing was measured. Percentiles are those at or above the share."""
        elapsed = 0.0 if self._began_s is None else self._clock.now - self._began_s
        return {
            "calls_sent": len(self._late),
            "lateness_p99_s": _p99(self._late),
            "lateness_max_s": max(self._late, default=None),
            "lag_p99_s": _p99(self._lags),
            "lag_max_s": max(self._lags, default=None),
            "cpu_share": (self._cpu_s() - self._cpu_at_begin_s) / elapsed if elapsed else None,
            "retries": self.retries,
            "failed_calls": self.failed_calls,
            "outputs_carried": not self.outputs_lost,
            "outputs_lost": self.outputs_lost,
            "odd_lengths": self.odd_lengths,
        }

    def _expect(self, when: float) -> None:
        self._timer = self._clock.at(when, self._fired, when)

    def _fired(self, when: float) -> None:
        now = self._clock.now
        self._lags.append(now - when)
        self._expect(now + LAG_EVERY_S)


def _p99(values: array[float]) -> float | None:
    """The smallest value that 99 % do not exceed."""
    return sorted(values)[-(-99 * len(values) // 100) - 1] if values else None

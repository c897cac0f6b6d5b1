"""Virtual time: what will happen, ordered by (time, sequence number)."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from math import inf


class Clock:
    """`now` in seconds. Things happen one at a time, in order of time, then of being asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0

    @property
    def next(self) -> float:
        """When the next thing happens; inf when nothing will."""
        return self._heap[0][0] if self._heap else inf

    def at(self, when: float, happen: Callable[..., None], *args: object) -> None:
        """Have `happen(*args)` called at `when`, which may be now."""
        self._sequence += 1
        heapq.heappush(self._heap, (when, self._sequence, happen, args))

    def run_due(self) -> None:
        """Let everything happen that is due now, and what follows from it now."""
        heap = self._heap
        while heap and heap[0][0] <= self.now:
            _, _, happen, args = heapq.heappop(heap)
            happen(*args)

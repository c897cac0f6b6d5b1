"""The waiting queue of one replica, in vLLM's two orders."""

from __future__ import annotations

import heapq
from collections import deque

from harness.virtual.batch import Live


class WaitingQueue:
    """vLLM's waiting queue: first come first served, or by (priority, arrival, id)."""

    def __init__(self, *, by_priority: bool) -> None:
        self.by_priority = by_priority
        self._line: deque[Live] = deque()
        self._heap: list[tuple[int, float, str, Live]] = []

    def __len__(self) -> int:
        return len(self._line) + len(self._heap)

    def add(self, live: Live) -> None:
        """Queue up."""
        if self.by_priority:
            request = live.request
            heapq.heappush(self._heap, (request.priority, request.arrived_s, request.call_id, live))
        else:
            self._line.append(live)

    def add_first(self, live: Live) -> None:
        """Stand before all others, or where the priority says."""
        if self.by_priority:
            self.add(live)
        else:
            self._line.appendleft(live)

    def head(self) -> Live:
        """Who is next."""
        return self._heap[0][3] if self.by_priority else self._line[0]

    def pop(self) -> None:
        """Remove the head."""
        if self.by_priority:
            heapq.heappop(self._heap)
        else:
            self._line.popleft()

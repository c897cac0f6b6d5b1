"""Where the memory of a replica goes: token-seconds, split in five that sum to capacity x time."""

from __future__ import annotations

from harness.virtual.engine import EngineCounters


class Accounts:
    """Adds to the `stp_*` of `counters` for a pool of `blocks` blocks of `block_size` tokens.

    During a step the blocks of prefills are constant; blocks held and blank are given as means, which
    is exact for one step and takes them to change evenly over a stretch of steps.
    """

    def __init__(self, counters: EngineCounters, blocks: int, block_size: int) -> None:
        self._counters, self._blocks, self._block = counters, blocks, block_size
        self._until_s = 0.0
        self._prefill = 0  # blocks held by the prefills of the present step
        self._again = 0.0  # of them, the share that repeats earlier work

    def new_step(self) -> None:
        """A step begins, so far without prefills."""
        self._prefill, self._again = 0, 0.0

    def prefill(self, blocks: int, again: float) -> None:
        """A prefill that holds `blocks` takes part in the step; a share `again` of it is repetition."""
        self._prefill += blocks
        self._again += blocks * again

    def close(self, now: float, held: float, blank: float) -> None:
        """Account for the time up to `now`, with mean blocks held by requests and blank meanwhile."""
        if now <= self._until_s:
            return
        area = (now - self._until_s) * self._block
        self._until_s = now
        prefill = min(float(self._prefill), held)
        again = self._again * (prefill / self._prefill) if prefill else 0.0
        c = self._counters
        c.stp_decode += (held - prefill) * area
        c.stp_prefill += (prefill - again) * area
        c.stp_recompute += again * area
        c.stp_unused += blank * area
        c.stp_caching += (self._blocks - held - blank) * area

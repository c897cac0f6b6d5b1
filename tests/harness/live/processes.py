"""Whether processes are gone, without sleeping: a pidfd becomes readable when its process ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator

PATIENCE_S = 30.0


class Watched:
    """Processes by id, held from now on: an id that is used again is not mistaken for the old one."""

    def __init__(self, pids: Iterable[int]) -> None:
        self._open = {pid: os.pidfd_open(pid) for pid in pids}

    def gone(self) -> bool:
        """Whether all of them have ended now."""
        return all(select.select([handle], [], [], 0)[0] for handle in self._open.values())

    def survivors(self) -> list[int]:
        """Those that do not end within a bounded time."""
        deadline = time.monotonic() + PATIENCE_S
        return [
            pid
            for pid, handle in self._open.items()
            if not select.select([handle], [], [], max(deadline - time.monotonic(), 0.0))[0]
        ]

    def end(self) -> None:
        for handle in self._open.values():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
            os.close(handle)


@contextlib.contextmanager
def watched(pids: Iterable[int]) -> Iterator[Watched]:
    """Ended on the way out, whatever the test found."""
    found = Watched(pids)
    try:
        yield found
    finally:
        found.end()

"""An event loop in virtual time: where nothing is ready, time jumps to the next timer.

Everything that waits with `asyncio` (sleep, timeouts, futures) runs on it unchanged, at once and in one
order. Sockets, subprocesses and threads do not take virtual time, so code that waits for them does not
belong here: a wait for which no timer is set is a deadlock, and raises.

    with VirtualLoop() as loop:
        loop.run_until_complete(main())
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self


class DeadlockError(RuntimeError):
    """Everything waits, and nothing is going to happen."""


class _Selector(selectors.BaseSelector):
    """Waits by telling the loop to jump."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._real = selectors.DefaultSelector()

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        return self._real.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._real.unregister(fileobj)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = self._real.select(0)  # the loop's own pipe to itself
        if not ready and timeout != 0:
            self._loop.jump()
        return ready

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._real.get_map()

    def close(self) -> None:
        self._real.close()


class VirtualLoop(asyncio.SelectorEventLoop):
    """Begins at 0 s. Use it as a context manager, or `close` it; tasks still open are cancelled then.

    `late` says by how many seconds each jump goes beyond its timer, as on a machine that is busy.
    """

    def __init__(self, late: Callable[[], float] = lambda: 0.0) -> None:
        self._virtual_s, self._late = 0.0, late
        super().__init__(_Selector(self))

    def time(self) -> float:
        """Virtual seconds."""
        return self._virtual_s

    def jump(self) -> None:
        """Go to the next timer. Raises `DeadlockError` when there is none."""
        timers: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]  # asyncio's own heap
        if not timers:
            raise DeadlockError(f"at {self._virtual_s} s everything waits and no timer is set")
        self._virtual_s = max(self._virtual_s, timers[0].when()) + self._late()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            open_tasks = asyncio.all_tasks(self)
            for task in open_tasks:
                task.cancel()
            if open_tasks:
                self.run_until_complete(asyncio.gather(*open_tasks, return_exceptions=True))
        finally:
            self.close()

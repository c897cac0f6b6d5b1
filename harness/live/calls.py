"""One call between a client and a replica, as the driver sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Literal, Protocol, Self

from harness.live.ports import Placement, Usage

End = Literal["finished", "failed", "cancelled"]
CANCELLED = "cancelled"  # the reason told to a policy when the client went away


class _Driver(Protocol):
    """What a call tells its driver."""

    @property
    def now(self) -> float: ...

    def call_showed_token(self, call: OpenCall) -> None: ...

    def call_ended(self, call: OpenCall, usage: Usage | None, reason: str) -> None: ...


class OpenCall:
    """A call from its arrival to its one end. Times in seconds of the run's clock; null: not yet.

    Use it as a context manager: whoever leaves without having said how the call ended leaves it
    `cancelled`. After the end everything said is ignored, since a replica can be lost, and its calls
    failed, while their answers are still under way; `on_lost` is called with the reason then.
    """

    __slots__ = (
        "_driver",
        "_placed",
        "arrived_s",
        "call_id",
        "decoded_tokens",
        "decoded_told",
        "end",
        "ended_s",
        "first_token_s",
        "on_lost",
        "placed_s",
        "placement",
        "program_id",
        "prompt_tokens",
        "reason",
        "tools",
        "usage",
    )

    def __init__(self, driver: _Driver, program_id: str, call_id: str, prompt_tokens: int) -> None:
        self._driver = driver
        self._placed: asyncio.Future[Placement] | None = None
        self.program_id, self.call_id, self.prompt_tokens = program_id, call_id, prompt_tokens
        self.arrived_s = driver.now
        self.placed_s: float | None = None
        self.first_token_s: float | None = None
        self.ended_s: float | None = None
        self.placement: Placement | None = None
        self.decoded_tokens = self.decoded_told = 0  # output tokens seen, and told to the policy
        self.tools: list[str] = []  # names of the tools asked for, told to the policy at the end
        self.usage: Usage | None = None
        self.end: End | None = None
        self.reason = ""  # of a call that failed or was cancelled
        self.on_lost: Callable[[str], None] | None = None

    async def placed(self) -> Placement | None:
        """Wait for the policy to place the call; null when it ended before that (see `reason`)."""
        if self.placement is None and self.end is None:
            self._placed = asyncio.get_running_loop().create_future()
            await self._placed
        return None if self.end is not None else self.placement

    def first_token(self) -> None:
        """The first output token came back."""
        if self.end is None and self.first_token_s is None:
            self._driver.call_showed_token(self)

    def finished(self, usage: Usage) -> None:
        """It ended well, and the server counted `usage`."""
        if self.end is None:
            self.end, self.usage = "finished", usage
            self._driver.call_ended(self, usage, "")

    def failed(self, reason: str) -> None:
        """It ended without a result."""
        if self.end is None:
            self.end, self.reason = "failed", reason
            self._driver.call_ended(self, None, reason)

    def cancelled(self) -> None:
        """Its client went away."""
        if self.end is None:
            self.end, self.reason = "cancelled", CANCELLED
            self._driver.call_ended(self, None, CANCELLED)

    # ------------------------------------------------------------ for the driver

    def place(self, placement: Placement, now: float) -> None:
        """The policy dispatched it."""
        self.placement, self.placed_s = placement, now
        self.wake()

    def wake(self) -> None:
        """Let `placed` return."""
        if self._placed is not None and not self._placed.done():
            self._placed.set_result(Placement("", 0))

    def lose(self, reason: str) -> None:
        """Its replica is gone, or the driver cannot go on."""
        self.failed(reason)
        if self.on_lost is not None:
            self.on_lost(reason)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.cancelled()

"""Waiting costs no time, happens in order, and a wait without an end is found."""

import asyncio

import pytest

from harness.live.clock import LoopClock
from harness.live.virtual_loop import DeadlockError, VirtualLoop


def test_time_jumps_to_the_next_timer():
    async def main():
        await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    with VirtualLoop() as loop:
        assert loop.run_until_complete(main()) == 3600.0


def test_things_happen_in_order_of_their_times_then_of_being_asked_for():
    seen = []

    async def main():
        clock = LoopClock()
        clock.at(2.0, seen.append, "c")
        clock.at(1.0, seen.append, "a")
        clock.at(1.0, seen.append, "b")
        await asyncio.sleep(5)
        return clock.now, clock.lateness_s

    with VirtualLoop() as loop:
        assert loop.run_until_complete(main()) == (5.0, 0.0)
    assert seen == ["a", "b", "c"]


def test_timeouts_work_as_on_any_loop():
    async def main():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.Event().wait(), 7.0)
        return asyncio.get_running_loop().time()

    with VirtualLoop() as loop:
        assert loop.run_until_complete(main()) == 7.0


def test_a_late_loop_is_late():
    async def main():
        clock = LoopClock()
        await asyncio.sleep(3)
        await asyncio.sleep(3)
        return clock.now

    with VirtualLoop(late=lambda: 0.25) as loop:
        assert loop.run_until_complete(main()) == 6.5


def test_a_wait_without_an_end_raises():
    with (
        VirtualLoop() as loop,
        pytest.raises(DeadlockError, match=r"^at 0\.0 s everything waits and no timer is set$"),
    ):
        loop.run_until_complete(asyncio.Event().wait())


def test_open_tasks_are_cancelled_at_the_end():
    seen = []

    async def forever():
        try:
            await asyncio.sleep(1e9)
        finally:
            seen.append("cancelled")

    async def main():
        main.task = asyncio.ensure_future(forever())
        await asyncio.sleep(1)

    with VirtualLoop() as loop:
        loop.run_until_complete(main())
    assert seen == ["cancelled"]
    assert main.task.cancelled()

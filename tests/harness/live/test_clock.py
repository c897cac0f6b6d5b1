"""The run's clock never falls and never lets anything happen early."""

import asyncio

import pytest
import uvloop

from harness.live.clock import LoopClock


class EarlyLoop:
    """A loop whose timers may fire early, as uvloop's do, and whose time the test sets."""

    def __init__(self):
        self.seconds, self.asked = 100.0, []

    def time(self):
        return self.seconds

    def call_at(self, when, function, *args):
        self.asked.append((when, function, args))

    def fire(self, at):
        self.seconds = at
        _, function, args = self.asked.pop(0)
        function(*args)


def test_what_comes_early_is_asked_for_again():
    loop, seen = EarlyLoop(), []
    clock = LoopClock(loop)
    clock.at(5.0, seen.append, "tick")
    loop.fire(104.9995)
    assert (seen, [when for when, _, _ in loop.asked]) == ([], [105.0])
    loop.fire(105.0)
    assert seen == ["tick"]


def test_rounding_is_no_reason_to_wait_and_now_says_the_time_asked_for():
    loop, seen = EarlyLoop(), []
    clock = LoopClock(loop)
    clock.at(5.0, lambda: seen.append(clock.now))
    loop.fire(105.0 - 1e-9)
    assert seen == [5.0]
    assert clock.now == 5.0


def test_lateness_is_remembered():
    loop = EarlyLoop()
    clock = LoopClock(loop)
    clock.at(5.0, lambda: None)
    loop.fire(105.25)
    assert clock.lateness_s == pytest.approx(0.25)


def test_time_passes_within_one_turn_of_uvloop():
    """Its own time stands still until the next turn, in whole milliseconds."""

    async def main():
        clock = LoopClock()
        before = clock.now
        return any(clock.now > before for _ in range(100_000))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main())


def test_timers_of_uvloop_come_in_time():
    async def main():
        clock, came = LoopClock(), asyncio.get_running_loop().create_future()
        clock.at(0.0037, lambda: came.set_result(clock.now))
        return await came

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(main()) >= 0.0037

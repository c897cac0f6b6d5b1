"""The run's clock never falls and never lets anything happen early."""

import pytest

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

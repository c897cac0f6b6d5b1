"""The agents' clock: what is late happens as of its time, in order, until it fails or is stopped."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from harness.live.replay.clock import AgentClock, HeldClock
from harness.live.virtual_loop import VirtualLoop


class BusyLoop:
    """A loop whose timers fire when the test says so."""

    def __init__(self):
        self.seconds, self.timers = 0.0, []

    def time(self):
        return self.seconds

    def call_at(self, when, function, *args):
        self.timers.append(handle := _Handle(when, function, args))
        return handle

    def call_later(self, after, function, *args):
        return self.call_at(self.seconds + after, function, *args)

    def fire(self, at):
        self.seconds = at
        due = [timer for timer in self.timers if timer.when <= at and not timer.cancelled]
        self.timers = [timer for timer in self.timers if timer not in due and not timer.cancelled]
        for timer in due:
            timer.function(*timer.args)


class _Handle:
    def __init__(self, when, function, args):
        self.when, self.function, self.args, self.cancelled = when, function, args, False

    def cancel(self):
        self.cancelled = True


def begun(loop, after=lambda: None, on_error=None):
    clock = HeldClock(loop)
    clock.begin()
    return AgentClock(clock, after=after, on_error=on_error or _raise)


def _raise(error):
    raise error


def test_what_is_late_happens_as_of_the_time_it_was_due():
    """The loop is busy until 7 s: what was due at 5 s sees 5 s, and what follows from it 6 s."""
    loop, seen = BusyLoop(), []
    clock = begun(loop)

    def first():
        seen.append(("first", clock.now))
        clock.at(clock.now + 1.0, lambda: seen.append(("second", clock.now)))

    clock.at(5.0, first)
    loop.fire(7.0)
    assert seen == [("first", 5.0), ("second", 6.0)]
    assert clock.now == 7.0


@given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.30000001]), max_size=12))
def test_things_happen_in_order_of_time_then_of_being_asked_for(times):
    loop, seen = BusyLoop(), []
    clock = begun(loop)
    for number, when in enumerate(times):
        clock.at(when, lambda when=when, number=number: seen.append((when, number)))
    loop.fire(1.0)
    assert seen == sorted((when, number) for number, when in enumerate(times))


def test_a_fact_of_the_past_is_told_as_of_its_time_and_followed_by_after():
    loop, seen = BusyLoop(), []
    clock = begun(loop, after=lambda: seen.append("after"))
    loop.seconds = 9.0
    clock.as_of(8.5, lambda: seen.append(clock.now))
    assert seen == [8.5, "after"]
    assert clock.now == 9.0


def test_an_error_stops_the_clock_and_is_told():
    loop, errors, seen = BusyLoop(), [], []
    clock = begun(loop, after=lambda: seen.append("after"), on_error=errors.append)
    clock.at(1.0, lambda: 1 / 0)
    clock.at(2.0, seen.append, "later")
    loop.fire(3.0)
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert seen == []
    assert [timer for timer in loop.timers if not timer.cancelled] == []


def test_once_stopped_nothing_happens_and_time_stands_still():
    loop, seen = BusyLoop(), []
    clock = begun(loop)
    clock.at(4.0, seen.append, "never")
    loop.seconds = 3.0
    clock.stop()
    clock.at(3.5, seen.append, "never")
    clock.as_of(2.0, seen.append, "never")
    loop.fire(10.0)
    assert (seen, clock.now) == ([], 3.0)


def test_a_held_clock_stands_at_0_and_what_was_asked_of_it_counts_from_the_beginning():
    """Servers are looked at for 8 s; a tick asked for at 5 s comes 5 s after the beginning."""
    seen = []

    async def main():
        clock = HeldClock()
        clock.at(5.0, lambda: seen.append((clock.now, asyncio.get_running_loop().time())))
        await asyncio.sleep(8.0)
        assert clock.now == 0.0
        clock.begin()
        await asyncio.sleep(10.0)
        return clock.now

    with VirtualLoop() as loop:
        assert loop.run_until_complete(main()) == 10.0
    assert seen == [(5.0, 13.0)]

"""Virtual time: order of time, then of asking; what is asked for now happens now."""

from math import inf

from harness.virtual.clock import Clock


def test_order_is_time_then_asking():
    clock, seen = Clock(), []
    assert clock.next == inf
    clock.at(2.0, seen.append, "late")
    clock.at(1.0, seen.append, "first")
    clock.at(1.0, seen.append, "second")
    clock.at(1.0, lambda: clock.at(1.0, seen.append, "follows"))
    clock.now = clock.next
    clock.run_due()
    assert seen == ["first", "second", "follows"]
    assert clock.next == 2.0

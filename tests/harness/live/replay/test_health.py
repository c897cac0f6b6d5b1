"""The client's own health, in numbers."""

import asyncio

import pytest

from harness.live.clock import LoopClock
from harness.live.replay.health import Health
from harness.live.virtual_loop import VirtualLoop


def test_a_run_without_calls_knows_nothing():
    async def main():
        return Health(LoopClock(), cpu_s=lambda: 0.0).summary()

    with VirtualLoop() as loop:
        assert loop.run_until_complete(main()) == {
            "calls_sent": 0,
            "lateness_p99_s": None,
            "lateness_max_s": None,
            "lag_p99_s": None,
            "lag_max_s": None,
            "cpu_share": None,
            "retries": 0,
            "failed_calls": 0,
            "outputs_carried": True,
            "outputs_lost": 0,
            "odd_lengths": 0,
        }


def test_percentiles_leave_out_one_in_a_hundred():
    async def main():
        health = Health(LoopClock(), cpu_s=lambda: 0.0)
        for late in range(200):
            health.sent(float(late))
        return health.summary()

    with VirtualLoop() as loop:
        summary = loop.run_until_complete(main())
    assert (summary["lateness_p99_s"], summary["lateness_max_s"]) == (197.0, 199.0)


def test_a_loop_that_is_held_up_shows_as_lag_and_cpu_counts_from_the_beginning():
    """The loop is blocked for 0.2 s once in 2 s (virtual time jumps); 1 s of CPU in 2 s is a half."""
    cpu = iter((3.0, 4.0))

    async def main():
        health = Health(LoopClock(), cpu_s=lambda: next(cpu))
        health.begin()
        loop = asyncio.get_running_loop()
        await asyncio.sleep(1.0)
        loop._virtual_s += 0.2  # what a callback does that takes so long
        await asyncio.sleep(0.8)
        health.stop()
        return health.summary()

    with VirtualLoop() as loop:
        summary = loop.run_until_complete(main())
    assert 0.14 <= summary["lag_max_s"] <= 0.2
    assert summary["cpu_share"] == pytest.approx(0.5)

"""Measuring an engine whose step times are known, on a loop in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from harness.calibrate.measure import Ask, Measured, Reply, Send, measure
from harness.calibrate.plan import Plan, Room, Size, make_plan
from harness.calibrate.predict import Outside
from harness.calibrate.server_fit import fit_server
from harness.errors import SetupError
from harness.live.virtual_loop import VirtualLoop
from tests.harness.calibrate.engine import OUTSIDE, STEP_TIME, Engine, truth

SMALL = Plan((Size(0, 100, 1), Size(0, 1000, 1), Size(4, 100, 60)), 2, 0)


def run(
    plan: Plan,
    send: Send,
    *,
    time_limit_s: float = 1e9,
    cpu: Callable[[], float] = lambda: 0.0,
    **more: Any,
) -> Measured:
    with VirtualLoop() as loop:
        return loop.run_until_complete(measure(plan, send, time_limit_s=time_limit_s, cpu=cpu, **more))


def test_every_time_is_that_of_the_work_it_is_taken_for() -> None:
    engine = Engine()
    found = run(SMALL, engine.send)
    assert [(p.kind, p.batch, p.cached, p.repeats) for p in found.points] == [
        ("cached prefill", 1, 96, 2),
        ("cached prefill", 1, 992, 2),
        ("cold prefill", 1, 0, 2),
        ("cold prefill", 1, 0, 2),
        ("decode", 4, 0, 2),
    ]
    for point in found.points:
        assert point.seconds == pytest.approx(truth(point, engine), rel=1e-6), point
    assert (found.cached_known, found.left_out, found.cut, found.rounds_cut) == (True, 0, 0, False)
    assert found.lag_s == pytest.approx(0, abs=1e-9)
    assert found.busy_share == 0


def test_the_plan_is_what_is_sent() -> None:
    engine = Engine()
    run(SMALL, engine.send)
    assert len(engine.asked) == SMALL.requests
    assert sum(len(ask.prompt) for ask in engine.asked) == SMALL.prompt_tokens
    assert sum(ask.output for ask in engine.asked) == SMALL.output_tokens
    assert engine.most_at_once == 4


def test_a_new_prompt_shares_nothing_with_another_and_comes_twice() -> None:
    engine = Engine()
    run(Plan(SMALL.sizes[:2], 3, 0), engine.send)
    first, again = engine.asked[::2], engine.asked[1::2]
    assert first == again
    assert len({ask.prompt[:16] for ask in first}) == len(first)


def test_measured_and_fitted_the_constants_of_the_engine_come_back() -> None:
    """From end to end, chunked prefills of long prompts included."""
    engine = Engine()
    plan = make_plan(Room(32768, 400_000, engine.budget, 64, 20_000, 8192), repeats=1, seed=0)
    found = fit_server(run(plan, engine.send).points, engine.budget)
    assert found.step_time.compute_s_per_token == pytest.approx(STEP_TIME.compute_s_per_token, rel=0.02)
    assert found.step_time.kv_read_s_per_token == pytest.approx(STEP_TIME.kv_read_s_per_token, rel=0.02)
    assert found.outside == pytest.approx(OUTSIDE, rel=0.02)
    assert all(error.p90_share < 0.01 for error in found.errors)


def test_a_server_that_tells_no_cached_tokens_gives_cold_prefills_only() -> None:
    found = run(SMALL, Engine(told=False).send)
    assert [point.kind for point in found.points] == ["cold prefill", "cold prefill", "decode"]
    assert not found.cached_known


def test_progress_counts_measurements() -> None:
    seen: list[tuple[int, int]] = []
    run(SMALL, Engine().send, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(k, 9) for k in range(1, 10)]


def test_when_time_is_up_what_was_measured_is_kept() -> None:
    engine = Engine(outside=Outside(1.0, 0.0))
    found = run(SMALL, engine.send, time_limit_s=8.5)
    assert found.rounds_cut
    assert 0 < sum(point.repeats for point in found.points) < 10
    assert found.cut == 3 - len(
        {(p.batch, round(p.context)) for p in found.points if p.kind != "cached prefill"}
    )


def test_a_batch_that_never_decodes_together_is_no_point() -> None:
    """Four prompts of 8,192 tokens come one per step; the first has ended before the last begins."""
    found = run(Plan((Size(0, 100, 1), Size(4, 8192, 3)), 1, 0), Engine().send)
    assert [point.kind for point in found.points] == ["cached prefill", "cold prefill"]
    assert found.cut == 1


def test_what_fails_is_raised_and_leaves_no_request_behind() -> None:
    engine = Engine()
    engine.dies_after = 7  # in the middle of a batch
    with pytest.raises(ConnectionError, match="gone"):
        run(SMALL, engine.send)
    assert len(engine.asked) <= 9


def test_a_client_that_blocks_its_loop_is_refused() -> None:
    """The loop's clock goes on while a callback of the client's runs."""
    engine = Engine()
    loop = VirtualLoop()

    def block() -> None:
        loop._virtual_s += 0.01

    async def blocking(ask: Ask) -> Reply:
        for k in range(100):
            loop.call_later(k * 0.011, block)
        return await engine.send(ask)

    with loop, pytest.raises(SetupError, match=r"the client was the bottleneck at [2-5] of 5 sizes"):
        loop.run_until_complete(measure(SMALL, blocking, time_limit_s=1e9, cpu=lambda: 0.0))


def test_what_the_client_does_when_an_answer_is_over_spoils_nothing() -> None:
    engine = Engine()
    loop = VirtualLoop()

    async def reading(ask: Ask) -> Reply:
        reply = await engine.send(ask)
        loop._virtual_s += 0.5
        return reply

    with loop:
        measured = measure(SMALL, reading, time_limit_s=1e9, cpu=lambda: 0.0)
        found = loop.run_until_complete(measured)
    assert found.left_out == 0
    for point in found.points:
        assert point.seconds == pytest.approx(truth(point, engine), rel=1e-6), point


def test_a_client_that_uses_a_core_is_refused() -> None:
    clock = count(0, 1000)
    with pytest.raises(SetupError, match="expected a client that waits for the server"):
        run(SMALL, Engine().send, cpu=lambda: float(next(clock)))


def test_one_slow_moment_costs_its_measurement_only() -> None:
    reads = count()  # two per measurement; the warm-up has five
    found = run(SMALL, Engine().send, cpu=lambda: 1000.0 if next(reads) == 11 else 0.0)
    assert found.left_out == 1
    assert sum(point.repeats for point in found.points) == 9

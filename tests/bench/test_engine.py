"""The benchmark of the engines measures what it says."""

from __future__ import annotations

from harness.virtual.fast import FastEngine
from tests.bench.engine import default_engine, default_programs, measure


def test_a_closed_loop_plays_every_call_of_every_program() -> None:
    programs = list(default_programs(5))
    cost = measure("fast", FastEngine(*default_engine()), iter(programs), concurrency=2)
    assert cost.calls == sum(len(program.calls) for program in programs)
    assert cost.virtual_s > max(
        sum(tool.duration_s for call in p.calls for tool in call.tools) for p in programs
    )


def test_longer_outputs_change_nothing_else() -> None:
    for short, long in zip(default_programs(3), default_programs(3, longer=2), strict=True):
        assert [call.output.tokens * 2 for call in short.calls] == [c.output.tokens for c in long.calls]
        assert [(call.call_id, call.new, call.tools) for call in short.calls] == [
            (call.call_id, call.new, call.tools) for call in long.calls
        ]


def test_the_end_of_the_time_ends_the_loop() -> None:
    cost = measure("fast", FastEngine(*default_engine()), default_programs(), concurrency=4, until_s=30.0)
    assert cost.virtual_s <= 30.0
    assert 0 < cost.calls <= cost.steps

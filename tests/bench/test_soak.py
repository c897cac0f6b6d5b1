"""The storm and the soak find what was lost, and nothing is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from harness.records import RunWriter
from schedulers.contract import CallArrived, CallFailed, CallFinished, ProgramArrived, ProgramFinished
from tests.bench.faulty_server import FAULTS
from tests.bench.soak import SHARES, Found, judge, soak, storm, table

POLICY = {"policy": {"name": "vllm", "config": {}, "seed": 0}}


def test_a_small_storm_and_a_small_soak_lose_nothing(tmp_path: Path) -> None:
    blown = asyncio.run(storm(tmp_path / "storm", programs=20, calls=4))
    assert blown.problems == []
    assert blown.killed >= 1
    assert blown.requests == sum(blown.heard.values()) >= 80
    assert 0 < sum(blown.ends.values()) <= blown.requests
    found = asyncio.run(soak(tmp_path / "soak", requests=200))
    assert found.problems == []
    assert (found.heard, found.ends) == ({"200": 200}, {"finished": 200, "failed": 0, "cancelled": 0})
    assert len(found.memory_mb) == len(SHARES)
    assert min(found.memory_mb) > 0
    lines = table("soak", found).splitlines()
    assert lines[0] == "soak"
    assert lines[-1].split() == ["problems", "none"]
    assert len(set(FAULTS)) == 6


def test_what_is_lost_or_doubled_is_a_problem(tmp_path: Path) -> None:
    with RunWriter(tmp_path / "run", spec_toml="", provenance=POLICY) as run:
        told = [
            ProgramArrived("p", needs_sandbox=False),
            CallArrived("p", "p/0", 1),
            CallArrived("p", "p/1", 1),
            CallFinished("p", "p/1", 1, 1, None),
            CallFailed("p", "p/1", "cancelled"),
            ProgramArrived("q", needs_sandbox=False),
            ProgramFinished("q"),
        ]
        for event in told:
            run.decide(0.0, event, [])
        run.finish({})
    found = Found(heard={"200": 1}, took_s=1.0)
    judge(tmp_path / "run", found)
    assert found.ends == {"finished": 1, "failed": 0, "cancelled": 1}
    assert found.problems == [
        "calls without exactly one end: ['p/0', 'p/1']",
        "programs without an end: ['p']",
        "2 calls of 1 requests",
    ]

"""Chrome trace events: valid, nested, and what happened."""

from __future__ import annotations

import json
from collections import defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.export.perfetto import lanes
from harness.records import open_run
from tests.harness.export.conftest import Export, rows
from tests.harness.export.small import write_small_run
from tests.harness.results import call, program, sample, tool, write_run

Event = dict[str, Any]


def check(text: str) -> list[Event]:
    """The events of a trace, held to the rules of the Trace Event format."""
    events: list[Event] = json.loads(text)
    slices = defaultdict(list)
    for event in events:
        assert event["ph"] in {"X", "M", "C", "s", "f"}
        assert isinstance(event["name"], str)
        assert all(isinstance(event[field], int) for field in ("ts", "pid", "tid"))
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert isinstance(event["dur"], int)
            assert event["dur"] >= 0
            slices[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
        elif event["ph"] == "C":
            assert event["args"]
            assert all(isinstance(value, int) for value in event["args"].values())
    for track in slices.values():
        assert_nested(track)
    names = [(e["pid"], e["tid"], e["name"]) for e in events if e["ph"] == "M"]
    assert len(names) == len(set(names))
    named = {(pid, tid) for pid, tid, kind in names if kind == "thread_name"}
    assert named == set(slices)
    assert {pid for pid, _, kind in names if kind == "process_name"} == {e["pid"] for e in events}
    check_arrows(events, slices)
    return events


def assert_nested(track: list[tuple[int, int]]) -> None:
    """Two slices of a track lie one in the other or do not touch; written as a viewer stacks them."""
    stack: list[int] = []
    for begin, end in sorted(track, key=lambda s: (s[0], -s[1])):
        while stack and stack[-1] <= begin:
            stack.pop()
        assert not stack or end <= stack[-1]
        stack.append(end)


def check_arrows(events: list[Event], slices: dict[tuple[int, int], list[tuple[int, int]]]) -> None:
    """Each begins and ends once, on a track that has slices, where a slice lies (bp: e)."""
    for kind in ("s", "f"):
        ends = [event for event in events if event["ph"] == kind]
        assert len({event["id"] for event in ends}) == len(ends)
        for end in ends:
            on = slices[end["pid"], end["tid"]]
            assert any(begin <= end["ts"] <= until for begin, until in on)
    assert all(event["bp"] == "e" for event in events if event["ph"] == "f")
    starts = {event["id"] for event in events if event["ph"] == "s"}
    assert starts == {event["id"] for event in events if event["ph"] == "f"}


def slices_of(events: list[Event], process: int) -> list[tuple[int, str, float, float]]:
    """(track, name, begin, end), seconds."""
    return [
        (e["tid"], e["name"], e["ts"] / 1e6, (e["ts"] + e["dur"]) / 1e6)
        for e in events
        if e["ph"] == "X" and e["pid"] == process
    ]


def test_a_program_shows_the_parts_of_its_steps(export: Export, tmp_path: Path) -> None:
    events = check(export("perfetto", write_small_run(tmp_path / "run"))[0])
    assert slices_of(events, 1) == [
        (10_000, "queue", 1.75, 2.0),
        (10_000, "prefill", 2.0, 2.5),
        (10_000, "decode", 2.5, 3.5),
        (10_000, "tool bash", 3.5, 4.0),
        (10_001, "hold", 2.0, 2.5),
        (10_001, "prefill", 2.5, 3.0),
        (10_001, "decode", 3.0, 4.0),
        (10_001, "sandbox", 4.0, 5.0),
        (10_001, "tool edit", 5.0, 7.0),
        (10_001, "tool bash", 5.0, 6.5),
        (10_001, "prefill", 7.0, 7.5),
        (10_001, "decode", 7.5, 8.5),
        (10_001, "tool bash", 8.5, 11.0),
        (10_001, "prefill", 11.0, 11.5),
        (10_001, "decode", 11.5, 14.5),
    ]
    prefill = next(e for e in events if e["name"] == "prefill" and e["ts"] == 7_000_000)
    assert prefill["args"] == {
        "call": "a/1",
        "replica": "r0",
        "prompt_tokens": 1100,
        "cached_tokens": 1008,
        "recomputed_tokens": 0,
        "preemptions": 0,
    }


def test_replicas_are_processes_with_lanes_and_counters(export: Export, tmp_path: Path) -> None:
    text, account = export("perfetto", write_small_run(tmp_path / "run"))
    events = check(text)
    names = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert names == {1: "programs", 2: "replica r0", 3: "replica r1"}
    lane0, lane1 = 1_002_000_000, 1_003_000_000
    assert slices_of(events, 2) == [
        (lane0, "a", 2.5, 4.0),
        (lane0, "a", 7.0, 8.5),
        (lane0, "a", 11.0, 14.5),
    ]
    assert slices_of(events, 3) == [(lane1, "b", 2.0, 3.5)]
    counters = [(e["pid"], e["name"], e["ts"], e["args"]) for e in events if e["ph"] == "C"]
    assert counters[5:] == [
        (2, "KV tokens", 5_000_000, {"used": 60, "idle": 30, "blank": 10}),
        (2, "requests", 5_000_000, {"running": 1, "waiting": 0}),
        (1, "calls", 5_000_000, {"held": 3}),
        (3, "KV tokens", 5_000_000, {"used": 0, "idle": 0, "blank": 100}),
        (3, "requests", 5_000_000, {"running": 0, "waiting": 2}),
    ]
    assert account.kept == {"programs": 2, "calls": 4, "tool runs": 4, "samples": 4}


def test_a_real_run_is_valid_and_whole(export: Export, real_run: Path) -> None:
    """Every second of every step is on its program's track, and every call on its replica."""
    events = check(export("perfetto", real_run)[0])
    run = open_run(real_run)
    calls = rows(run, "calls")
    totals: dict[str, float] = defaultdict(float)
    for _, name, begin, end in slices_of(events, 1):
        totals[name.split()[0]] += end - begin
    for part in ("hold", "queue", "prefill", "decode", "sandbox", "tool"):
        expected = sum(row[f"{part}_s"] for row in calls)
        assert totals[part] == pytest.approx(expected, abs=1e-6 * len(calls))
    served = [e["args"]["call"] for e in events if e["ph"] == "X" and e["pid"] > 1]
    assert sorted(served) == sorted(row["call_id"] for row in calls)
    assert len([e for e in events if e["ph"] == "s"]) == len(calls)


def test_calls_side_by_side_get_tracks_of_their_own(export: Export, tmp_path: Path) -> None:
    calls = [
        call(0.0, decode=1.0, call_id="root"),
        call(1.0, decode=1.0, tool=3.0, call_id="left", position=1),
        call(1.0, decode=2.0, call_id="right", position=2),
        call(5.0, decode=1.0, call_id="join", position=3),
    ]
    tools = [tool(call_id="left", started_s=2.0, finished_s=5.0)]
    run = write_run(tmp_path / "run", programs=[program(calls_planned=4)], calls=calls, tools=tools)
    events = check(export("perfetto", run)[0])
    names = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name" and e["pid"] == 1}
    assert names == {10_000: "p0", 10_001: "p0 (side by side, 2)"}
    tracks = {(name, begin): track for track, name, begin, _ in slices_of(events, 1)}
    assert tracks == {
        ("decode", 0.0): 10_000,
        ("decode", 1.0): 10_000,  # of both: one of them on the other track
        ("tool bash", 2.0): 10_001,
        ("decode", 5.0): 10_000,
    }


def test_tools_that_do_not_begin_together_get_tracks_of_their_own(export: Export, tmp_path: Path) -> None:
    """One that started while its call was decoding, one that started late and outlived another."""
    calls = [call(0.0, decode=4.0, tool=6.0)]
    tools = [
        tool(tool="early", started_s=2.0, finished_s=5.0),
        tool(tool="usual", started_s=4.0, finished_s=8.0),
        tool(tool="late", started_s=6.0, finished_s=10.0),
    ]
    run = write_run(tmp_path / "run", programs=[program(calls_planned=1)], calls=calls, tools=tools)
    events = check(export("perfetto", run)[0])
    assert {(name, track - 10_000) for track, name, _, _ in slices_of(events, 1)} == {
        ("decode", 0),
        ("tool usual", 0),
        ("tool early", 1),
        ("tool late", 1),
    }


def test_a_run_of_nothing_is_a_valid_trace(export: Export, tmp_path: Path) -> None:
    assert [e["name"] for e in json.loads(export("perfetto", write_run(tmp_path / "run"))[0])] == [
        "process_name",
        "process_sort_index",
    ]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=40))
def test_lanes_keep_intervals_apart_and_are_as_few_as_can_be(spans: list[tuple[int, int]]) -> None:
    begins = np.array([begin for begin, _ in spans], dtype=np.int64)
    ends = begins + np.array([length for _, length in spans], dtype=np.int64)
    found = lanes(begins, ends)
    for lane in set(found.tolist()):
        own = sorted(zip(begins[found == lane].tolist(), ends[found == lane].tolist(), strict=True))
        assert all(one[1] <= other[0] for one, other in pairwise(own))
    most = max((int(((begins <= t) & (ends > t)).sum()) for t in range(71)), default=0)
    used = len(set(found.tolist()))
    instants = any(length == 0 for _, length in spans)
    assert most <= used <= most + instants


def test_what_a_server_did_not_tell_is_drawn_with_the_next_part_that_is_known(
    export: Export, tmp_path: Path
) -> None:
    """A call is in the batch from its dispatch on, or on no replica; counters show what was told."""
    whole = call(1.0, hold=1.0, queue=1.0, prefill=1.0, decode=2.0, program_id="p0", call_id="p0/0")
    ours = whole._replace(scheduled_s=None, queue_s=None, cached_tokens=None)
    theirs = ours._replace(program_id="p1", call_id="p1/0", dispatched_s=None, hold_s=None, replica=None)
    silent = {"held": None, "used_tokens": None, "running": None}
    run = write_run(
        tmp_path / "run",
        programs=[program("p0", arrived_s=1.0), program("p1", arrived_s=1.0)],
        calls=[ours, theirs],
        samples=[sample(0.0, waiting=2, **silent)],
    )
    events = check(export("perfetto", run)[0])
    assert [part[1:] for part in slices_of(events, 1)] == [
        ("hold", 1.0, 2.0),
        ("prefill", 2.0, 4.0),
        ("decode", 4.0, 6.0),
        ("prefill", 1.0, 4.0),
        ("decode", 4.0, 6.0),
    ]
    assert [part[1:] for part in slices_of(events, 2)] == [("p0", 2.0, 6.0)]
    counters = [(event["name"], event["args"]) for event in events if event["ph"] == "C"]
    assert counters == [("KV tokens", {"idle": 0}), ("requests", {"waiting": 2})]

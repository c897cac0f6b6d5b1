"""Spans of programs, calls and tool runs, after the GenAI conventions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.errors import SetupError
from tests.harness.export.conftest import Export
from tests.harness.export.small import STARTED_NS, write_small_run
from tests.harness.results import PROVENANCE, call, program, write_run


def spans(text: str) -> list:
    return json.loads(text)["spans"]


def test_a_program_is_a_trace_of_its_calls_and_tools(export: Export, tmp_path: Path) -> None:
    text, account = export("otel", write_small_run(tmp_path / "run"))
    found = spans(text)
    assert [(s["attributes"]["gen_ai.conversation.id"], s["name"]) for s in found] == [
        ("b", "invoke_agent"),
        ("b", "chat unknown"),
        ("b", "execute_tool bash"),
        ("a", "invoke_agent"),
        ("a", "chat unknown"),
        ("a", "execute_tool bash"),
        ("a", "execute_tool edit"),
        ("a", "chat unknown"),
        ("a", "execute_tool bash"),
        ("a", "chat unknown"),
    ]
    roots = {s["trace_id"]: s["span_id"] for s in found if s["parent_span_id"] is None}
    assert len(roots) == 2
    assert all(s["parent_span_id"] in {None, roots[s["trace_id"]]} for s in found)
    assert len({s["span_id"] for s in found}) == len(found)
    assert account.kept == {"programs": 2, "calls": 4, "tool runs": 4}


def test_a_call_has_its_tokens_times_and_parts(export: Export, tmp_path: Path) -> None:
    chat = spans(export("otel", write_small_run(tmp_path / "run"))[0])[7]
    assert (chat["start_time"], chat["end_time"]) == (STARTED_NS + 7 * 10**9, STARTED_NS + 8_500_000_000)
    assert chat["attributes"] == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "thunderbench",
        "gen_ai.request.model": "unknown",
        "gen_ai.conversation.id": "a",
        "gen_ai.response.id": "a/1",
        "gen_ai.usage.input_tokens": 1100,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 1008,
        "thunderbench.replica": "r0",
        "thunderbench.time_to_first_token_s": 0.5,
        "thunderbench.hold_s": 0.0,
        "thunderbench.queue_s": 0.0,
        "thunderbench.prefill_s": 0.5,
        "thunderbench.decode_s": 1.0,
        "thunderbench.sandbox_s": 0.0,
        "thunderbench.known_tokens": 1023,
        "thunderbench.recomputed_tokens": 0,
        "thunderbench.preemptions": 0,
    }


def test_a_tool_run_names_its_call(export: Export, tmp_path: Path) -> None:
    tool = spans(export("otel", write_small_run(tmp_path / "run"))[0])[6]
    assert (tool["start_time"], tool["end_time"]) == (STARTED_NS + 5 * 10**9, STARTED_NS + 7 * 10**9)
    assert tool["attributes"] == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.provider.name": "thunderbench",
        "gen_ai.conversation.id": "a",
        "gen_ai.tool.name": "edit",
        "gen_ai.tool.call.id": "a/0/tool/1",
        "thunderbench.call_id": "a/0",
        "thunderbench.observation_tokens": 10,
    }


def test_a_program_that_did_not_end_is_as_long_as_it_got(export: Export, tmp_path: Path) -> None:
    root = spans(export("otel", write_small_run(tmp_path / "run"))[0])[0]
    assert (root["start_time"], root["end_time"]) == (STARTED_NS + 1_500_000_000, STARTED_NS + 4 * 10**9)
    assert root["attributes"]["thunderbench.ended_at"] == "unfinished"


def test_exporting_twice_gives_the_same_file(export: Export, real_run: Path) -> None:
    assert export("otel", real_run)[0] == export("otel", real_run)[0]


def test_a_run_without_a_start_is_said_to_start_in_1970(export: Export, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", programs=[program(calls_planned=1)], calls=[call(1.0)])
    text, account = export("otel", run)
    assert spans(text)[1]["start_time"] == 10**9
    assert [*account.estimated.values()] == [1]


def test_a_start_that_is_no_time_is_refused(export: Export, tmp_path: Path) -> None:
    provenance = {**PROVENANCE, "started_utc": "yesterday"}
    run = write_run(tmp_path / "run", programs=[program()], calls=[call()], provenance=provenance)
    with pytest.raises(SetupError, match="started_utc is 'yesterday'; expected a time in ISO 8601"):
        export("otel", run)


def test_a_run_of_nothing_is_a_file_without_spans(export: Export, tmp_path: Path) -> None:
    assert spans(export("otel", write_run(tmp_path / "run"))[0]) == []


def test_what_a_live_run_does_not_know_has_no_attribute(export: Export, tmp_path: Path) -> None:
    row = call()._replace(cached_tokens=None, queue_s=None, hold_s=None)
    run = write_run(tmp_path / "run", programs=[program(steps_done=1)], calls=[row])
    _, chat = spans(export("otel", run)[0])
    unknown = {"gen_ai.usage.cache_read.input_tokens", "thunderbench.queue_s", "thunderbench.hold_s"}
    assert unknown.isdisjoint(chat["attributes"])
    assert chat["attributes"]["thunderbench.prefill_s"] == 0.0

"""One trajectory per program, after ATIF-v1.8."""

from __future__ import annotations

from pathlib import Path

from harness.provenance import thunderbench_version
from tests.harness.export.conftest import Export, lines
from tests.harness.export.small import write_small_run
from tests.harness.results import call, program, write_run

# The fields that the format allows: its schema forbids others.
TRAJECTORY = {
    "schema_version", "session_id", "trajectory_id", "agent", "steps", "notes", "final_metrics",
    "continued_trajectory_ref", "extra", "subagent_trajectories",
}  # fmt: skip
STEP = {
    "step_id", "timestamp", "source", "model_name", "reasoning_effort", "message", "reasoning_content",
    "tool_calls", "observation", "metrics", "is_copied_context", "llm_call_count", "extra",
}  # fmt: skip


def test_a_step_has_its_metrics_tools_and_waits(export: Export, tmp_path: Path) -> None:
    _, a = lines(export("atif", write_small_run(tmp_path / "run"))[0])
    assert a["steps"][1] == {
        "step_id": 2,
        "timestamp": "2026-01-02T03:04:12.678000Z",
        "source": "agent",
        "model_name": "unknown",
        "message": "",
        "metrics": {
            "prompt_tokens": 1100,
            "completion_tokens": 50,
            "cached_tokens": 1008,
            "extra": {
                "time_to_first_token_s": 0.5,
                "known_tokens": 1023,
                "recomputed_tokens": 0,
                "preemptions": 0,
            },
        },
        "llm_call_count": 1,
        "extra": {
            "call_id": "a/1",
            "replica": "r0",
            "finished": "2026-01-02T03:04:14.178000Z",
            "hold_s": 0.0,
            "queue_s": 0.0,
            "prefill_s": 0.5,
            "decode_s": 1.0,
            "sandbox_s": 0.0,
            "tool_s": 2.5,
        },
        "tool_calls": [
            {
                "tool_call_id": "a/1/tool/0",
                "function_name": "bash",
                "arguments": {},
                "extra": {"started": "2026-01-02T03:04:14.178000Z", "duration_s": 2.5},
            }
        ],
        "observation": {
            "results": [
                {"source_call_id": "a/1/tool/0", "content": "", "extra": {"observation_tokens": 10}}
            ]
        },
    }


def test_a_trajectory_sums_up_its_program(export: Export, tmp_path: Path) -> None:
    text, account = export("atif", write_small_run(tmp_path / "run"))
    b, a = lines(text)
    del a["steps"]
    assert a == {
        "schema_version": "ATIF-v1.8",
        "session_id": "a",
        "trajectory_id": "a",
        "agent": {"name": "thunderbench", "version": thunderbench_version(), "model_name": "unknown"},
        "final_metrics": {
            "total_prompt_tokens": 3000,
            "total_completion_tokens": 84,
            "total_cached_tokens": 1008,
            "total_steps": 3,
        },
        "extra": {
            "task_id": "t",
            "arrived": "2026-01-02T03:04:06.678000Z",
            "finished": "2026-01-02T03:04:20.178000Z",
            "ended_at": "finished",
            "pauses": 0,
            "worst_wait_s": 0.0,
        },
    }
    assert (b["extra"]["ended_at"], b["extra"]["finished"]) == ("unfinished", None)
    assert account.kept == {"programs": 2, "calls": 4, "tool runs": 4}
    assert sorted(account.dropped.values()) == [1, 4]
    assert not +account.estimated


def test_trajectories_have_the_fields_of_the_format_and_steps_in_order(
    export: Export, real_run: Path
) -> None:
    for trajectory in lines(export("atif", real_run)[0]):
        assert not set(trajectory) - TRAJECTORY
        assert [step["step_id"] for step in trajectory["steps"]] == [
            *range(1, len(trajectory["steps"]) + 1)
        ]
        stamps = [step["timestamp"] for step in trajectory["steps"]]
        assert stamps == sorted(stamps)
        for step in trajectory["steps"]:
            assert not set(step) - STEP
            asked = [tool["tool_call_id"] for tool in step.get("tool_calls", ())]
            results = step.get("observation", {"results": ()})["results"]
            assert asked == [result["source_call_id"] for result in results]


def test_calls_side_by_side_are_said_to_follow_each_other(export: Export, tmp_path: Path) -> None:
    calls = [call(0.0, decode=2.0, call_id="1"), call(1.0, decode=2.0, call_id="2", position=1)]
    run = write_run(tmp_path / "run", programs=[program(calls_planned=2)], calls=calls)
    text, account = export("atif", run)
    assert [step["extra"]["call_id"] for step in lines(text)[0]["steps"]] == ["1", "2"]
    assert sorted(account.estimated.values()) == [1, 1]  # and the start of the run


def test_what_a_live_run_does_not_know_is_null_and_a_sum_needs_all_its_parts(
    export: Export, tmp_path: Path
) -> None:
    untold = {"cached_tokens": None, "queue_s": None, "replica": None}
    calls = [call(cached_tokens=5, call_id="p0/0"), call(1.0, call_id="p0/1")._replace(**untold)]
    run = write_run(tmp_path / "run", programs=[program(steps_done=2)], calls=calls)
    (found,) = lines(export("atif", run)[0])
    assert found["final_metrics"]["total_cached_tokens"] is None
    step = found["steps"][1]
    assert (step["metrics"]["cached_tokens"], step["extra"]["queue_s"], step["extra"]["replica"]) == (
        None,
        None,
        None,
    )

"""A gateway's decisions become rows: what the policy was told, and nothing else."""

from harness.live.ports import ReplicaMetrics
from harness.live.recording import Recorder
from harness.records import RunWriter, open_run
from schedulers.contract import (
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    FirstToken,
    Pause,
    ProgramArrived,
    ProgramFinished,
    ReplicaUp,
    Tick,
    ToolFinished,
    ToolStarted,
)


def recorded(folder, *facts, until_s=100.0, sample=None):
    with RunWriter(folder, spec_toml="", provenance={}) as writer:
        recorder = Recorder(writer)
        for now, event, *actions in facts:
            recorder.decide(now, event, actions)
        if sample is not None:
            recorder.sampled(*sample)
        recorder.close(until_s)
        writer.finish({})
    return open_run(folder)


def call(number, at, prompt, output, cached):
    names = "p", f"p/{number}"
    return [
        (at, CallArrived(*names, prompt)),
        (at + 1, CallDispatched(*names, "r0")),
        (at + 3, FirstToken(*names)),
        (at + 7, CallFinished(*names, prompt, output, cached)),
    ]


def test_a_calls_parts_sum_to_its_latency_and_the_next_one_is_to_find_its_context(tmp_path):
    run = recorded(
        tmp_path / "run",
        (0.0, ReplicaUp("r0", 10, 1)),
        (1.0, ProgramArrived("p", needs_sandbox=False)),
        *call(0, 2.0, 100, 10, 0),
        *call(1, 10.0, 150, 20, 80),
        (20.0, ToolStarted("p", "p/1", "bash")),
        (23.0, ToolFinished("p", "p/1", "bash", 9.0, 5)),
        (24.0, ToolFinished("p", "p/1", "edit", 0.5, 6)),
        (25.0, Tick(), Pause("p"), Pause("gone")),
        (30.0, ProgramFinished("p")),
        (31.0, ToolStarted("p", "p/1", "late")),
    )
    first, second = run.table("calls").to_pylist()
    assert [first[name] for name in ("hold_s", "prefill_s", "decode_s", "tool_s")] == [1.0, 2.0, 4.0, 0.0]
    assert [first[name] for name in ("scheduled_s", "queue_s", "preemptions", "late_s")] == [None] * 4
    times = [
        second[name] for name in ("arrived_s", "dispatched_s", "first_token_s", "finished_s", "ended_s")
    ]
    assert times == [10.0, 11.0, 13.0, 17.0, 17.0]
    assert [(row["known_tokens"], row["recomputed_tokens"]) for row in (first, second)] == [
        (0, 0),
        (110, 30),
    ]
    assert [(row["position"], row["replica"]) for row in (first, second)] == [(0, "r0"), (1, "r0")]
    (program,) = run.table("programs").to_pylist()
    assert program == {
        "program_id": "p",
        "position": 0,
        "task_id": None,
        "group_id": None,
        "arrived_s": 1.0,
        "first_call_s": 2.0,
        "finished_s": 30.0,
        "calls_planned": 2,
        "steps_done": 2,
        "prompt_tokens": 250,
        "cached_tokens": 80,
        "output_tokens": 30,
        "recomputed_tokens": 30,
        "pauses": 1,
        "worst_wait_s": 3.0,
        "ended_at": "finished",
    }
    tools = [(row["tool"], row["started_s"], row["finished_s"]) for row in run.table("tools").to_pylist()]
    assert tools == [("bash", 20.0, 23.0), ("edit", 23.5, 24.0)]


def test_what_a_server_does_not_tell_is_null_and_what_did_not_end_says_so(tmp_path):
    run = recorded(
        tmp_path / "run",
        (0.0, ProgramArrived("p", needs_sandbox=False)),
        *call(0, 2.0, 100, 10, None),
        *call(1, 10.0, 90, 20, 80),
        (20.0, CallArrived("p", "p/2", 7)),
        (21.0, CallFailed("p", "p/2", "HTTP 500")),
        (40.0, CallArrived("p", "p/3", 7)),
        until_s=100.0,
    )
    (program,) = run.table("programs").to_pylist()
    assert (program["cached_tokens"], program["recomputed_tokens"]) == (None, None)
    assert (program["ended_at"], program["finished_s"], program["worst_wait_s"]) == (
        "unfinished",
        None,
        60.0,
    )
    assert (program["calls_planned"], program["steps_done"]) == (4, 2)
    assert [row["known_tokens"] for row in run.table("calls").to_pylist()] == [0, 90]


def test_a_sample_is_what_the_replica_says(tmp_path):
    class Driver:
        now, held = 5.0, 2
        programs = {"p": None}  # noqa: RUF012 - a stand-in's

    metrics = ReplicaMetrics(running=3, kv_usage_share=0.5, kv_tokens=100, hits_total=7)
    run = recorded(tmp_path / "run", sample=(Driver, "r0", metrics))
    (row,) = run.table("samples").to_pylist()
    told = {name: value for name, value in row.items() if value not in (None, 0)}
    assert told == {
        "time_s": 5.0,
        "replica": "r0",
        "running": 3,
        "held": 2,
        "used_tokens": 50,
        "capacity_tokens": 100,
        "hits_total": 7,
        "programs_live": 1,
    }

"""A live run over real loopback sockets: agents, our gateway or somebody else's, servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import EngineFailed, SetupError
from harness.live.compose import LiveWired, compose_live
from harness.live.replay.client import SESSION_HEADERS
from harness.metrics import summarise
from harness.records import open_run
from harness.replay import replay
from harness.resolve import resolve
from harness.settings import read_spec
from harness.spec import RunSpec
from tests.harness.live.model_server import ModelServer


def study(urls: list[str], scheduler: str = "thunder", sets: tuple[str, ...] = (), **flags: Any) -> RunSpec:
    given = {
        "workload": "tests.harness.live.small:Small",
        "schedulers": scheduler,
        "backend": urls,
        "concurrency": "3",
        "duration_s": "inf",
        "warmup_s": "0",
        **flags,
    }
    return resolve(read_spec(given, sets=sets, environment={}))


def play(spec: RunSpec, folder: Path, **environment: str) -> LiveWired:
    wired = compose_live(spec, spec.runs()[0], folder, {"thunderbench_version": "0"}, None, environment)
    with wired.recorder as recorder:
        wired.run.run()
        summary = summarise(recorder.tables(), (0.0, wired.run.end_s))
        recorder.finish({**summary, "client": wired.run.client, "servers": wired.run.servers})
    return wired


@pytest.fixture
def servers() -> Iterator[tuple[ModelServer, ModelServer, list[str]]]:
    first, second = ModelServer(), ModelServer()
    with first.serving() as one, second.serving() as two:
        yield first, second, [one, two]


def test_a_scheduler_of_ours_before_two_servers(
    servers: tuple[ModelServer, ModelServer, list[str]], tmp_path: Path
) -> None:
    first, second, urls = servers
    play(study(urls), tmp_path / "run")
    run = open_run(tmp_path / "run")
    calls, programs = run.table("calls").to_pylist(), run.table("programs").to_pylist()
    assert [row["ended_at"] for row in programs] == ["finished"] * 6
    assert len(calls) == 18
    assert {row["replica"] for row in calls} == {"r0", "r1"}
    asked = [body for server in (first, second) for body in server.bodies if "program_id" in body]
    assert len(asked) == 18
    assert all("thunderbench" not in body for body in asked)  # that is between agents and our gateway
    for row in calls:
        parts = [row[f"{part}_s"] for part in ("hold", "prefill", "decode", "sandbox", "tool")]
        assert min(parts) >= 0.0
        assert sum(parts) == pytest.approx(row["ended_s"] - row["arrived_s"])
        assert row["late_s"] >= 0.0
    hits = sum(row["cached_tokens"] for row in calls)
    assert hits > 0
    last = {row["replica"]: row for row in run.table("samples").to_pylist()}
    assert sum(row["hits_total"] for row in last.values()) == hits
    assert sum(row["queries_total"] for row in last.values()) == sum(row["prompt_tokens"] for row in calls)
    assert run.summary["client"]["outputs_carried"] is True
    assert run.summary["client"]["failed_calls"] == 0
    assert run.summary["servers"]["model"] == "tiny"
    assert [cold["verified"] for cold in run.summary["servers"]["cold"]] == [True, True]
    assert run.provenance["simulated"] is False
    assert [row["leaked"] for row in run.table("sandboxes").to_pylist()] == [False] * 6


def test_its_decisions_are_replayed_exactly(
    servers: tuple[ModelServer, ModelServer, list[str]], tmp_path: Path
) -> None:
    play(study(servers[2], "thunder"), tmp_path / "run")
    assert replay(tmp_path / "run").events > 60


def test_somebody_elses_gateway_is_played_by_the_same_agents_and_told_who_calls(tmp_path: Path) -> None:
    """The gateway here is a server with the route to release programs; its server's counters are read."""
    gateway = ModelServer(routes_release=True)
    with gateway.serving() as url:
        play(study([url, f"external:{url}"], f"external:{url}"), tmp_path / "run", OPENAI_API_KEY="k")
    run = open_run(tmp_path / "run")
    calls = run.table("calls").to_pylist()
    assert len(calls) == 18
    assert {(row["replica"], row["hold_s"], row["dispatched_s"]) for row in calls} == {(None, None, None)}
    assert sorted(gateway.released) == [f"p{i}" for i in range(6)]
    asked = [
        (body["program_id"], headers)
        for body, headers in zip(gateway.bodies, gateway.headers, strict=True)
        if "program_id" in body
    ]
    assert len(asked) == 18
    for program_id, headers in asked:
        assert {headers[name] for name in SESSION_HEADERS} == {program_id}
        assert headers["Authorization"] == "Bearer k"
    assert list(run.decisions()) == []
    assert run.table("samples").num_rows >= 2
    assert "Bearer" not in json.dumps(run.provenance) + json.dumps(run.spec)


def test_programs_that_the_end_of_a_run_cuts_are_released_at_somebody_elses_gateway(tmp_path: Path) -> None:
    """It goes on, and would keep memory for them in the next run."""
    gateway = ModelServer(routes_release=True)
    with gateway.serving() as url:
        play(study([url], f"external:{url}", duration_s="0.3", sample_every_s="1"), tmp_path / "run")
    programs = open_run(tmp_path / "run").table("programs").to_pylist()
    assert any(row["ended_at"] == "unfinished" for row in programs)
    assert sorted(gateway.released) == sorted(row["program_id"] for row in programs)


def test_both_arms_send_the_same_prompts(tmp_path: Path) -> None:
    prompts = []
    for scheduler in ("vllm", "external"):
        server = ModelServer(routes_release=True)
        with server.serving() as url:
            name = f"external:{url}" if scheduler == "external" else scheduler
            play(study([url, f"external:{url}"], name, concurrency="1"), tmp_path / scheduler)
        prompts.append([body["prompt"] for body in server.bodies if "program_id" in body])
    assert prompts[0] == prompts[1]


def test_tools_that_are_commands_take_what_their_commands_take(
    servers: tuple[ModelServer, ModelServer, list[str]], tmp_path: Path
) -> None:
    """Recorded with other times, each of these waits for 50 ms, in a folder that is gone in the end."""
    log = tmp_path / "log"
    command = f'echo "$PROGRAM_ID $TOOL" >> {log}; pwd >> {log}; sleep 0.05; test "$PROGRAM_ID" != p0'
    wired = play(study(servers[2], sets=(f"live.tool_command={json.dumps(command)}",)), tmp_path / "run")
    run = open_run(tmp_path / "run")
    calls, tools = run.table("calls").to_pylist(), run.table("tools").to_pylist()
    assert all(row["finished_s"] - row["started_s"] >= 0.05 for row in tools)
    assert sum(row["tool_s"] > 0 for row in calls) == len({row["call_id"] for row in tools})
    failed = sum(row["program_id"] == "p0" for row in tools)
    assert wired.run.client["tool_commands"] == {"done": len(tools) - failed, "failed": failed}
    told, folders = (log.read_text().splitlines()[k::2] for k in (0, 1))
    assert sorted(told) == sorted(f"{row['program_id']} {row['tool']}" for row in tools)
    assert not [folder for folder in folders if Path(folder).exists()]
    replay(tmp_path / "run")


def test_chat_is_calibrated_on_the_server(tmp_path: Path) -> None:
    server = ModelServer()
    with server.serving() as url:
        play(study([url], "vllm", ("live.api=chat",)), tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.summary["servers"]["chat"]["per_word"] == 5.0
    first = [row for row in run.table("calls").to_pylist() if row["position"] == 0]
    assert {abs(row["prompt_tokens"] - 40) <= 5 for row in first} == {True}


def test_a_policy_that_needs_what_servers_do_not_offer_is_refused_with_the_command(
    servers: tuple[ModelServer, ModelServer, list[str]], tmp_path: Path
) -> None:
    with pytest.raises(SetupError) as refused:
        play(study(servers[2], "continuum"), tmp_path / "run")
    assert "needs `pin`" in refused.value.found
    assert "--scheduler-cls" in refused.value.fix
    assert not (tmp_path / "run").exists()


def test_hooks_of_some_servers_only_are_refused(
    servers: tuple[ModelServer, ModelServer, list[str]], tmp_path: Path
) -> None:
    one, two = servers[2]
    with pytest.raises(SetupError, match="engine hooks of 1 of 2 servers"):
        play(study([f"{one}#hooks=unix:/nowhere.sock", two]), tmp_path / "run")


def test_a_server_that_does_not_answer_ends_the_run(tmp_path: Path) -> None:
    with ModelServer().serving() as url:
        pass
    with pytest.raises(EngineFailed, match="does not answer"):
        play(study([url]), tmp_path / "run")
    assert not (tmp_path / "run").exists()

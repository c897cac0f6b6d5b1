from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from harness.commands.run import explain
from harness.records import open_run
from harness.runner import Study
from harness.settings import validated
from harness.worker import Failed
from tests.harness.commands.conftest import Invoke

SMALL = ("run", "--duration", "5m", "--warmup", "1m", "--concurrency", "2")


def test_a_study_ends_with_a_verdict_and_its_place(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(*SMALL, "-o", tmp_path / "study")
    assert result.exit_code == 0
    assert "2 programs at a time, simulated" in result.stdout
    assert result.stdout.endswith(f"\nResults: {tmp_path / 'study'}\n")
    assert "thunder-c2-s0: started\n" in result.stderr
    assert result.stderr.endswith("(3 of 3 runs)\n")


def test_json_alone_stands_on_stdout_and_nothing_on_stderr(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(*SMALL, "-o", tmp_path / "study", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    summary = json.loads(result.stdout)
    assert summary.pop("folder") == str(tmp_path / "study")
    assert summary == json.loads((tmp_path / "study" / "summary.json").read_text())


def test_quiet_prints_the_verdict_only(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke(*SMALL, "-o", tmp_path / "study", "-q")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Results:" not in result.stdout


def test_dry_run_prints_settings_and_runs_and_writes_nothing(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = invoke("run", "--dry-run", "--concurrency", "24,96", "-o", "study")
    assert result.exit_code == 0
    spec = validated(tomllib.loads(result.stdout))
    assert spec.kv_tokens is not None
    runs = [key.name for key in spec.runs()]
    assert len(runs) == 6
    assert result.stdout.splitlines()[-7:] == [
        "# 6 runs into study, in this order:",
        *(f"#   {name}" for name in runs),
    ]
    as_json = json.loads(
        invoke("run", "--dry-run", "--concurrency", "24,96", "-o", "study", "--json").stdout
    )
    assert as_json["runs"] == runs
    assert as_json["spec"]["kv_tokens"] == spec.kv_tokens
    assert list(tmp_path.iterdir()) == []


def test_a_study_that_measured_nothing_ends_with_5(invoke: Invoke, tmp_path: Path) -> None:
    flags = ("--duration", "1s", "--warmup", "0", "--concurrency", "2", "--scheduler", "vllm")
    result = invoke("run", *flags, "-o", tmp_path / "study")
    assert result.exit_code == 5
    assert "INVALID: vllm-c2-s0: too few steps: 0 ended in the window, at least 130" in result.stdout


def test_the_environment_gives_settings(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THUNDERBENCH_CONCURRENCY", "24,48")
    monkeypatch.setenv("THUNDERBENCH_SCHEDULERS", "vllm")
    monkeypatch.setenv("THUNDERBENCH_REFERENCE", "false")
    monkeypatch.setenv("THUNDERBENCH_ROUTER", "session")
    found = json.loads(invoke("run", "--dry-run", "--json").stdout)
    assert found["runs"] == ["vllm-c24-s0", "vllm-c48-s0"]
    assert found["spec"]["overrides"]["scheduler"] == {"vllm": {"router": "session"}}


def planned(invoke: Invoke, *flags: str) -> dict[str, Any]:
    result = invoke("run", "--dry-run", "--json", *flags)
    assert result.exit_code == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_the_reference_arm_runs_unless_it_is_not_wanted(invoke: Invoke) -> None:
    assert planned(invoke)["runs"] == ["thunder-c96-s0", "vllm-c96-s0", "unlimited-c96-s0"]
    assert planned(invoke, "--no-reference")["runs"] == ["thunder-c96-s0", "vllm-c96-s0"]
    asked = planned(invoke, "--scheduler", "unlimited", "--scheduler", "vllm")["runs"]
    assert asked == ["unlimited-c96-s0", "vllm-c96-s0"]


def test_clients_may_be_told_not_to_release(invoke: Invoke) -> None:
    assert planned(invoke)["spec"]["release"] is True
    assert planned(invoke, "--no-release")["spec"]["release"] is False


def test_real_servers_are_planned_without_asking_them(invoke: Invoke) -> None:
    flags = ("--backend", "http://gpu1:8000", "--backend", "external:http://gw:9000", "--api", "chat")
    found = planned(invoke, *flags, "--scheduler", "vllm", "--start-spread", "30s", "--router", "session")
    assert found["runs"] == ["vllm-c96-s0", "external_gw_9000-c96-s0"]
    assert (found["spec"]["backend"], found["spec"]["start_spread_s"]) == ("servers", 30.0)
    assert (found["spec"]["live"]["urls"], found["spec"]["live"]["api"]) == (["http://gpu1:8000"], "chat")
    assert found["spec"]["overrides"]["scheduler"] == {"vllm": {"router": "session"}}
    assert {"model", "hardware", "engine", "efficiency"}.isdisjoint(found["spec"])
    assert planned(invoke, "--backend", "external:http://gw:9000")["runs"] == ["external_gw_9000-c96-s0"]


def test_a_profile_stands_for_a_server(invoke: Invoke, tmp_path: Path) -> None:
    step = planned(invoke)["spec"]["step_time"]
    table = "".join(f"{name} = {value}\n" for name, value in step.items() if value is not None)
    file = tmp_path / "tiny.toml"
    file.write_text(f'model = "Tiny"\nhardware = "2 cores"\nkv_tokens = 200000\n[step_time]\n{table}')
    found = planned(invoke, "--profile", str(file), "--backend", "sim")["spec"]
    assert (found["backend"], found["model"], found["kv_tokens"]) == ("virtual", "Tiny", 200_000)
    assert found["step_time"] == step
    result = invoke("run", "--dry-run", "--profile", file, "--backend", "http://gpu1:8000")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "step_time with the backend servers, which simulates nothing" in result.stderr


def test_a_start_spread_delays_the_first_programs(invoke: Invoke, tmp_path: Path) -> None:
    flags = ("--scheduler", "vllm", "--no-reference", "-q", "--start-spread", "60s")
    assert invoke(*SMALL, *flags, "-o", tmp_path / "study").exit_code == 0
    table = open_run(tmp_path / "study" / "vllm-c2-s0").table("programs")
    assert sorted(table["arrived_s"].to_pylist())[:2] == [0.0, 30.0]


def test_a_router_is_given_to_every_scheduler_that_has_one(invoke: Invoke) -> None:
    """The others keep their own placement, and that is said; what --set says of one scheduler wins."""
    schedulers = ("vllm", "thunder", "continuum", "cap:8")
    names = [part for name in schedulers for part in ("--scheduler", name)]
    one = ("--set", "scheduler.cap:8.router=round-robin")
    result = invoke("run", "--dry-run", "--json", *names, "--router", "cache_aware", *one)
    of = json.loads(result.stdout)["spec"]["overrides"]["scheduler"]
    assert {name: of[name].get("router") for name in schedulers} == {
        "vllm": "cache_aware",
        "thunder": None,
        "continuum": "cache_aware",
        "cap:8": "round-robin",
    }
    assert result.stderr == "thunderbench: no parameter `router`, so thunder keeps its own placement\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            ("--scheduler", "thunder", "--router", "session"),
            "--router session, and no parameter `router` of thunder; expected a scheduler that has one.",
        ),
        (
            ("--scheduler", "vllm", "--router", "nearest"),
            "vllm.router = 'nearest'; expected one of least-loaded",
        ),
        (("--scheduler", "cap:8", "--set", "scheduler.cap:8.limit=9"), "cap:8.limit = 9; expected 8"),
    ],
)
def test_what_no_scheduler_can_take_is_one_line(invoke: Invoke, flags: tuple[str, ...], said: str) -> None:
    result = invoke("run", "--dry-run", *flags)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"thunderbench: error: {said}")


def test_a_run_that_stalls_without_releases_is_an_outcome(invoke: Invoke, tmp_path: Path) -> None:
    """The place of a program that is over is kept for as long as its limit says: here, for ever."""
    flags = (
        "--scheduler",
        "cap:1",
        "--no-release",
        "--no-reference",
        "--set",
        "scheduler.cap:1.idle_s=1e9",
    )
    times = ("--concurrency", "2", "--duration", "24h", "--warmup", "0")
    result = invoke("run", *flags, *times, "-q", "-o", tmp_path / "study")
    assert result.exit_code == 4
    assert "h of virtual time with 2 calls held at the gateway" in result.stderr
    assert not (tmp_path / "study").exists()


def test_resume_takes_no_other_place(invoke: Invoke, study: Path) -> None:
    result = invoke("run", "--resume", study, "-o", "elsewhere")
    assert result.exit_code == 2
    assert "--resume FOLDER alone" in result.stderr


def test_resume_of_a_finished_study_shows_it_again(invoke: Invoke, study: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.glob("*/*")}
    result = invoke("run", "--resume", study)
    assert (result.exit_code, result.stderr) == (0, "")
    assert {path: path.stat().st_mtime_ns for path in study.glob("*/*")} == before


def test_resume_refuses_other_settings(invoke: Invoke, study: Path) -> None:
    result = invoke("run", "--resume", study, "--seed", "5")
    assert result.exit_code == 2
    assert "seed is 5, was 0" in result.stderr


def test_open_loop_and_given_times(invoke: Invoke, tmp_path: Path) -> None:
    flags = ("run", "--duration", "5m", "--warmup", "0", "--scheduler", "vllm", "-q")
    assert invoke(*flags, "--request-rate", "0.05", "-o", tmp_path / "rate").exit_code == 0
    assert (tmp_path / "rate" / "vllm-r0.05-s0" / "DONE").exists()
    assert invoke(*flags, "--arrival-times", "0,1.5", "-o", tmp_path / "times").exit_code == 0
    assert (tmp_path / "times" / "vllm-a2-s0" / "DONE").exists()


def test_a_bug_of_ours_hides_behind_no_other_failure_and_shows_its_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = {
        "a": Failed("the set-up", 2),
        "b": Failed("KeyError: 'x'", 1, "Traceback: b"),
        "c": Failed("engine gone", 4, "Traceback: c"),
    }
    study = Study(tmp_path, None, failed, None)
    assert explain(study, 3, verbose=False) == 1
    said = capsys.readouterr().err
    assert "Traceback: b" in said
    assert "Traceback: c" not in said
    for codes, code in (({2}, 2), ({2, 4}, 4), ({4}, 4)):
        some = {str(each): Failed("why", each) for each in codes}
        assert explain(Study(tmp_path, None, some, None), 3, verbose=True) == code

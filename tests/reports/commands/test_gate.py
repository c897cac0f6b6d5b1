"""The gate from end to end, on real virtual runs: one that passes, one that fails, every other way out."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner

from harness.cli import cli

# More programs than the KV cache holds, so the scheduler matters.
SETTINGS = (
    *("--scheduler", "thunder", "--concurrency", "96", "--duration", "5m", "--warmup", "3m"),
    *("--repeats", "3", "--quiet"),
)


def invoke(*args, env=None):
    return CliRunner().invoke(cli, [str(arg) for arg in args], env=env or {"GITHUB_STEP_SUMMARY": ""})


def study(folder, *changes, exit_code=0):
    result = invoke("run", *SETTINGS, *changes, "-o", folder)
    assert result.exit_code == exit_code, result.stderr
    return folder


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A study, its baseline, the same study again, and one whose scheduler decays five times as fast."""
    place = tmp_path_factory.mktemp("gate")
    study(place / "before")
    study(place / "again")
    study(place / "worse", "--set", "scheduler.thunder.decay_unit_s=1")
    result = invoke("baseline", "save", place / "before", "-o", place / "baselines" / "main.parquet")
    assert result.exit_code == 0, result.stderr
    return place


def gate(places, results, *args, env=None):
    baseline = places / "baselines" / "main.parquet"
    return invoke("gate", places / results, "--baseline", baseline, *args, env=env)


def test_the_same_code_and_seeds_pass(places, tmp_path):
    result = gate(places, "again", "--strict", "-o", tmp_path)
    assert result.exit_code == 0, result.stdout + result.stderr
    first, *_ = result.stdout.splitlines()
    assert first == "Fails on throughput<-5%, kv_hit_rate<-0.02, ttft_p95>+10% (default); simulated"
    assert "+0.0% [+0.0%, +0.0%]" in result.stdout
    assert result.stdout.endswith(f"gate: pass (3 pass)\nFiles: {tmp_path}\n")
    checks = json.loads((tmp_path / "verdict.json").read_text())["checks"]
    assert [check["effect"]["word"] for check in checks] == ["equivalent"] * 3


def test_a_worse_scheduler_fails(places, tmp_path):
    result = gate(places, "worse", "-o", tmp_path, "--fail-on", "kv_hit_rate<-5%")
    assert result.exit_code == 6, result.stdout + result.stderr
    assert "REGRESSION    kv_hit_rate<-5%" in result.stdout
    suites = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 - our own output
    assert suites.get("failures") == "1"


def test_a_folder_serves_as_a_baseline(places, tmp_path):
    result = invoke("gate", places / "worse", "--baseline", places / "before", "-o", tmp_path, "--json")
    assert result.exit_code == 6
    verdict = json.loads(result.stdout)
    assert (verdict["outcome"], verdict["exit_code"], verdict["folder"]) == ("regression", 6, str(tmp_path))


def test_without_a_place_the_files_go_into_the_study(places):
    before = {path.name for path in (places / "worse").iterdir()}
    gate(places, "worse")
    assert {path.name for path in (places / "worse").iterdir()} - before <= {"gate"}
    assert (places / "worse" / "gate" / "verdict.json").exists()
    assert gate(places, "worse").exit_code == 6  # which is still a study


def test_a_single_run_has_them_beside_it_and_is_inconclusive(places):
    run = "again/thunder-c96-s0"
    result = gate(places, run)
    assert (result.exit_code, result.stdout.splitlines()[-2]) == (0, "gate: inconclusive (3 inconclusive)")
    assert "1 repeat, so the noise is unknown" in result.stdout
    assert (places / f"{run}-gate" / "summary.md").exists()
    assert gate(places, run, "--strict").exit_code == 7


def test_the_summary_is_added_to_that_of_the_job(places, tmp_path):
    summary = tmp_path / "step.md"
    summary.write_text("before\n")
    for _ in range(2):
        gate(places, "again", "-o", tmp_path / "out", env={"GITHUB_STEP_SUMMARY": str(summary)})
    own = (tmp_path / "out" / "summary.md").read_text()
    assert summary.read_text() == f"before\n{own}\n{own}\n"


def test_a_summary_that_cannot_be_written_changes_nothing(places, tmp_path):
    result = gate(places, "again", "-o", tmp_path / "out", env={"GITHUB_STEP_SUMMARY": str(tmp_path)})
    assert result.exit_code == 0
    assert "no job summary in GITHUB_STEP_SUMMARY" in result.stderr


@pytest.mark.parametrize(
    ("args", "complaint"),
    [
        (("--fail-on", "throughput-5%"), "--fail-on 'throughput-5%'; expected METRIC"),
        (("--scheduler", "vllm"), "no scheduler vllm in the results; expected one of thunder"),
        (("--baseline", "nowhere.parquet"), "no run in nowhere.parquet"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(places, args, complaint):
    result = gate(places, "again", *args)
    assert result.exit_code == 2
    assert complaint in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_without_a_baseline_is_exit_2(places):
    assert invoke("gate", places / "again").exit_code == 2


def test_other_settings_need_force(places, tmp_path):
    other = study(tmp_path / "other", "--repeats", "1", "--duration", "4m")
    refused = gate(places, other)
    assert refused.exit_code == 2
    assert "results and baseline differ in duration_s: 240.0 in results" in refused.stderr
    forced = gate(places, other, "--force")
    assert forced.exit_code == 0
    assert "compared by --force although they differ in duration_s" in forced.stdout


@pytest.fixture(scope="module")
def invalid(tmp_path_factory):
    """A study of two programs for a minute: too few steps."""
    folder = tmp_path_factory.mktemp("invalid") / "tiny"
    return study(folder, "--duration", "1m", "--concurrency", "2", "--repeats", "2", exit_code=5)


def test_invalid_runs_are_refused_with_exit_5(invalid):
    result = invoke("gate", invalid, "--baseline", invalid)
    assert (result.exit_code, result.stdout) == (5, "")
    assert "INVALID runs are no measure of anything: thunder-c2-s0: too few steps" in result.stderr


def test_invalid_runs_make_no_baseline_unless_told(invalid, tmp_path):
    file = tmp_path / "main.parquet"
    refused = invoke("baseline", "save", invalid, "-o", file)
    assert (refused.exit_code, file.exists()) == (5, False)
    assert invoke("baseline", "save", invalid, "-o", file, "--allow-invalid").exit_code == 0
    shown = invoke("baseline", "show", file)
    assert shown.stdout.count("INVALID: too few steps") == 2
    assert invoke("gate", invalid, "--baseline", file).exit_code == 5


def test_a_baseline_is_saved_under_the_name_of_its_study(places, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = invoke("baseline", "save", places / "before")
    file = Path("results/baselines/before.parquet")
    assert result.stdout == f"Baseline: {file} (3 runs, {file.stat().st_size / 1000:.0f} kB)\n"
    told = json.loads(invoke("baseline", "save", places / "before", "--json").stdout)
    assert told == {"baseline": str(file), "runs": 3, "bytes": file.stat().st_size}


def test_a_baseline_is_shown_run_by_run(places):
    file = places / "baselines" / "main.parquet"
    lines = invoke("baseline", "show", file).stdout.splitlines()
    assert lines[0].split() == ["scheduler", "load", "seed", "steps/min", "KV", "hits", "TTFT", "p95", "s"]
    assert lines[1].startswith("thunder              96 programs at a time           0")
    assert any(line.startswith("git_commit") for line in lines)
    runs = json.loads(invoke("baseline", "show", file, "--json").stdout)
    assert [run["seed"] for run in runs] == [0, 1, 2]
    assert invoke("baseline", "show", places / "before").stdout.splitlines() == lines

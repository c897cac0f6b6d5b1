"""`thunderbench compare`, as a user types it."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from harness.cli import cli
from tests.reports.test_compare import AFTER, BEFORE, repeats, saved, summary_of


def invoke(*args):
    return CliRunner().invoke(cli, ["compare", *map(str, args)])


@pytest.fixture
def study(tmp_path):
    return saved(tmp_path, "study", *repeats("thunder", *AFTER), *repeats("vllm", *BEFORE))


def test_a_comparison_is_printed(study):
    result = invoke(study)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "How much work gets done? (simulated)" in result.stdout
    assert "improved" in result.stdout


def test_json_alone_stands_on_stdout(study):
    result = invoke(study, "--json", "--baseline", "thunder")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["baseline"], found["by"]) == (0, "thunder", "scheduler")


def test_the_same_results_are_compared_in_the_same_words(study):
    assert invoke(study, "--json").stdout == invoke(study, "--json").stdout


def test_differences_are_named_one_by_line_and_then_refused(tmp_path):
    mine = repeats("thunder", *AFTER, spec={"model": "Qwen3-8B", "hardware": "1xH100"})
    study = saved(tmp_path, "s", *mine, *repeats("vllm", *BEFORE))
    result = invoke(study)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in lines[:2]] == ["hardware", "model"]
    assert lines[2].startswith(
        "thunderbench: error: the runs differ in 2 settings besides the scheduler; expected"
    )
    assert lines[2].endswith("Compare them nevertheless with --force.")
    assert len(lines) == 3
    forced = invoke(study, "--force")
    assert forced.exit_code == 0
    assert "FORCED: model: Qwen3-8B" in forced.stdout


def test_without_a_valid_run_there_is_nothing_to_compare(tmp_path):
    bad = [summary_of(name, invalid=("too few steps",)) for name in ("thunder", "vllm")]
    result = invoke(saved(tmp_path, "s", *bad))
    assert result.exit_code == 5
    assert "INVALID: s/thunder-c96-s0: too few steps" in result.stdout


def test_runs_that_measured_nothing_are_bad_input(tmp_path):
    nothing = {"throughput": {"steps": 0}}
    empty = [replace(summary_of(name), summary=nothing) for name in ("thunder", "vllm")]
    result = invoke(saved(tmp_path, "s", *empty))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "thunderbench: error: no step ended in the measured window of thunder-c96-s0 and 1 more; "
        "expected runs that measured something. Run longer.\n"
    )


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["absent"], "no run in absent; expected the results folder of a run or of a study"),
        (["empty"], "empty; expected the results folder of a run or of a study"),
        (["text"], "text"),
        ([], "Missing argument 'RESULTS...'."),
    ],
)
def test_bad_input_is_one_line_and_exit_2(tmp_path, monkeypatch, args, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text").write_text("no results")
    (tmp_path / "empty").mkdir()
    result = invoke(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert line in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_one_scheduler_only_is_refused(tmp_path):
    result = invoke(saved(tmp_path, "s", *repeats("vllm", *BEFORE)))
    assert result.exit_code == 2
    assert "only vllm is there, and nothing to compare it with" in result.stderr

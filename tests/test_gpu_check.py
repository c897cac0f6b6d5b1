"""scripts/gpu-check.sh with an interpreter that notes what it is asked to do: steps, order, exit codes."""

import os
import subprocess
from pathlib import Path

import click
import pytest

from harness.cli import cli

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu-check.sh"
# `python -c 'from harness.cli ...' run ...` is noted and ends with $STATUS_run; a server never is.
SHIM = """#!/usr/bin/env bash
if [[ ${1-} == -c && $2 == *harness.cli* ]]; then
  shift 2
  printf '%s\\t' "$@" >>"$NOTES"
  echo >>"$NOTES"
  status=STATUS_$1
  [[ ${!status-} != hang ]] || exec tail -f /dev/null
  exit "${!status:-0}"
fi
cat >/dev/null
"""


@pytest.fixture
def check(tmp_path):
    """Runs the script; its result, and the calls of thunderbench it made."""
    python = tmp_path / "python"
    python.write_text(SHIM)
    python.chmod(0o755)
    out = tmp_path / "out"
    (out / "model").mkdir(parents=True)
    (out / "model" / "config.json").write_text("{}")
    notes = tmp_path / "notes"

    def run(*steps, **more):
        notes.write_text("")
        names = {"GPU_CHECK_OUT": out, "GPU_CHECK_PYTHON": python, "NOTES": notes, **more}
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GPU_CHECK_")}
        environment |= {name: str(value) for name, value in names.items()}
        command = [str(SCRIPT), *steps]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        calls = [line.rstrip("\t").split("\t") for line in notes.read_text().splitlines()]
        return done, calls

    run.out = out
    return run


def parsed(call):
    """The parameters of a call, read by the command itself."""
    name, *rest = call
    return cli.get_command(click.Context(cli), name).make_context(name, rest).params


def test_the_live_study_starts_servers_with_weights_that_are_made_up(check):
    done, (call,) = check("live")
    assert done.returncode == 0, done.stderr
    params = parsed(call)
    assert params["schedulers"] == ("thunder", "vllm", "continuum")
    assert params["backend"] == ("vllm",)
    assert f"live.model_path={check.out}/model" in params["sets"]
    assert "live.load_format=dummy" in params["sets"]


def test_the_prediction_plays_the_same_programs(check):
    (check.out / "profile.toml").touch()
    done, (live, predicted) = check("live", "predict")
    assert done.returncode == 0, done.stderr
    live, predicted = parsed(live), parsed(predicted)
    same = ("schedulers", "workload", "concurrency", "duration", "warmup")
    assert [live[name] for name in same] == [predicted[name] for name in same]
    assert predicted["backend"] == ("sim",)
    assert predicted["profile"] == check.out / "profile.toml"


def test_the_report_is_of_the_live_study_and_may_be_written_again(check):
    (check.out / "live").mkdir()
    (check.out / "predicted").mkdir()
    (check.out / "report.html").touch()
    done, (call,) = check("report")
    assert done.returncode == 0, done.stderr
    params = parsed(call)
    assert str(check.out / "live") in str(params)
    assert params["output"] == check.out / "report.html"


def test_on_a_cpu_everything_is_small(check):
    _, (call,) = check("live", GPU_CHECK_CPU="1", GPU_CHECK_SCHEDULERS="vllm", GPU_CHECK_SET="workload.x=1")
    params = parsed(call)
    assert (params["schedulers"], params["concurrency"]) == (("vllm",), "6")
    assert "live.server_args=--enforce-eager" in params["sets"]
    assert "workload.x=1" in params["sets"]


def test_a_study_that_does_not_count_is_told_at_the_end(check):
    (check.out / "profile.toml").touch()
    done, calls = check("live", "predict", STATUS_run="5")
    assert done.returncode == 5
    assert len(calls) == 2
    assert "live finished, but its runs are not valid" in done.stderr


def test_a_step_that_fails_ends_the_check_with_its_exit_code(check):
    (check.out / "profile.toml").touch()
    done, calls = check("live", "predict", STATUS_run="4")
    assert (done.returncode, len(calls)) == (4, 1)


def test_a_step_that_hangs_is_ended(check):
    done, _ = check("live", STATUS_run="hang", GPU_CHECK_STEP_S="0.3")
    assert done.returncode == 124
    assert "live did not end within 0.3 s" in done.stderr


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("predict", "run the step calibrate first"),
        ("report", "run the step live first"),
        ("calibrated", "no step calibrated; see the head of this script"),
    ],
)
def test_what_cannot_be_done_is_one_line_with_the_mend(check, step, words):
    done, calls = check(step)
    assert (done.returncode, calls) == (2, [])
    assert words in done.stderr


def test_without_an_interpreter_it_says_how_to_get_one(check, tmp_path):
    done, _ = check("live", GPU_CHECK_PYTHON=tmp_path / "absent")
    assert done.returncode == 2
    assert "set GPU_CHECK_PYTHON" in done.stderr


def test_where_results_come_from_is_written_down(check):
    check("live", GPU_CHECK_WORKLOAD="science")
    text = (check.out / "provenance.txt").read_text()
    assert "workload=science" in text
    assert "schedulers=thunder vllm continuum" in text

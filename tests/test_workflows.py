"""The workflows of this repository: valid, bounded, and calling commands that exist.

The schema is the one that check-jsonschema carries with it, so nothing is fetched.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import yaml

from harness.cli import cli

WORKFLOWS = sorted((Path(__file__).parent.parent / ".github" / "workflows").glob("*.yml"))


def read(file):
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def jobs(file):
    return read(file)["jobs"].values()


def named(name):
    return next(file for file in WORKFLOWS if file.stem == name)


def uploads(job):
    return [step for step in job["steps"] if step.get("uses", "").startswith("actions/upload-artifact@")]


def test_they_follow_the_schema():
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*checker, *map(str, WORKFLOWS)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_check_finds_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("name: x\non: push\njobs:\n  a:\n    runs_on: ubuntu-latest\n")
    checker = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*checker, str(wrong)], capture_output=True, text=True, check=False)
    assert done.returncode == 1


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_job_ends_and_may_only_read(file):
    assert read(file)["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 120 for job in jobs(file))


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_nothing_that_a_stranger_wrote_reaches_a_shell(file):
    """Titles, branch names and labels are inserted into scripts before the shell reads them."""
    scripts = [step.get("run", "") for job in jobs(file) for step in job["steps"]]
    assert not [script for script in scripts if "${{" in script]


@pytest.mark.parametrize("name", ["bench", "gpu"])
def test_results_are_uploaded_whatever_happens(name):
    for job in jobs(named(name)):
        (upload,) = uploads(job)
        assert upload is job["steps"][-1]
        assert "always()" in upload["if"]


def test_a_pull_request_is_gated_against_its_base():
    (job,) = jobs(named("bench"))
    base = [step for step in job["steps"] if "base.sha" in str(step.get("with"))]
    assert len(base) == 1
    scripts = " ".join(step.get("run", "") for step in job["steps"])
    assert "thunderbench gate results/head --baseline results/base" in scripts


def test_the_gpu_is_for_one_job_at_a_time_and_for_no_fork():
    file = named("gpu")
    (job,) = jobs(file)
    assert set(job["runs-on"]) == {"self-hosted", "linux", "x64", "gpu"}
    assert read(file)["concurrency"] == {"group": "gpu", "cancel-in-progress": False}
    assert "head.repo.full_name == github.repository" in job["if"]
    assert "HF_HOME" in read(file)["env"]


def commands():
    """Every call of thunderbench in a workflow, as (workflow, arguments)."""
    found = []
    for file in WORKFLOWS:
        content = read(file)
        for job in content["jobs"].values():
            for step in job["steps"]:
                script = step.get("run", "").replace("$STUDY", content.get("env", {}).get("STUDY", ""))
                found += [
                    pytest.param(shlex.split(line), id=f"{file.stem}: {line[:30]}")
                    for line in re.findall(r"\S*bin/thunderbench (.+)", script)
                ]
    return found


@pytest.mark.parametrize("args", commands())
def test_commands_and_options_exist(args):
    """Parsed by the command itself, which is not run."""
    name, *rest = args
    command = cli.get_command(click.Context(cli), name)
    context = command.make_context(name, rest)
    assert not context.args

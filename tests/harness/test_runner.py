from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from harness.errors import EngineFailed, SetupError
from harness.live.study import Reached
from harness.progress import Silent
from harness.resolve import resolve
from harness.runner import Study, new_folder, resumed_spec, run_study, summary_of
from harness.settings import load_spec, read_spec
from harness.spec import RunSpec
from harness.virtual.offers import ENDLESS_TOKENS
from harness.worker import Failed


def spec_of(file: Path | None = None, **flags: Any) -> RunSpec:
    return resolve(read_spec(flags, file=file, environment={}))


def small(**flags: Any) -> RunSpec:
    return spec_of(**{"duration_s": "5m", "warmup_s": "1m", "concurrency": "2", **flags})


def play(spec: RunSpec, folder: Path) -> Study:
    return run_study(spec, folder, jobs=2, view=Silent(), provenance={"thunderbench_version": "0"})


def written(folder: Path) -> dict[str, int]:
    """When each run was completed, in nanoseconds."""
    return {done.parent.name: done.stat().st_mtime_ns for done in folder.glob("*/DONE")}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies") / "study"
    assert play(small(repeats="2"), folder).summary is not None
    return folder


def test_a_study_holds_its_spec_its_runs_and_their_comparison(finished: Path) -> None:
    first = ["thunder-c2-s0", "vllm-c2-s0", "unlimited-c2-s0"]
    names = [*first, "vllm-c2-s1", "thunder-c2-s1", "unlimited-c2-s1"]
    assert sorted(path.name for path in finished.iterdir()) == sorted(["spec.toml", "summary.json", *names])
    summary = json.loads((finished / "summary.json").read_text())
    assert summary == summary_of(finished, names)
    assert summary["order"] == names
    assert summary["invalid"] == []
    plans = {n: json.loads((finished / n / "provenance.json").read_text())["plan_hash"] for n in names}
    assert plans["thunder-c2-s0"] == plans["vllm-c2-s0"] != plans["vllm-c2-s1"] == plans["thunder-c2-s1"]
    assert plans["unlimited-c2-s0"] == plans["vllm-c2-s0"]


def test_the_reference_arm_is_a_bound_and_no_arm(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    (load,) = summary["verdict"]["loads"]
    assert [row["scheduler"] for row in load["schedulers"]] == ["thunder", "vllm"]
    steps = {name: run["throughput"]["steps_per_min"] for name, run in summary["runs"].items()}
    for row in load["schedulers"]:
        shares = [steps[f"{row['scheduler']}-c2-s{k}"] / steps[f"unlimited-c2-s{k}"] for k in (0, 1)]
        assert row["of_bound_share"] == pytest.approx(sum(shares) / 2)
    spec = load_spec(finished / "unlimited-c2-s0" / "spec.toml")
    assert (spec.schedulers, spec.reference) == (("unlimited",), True)
    options = json.loads((finished / "unlimited-c2-s0" / "provenance.json").read_text())["options"]
    assert options["kv_tokens"] == ENDLESS_TOKENS


def test_the_same_spec_gives_the_same_numbers(finished: Path, tmp_path: Path) -> None:
    again = play(spec_of(finished / "spec.toml"), tmp_path / "again")
    assert again.summary == json.loads((finished / "summary.json").read_text())


def test_resume_does_only_what_is_missing(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    shutil.copytree(finished, folder)
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "vllm-c2-s1")
    (folder / "thunder-c2-s1" / "DONE").unlink()
    kept = written(folder)
    study = play(resumed_spec(folder, spec_of), folder)
    assert study.summary == json.loads((finished / "summary.json").read_text())
    after = written(folder)
    assert {name: after[name] for name in kept} == kept
    assert set(after) - set(kept) == {"vllm-c2-s1", "thunder-c2-s1"}


def test_resume_names_every_difference_and_the_runs_stay(finished: Path) -> None:
    before = written(finished)
    with pytest.raises(SetupError) as caught:
        resumed_spec(finished, lambda file: spec_of(file, seed="3", concurrency="4"))
    assert str(caught.value).startswith(
        f"--resume {finished}: concurrency is (4,), was (2,); seed is 3, was 0; expected the settings"
    )
    assert written(finished) == before


def test_resume_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no spec\.toml in it"):
        resumed_spec(tmp_path, spec_of)


def test_a_folder_in_use_is_refused(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="is not empty"):
        new_folder(RunSpec(output_dir=str(finished)))
    assert new_folder(RunSpec(output_dir=str(tmp_path))) == tmp_path


def test_one_thunderbench_at_a_time_plays_into_a_folder(finished: Path) -> None:
    before = written(finished)
    handle = os.open(finished, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(SetupError, match="in use by another thunderbench"):
            play(small(repeats="2"), finished)
    finally:
        os.close(handle)
    assert written(finished) == before
    assert play(small(repeats="2"), finished).summary is not None


def test_a_refused_study_gives_the_terminal_back(tmp_path: Path) -> None:
    closed: list[bool] = []
    view = Silent()
    view.close = lambda: closed.append(True)  # type: ignore[method-assign]
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError):
        run_study(small(), tmp_path / "file" / "study", jobs=1, view=view, provenance={})
    assert closed == [True]


def test_the_default_folder_says_when_and_what() -> None:
    folder = new_folder(RunSpec(workload="trace:some/where/programs.jsonl"))
    assert folder.parent == Path("results")
    assert folder.name.split("-")[1] == "programs.jsonl"
    assert folder != new_folder(RunSpec())


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SetupError, match=r"file/study: Not a directory"):
        play(small(), tmp_path / "file" / "study")


def test_a_full_disk_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_000_000))
    with pytest.raises(SetupError, match="1 MB free; expected at least 60 MB for 3 runs"):
        play(small(), tmp_path / "new" / "study")
    assert list(tmp_path.iterdir()) == []


def test_a_study_without_any_finished_run_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> Failed:
        return Failed("no luck", 4)

    monkeypatch.setattr("harness.worker.attempt", die)  # processes are forked, so they see it
    empty = tmp_path / "empty"
    empty.mkdir()
    for folder in (tmp_path / "new" / "study", empty):
        study = play(small(), folder)
        names = ("thunder", "vllm", "unlimited")
        assert study.failed == {f"{name}-c2-s0": Failed("no luck", 4) for name in names}
        assert study.summary is None
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
    assert list(empty.iterdir()) == []


def test_a_study_whose_servers_did_not_start_leaves_their_logs_and_its_place_is_free(
    tmp_path: Path,
) -> None:
    model, study = tmp_path / "model", tmp_path / "study"
    model.mkdir()
    (model / "config.json").write_text("{}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        live = {"model_path": str(model), "port": taken.getsockname()[1]}
        with pytest.raises(SetupError, match="cannot be had"):
            play(spec_of(backend="vllm", live=live), study)
    assert [path.name for path in study.iterdir()] == ["logs"]
    assert new_folder(RunSpec(output_dir=str(study))) == study


def test_a_failed_run_says_why_its_server_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.worker.attempt", lambda *_: Failed("no answer", 1))

    @contextmanager
    def reached(spec: RunSpec, *_: object) -> Iterator[Reached]:
        yield Reached(spec, lambda: EngineFailed("server 0 ended by SIGKILL"))

    monkeypatch.setattr("harness.live.study.reachable", reached)
    spec = spec_of(backend="http://127.0.0.1:1", schedulers="vllm", concurrency="2")
    assert play(spec, tmp_path / "study").failed == {
        "vllm-c2-s0": Failed("no answer; server 0 ended by SIGKILL", 4)
    }


def test_schedulers_whose_folders_would_clash_are_refused(tmp_path: Path) -> None:
    clash = RunSpec(schedulers=("a:B", "a_B"))
    with pytest.raises(SetupError, match="two runs called a_B-c96-s0"):
        play(clash, tmp_path / "study")
    assert list(tmp_path.iterdir()) == []


def test_an_arm_that_measured_nothing_makes_the_study_invalid(tmp_path: Path) -> None:
    spec = small(duration_s="1s", warmup_s="0", schedulers="vllm", reference="false")
    study = play(spec, tmp_path / "study")
    assert study.summary is not None
    assert study.summary["invalid"] == [
        "vllm-c2-s0: too few steps: 0 ended in the window, at least 130 are needed"
    ]

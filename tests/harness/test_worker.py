from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import EngineFailed, PolicyFailed
from harness.records import open_run
from harness.resolve import resolve
from harness.settings import read_spec
from harness.virtual.driver import VirtualRun
from harness.worker import Done, Failed, attempt


@pytest.fixture
def small() -> tuple[object, object]:
    spec = resolve(
        read_spec(
            {"duration_s": "2m", "warmup_s": "1m", "concurrency": "2", "schedulers": "vllm"}, environment={}
        )
    )
    return spec, spec.runs()[0]


def test_a_run_that_ends_well_leaves_a_whole_folder(small: tuple, tmp_path: Path) -> None:  # type: ignore[type-arg]
    told: list[object] = []
    assert attempt(*small, tmp_path / "run", {}, told.append) == Done()
    assert open_run(tmp_path / "run").summary["throughput"]["steps"] > 0


@pytest.mark.parametrize(
    ("error", "failed"),
    [
        (EngineFailed("the engine is gone"), Failed("the engine is gone", 4)),
        (RuntimeError("a bug"), Failed("RuntimeError: a bug", 1)),
        (PolicyFailed("vllm raised"), Failed("vllm raised", 1)),
    ],
)
def test_a_run_that_dies_says_why_and_leaves_nothing(
    error: Exception,
    failed: Failed,
    small: tuple,  # type: ignore[type-arg]
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def die(_run: VirtualRun) -> None:
        raise error

    monkeypatch.setattr(VirtualRun, "run", die)
    outcome = attempt(*small, tmp_path / "run", {})
    assert isinstance(outcome, Failed)
    assert outcome[:2] == failed[:2]
    assert ("Traceback" in outcome.trace) == (not isinstance(error, EngineFailed))
    assert list(tmp_path.iterdir()) == []


def test_a_policy_of_the_users_own_is_blamed_by_name(tmp_path: Path) -> None:
    spec = resolve(read_spec({"schedulers": "tests.harness.policies:Breaks"}, environment={}))
    outcome = attempt(spec, spec.runs()[0], tmp_path / "run", {})
    assert isinstance(outcome, Failed)
    assert outcome.exit_code == 2
    assert "scheduler 'breaks' raised ValueError: no idea (policies.py, line " in outcome.reason
    assert "on CallArrived(" in outcome.reason
    assert "raise ValueError" in outcome.trace


@pytest.mark.vllm
def test_both_backends_give_the_same_metrics(tmp_path: Path) -> None:
    found = []
    for backend in ("virtual", "vllm-core"):
        flags = {"duration_s": "2m", "warmup_s": "1m", "concurrency": "2", "schedulers": "thunder"}
        spec = resolve(read_spec({**flags, "backend": backend}, environment={}))
        assert attempt(spec, spec.runs()[0], tmp_path / backend, {}) == Done()
        found.append(open_run(tmp_path / backend).summary)
    assert found[0]["throughput"] == pytest.approx(found[1]["throughput"])
    assert found[0]["kv"] == pytest.approx(found[1]["kv"])

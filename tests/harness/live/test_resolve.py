"""A live study is complete, or refused in one line, before a server is asked or started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.resolve import resolve
from harness.settings import load_spec, read_spec
from harness.spec import RunSpec

A, B = "http://gpu1:8000", "http://gpu2:8000"


def spec(*sets: str, **flags: Any) -> RunSpec:
    return read_spec(flags, sets, environment={})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "Tiny-1B"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


def test_attached_servers_leave_open_only_what_they_tell_themselves(tmp_path: Path) -> None:
    resolved = resolve(spec(backend=(A, B, "external:http://gw:9000"), schedulers="thunder"))
    assert (resolved.replicas, resolved.kv_tokens, resolved.step_time) == (2, None, None)
    assert resolved.schedulers == ("thunder", "external:http://gw:9000")
    assert list(resolved.overrides.scheduler) == ["thunder"]
    assert resolved.overrides.scheduler["thunder"]["delta_t_s"] == 5.0
    assert resolve(resolved) == resolved
    (tmp_path / "spec.toml").write_text(resolved.toml())
    assert load_spec(tmp_path / "spec.toml") == resolved
    assert resolve(load_spec(tmp_path / "spec.toml")) == resolved


def test_the_capacity_of_servers_that_do_not_tell_it_may_be_said(model: Path, tmp_path: Path) -> None:
    resolved = resolve(spec(backend=A, kv_tokens="1000"))
    assert resolved.kv_tokens == 1000
    (tmp_path / "spec.toml").write_text(resolved.toml())
    assert resolve(load_spec(tmp_path / "spec.toml")) == resolved
    with pytest.raises(SetupError, match=r"kv_tokens with the backend vllm.*num_gpu_blocks_override"):
        resolve(spec(f"live.model_path={model}", backend="vllm", kv_tokens="1000"))


def test_servers_that_are_started_are_named_after_their_model(model: Path) -> None:
    path = f"live.model_path={model}"
    resolved = resolve(spec(path, "live.gpus=0,1;2,3", "live.tensor_parallel_size=2", backend="vllm"))
    assert (resolved.model, resolved.replicas) == ("Tiny-1B", 2)
    assert resolve(resolved) == resolved
    assert resolve(spec(path, backend="vllm", replicas="3")).replicas == 3
    assert resolve(spec(path, backend="vllm", model="mine")).model == "mine"


def test_what_a_workload_wishes_of_replicas_is_not_for_real_servers() -> None:
    resolved = resolve(spec(backend=A, workload="toolorchestra-hle"))
    assert "hardware" not in resolved.toml()
    assert resolve(spec(backend=A, workload="rollout-swe")).replicas == 1


@pytest.mark.parametrize(
    ("sets", "flags", "said"),
    [
        ([], {"backend": "vllm"}, "backend vllm without live.model_path"),
        (["live.model_path=absent"], {"backend": "vllm"}, "'absent', which is no folder"),
        (["live.model_path=/"], {"backend": "vllm"}, "'/', which has no config.json"),
        ([], {"backend": A, "replicas": "2"}, "replicas = 2 and 1 addresses of servers"),
        ([], {"backend": A, "efficiency": "measured"}, "efficiency with the backend servers"),
        (["engine.cpu_offload_gb=4"], {"backend": A}, "engine.cpu_offload_gb = 4.0 .*kv_offloading_size"),
        (["engine.disaggregate=1:1"], {"backend": A}, "engine.disaggregate = '1:1' with the backend"),
        (
            ["scheduler.vllm.router=kv-aware"],
            {"backend": A},
            "observes KvChanged, which no live server tells",
        ),
        (["workload.no_such=1"], {"backend": A}, "no parameter is called 'no_such'"),
        ([], {"backend": A, "schedulers": "thundr"}, "Did you mean 'thunder'"),
        (
            ['overrides={scheduler={"external:http://g"={a=1}}}'],
            {"backend": (A, "external:http://g")},
            "settings of external:http://g; expected a gateway without settings of ours",
        ),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(sets: list[str], flags: dict[str, Any], said: str) -> None:
    with pytest.raises(SetupError, match=said) as caught:
        resolve(spec(*sets, **flags))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sets", "replicas", "said"),
    [
        (["live.gpus=0;1"], "3", "replicas = 3 and 2 groups of GPUs"),
        (["live.gpus=0,1;2", "live.tensor_parallel_size=2"], None, r"live.gpus\[1\] = '2' with"),
        (["live.gpus=0,1"], None, "expected 1 GPUs for each replica"),
    ],
)
def test_gpus_match_replicas_and_their_split(
    model: Path, sets: list[str], replicas: str | None, said: str
) -> None:
    with pytest.raises(SetupError, match=said):
        resolve(spec(f"live.model_path={model}", *sets, backend="vllm", replicas=replicas))

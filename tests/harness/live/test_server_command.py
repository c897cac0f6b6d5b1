"""What a server is started with, and which options cannot work."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from harness.errors import SetupError
from harness.live import server_command as module
from harness.live.server_command import (
    ALWAYS,
    ON_CPU,
    ROOT,
    ServerOptions,
    command,
    environment,
    refuse,
)

VLLM = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
TELLING = ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
FOLDER = Path("/run/a")


def test_the_shortest_command() -> None:
    assert command(ServerOptions(model="m"), 0, 8000, FOLDER) == [
        "env", "VLLM_RPC_BASE_PATH=/run/a",
        *VLLM, "--model", "m", "--host", "127.0.0.1", "--port", "8000", *TELLING,
    ]  # fmt: skip


def test_every_option_in_the_command_of_a_replica() -> None:
    options = ServerOptions(
        model="/models/q",
        served_model_name="q",
        tensor_parallel_size=2,
        gpus=((0, 1), (2, 3)),
        load_format="dummy",
        kv_cache_dtype="fp8",
        num_gpu_blocks_override=256,
        block_size=32,
        max_model_len=4096,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        gpu_memory_utilization=0.85,
        kv_offloading_size=8.0,
        scheduling_policy="priority",
        hooks=True,
        extra_args=("--enforce-eager",),
    )
    assert command(options, 1, 8001, FOLDER) == [
        "env", "VLLM_RPC_BASE_PATH=/run/a", "CUDA_VISIBLE_DEVICES=2,3",
        "THUNDERBENCH_HOOKS=unix:/run/a/hooks.sock",
        *VLLM, "--model", "/models/q", "--host", "127.0.0.1", "--port", "8001", *TELLING,
        "--served-model-name", "q", "--tensor-parallel-size", "2", "--load-format", "dummy",
        "--kv-cache-dtype", "fp8", "--num-gpu-blocks-override", "256", "--block-size", "32",
        "--max-model-len", "4096", "--max-num-seqs", "64", "--max-num-batched-tokens", "2048",
        "--gpu-memory-utilization", "0.85", "--kv-offloading-size", "8.0",
        "--scheduling-policy", "priority",
        "--scheduler-cls", "harness.live.vllm_hooks.HookedScheduler", "--enforce-eager",
    ]  # fmt: skip


def test_every_field_of_the_options_reaches_a_server() -> None:
    """A field that nobody reads would be a promise not kept."""
    elsewhere = {"model", "served_model_name", "tensor_parallel_size", "gpus", "port", "host"}
    elsewhere |= {"hooks", "extra_args", "environment", "ready_timeout_s"}
    assert set(module._OPTIONS) | elsewhere == set(ServerOptions.model_fields)


def test_the_environment_of_a_cpu_server(tmp_path: Path) -> None:
    options = ServerOptions(model=str(tmp_path))
    assert environment(options, 2, {"HOME": "/h"}, has_gpu=False, cores=8) == {
        **ALWAYS, **ON_CPU, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "4", "HOME": "/h",
    }  # fmt: skip


def test_the_environment_of_a_gpu_server_with_a_model_of_the_hub() -> None:
    assert environment(ServerOptions(model="org/name"), 1, {}, has_gpu=True, cores=8) == ALWAYS


def test_whose_setting_wins() -> None:
    options = ServerOptions(model="m", environment={"OMP_NUM_THREADS": "3"})
    inherited = {"OMP_NUM_THREADS": "2", "VLLM_CPU_KVCACHE_SPACE": "7"}
    found = environment(options, 4, inherited, has_gpu=False, cores=2)
    assert found == {**ALWAYS, **ON_CPU, "VLLM_CPU_KVCACHE_SPACE": "7", "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(("inherited", "path"), [({}, ""), ({"PYTHONPATH": "/mine"}, ":/mine")])
def test_servers_with_hooks_can_import_the_harness(inherited: dict[str, str], path: str) -> None:
    found = environment(ServerOptions(model="m", hooks=True), 1, inherited, has_gpu=True, cores=1)
    assert found == {**ALWAYS, "PYTHONPATH": f"{ROOT}{path}"}
    assert (ROOT / "harness" / "live" / "server_command.py").samefile(str(module.__file__))


@pytest.mark.parametrize(
    ("options", "replicas", "found"),
    [
        (ServerOptions(model="m"), 0, "0 replicas"),
        (ServerOptions(model="m"), 2, "2 replicas and no GPUs named: each would take the first one"),
        (ServerOptions(model="m", gpus=((0,),)), 2, "GPUs of 1 replicas for 2"),
        (
            ServerOptions(model="m", gpus=((0,), (1, 2)), tensor_parallel_size=1),
            2,
            "replica 1 on GPUs [1, 2] with tensor_parallel_size 1",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(options: ServerOptions, replicas: int, found: str) -> None:
    with pytest.raises(SetupError) as caught:
        refuse(options, replicas, has_gpu=True)
    assert caught.value.found == found


def test_one_replica_may_take_all_gpus_and_several_the_cpu() -> None:
    refuse(ServerOptions(model="m"), 1, has_gpu=True)
    refuse(ServerOptions(model="m"), 2, has_gpu=False)

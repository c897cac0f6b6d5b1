"""How vLLM servers are started: their options, the command of each replica, and what all of them share.

What differs between replicas (port, GPUs, the folder of their sockets) stands in the command; what they
share stands in the environment, so that no secret of it shows in a list of processes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.errors import SetupError
from harness.live.hook_messages import ADDRESS_VARIABLE, SCHEDULER_CLASS

ROOT = Path(__file__).resolve().parents[2]  # where `harness` is imported from
HOOKS_SOCKET = "hooks.sock"  # in a replica's folder

# For every server: no reports to vLLM's makers, logs as they come, and the route that empties the prefix
# cache, which vLLM offers in this mode only. Loopback is what makes that mode safe.
ALWAYS = {
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_SERVER_DEV_MODE": "1",
    "PYTHONUNBUFFERED": "1",
}
# Without a GPU: one GiB of KV cache is plenty for small models. Several servers share the cores, so none
# binds threads to them.
ON_CPU = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}


class ServerOptions(BaseModel):
    """How to start each server. Null leaves the choice to vLLM; names are those of its options."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str  # folder with config.json, or a name on the Hugging Face hub
    served_model_name: str | None = None  # what clients call it; null: as `model`
    tensor_parallel_size: int = Field(1, ge=1)  # GPUs per replica
    gpus: tuple[tuple[int, ...], ...] | None = None  # of each replica; null: CPU, or all of them
    port: int = Field(0, ge=0, le=65535)  # of the first replica, the others follow; 0: free ones
    host: str = "127.0.0.1"  # address to listen on
    load_format: str | None = None  # `dummy`: random weights
    kv_cache_dtype: str | None = None  # such as fp8
    num_gpu_blocks_override: int | None = Field(None, ge=2)  # blocks of KV cache
    block_size: int | None = Field(None, ge=1)  # tokens per block; on CPU a multiple of 32
    max_model_len: int | None = Field(None, ge=1)  # tokens of the longest context
    max_num_seqs: int | None = Field(None, ge=1)  # calls in one step
    max_num_batched_tokens: int | None = Field(None, ge=1)  # tokens in one step
    gpu_memory_utilization: float | None = Field(None, gt=0, le=1)  # share of the memory to use
    kv_offloading_size: float | None = Field(None, gt=0)  # GiB of CPU memory for offloaded KV
    scheduling_policy: Literal["fcfs", "priority"] | None = None  # `priority` for schedulers that give one
    hooks: bool = False  # pins and the like (harness.live.vllm_hooks)
    extra_args: tuple[str, ...] = ()  # added at the end of the command
    environment: dict[str, str] = Field(default_factory=dict)  # wins over the harness's own
    ready_timeout_s: float = Field(900.0, gt=0)  # seconds a server may take to answer


_OPTIONS = (
    "load_format",
    "kv_cache_dtype",
    "num_gpu_blocks_override",
    "block_size",
    "max_model_len",
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_offloading_size",
    "scheduling_policy",
)


def command(options: ServerOptions, replica_index: int, port: int, folder: Path) -> list[str]:
    """The command of one replica; `folder` is its own, for sockets: vLLM's processes leave theirs behind.

    The module and not `vllm serve`: that one wants a distribution called vllm, which CPU builds are not.
    """
    words = ["env", f"VLLM_RPC_BASE_PATH={folder}"]
    if options.gpus is not None:
        words.append(f"CUDA_VISIBLE_DEVICES={','.join(map(str, options.gpus[replica_index]))}")
    if options.hooks:
        words.append(f"{ADDRESS_VARIABLE}=unix:{folder / HOOKS_SOCKET}")
    words += [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", options.model]
    words += ["--host", options.host, "--port", str(port)]
    words += ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
    if options.served_model_name is not None:
        words += ["--served-model-name", options.served_model_name]
    if options.tensor_parallel_size > 1:
        words += ["--tensor-parallel-size", str(options.tensor_parallel_size)]
    for name in _OPTIONS:
        value = getattr(options, name)
        if value is not None:
            words += [f"--{name.replace('_', '-')}", str(value)]
    if options.hooks:
        words += ["--scheduler-cls", SCHEDULER_CLASS]
    return [*words, *options.extra_args]


def environment(
    options: ServerOptions, replicas: int, inherited: Mapping[str, str], *, has_gpu: bool, cores: int
) -> dict[str, str]:
    """What every replica finds in its environment: `options.environment`, else `inherited`, else ours."""
    ours = dict(ALWAYS)
    if Path(options.model).is_dir():
        ours["HF_HUB_OFFLINE"] = "1"
    if not has_gpu:
        ours |= ON_CPU | {"OMP_NUM_THREADS": str(max(cores // replicas, 1))}
    found = {**ours, **inherited, **options.environment}
    if options.hooks:
        path = found.get("PYTHONPATH")
        found["PYTHONPATH"] = f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)
    return found


def has_gpu() -> bool:
    """Whether this machine shows a GPU of NVIDIA or AMD."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def refuse(options: ServerOptions, replicas: int, *, has_gpu: bool) -> None:
    """Raise `SetupError` for options that cannot start so many replicas."""
    if replicas < 1:
        raise SetupError(f"{replicas} replicas", "at least one")
    if options.gpus is None:
        if has_gpu and replicas > 1:
            raise SetupError(
                f"{replicas} replicas and no GPUs named: each would take the first one",
                "a list of GPUs for each replica, such as [[0], [1]]",
            )
        return
    if len(options.gpus) != replicas:
        raise SetupError(
            f"GPUs of {len(options.gpus)} replicas for {replicas}", "a list of GPUs for each replica"
        )
    for index, gpus in enumerate(options.gpus):
        if len(gpus) != options.tensor_parallel_size:
            raise SetupError(
                f"replica {index} on GPUs {list(gpus)} with tensor_parallel_size "
                f"{options.tensor_parallel_size}",
                "as many GPUs as tensor_parallel_size",
            )

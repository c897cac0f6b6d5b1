"""Fill in what a live spec leaves open, and refuse what cannot run, before any server is asked or started.

What only servers know (KV capacity, whether they can pin) is asked of them when a run is composed.
"""

from __future__ import annotations

from pathlib import Path

from harness.errors import SetupError
from harness.live.driver import refuse_untold_events
from harness.live_spec import LiveSpec, is_external
from harness.resolve import build_policy, policy_config
from harness.spec import Overrides, RunSpec
from workloads.base import Workload

# Settings that say how a simulated engine behaves, and what takes their place.
_SIMULATED = {
    "step_time": "Leave it out, and --profile too: servers take the time they take",
    "efficiency": "Leave it out: servers take the time they take",
}
_OF_STARTED = "Leave it out: the server that is started tells; live.num_gpu_blocks_override sets it"
_OF_ENGINES = {
    "cpu_offload_gb": "Use live.kv_offloading_size, or start the servers with --kv-offloading-size",
    "disaggregate": "Start the servers so, and give their address with --backend",
}


def resolve_live(spec: RunSpec, workload: Workload) -> RunSpec:
    """The spec of a live study with nothing left open that is known before. Raises `SetupError`."""
    live = spec.live
    if live is None:
        raise ValueError("a spec of virtual time")
    _refuse_simulated(spec)
    _refuse_parameters_of_others(spec)
    changes: dict[str, object] = {"replicas": _replicas(spec, live), "live": live}
    if spec.backend == "vllm":
        folder = _model_folder(live)
        changes["live"] = live.model_copy(update={"model_path": str(folder)})
        if "model" not in spec.model_fields_set:
            changes["model"] = folder.name
        _check_gpus(live)
    policies = {name: build_policy(spec, name, spec.seed) for name in spec.own_schedulers}
    for name, policy in policies.items():
        refuse_untold_events(name, policy.observes)
    changes["overrides"] = Overrides(
        workload=dict(workload.params),
        scheduler={name: policy_config(policy) for name, policy in policies.items()},
    )
    return spec.model_copy(update=changes)


def _refuse_simulated(spec: RunSpec) -> None:
    # Of a server that runs already and does not tell its capacity, the user may.
    for name, fix in (_SIMULATED | ({"kv_tokens": _OF_STARTED} if spec.backend == "vllm" else {})).items():
        if name in spec.model_fields_set and getattr(spec, name) is not None:
            found = f"{name} with the backend {spec.backend}, which simulates nothing"
            raise SetupError(found, "the backend virtual for it", fix)
    for name, fix in _OF_ENGINES.items():
        if getattr(spec.engine, name):
            found = f"engine.{name} = {getattr(spec.engine, name)!r} with the backend {spec.backend}"
            raise SetupError(found, "the backend virtual for it", fix)


def _refuse_parameters_of_others(spec: RunSpec) -> None:
    strange = next((name for name in spec.overrides.scheduler if is_external(name)), None)
    if strange is not None:
        raise SetupError(
            f"settings of {strange}", "a gateway without settings of ours", "Set them where it is started"
        )


def _replicas(spec: RunSpec, live: LiveSpec) -> int:
    """How many servers there are; what the user says must agree."""
    counted = len(live.urls) if spec.backend == "servers" else len(live.gpus)
    if not counted:  # nobody but external gateways, or servers that take what GPUs there are
        return spec.replicas
    if "replicas" in spec.model_fields_set and spec.replicas != counted:
        what = "addresses of servers" if spec.backend == "servers" else "groups of GPUs in live.gpus"
        raise SetupError(f"replicas = {spec.replicas} and {counted} {what}", "one for each replica")
    return counted


def _check_gpus(live: LiveSpec) -> None:
    """Raise `SetupError` unless every replica has as many GPUs as its model is split over."""
    for number, group in enumerate(live.gpus):
        count = len(group.split(","))
        if count != live.tensor_parallel_size:
            raise SetupError(
                f"live.gpus[{number}] = {group!r} with live.tensor_parallel_size = "
                f"{live.tensor_parallel_size}",
                f"{live.tensor_parallel_size} GPUs for each replica",
            )


def _model_folder(live: LiveSpec) -> Path:
    """The folder of the model that servers are started with, absolute."""
    if live.model_path is None:
        raise SetupError(
            "backend vllm without live.model_path",
            "the folder of a model for the servers it starts",
            "Such as --set live.model_path=/models/Qwen3-8B, or attach to servers: --backend http://HOST:PORT",
        )
    folder = Path(live.model_path).expanduser()
    if not (folder / "config.json").is_file():
        what = "has no config.json" if folder.is_dir() else "is no folder"
        raise SetupError(
            f"live.model_path = {live.model_path!r}, which {what}",
            "the folder of a model, with its config.json",
            "Nothing is downloaded: fetch the model first",
        )
    return folder.resolve()

"""Fill in what a spec leaves to a workload, a scheduler or a profile, and refuse what cannot run.

`resolve` writes no file and starts nothing, so whatever the user got wrong is known before a folder
exists. Its result describes the study completely: parameters of the workload, configuration of every
scheduler, KV capacity and the constants of the step time; resolving it again changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from enum import Enum
from importlib.util import find_spec
from typing import Any

from harness import profiles
from harness.errors import SetupError
from harness.spec import Overrides, RunSpec, Scalar, StepTimeSpec
from harness.virtual import offers
from harness.virtual.engine import EngineOptions, check_options
from schedulers import registry as schedulers
from schedulers.contract import Capability, Policy
from schedulers.errors import SchedulerSetupError
from workloads import registry as workloads
from workloads.base import RecordedArrivals, Workload
from workloads.check import check
from workloads.errors import WorkloadError
from workloads.model import Program

# Settings that say what a replica is.
_OF_REPLICAS = frozenset(
    {"model", "hardware", "replicas", "kv_dtype", "kv_tokens", "gpu_memory_utilization"}
)


def resolve(spec: RunSpec) -> RunSpec:
    """The spec with nothing left open. Raises `SetupError`."""
    if spec.backend == "vllm-core" and find_spec("vllm") is None:
        raise SetupError(
            "backend 'vllm-core' without vLLM",
            "vLLM installed",
            "Install it: pip install 'thunderbench[vllm]'",
        )
    if spec.as_recorded:
        spec = _with_recorded_arrivals(spec)
    workload = load_workload(spec, spec.seed)
    if math.isinf(spec.duration_s) and workload.size is None and not spec.arrival_times:
        raise SetupError(
            f"duration_s = inf with {spec.workload!r}, which has no end", "a finite duration_s"
        )
    spec = _suited(spec, workload)
    if spec.is_live:
        from harness.live.resolve import resolve_live  # noqa: PLC0415 - it imports this module

        return resolve_live(spec, workload)
    _refuse_odd_replicas(spec)
    resolved = spec.model_copy(
        update={
            **_replica(spec),
            "overrides": Overrides(
                workload=dict(workload.params),
                scheduler={
                    name: policy_config(build_policy(spec, name, spec.seed)) for name in spec.schedulers
                },
            ),
        }
    )
    options = engine_options(resolved)
    check_options(options)
    _refuse_hopeless(workload, options)
    for name in spec.schedulers:
        refuse_unmet_needs(name, build_policy(spec, name, spec.seed), resolved)
    return resolved


def _replica(spec: RunSpec) -> dict[str, Any]:
    """What a simulated replica is: names, KV capacity and step time.

    Where capacity and step time are given, the names of model and hardware may be mere labels.
    """
    try:
        profile, gpus = profiles.model(spec.model), profiles.hardware(spec.hardware)
    except SetupError:
        links = spec.engine.cpu_offload_gb or spec.engine.parts
        if spec.step_time is None or spec.kv_tokens is None or links:
            raise
        return {"efficiency": "given"}
    profiles.refuse_uneven_split(profile, gpus)
    return {
        "model": profile.name,
        "hardware": str(gpus),
        "kv_tokens": spec.kv_tokens
        or profiles.kv_capacity_tokens(profile, gpus, spec.kv_dtype, spec.gpu_memory_utilization),
        "efficiency": _efficiency(spec, profile, gpus),
        "step_time": _step_time(spec, profile, gpus),
    }


def _step_time(spec: RunSpec, profile: profiles.ModelProfile, gpus: profiles.Hardware) -> StepTimeSpec:
    """The constants of the step time, those of links where they are used; the user's own come first."""
    if spec.step_time is None:
        known = _roofline(spec, profile, gpus)
    else:
        known = spec.step_time.model_dump(exclude_none=True)
    links = {}
    if spec.engine.cpu_offload_gb:
        both_ways = profiles.offload_s_per_token(profile, gpus, spec.kv_dtype)
        links = {"load_s_per_token": both_ways, "store_s_per_token": both_ways}
    if spec.engine.parts:
        links["transfer_s_per_token"] = profiles.transfer_s_per_token(profile, gpus, spec.kv_dtype)
    return StepTimeSpec(**links | known)


def _roofline(spec: RunSpec, profile: profiles.ModelProfile, gpus: profiles.Hardware) -> dict[str, Any]:
    """The constants that the profiles give under the named efficiency."""
    known = profiles.step_time(profile, gpus, spec.kv_dtype, profiles.EFFICIENCIES[spec.efficiency])
    required = (name for name, field in StepTimeSpec.model_fields.items() if field.is_required())
    return {name: getattr(known, name) for name in required}


def _efficiency(spec: RunSpec, profile: profiles.ModelProfile, gpus: profiles.Hardware) -> str:
    """Where the step time comes from: `given` for a table of the user's own."""
    if spec.step_time is None:
        if spec.efficiency == "given":
            raise SetupError(
                "efficiency = given without a table [step_time]", "derived, measured, or that table"
            )
        return spec.efficiency
    if spec.efficiency == "given":
        return "given"
    own = spec.step_time.model_dump()
    if all(own[name] == value for name, value in _roofline(spec, profile, gpus).items()):
        return spec.efficiency
    if "efficiency" in spec.model_fields_set:
        raise SetupError(
            f"efficiency = {spec.efficiency}, and a table [step_time] that is not what it gives for "
            f"{profile.name} on {gpus}",
            "one of the two",
            "Leave out efficiency or the table.",
        )
    return "given"


def _refuse_odd_replicas(spec: RunSpec) -> None:
    """Raise `SetupError` for replicas that no engine stands for."""
    wanted = [
        f"engine.{name} = {value!r}"
        for name, value in (
            ("cpu_offload_gb", spec.engine.cpu_offload_gb),
            ("disaggregate", spec.engine.disaggregate),
        )
        if value
    ]
    if wanted and spec.backend == "vllm-core":
        raise SetupError(f"{wanted[0]} with the backend vllm-core", "the backend virtual")
    if len(wanted) > 1:
        raise SetupError(" and ".join(wanted), "one of the two")


def _suited(spec: RunSpec, workload: Workload) -> RunSpec:
    """The spec with what the workload wishes for wherever the user said nothing.

    Real servers are what they are, so of a live run that is about its load only.
    """
    wishes: Mapping[str, Any] = getattr(workload, "setup", {})
    fixed = spec.model_fields_set | (_OF_REPLICAS if spec.is_live else set())
    unsaid = {name: value for name, value in wishes.items() if name not in fixed}
    return spec.model_copy(update=unsaid)


def _with_recorded_arrivals(spec: RunSpec) -> RunSpec:
    """The spec with the times at which the workload's programs began. Raises `SetupError`."""
    found: RecordedArrivals | None = getattr(load_workload(spec, spec.seed), "arrivals", None)
    if found is None:
        raise SetupError(
            f"arrival_times = trace with {spec.workload!r}, which does not say when all programs began",
            "a recorded workload with arrivals",
            "Give --request-rate or --concurrency instead",
        )
    settings = {**spec.overrides.workload, **found.settings}
    overrides = spec.overrides.model_copy(update={"workload": settings})
    return spec.model_copy(update={"arrival_times": found.times_s, "overrides": overrides})


def _refuse_hopeless(workload: Workload, options: EngineOptions) -> None:
    """Raise `SetupError` when the KV cache holds not even the shortest first call of a few programs."""
    program = programs_of(workload)
    first_calls = [program(i).calls[0] for i in range(min(workload.size or 20, 20))]
    shortest = min(
        (sum(part.tokens for part in call.new) + call.output.tokens for call in first_calls), default=0
    )
    if shortest > options.kv_tokens:
        raise SetupError(
            f"a KV cache of {options.kv_tokens} tokens",
            f"room for the shortest first call of {workload.name}, {shortest} tokens",
            "Give more --kv-tokens",
        )


def load_workload(spec: RunSpec, seed: int) -> Workload:
    """The programs of a repeat. Raises `SetupError`."""
    with setup_errors():
        return workloads.load(spec.workload, seed=seed, overrides=_texts(spec.overrides.workload))


def programs_of(workload: Workload) -> Callable[[int], Program]:
    """Its programs by number, each checked. They raise `SetupError` for one that cannot be played."""

    def program(index: int) -> Program:
        with setup_errors():
            return check(workload.program(index))

    return program


def build_policy(spec: RunSpec, scheduler: str, seed: int) -> Policy:
    """A fresh policy. Raises `SetupError`."""
    with setup_errors():
        return schedulers.build(scheduler, _texts(spec.overrides.scheduler.get(scheduler, {})), seed)


def engine_options(spec: RunSpec, needs: AbstractSet[Capability] = frozenset()) -> EngineOptions:
    """Options of every replica of a resolved spec, for a policy with these needs."""
    if spec.kv_tokens is None:
        raise ValueError("engine options of a spec that was not resolved")
    offload_tokens = 0
    if spec.engine.cpu_offload_gb:
        profile, gpus = profiles.model(spec.model), profiles.hardware(spec.hardware)
        token = profiles.kv_bytes_per_token(profile, spec.kv_dtype, gpus.count)
        offload_tokens = int(spec.engine.cpu_offload_gb * 2**30 // token)
        if not offload_tokens:
            raise SetupError(
                f"engine.cpu_offload_gb = {spec.engine.cpu_offload_gb!r}",
                f"room for the KV of a token, {token:g} bytes, or 0 for no CPU tier",
            )
    options = EngineOptions(
        kv_tokens=spec.kv_tokens,
        offload_tokens=offload_tokens,
        **spec.engine.model_dump(exclude={"cpu_offload_gb", "disaggregate"}),
    )
    return offers.started_for(needs, options)


def refuse_unmet_needs(name: str, policy: Policy, spec: RunSpec) -> None:
    """Raise `SetupError` when a policy needs a capability, or observes events, that a virtual run lacks."""
    split = spec.engine.parts is not None
    offered = offers.capabilities(spec.backend, spec.engine.scheduling_policy, split=split)
    unmet = sorted(policy.needs - offered)
    if unmet:
        needs = " and ".join(f"`{need}`" for need in unmet)
        known = ", ".join(sorted(offered)) or "no capability beyond taking requests"
        fixes = {
            "priority": "Leave engine.scheduling_policy to the scheduler",
            "pin": "Leave out engine.disaggregate",
        }
        fix = fixes.get(unmet[0], "") if len(unmet) == 1 else ""
        raise SetupError(
            f"scheduler {name!r} needs {needs}, which the backend {spec.backend} does not offer", known, fix
        )
    unseen = sorted(event.__name__ for event in policy.observes - offers.EVENTS)
    if unseen:
        delivered = ", ".join(sorted(event.__name__ for event in offers.EVENTS))
        raise SetupError(
            f"scheduler {name!r} observes {' and '.join(unseen)}, which a virtual run does not deliver",
            f"of the optional events {delivered} only",
        )


def policy_config(policy: Policy) -> dict[str, Scalar]:
    """Every parameter of a policy as plain values; null becomes the word `none`, an Enum its value."""
    return {name: _plain(value) for name, value in schedulers.config_of(policy).items()}


def _plain(value: Any) -> Scalar:
    if isinstance(value, Enum):
        value = value.value
    if value is None:
        return "none"
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def _texts(values: Mapping[str, Scalar]) -> dict[str, str]:
    """Values as a user would type them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in values.items()
    }


@contextmanager
def setup_errors() -> Iterator[None]:
    """Errors of the two lower packages are the user's set-up here."""
    try:
        yield
    except (WorkloadError, SchedulerSetupError) as error:
        raise SetupError(error.found, error.expected, error.fix) from error

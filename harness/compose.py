"""The composition root: every part of a virtual run is chosen and connected in `compose`, top to bottom."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from harness.provenance import utc_now
from harness.records import RunWriter
from harness.resolve import (
    build_policy,
    engine_options,
    load_workload,
    policy_config,
    programs_of,
    refuse_unmet_needs,
)
from harness.spec import RunKey, RunSpec
from harness.virtual.content import ContentTree
from harness.virtual.driver import Progress, VirtualRun
from harness.virtual.engine import Engine, EngineOptions
from harness.virtual.sandbox import SandboxPool
from harness.virtual.steptime import StepTime
from schedulers.contract import Policy
from workloads.arrivals import Arrivals, ClosedLoop, Gamma, GivenTimes, Poisson
from workloads.base import Workload
from workloads.plan import plan_hash


class Wired(NamedTuple):
    """A run ready to go. `recorder` is entered first, `run.run()` played, then `recorder.finish` called."""

    run: VirtualRun
    recorder: RunWriter


def compose(
    study: RunSpec,
    key: RunKey,
    folder: Path,
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None] | None = None,
) -> Wired:
    """Everything that makes one run of a resolved study; its results go to the new folder `folder`.

    `provenance` is what all runs of the study share. Raises `SetupError`.
    """
    spec = study.only(key)
    workload = load_workload(spec, key.seed)
    policy = build_policy(spec, key.scheduler, key.seed)
    refuse_unmet_needs(key.scheduler, policy, spec)
    options = engine_options(spec, policy.needs)
    contents = ContentTree()
    engines = {f"r{index}": _engine(spec, options, contents) for index in range(spec.replicas)}
    until_the_end = math.isinf(spec.duration_s)
    about = {"options": asdict(options) | {"backend": spec.backend}}
    recorder = recorder_of(spec, key, folder, workload, policy, {**provenance, **about})
    run = VirtualRun(
        programs=programs_of(workload),
        size=workload.size if until_the_end else None,  # rounds follow each other while time is left
        arrivals=arrivals_of(spec, key),
        policy=policy,
        engines=engines,
        # what keeps a program's whole context: its prompts at prefill engines, all of it where it decodes
        kv_tokens=options.kv_tokens * min(spec.engine.parts or (1,)),
        block_size=options.block_size,
        sandboxes=SandboxPool(),
        clients_release=spec.release,
        recorder=recorder,
        warmup_s=spec.warmup_s,
        duration_s=None if until_the_end else spec.duration_s,
        sample_every_s=spec.sample_every_s,
        start_spread_s=spec.start_spread_s,
        on_progress=on_progress,
    )
    return Wired(run, recorder)


def recorder_of(
    spec: RunSpec,
    key: RunKey,
    folder: Path,
    workload: Workload,
    policy: Policy | None,
    provenance: Mapping[str, Any],
) -> RunWriter:
    """The writer of a run; `policy` is null where a gateway of somebody else's decides."""
    return RunWriter(
        folder,
        spec_toml=spec.toml(),
        provenance={
            **provenance,
            "started_utc": utc_now(),
            "simulated": not spec.is_live,
            "run": key.name,
            "plan_hash": plan_hash(workload),
            "policy": {
                "name": key.scheduler,
                "config": {} if policy is None else policy_config(policy),
                "seed": key.seed,
            },
        },
    )


def _engine(spec: RunSpec, options: EngineOptions, contents: ContentTree) -> Engine:
    """A fresh replica. The backend's module is imported here, because vLLM takes seconds to import."""
    if spec.step_time is None:
        raise ValueError("an engine of a spec that was not resolved")
    step_time = StepTime(**spec.step_time.model_dump(exclude_none=True))
    if spec.backend == "vllm-core":
        from harness.virtual.vllm_core import VllmCoreEngine  # noqa: PLC0415 - optional and slow to import

        return VllmCoreEngine(options, step_time)
    from harness.virtual.fast import FastEngine  # noqa: PLC0415 - one place for both backends

    if spec.engine.parts is None:
        return FastEngine(options, step_time, contents)
    from harness.virtual.disaggregated import disaggregated  # noqa: PLC0415 - beside the other engines

    return disaggregated(options, step_time, contents, *spec.engine.parts)


def arrivals_of(spec: RunSpec, key: RunKey) -> Arrivals:
    """How programs arrive; the same for every scheduler of a repeat."""
    if key.load == "concurrency":
        return ClosedLoop(int(key.value))
    if key.load == "arrival_times":
        return GivenTimes(spec.arrival_times)
    if spec.burstiness == 1:
        return Poisson(key.value, key.seed)
    return Gamma(key.value, spec.burstiness, key.seed)

"""What a study is: one frozen, validated description from flags, environment, a TOML file and defaults.

Precedence: flags > environment `THUNDERBENCH_*` > file > profile > default. `read_spec` merges them;
anything wrong in them becomes one `SetupError` that names the field, what was found and what was expected.

A study is schedulers x loads x repeats. A **load** is a concurrency (closed loop: so many programs at a
time), a request rate (open loop, programs per second) or a list of arrival times (`trace`: those of the
workload). Repeat `k` uses seed `seed + k` for every scheduler, so all schedulers of a repeat work on the
same programs.

Beside its schedulers a study plays the **reference arm**, unless `reference` is false: `unlimited`, the
same engine with endless KV memory, once per load and repeat. It takes part in no comparison; every
scheduler is shown with its share of that bound. In the spec of a single run `reference` says whether it is
of that arm.

The backend says what the programs run on: simulated engines in virtual time (`virtual`, `vllm-core`), or
real servers on the wall clock (`vllm`, `servers`; see `live_spec`). What real servers tell themselves, or
what the user left to their defaults, is no part of a live spec's TOML: it would be a guess.

`resolve.resolve` fills in whatever the spec leaves to a workload, a scheduler or a profile; the result is
again a `RunSpec`, so a results folder's `spec.toml` repeats the study even if a default changes later.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, NamedTuple, Self

import tomli_w
from pydantic import AfterValidator, BeforeValidator, Field, WrapValidator, model_validator

from harness.live_spec import (
    DEFAULT_SCHEDULERS,
    LIVE_BACKENDS,
    LiveSpec,
    arm,
    is_external,
    short_name,
    with_backend,
)
from harness.spec_fields import A_MONTH_S, Frozen, Seconds, listed, read_limits, read_parts, read_times

__all__ = [
    "LIVE_BACKENDS",
    "LOADS",
    "REFERENCE",
    "EngineSpec",
    "LiveSpec",
    "Load",
    "Overrides",
    "RunKey",
    "RunSpec",
    "Scalar",
    "StepTimeSpec",
]

Load = Literal["concurrency", "request_rate", "arrival_times"]
LOADS: tuple[Load, ...] = ("concurrency", "request_rate", "arrival_times")

Limit = Literal["ttft_s", "tpot_s", "step_s"]  # what `metrics.goodput_of` knows
Concurrency = Annotated[int, Field(ge=1, le=10_000)]  # a live program takes some 0.1 MB
Rate = Annotated[float, Field(gt=0, le=10_000)]
Constant = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class EngineSpec(Frozen):
    """vLLM's options of the same names, and what makes a replica more than one engine with its GPUs.

    `cpu_offload_gb` are GiB of host memory for KV, for all GPUs of a replica together (0: none). vLLM calls
    that --kv-offloading-size; its own --cpu-offload-gb is for weights. `disaggregate` = "1:3" makes a
    replica of one engine that prefills and three that decode, each on GPUs of its own.
    """

    block_size: int = Field(default=16, ge=1, le=4096)
    max_num_seqs: int = Field(default=1024, ge=1, le=1_000_000)
    max_num_batched_tokens: int = Field(default=8192, ge=1, le=10_000_000)
    scheduling_policy: Literal["auto", "fcfs", "priority"] = "auto"  # auto: what the scheduler needs
    cpu_offload_gb: float = Field(default=0.0, ge=0, le=1_000_000)
    disaggregate: Annotated[str, AfterValidator(read_parts)] = ""

    @property
    def parts(self) -> tuple[int, int] | None:
        """How many engines prefill and how many decode; null where they are not apart."""
        prefill, _, decode = self.disaggregate.partition(":")
        return (int(prefill), int(decode)) if decode else None


class StepTimeSpec(Frozen):
    """The constants of `steptime.StepTime`, of the same names; absent: from the profiles.

    The last three are there when the engine option that uses them is.
    """

    compute_s_per_token: Constant
    dense_weights_s: Constant
    expert_weights_s: Constant
    experts: int = Field(ge=0)
    experts_per_token: int = Field(ge=0)
    attention_s_per_pair: Constant
    kv_read_s_per_token: Constant
    overhead_s: Constant
    load_s_per_token: Constant | None = None
    store_s_per_token: Constant | None = None
    transfer_s_per_token: Constant | None = None


Scalar = bool | int | float | str


class Overrides(Frozen):
    """What `--set workload.x.y=v` and `--set scheduler.NAME.x=v` change: values by dotted name."""

    workload: dict[str, Scalar] = Field(default_factory=dict)
    scheduler: dict[str, dict[str, Scalar]] = Field(default_factory=dict)


REFERENCE = "unlimited"  # the scheduler of the reference arm


class RunKey(NamedTuple):
    """One run of a study. `value` of its `load` is a concurrency, a rate or a number of arrivals."""

    scheduler: str
    load: Load
    value: float
    seed: int

    @property
    def name(self) -> str:
        """Name of the run's folder, safe on every file system: `thunder-c96-s0`."""
        scheduler = re.sub(r"[^A-Za-z0-9_.]+", "_", short_name(self.scheduler)).strip(".") or "_"
        return f"{scheduler}-{self.load[0]}{self.value:g}-s{self.seed}"


# Settings of a server that it has defaults of its own for, or knows best.
_OF_VLLM = ("kv_dtype", "gpu_memory_utilization")
_OF_SERVERS = ("model", "hardware", "efficiency", "engine", *_OF_VLLM)


class RunSpec(Frozen):
    """A study. Units are in the names; `inf` seconds of `duration_s`: until every program has ended."""

    workload: str = Field(default="swe-lite", min_length=1)
    schedulers: Annotated[tuple[Annotated[str, AfterValidator(arm)], ...], BeforeValidator(listed)] = Field(
        DEFAULT_SCHEDULERS, min_length=1
    )
    model: str = "GLM-4.6-FP8"
    hardware: str = "8xH100"
    replicas: int = Field(default=1, ge=1, le=1024)
    backend: Literal["virtual", "vllm-core", "vllm", "servers"] = "virtual"
    concurrency: Annotated[tuple[Concurrency, ...], BeforeValidator(listed)] = (96,)
    request_rate: Annotated[tuple[Rate, ...], BeforeValidator(listed)] = ()
    burstiness: float = Field(default=1.0, gt=0, le=1000)
    arrival_times: Annotated[tuple[Constant, ...], WrapValidator(read_times)] = ()
    duration_s: Seconds = Field(default=3600.0, gt=0)
    warmup_s: Seconds = Field(default=600.0, ge=0, le=A_MONTH_S)
    start_spread_s: Seconds = Field(default=0.0, ge=0, le=A_MONTH_S)  # first starts of a closed loop
    sample_every_s: Seconds = Field(default=5.0, ge=0.01, le=A_MONTH_S)
    repeats: int = Field(default=1, ge=1, le=10_000)
    seed: int = Field(default=0, ge=0, lt=2**63)
    kv_dtype: str = "fp8"
    kv_tokens: int | None = Field(default=None, ge=1, le=10**12)
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    # which of `profiles.EFFICIENCIES`; `given`: `step_time` is the user's own
    efficiency: Literal["derived", "measured", "given"] = "derived"
    release: bool = True  # whether clients say when a program is over
    reference: bool = True  # whether to play the reference arm too, where that is possible
    goodput: Annotated[dict[Limit, Annotated[float, Field(gt=0)]], BeforeValidator(read_limits)] = Field(
        default_factory=dict
    )
    output_dir: str | None = Field(default=None, min_length=1)
    engine: EngineSpec = EngineSpec()
    step_time: StepTimeSpec | None = None
    live: LiveSpec | None = None  # null unless the backend is a live one
    overrides: Overrides = Overrides()

    @model_validator(mode="before")
    @classmethod
    def _one_load_and_backend(cls, given: Any) -> Any:
        """An open loop takes the place of the default concurrency; a backend becomes one word."""
        if isinstance(given, dict):
            given = with_backend(given)
            loads = [name for name in LOADS if given.get(name)]
            if len(loads) > 1:
                raise ValueError(
                    f"one of concurrency, request_rate and arrival_times, not {' and '.join(loads)}"
                )
            if loads and loads != ["concurrency"]:
                return {**given, "concurrency": ()}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("schedulers", "concurrency", "request_rate"):
            values = getattr(self, name)
            twice = next((value for value in values if values.count(value) > 1), None)
            if twice is not None:
                raise ValueError(f"every value of {name} once, {twice!r} is there twice")
        if not (self.concurrency or self.request_rate or self.arrival_times):
            raise ValueError("a concurrency, a request_rate or arrival_times")
        if not self.as_recorded and list(self.arrival_times) != sorted(self.arrival_times):
            raise ValueError("arrival_times in rising order")
        if self.duration_s > A_MONTH_S and not math.isinf(self.duration_s):
            raise ValueError(
                f"a duration_s of at most 30 days ({A_MONTH_S:g}) or inf, not {self.duration_s:g}"
            )
        if not math.isinf(self.duration_s) and self.duration_s / self.sample_every_s > 1_000_000:
            raise ValueError("a sample_every_s that makes at most a million samples of duration_s")
        if self.kv_tokens is not None and self.kv_tokens < self.engine.block_size:
            raise ValueError(f"kv_tokens of at least one block of {self.engine.block_size} tokens")
        self._check_live()
        strangers = sorted(set(self.overrides.scheduler) - set(self.schedulers))
        if strangers:
            raise ValueError(f"settings of {' or '.join(self.schedulers)} only, not of {strangers[0]}")
        return self

    def _check_live(self) -> None:
        external = next((name for name in self.schedulers if is_external(name)), None)
        if self.live is None:
            if external is not None:
                raise ValueError(f"a live backend for {external}, not {self.backend}")
        elif not self.is_live:
            raise ValueError(
                f"settings of live for the backends vllm and servers only, not for {self.backend}"
            )
        elif self.live.urls and self.backend == "vllm":
            raise ValueError("live.urls for the backend servers only: vllm starts its own")
        elif not self.live.urls and self.backend == "servers" and self.own_schedulers:
            raise ValueError("live.urls: the address of a server, such as --backend http://127.0.0.1:8000")

    @property
    def is_live(self) -> bool:
        """Whether programs are played on real servers."""
        return self.backend in LIVE_BACKENDS

    @property
    def own_schedulers(self) -> tuple[str, ...]:
        """The schedulers that are policies of ours, not gateways of somebody else's."""
        return tuple(name for name in self.schedulers if not is_external(name))

    @property
    def vllm_options(self) -> dict[str, Any]:
        """What the user said of vLLM's own options, by the names of this spec; vLLM chooses the rest."""
        said = {name: getattr(self, name) for name in _OF_VLLM if name in self.model_fields_set}
        if "engine" in self.model_fields_set:
            said |= self.engine.model_dump(exclude_unset=True)
        return said

    @property
    def untold(self) -> dict[str, Any]:
        """What is no part of the settings as they are written down, in pydantic's form of `exclude`.

        Where results lie is no part of what was run. Of a live run also what only its servers know.
        """
        left_out: dict[str, Any] = {"output_dir": True}
        if not self.is_live:
            return left_out if self.live else left_out | {"live": True}
        unsaid = [name for name in _OF_SERVERS if name not in self.model_fields_set]
        left_out |= dict.fromkeys(unsaid, True)
        if "engine" not in unsaid:
            left_out["engine"] = set(EngineSpec.model_fields) - self.engine.model_fields_set
        return left_out

    @property
    def as_recorded(self) -> bool:
        """Whether `arrival_times` is the word `trace`; `resolve` puts the workload's times in its place."""
        return isinstance(self.arrival_times, str)

    @property
    def has_reference(self) -> bool:
        """Whether the reference arm runs: the backend can, and it is not compared like any scheduler."""
        return self.reference and self.backend == "virtual" and REFERENCE not in self.schedulers

    def runs(self) -> list[RunKey]:
        """Every run, in order of execution.

        Schedulers alternate within each load and repeat, and each repeat begins with another one, so a
        slow drift of the machine falls on all of them alike; the reference arm comes last in each.
        """
        loads: list[tuple[Load, float]] = [("concurrency", value) for value in self.concurrency]
        loads += [("request_rate", rate) for rate in self.request_rate]
        if self.arrival_times:
            loads.append(("arrival_times", len(self.arrival_times)))
        last = (REFERENCE,) if self.has_reference else ()
        found = []
        for repeat in range(self.repeats):
            first = repeat % len(self.schedulers)
            order = (*self.schedulers[first:], *self.schedulers[:first], *last)
            seed = self.seed + repeat
            found += [RunKey(name, load, value, seed) for load, value in loads for name in order]
        return found

    def only(self, key: RunKey) -> RunSpec:
        """The spec of a single run: one scheduler, one load, its own seed."""
        changes: dict[str, Any] = dict.fromkeys(LOADS, ())
        changes[key.load] = self.arrival_times if key.load == "arrival_times" else (key.value,)
        settings = {name: v for name, v in self.overrides.scheduler.items() if name == key.scheduler}
        changes["overrides"] = Overrides(workload=self.overrides.workload, scheduler=settings)
        changes |= {"schedulers": (key.scheduler,), "repeats": 1, "seed": key.seed}
        changes["reference"] = self.has_reference and key.scheduler == REFERENCE
        return self.model_copy(update=changes)

    def toml(self) -> str:
        """The spec as TOML, without what is `untold`; read back it is an equal spec, `output_dir` apart."""
        given = self.model_dump(exclude=self.untold, exclude_none=True)
        return tomli_w.dumps({name: v for name, v in given.items() if name not in LOADS or v})

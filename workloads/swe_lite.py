"""`swe-lite`: mini-SWE-agent at work on SWE-bench Lite, generated from measured distributions.

A program is a chain: the model asks for one shell command per call, the command's output comes back as
an observation, the whole history stays in the prompt. The last call hands the patch in and runs
nothing (ATCR counts 5,453 commands in 5,515 calls of 61 programs: one call fewer per program).

How one program is drawn. Its number of steps S is lognormal. Its last prompt F is lognormal too and
correlated with S, but weaker than one to one, so that programs that live long grow slowly. Outputs
are independent draws from the measured table. Observations take what is then missing to F: the
measured table gives their relative sizes, a weight that falls with the step index makes the growth
concave, and whole tokens are dealt out so that the sum is exact. A program that would have gone on
past the step limit is cut there, as the agent does.

Where sources differ (a closed model solves the same tasks in about half the steps), the defaults
follow the figures of an open model; `notes` says which.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from math import sqrt
from typing import Any

from workloads.errors import WorkloadError
from workloads.model import Call, Program, SandboxNeed, Segment, SegmentKind, ToolRun
from workloads.params import flat, override, param
from workloads.sampling import Table, data_file, data_table, exp, ln, normal, stream

_ATCR = "ATCR (InkedWings/ATCR), mini-SWE-agent with an open model, 61 programs"
_GEMINI = "mini-SWE-agent 1.15 on SWE-bench Verified, 251 recorded programs"
_PAPER = "ThunderAgent, arXiv 2602.13692"
_Z90 = 1.281552  # standard normal quantile of 0.9
_MAX_TOKENS = 1e6
_MAX_STEPS = 10_000  # a bound for absurd parameters; the measured longest program has 250
_OUTPUT_SHARE = 0.7  # outputs never take more of a program's growth than this; measured: 0.3 to 0.5


@dataclass(frozen=True, slots=True)
class StepsParams:
    """How long programs are."""

    median: float = param(77.0, "calls per program, median", unit="calls", source=_ATCR, low=1, high=1e4)
    p90_over_median: float = param(
        160 / 77, "calls per program, 90 % quantile over median", source=_ATCR, low=1, high=100
    )
    limit: int = param(250, "calls after which a program is cut", unit="calls", source=_ATCR, low=1)


@dataclass(frozen=True, slots=True)
class PromptParams:
    """The first prompt: shared words, the task's own text, static instructions."""

    shared_tokens: int = param(
        124, "leading tokens equal in all programs", unit="tokens", source=_GEMINI, low=1, high=1000
    )
    instruction_tokens: int = param(
        1081, "instructions after the task text", unit="tokens", source=_GEMINI, low=1, high=_MAX_TOKENS
    )
    task_scale: float = param(1.0, "factor on the length of the task text", low=0.01, high=1000)


@dataclass(frozen=True, slots=True)
class ContextParams:
    """How far contexts grow, and how."""

    median: float = param(
        40995.0, "last prompt of a program, median", unit="tokens", source=_ATCR, low=2000, high=_MAX_TOKENS
    )
    p90_over_median: float = param(
        73904 / 40995, "last prompt of a program, 90 % quantile over median", source=_ATCR, low=1, high=100
    )
    steps_correlation: float = param(
        0.75, "correlation of log(last prompt) with log(steps)", source="recorded programs: 0.67 to 0.88",
        low=-1, high=1,
    )  # fmt: skip
    early_growth: float = param(
        3.0, "share by which the first observations exceed late ones", source=_GEMINI, high=100,
    )  # fmt: skip
    early_steps: float = param(
        15.0, "steps after which half of that has faded", unit="calls", source=_GEMINI, low=0.1, high=1e5
    )


@dataclass(frozen=True, slots=True)
class OutputParams:
    """What the model writes per call."""

    median: float = param(
        79.0, "output per call, median; scales the table", unit="tokens", source=_ATCR, low=1, high=1e5
    )


@dataclass(frozen=True, slots=True)
class ObservationParams:
    """What a command returns."""

    floor: int = param(
        15, "smallest observation, with its template", unit="tokens", source=_GEMINI, low=1, high=1e5
    )


@dataclass(frozen=True, slots=True)
class ToolParams:
    """How long commands take, once the sandbox is ready."""

    floor_s: float = param(
        0.442, "shortest command: the container exec of the set-up", unit="s", source=_ATCR, high=3600
    )
    scale: float = param(1.0, "factor on the time above the floor", source=_ATCR, low=0.001, high=1000)
    timeout_s: float = param(
        60.0,
        "time limit of a command",
        unit="s",
        source="ThunderAgent's mini-SWE-agent",
        low=0.001,
        high=1e5,
    )
    timeout_share: float = param(
        0.0025, "share of commands that run into the limit", source="assumed, see notes", high=1
    )

    def __post_init__(self) -> None:
        if self.timeout_s < self.floor_s:
            raise WorkloadError(
                f"tool.timeout_s {self.timeout_s:g} below tool.floor_s {self.floor_s:g}",
                "a limit no shorter than the shortest command",
            )


@dataclass(frozen=True, slots=True)
class SandboxParams:
    """The container that a program's commands run in."""

    image_bytes: int = param(
        2_000_000_000, "image of one task, shared by its attempts", unit="bytes", source=_PAPER, high=1e13
    )
    writable_bytes: int = param(
        100_000_000, "a program's own layer", unit="bytes", source="assumed, see notes", high=1e13
    )
    prepare_s: float = param(
        25.98, "preparation, part that does not depend on load", unit="s", source=_ATCR, high=1e5
    )
    prepare_s_per_peer: float = param(
        0.021, "preparation, per sandbox preparing at once", unit="s", source=_ATCR, high=1e4
    )


@dataclass(frozen=True, slots=True)
class SweLiteParams:
    """Everything an experiment may vary about `swe-lite`."""

    tasks: int = param(
        300, "tasks before the next attempt begins", source="SWE-bench Lite", low=1, high=1e6
    )
    steps: StepsParams = field(default_factory=StepsParams)
    prompt: PromptParams = field(default_factory=PromptParams)
    context: ContextParams = field(default_factory=ContextParams)
    output: OutputParams = field(default_factory=OutputParams)
    observation: ObservationParams = field(default_factory=ObservationParams)
    tool: ToolParams = field(default_factory=ToolParams)
    sandbox: SandboxParams = field(default_factory=SandboxParams)


class SweLite:
    """The workload `swe-lite`; see the module's text."""

    name = "swe-lite"

    def __init__(self, *, seed: int = 0, overrides: Mapping[str, str] | None = None) -> None:
        self.seed = seed
        self.settings = override(SweLiteParams(), overrides or {})

    @property
    def params(self) -> dict[str, Any]:
        """Resolved parameters."""
        return flat(self.settings)

    @property
    def size(self) -> int:
        """Number of tasks; later indexes are further attempts."""
        return self.settings.tasks

    @property
    def notes(self) -> tuple[str, ...]:
        """Sources and assumptions."""
        return tuple(data_file("swe_lite")["notes"])

    def program(self, index: int) -> Program:
        """Program `index`: task `index % tasks`, attempt `index // tasks`."""
        if index < 0:
            raise WorkloadError(f"program {index}", "an index of at least 0")
        p = self.settings
        task = index % p.tasks
        name = f"{self.name}/{self.seed}/{index}"
        first = self._first_prompt(task)
        random = stream(self.seed, self.name, "program", index).random
        outputs, observations = self._lengths(random, sum(s.tokens for s in first))
        durations = self._durations(random, len(outputs) - 1)
        return Program(
            program_id=name,
            calls=_chain(name, first, outputs, observations, durations),
            sandbox=SandboxNeed(
                image=f"swe-bench-lite-{task:03d}",
                image_bytes=p.sandbox.image_bytes,
                writable_bytes=p.sandbox.writable_bytes,
                prepare_s=p.sandbox.prepare_s,
                prepare_s_per_peer=p.sandbox.prepare_s_per_peer,
            ),
            task_id=f"swe-bench-lite-{task:03d}",
        )

    def _first_prompt(self, task: int) -> tuple[Segment, ...]:
        """The first prompt depends on the task alone: not on the seed, not on the attempt."""
        prompt = self.settings.prompt
        drawn = data_table("swe_lite", "initial_prompt_tokens").at(
            stream(0, self.name, "task", task).random()
        )
        usual = PromptParams()
        text = (drawn - usual.shared_tokens - usual.instruction_tokens) * prompt.task_scale
        return (
            Segment(f"{self.name}/system", SegmentKind.SYSTEM_PROMPT, prompt.shared_tokens),
            Segment(f"{self.name}/task/{task}", SegmentKind.TASK, max(1, round(text))),
            Segment(f"{self.name}/instructions", SegmentKind.TOOL_DEFINITION, prompt.instruction_tokens),
        )

    def _lengths(self, random: Callable[[], float], first: int) -> tuple[list[int], list[int]]:
        """Output tokens of each call and observation tokens between them; `first` is the first prompt."""
        p = self.settings
        z_steps, z_other = normal(random()), normal(random())
        steps = max(1, min(_MAX_STEPS, round(exp(self._ln_steps + self._sd_steps * z_steps))))
        correlation = p.context.steps_correlation
        z_context = correlation * z_steps + sqrt(1.0 - correlation * correlation) * z_other
        last = exp(self._ln_context + self._sd_context * z_context)
        at, shape = self._outputs.at, self._observations.at
        outputs = [int(at(random())) or 1 for _ in range(steps)]
        weights = [(1.0 + shape(random())) * early for early in self._fading(steps - 1)]
        floor = p.observation.floor
        growth = max(round(last) - first, 2 * floor * steps) - floor * (steps - 1)
        written = sum(outputs[:-1])
        if written > _OUTPUT_SHARE * growth:  # a slow grower writes less too
            shrink = _OUTPUT_SHARE * growth / written
            outputs = [max(1, int(n * shrink)) for n in outputs]
            written = sum(outputs[:-1])
        observations = _deal(max(0, growth - written), weights, floor)
        return outputs[: p.steps.limit], observations[: p.steps.limit - 1]

    def _durations(self, random: Callable[[], float], count: int) -> list[float]:
        tool = self.settings.tool
        at, share, limit = self._tool_times.at, tool.timeout_share, tool.timeout_s
        return [limit if random() < share else min(limit, round(at(random()), 6)) for _ in range(count)]

    def _fading(self, count: int) -> list[float]:
        """Weights of the first `count` observations: growth per step falls with the step index."""
        known = self._fades
        context = self.settings.context
        half = context.early_steps
        for k in range(len(known), count):
            known.append(1.0 + context.early_growth * half / (half + k))
        return known[:count]

    @cached_property
    def _fades(self) -> list[float]:
        return []

    @cached_property
    def _ln_steps(self) -> float:
        return ln(self.settings.steps.median)

    @cached_property
    def _sd_steps(self) -> float:
        return ln(self.settings.steps.p90_over_median) / _Z90

    @cached_property
    def _ln_context(self) -> float:
        return ln(self.settings.context.median)

    @cached_property
    def _sd_context(self) -> float:
        return ln(self.settings.context.p90_over_median) / _Z90

    @cached_property
    def _outputs(self) -> Table:
        usual = data_table("swe_lite", "output_tokens")
        scale = self.settings.output.median / OutputParams().median
        return usual.mapped(scale, 0.5)  # so that cutting the fraction off rounds

    @cached_property
    def _observations(self) -> Table:
        usual = data_table("swe_lite", "observation_tokens")
        return usual.mapped(1.0, -usual.values[0])

    @cached_property
    def _tool_times(self) -> Table:
        tool, usual = self.settings.tool, data_table("swe_lite", "tool_duration_s")
        return usual.mapped(tool.scale, tool.floor_s - tool.scale * usual.values[0])


def _deal(tokens: int, weights: list[float], floor: int) -> list[int]:
    """Whole numbers, `floor` each plus `tokens` in proportion to `weights`; the sum is exact."""
    if not weights:
        return []
    running = list(accumulate(weights))
    total = running[-1]
    dealt = [int(tokens * (w / total)) for w in running]
    return [floor + b - a for a, b in zip([0, *dealt], dealt, strict=False)]


def _chain(
    name: str,
    first: tuple[Segment, ...],
    outputs: list[int],
    observations: list[int],
    durations: list[float],
) -> tuple[Call, ...]:
    """Calls of one program: every call extends the one before by what its command returned."""
    thought, observation = SegmentKind.THOUGHT, SegmentKind.OBSERVATION
    calls = []
    parent: str | None = None
    after: tuple[str, ...] = ()
    new = first
    for k, (tokens, seen, duration) in enumerate(zip(outputs, observations, durations, strict=False)):
        call_id = f"{name}/{k}"
        output = Segment(f"{call_id}/out", thought, tokens)
        calls.append(Call(call_id, parent, new, output, after, (ToolRun("bash", duration, seen),)))
        parent, after, new = call_id, (call_id,), (Segment(f"{call_id}/obs", observation, seen),)
    call_id = f"{name}/{len(outputs) - 1}"
    calls.append(Call(call_id, parent, new, Segment(f"{call_id}/out", thought, outputs[-1]), after))
    return tuple(calls)

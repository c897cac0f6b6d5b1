"""How fast the engines are: `python -m tests.bench.engine [--json] [--core-seconds S]`.

The default workload (swe-lite, GLM-4.6-FP8 on 8 x H100, FP8 KV), 24 and 96 programs at a time, every call
passed straight to one replica by a bare loop, so that what is measured are the engines. Seconds are CPU
seconds of this process, without the making of the programs. The fast engine plays an hour; vLLM's own
scheduler plays the beginning of the same run, the fast engine plays that beginning again, and the two
must have scheduled the same.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from harness import profiles
from harness.virtual.engine import Engine, EngineOptions, EngineRequest, Piece
from harness.virtual.fast import FastEngine
from harness.virtual.steptime import StepTime
from workloads import registry
from workloads.model import Program

HOUR_S = 3600.0
CONCURRENCIES = (24, 96)
CORE_S = {24: 600.0, 96: 1200.0}  # virtual seconds that vLLM's scheduler plays
SCALING_PROGRAMS = 96  # run to their end, 24 at a time: these, twice as many, and with outputs doubled


@dataclass(frozen=True)
class Cost:
    """One run of one engine; `seconds` of CPU."""

    engine: str
    concurrency: int
    virtual_s: float
    calls: int
    steps: int
    hit_rate: float
    seconds: float
    scheduled: tuple[int, ...]

    @property
    def calls_per_s(self) -> float:
        return self.calls / self.seconds


class Loop:
    """Programs in a closed loop: when one ends the next begins. Tools take the time they say."""

    def __init__(self, engine: Engine, programs: Iterator[Program]) -> None:
        self.engine, self.programs = engine, programs
        self.facts: list[tuple[float, int, Program, int, EngineRequest | None]] = []
        self.open: dict[str, tuple[Program, int]] = {}
        self.asked = self.calls = 0
        self.making_s = 0.0

    def run(self, concurrency: int, until_s: float) -> float:
        """Play to `until_s` or the end of the programs; returns the virtual time reached."""
        for _ in range(concurrency):
            self.next_program(0.0)
        engine, facts, now = self.engine, self.facts, 0.0
        while True:
            instant = min(engine.next_boundary, facts[0][0] if facts else math.inf)
            if instant > until_s or instant == math.inf:
                return now
            now = instant
            begin = engine.next_boundary == now
            if begin:
                for request in engine.complete(now).finished:
                    self.follow(request, now)
            begin |= engine.next_boundary == math.inf
            while facts and facts[0][0] <= now:
                _, _, program, index, last = heapq.heappop(facts)
                self.submit(program, index, last, now)
            if begin:
                engine.begin(now)

    def next_program(self, now: float) -> None:
        began = time.process_time()
        program = next(self.programs, None)
        self.making_s += time.process_time() - began
        if program is not None:
            self.tell(now, program, 0, None)

    def tell(self, when: float, program: Program, index: int, last: EngineRequest | None) -> None:
        self.asked += 1
        heapq.heappush(self.facts, (when, self.asked, program, index, last))

    def submit(self, program: Program, index: int, last: EngineRequest | None, now: float) -> None:
        call = program.calls[index]
        new = tuple(Piece(segment.key, segment.tokens) for segment in call.new)
        output = Piece(call.output.key, call.output.tokens)
        if last is None:
            request = EngineRequest(call.call_id, new, output)
        else:
            known = last.prompt_tokens + last.output.tokens - 1
            request = EngineRequest(call.call_id, (*last.prompt, last.output, *new), output, known)
            request.extends = last
        self.open[call.call_id] = program, index
        self.engine.submit(request, now)

    def follow(self, request: EngineRequest, now: float) -> None:
        program, index = self.open.pop(request.call_id)
        self.calls += 1
        acting = max((tool.duration_s for tool in program.calls[index].tools), default=0.0)
        if index + 1 < len(program.calls):
            self.tell(now + acting, program, index + 1, request)
        else:
            self.next_program(now + acting)


def default_engine() -> tuple[EngineOptions, StepTime]:
    """Options and step times of the default run's replica."""
    model, gpus = profiles.model("GLM-4.6-FP8"), profiles.hardware("8xH100")
    options = EngineOptions(profiles.kv_capacity_tokens(model, gpus, "fp8"))
    return options, profiles.step_time(model, gpus, "fp8")


def default_programs(count: int | None = None, longer: int = 1) -> Iterator[Program]:
    """The programs of the default workload, outputs `longer` times as long."""
    workload = registry.load("swe-lite", seed=0, overrides={})
    index = 0
    while count is None or index < count:
        program = workload.program(index)
        if longer > 1:
            calls = tuple(
                type(call)(
                    call.call_id,
                    call.parent,
                    call.new,
                    type(call.output)(call.output.key, call.output.kind, call.output.tokens * longer),
                    call.after,
                    call.tools,
                )
                for call in program.calls
            )
            program = type(program)(program.program_id, calls, program.sandbox, program.task_id)
        yield program
        index += 1


def measure(
    name: str, engine: Engine, programs: Iterator[Program], concurrency: int, until_s: float = math.inf
) -> Cost:
    """Play `programs` on `engine` and say what it cost."""
    loop = Loop(engine, programs)
    began = time.process_time()
    reached = loop.run(concurrency, until_s)
    seconds = time.process_time() - began - loop.making_s
    engine.load(reached if until_s == math.inf else until_s)  # brings the counters up to there
    c = engine.counters
    scheduled = (loop.calls, c.queries, c.hits, c.preemptions, c.evicted_blocks, c.steps)
    hit_rate = c.hits / c.queries if c.queries else 0.0
    return Cost(name, concurrency, reached, loop.calls, c.steps, hit_rate, seconds, scheduled)


def peak_mb() -> float:
    """Most memory this process ever held, in MB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def scaling() -> dict[str, Cost]:
    """The same concurrency with more programs, and with longer outputs."""
    options, step_time = default_engine()
    variants = {
        "base": default_programs(SCALING_PROGRAMS),
        "programs x 2": default_programs(SCALING_PROGRAMS * 2),
        "outputs x 2": default_programs(SCALING_PROGRAMS, longer=2),
    }
    return {
        name: measure("fast", FastEngine(options, step_time), programs, 24)
        for name, programs in variants.items()
    }


def against_vllm(core_s: dict[int, float]) -> list[tuple[Cost, Cost]]:
    """By concurrency: vLLM's scheduler, and the fast engine over the same virtual seconds."""
    from harness.virtual.vllm_core import VllmCoreEngine  # noqa: PLC0415 - takes seconds and memory

    options, step_time = default_engine()
    pairs = []
    for concurrency, until_s in core_s.items():
        engine = VllmCoreEngine(options, step_time)
        core = measure("vllm-core", engine, default_programs(), concurrency, until_s)
        fast = measure("fast", FastEngine(options, step_time), default_programs(), concurrency, until_s)
        pairs.append((core, fast))
    return pairs


def show(cost: Cost) -> str:
    return (
        f"{cost.engine:10} {cost.concurrency:3} programs {cost.virtual_s:6.0f} virtual s "
        f"{cost.calls:6} calls {cost.steps:7} steps  hit {cost.hit_rate:6.1%} {cost.seconds:7.2f} s "
        f"{cost.calls_per_s:9.0f} calls/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.engine", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--core-seconds", type=float, help="virtual seconds for vLLM's scheduler; 0 leaves it out"
    )
    asked = parser.parse_args()
    options, step_time = default_engine()
    hours = [
        measure("fast", FastEngine(options, step_time), default_programs(), concurrency, HOUR_S)
        for concurrency in CONCURRENCIES
    ]
    scaled = scaling()
    memory = peak_mb()
    core_s = CORE_S if asked.core_seconds is None else dict.fromkeys(CONCURRENCIES, asked.core_seconds)
    pairs = against_vllm(core_s) if any(core_s.values()) else []
    base = scaled["base"].seconds
    result = {
        "hour": [asdict(cost) | {"calls_per_s": cost.calls_per_s} for cost in hours],
        "scaling": {name: cost.seconds / base for name, cost in scaled.items()},
        "peak_mb": memory,
        "pairs": [
            {
                "vllm_core": asdict(core),
                "fast": asdict(fast),
                "ratio": core.seconds / fast.seconds,
                "agree": core.scheduled == fast.scheduled,
            }
            for core, fast in pairs
        ],
    }
    if asked.json:
        print(json.dumps(result))
        return
    for cost in hours:
        print(show(cost))
    print(
        "cost of programs x 2: {:.2f} times, of outputs x 2: {:.2f} times; peak memory {:.0f} MB".format(
            scaled["programs x 2"].seconds / base, scaled["outputs x 2"].seconds / base, memory
        )
    )
    for core, fast in pairs:
        print(show(core))
        print(show(fast))
        same = "the same schedule" if core.scheduled == fast.scheduled else "SCHEDULES DIFFER"
        print(f"{'':10} the fast engine is {core.seconds / fast.seconds:.0f} times as fast; {same}")


if __name__ == "__main__":
    main()

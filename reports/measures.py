"""The numbers of a run that reports speak of: where each stands in its `summary`, and which way is better.

What the numbers mean is said once, in `harness.metrics`; units stand in the names. Positive quantities are
compared as ratios. Shares, and what may well be 0, are compared as differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

Kind = Literal["ratio", "difference"]

# The parts of a step, in order; they sum to it.
PARTS = ("hold", "queue", "prefill", "decode", "sandbox", "tool")


class Measure(NamedTuple):
    """One number of a run: its name, its place in the summary, which way is better, what it is called."""

    name: str
    path: tuple[str, ...]
    better: Literal["more", "less"]
    title: str
    kind: Kind = "ratio"

    @property
    def more_is_better(self) -> bool:
        """Whether a larger number is a better one."""
        return self.better == "more"


_ALL = (
    Measure("steps_per_min", ("throughput", "steps_per_min"), "more", "steps/min"),
    Measure("programs_per_h", ("throughput", "programs_per_h"), "more", "programs/h"),
    Measure("output_tokens_per_s", ("throughput", "output_tokens_per_s"), "more", "output tok/s"),
    Measure("hit_rate_share", ("kv", "hit_rate_share"), "more", "KV hit rate", "difference"),
    Measure("recomputed_share", ("kv", "recomputed_share"), "less", "computed again", "difference"),
    Measure("preemptions", ("kv", "preemptions"), "less", "preemptions", "difference"),
    Measure("step_mean_s", ("latency", "step_s", "mean"), "less", "step mean s"),
    Measure("step_p95_s", ("latency", "step_s", "p95"), "less", "step p95 s"),
    Measure("ttft_p50_s", ("latency", "ttft_s", "p50"), "less", "TTFT p50 s"),
    Measure("ttft_p95_s", ("latency", "ttft_s", "p95"), "less", "TTFT p95 s"),
    Measure("ttft_p99_s", ("latency", "ttft_s", "p99"), "less", "TTFT p99 s"),
    Measure("program_mean_s", ("latency", "program_s", "mean"), "less", "program mean s"),
    Measure("worst_wait_s", ("fairness", "worst_wait_s"), "less", "worst wait s"),
    Measure("wait_gini_share", ("fairness", "wait_gini_share"), "less", "Gini of waits", "difference"),
    Measure("hold_s", ("latency", "split_s", "hold"), "less", "held mean s", "difference"),
    Measure("queue_s", ("latency", "split_s", "queue"), "less", "queued mean s", "difference"),
    Measure("disk_peak_bytes", ("disk", "peak_bytes"), "less", "disk peak"),
    Measure("leaked", ("sandboxes", "leaked"), "less", "leaked sandboxes", "difference"),
    Measure("exposed_s", ("sandboxes", "exposed_s"), "less", "sandbox wait s"),
)
MEASURES: dict[str, Measure] = {measure.name: measure for measure in _ALL}

STEPS = ("throughput", "steps")  # how many ended in the window; 0 of a run that measured nothing

# What a comparison is decided by. These, and only these, get a word; Holm's correction is over them.
HEADLINES = (
    "steps_per_min",
    "programs_per_h",
    "hit_rate_share",
    "ttft_p95_s",
    "step_mean_s",
    "worst_wait_s",
)

LOADS = {
    "concurrency": "{:g} programs at a time",
    "request_rate": "{:g} programs/s",
    "arrival_times": "{:g} programs at given times",
}


def label(load: str, value: float) -> str:
    """A load in words: `96 programs at a time`."""
    return LOADS[load].format(value)


def pick(summary: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at `path`; null where any step of it is missing."""
    found: Any = summary
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found is None else float(found)

"""Where the time of a step goes, and where the memory of the GPUs goes."""

from __future__ import annotations

from collections.abc import Iterator

from reports.figures.figure import Figure, Omitted
from reports.figures.looks import COST_COLOURS, PART_COLOURS
from reports.figures.stacks import stacked
from reports.measures import PARTS
from reports.study import Study

TIME_QUESTION = "Where does the time go?"
MEMORY_QUESTION = "Where does the GPU memory go?"


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """The six parts of a step; the five costs of memory."""
    yield stacked(
        study,
        {part: ("latency", "split_s", part) for part in PARTS},
        PART_COLOURS,
        slug="step-time",
        question=TIME_QUESTION,
        title="Parts of a step",
        unit="s per step",
        relative=True,
        look_at="hold is waiting at the gateway and queue inside the engine; prefill and decode are the "
        "model's work; sandbox and tool are the agent's. The parts sum to the mean step."
        + ("" if study.simulated else " What servers do not tell is part of prefill."),
    )
    yield stacked(
        study,
        {cost: ("space_time", f"{cost}_share") for cost in COST_COLOURS},
        COST_COLOURS,
        slug="gpu-memory",
        question=MEMORY_QUESTION,
        title="KV memory over time, by what held it",
        unit="% of capacity over time",
        scale=100.0,
        look_at="decode and prefill are work, recompute is work done twice, caching is held for a program "
        "that may come back, unused is blank.",
    )

"""How much work gets done, and at whose expense: steps, programs and the worst wait against the load."""

from __future__ import annotations

from collections.abc import Iterator

from reports.figures.figure import Figure, Omitted
from reports.figures.overloads import Measure, over_loads
from reports.figures.overtime import over_time
from reports.study import Study

QUESTION = "How much work gets done?"

STEPS = Measure(("throughput", "steps_per_min"), "steps/min")
PROGRAMS = Measure(("throughput", "programs_per_h"), "programs/h")
WORST_WAIT = Measure(("fairness", "worst_wait_s"), "longest wait of one call, s", log=True)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """Steps per minute; beside it what steps alone may hide."""
    yield over_loads(
        study,
        STEPS,
        slug="steps-per-min",
        question=QUESTION,
        title="Steps per minute against load",
        look_at="A line that bends down shows the load beyond which more programs get less done.",
    )
    yield over_time(
        study,
        lambda series: series.steps_per_min,
        slug="steps-per-min-over-time",
        question=QUESTION,
        title="Steps per minute over time",
        unit="steps/min",
        look_at="A line that has not settled where measuring begins says that the warm-up was too short.",
    )
    yield over_loads(
        study,
        PROGRAMS,
        slug="programs-per-h",
        question=QUESTION,
        title="Programs finished per hour against load",
        look_at="A scheduler that starves some programs can lead in steps and still finish fewer programs.",
    )
    yield over_loads(
        study,
        WORST_WAIT,
        slug="worst-wait",
        question=QUESTION,
        title="Longest wait of one call against load",
        look_at="What the program that was treated worst waited, held or queued, for one call.",
    )

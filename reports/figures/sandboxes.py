"""What tools cost beside the GPUs: disk over time, sandboxes nobody reclaims, preparation that delays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from reports.figures.figure import Figure, Omitted
from reports.figures.looks import PART_COLOURS
from reports.figures.overloads import Measure, over_loads
from reports.figures.overtime import over_time
from reports.figures.stacks import stacked
from reports.measures import pick
from reports.study import Study

DISK_QUESTION = "What do sandboxes hold, and who cleans up?"
PREPARATION_QUESTION = "Does preparing sandboxes delay anybody?"
LEAKED = Measure(("sandboxes", "leaked"), "leaked sandboxes", difference=True)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """Disk, leaks and preparation; only where there are sandboxes."""
    if not any(_has_sandboxes(run.summary, run.seen.series.disk_bytes) for run in study.runs):
        for slug in ("disk-over-time", "unreclaimed-over-time", "leaked-sandboxes", "preparation"):
            yield Omitted(slug, "no program of the workload has a sandbox")
        return
    yield over_time(
        study,
        lambda series: series.disk_bytes,
        slug="disk-over-time",
        question=DISK_QUESTION,
        title="Disk held by sandboxes over time",
        unit="GB",
        scale=1e-9,
        look_at="Writable layers, and every image in use once. A line that only rises: nobody frees disk.",
    )
    yield over_time(
        study,
        lambda series: series.unreclaimed,
        slug="unreclaimed-over-time",
        question=DISK_QUESTION,
        title="Sandboxes of finished programs over time",
        unit="sandboxes not reclaimed",
        look_at="Their program has finished and their disk is not freed: what stays to the end has leaked.",
    )
    yield over_loads(
        study,
        LEAKED,
        slug="leaked-sandboxes",
        question=DISK_QUESTION,
        title="Leaked sandboxes against load",
        look_at="Left behind when the run ended; 0 is what it should be.",
    )
    yield stacked(
        study,
        {"hidden": ("sandboxes", "hidden_s"), "exposed": ("sandboxes", "exposed_s")},
        {"hidden": PART_COLOURS["tool"], "exposed": PART_COLOURS["hold"]},
        slug="preparation",
        question=PREPARATION_QUESTION,
        title="Preparation of sandboxes",
        unit="s per sandbox",
        per=("sandboxes", "prepared"),
        look_at="hidden passed while the program did other work, exposed while somebody waited. All of it "
        "hidden costs nothing.",
    )


def _has_sandboxes(summary: dict[str, Any], disk: Any) -> bool:
    return bool(pick(summary, ("sandboxes", "prepared"))) or bool((disk > 0).any())

"""How long things take: cumulative distributions of four times, and percentiles against the load."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, rounded
from reports.figures.lines import Axes, lines
from reports.figures.looks import SECONDS, caption, which_load
from reports.figures.overloads import Measure, over_loads, values
from reports.histogram import Histogram
from reports.study import Load, Study

QUESTION = "How long does it take?"
# Percentiles with the fewest samples that can state them, those of `harness.metrics`.
FLOORS = {"p50": 11, "p90": 64, "p95": 130, "p99": 662}
LEAST_SHARE = 0.002  # of a distribution between two points of its curve


class Time(NamedTuple):
    """A time: which histogram holds it, and where its percentiles stand in the summary, if there."""

    slug: str
    attribute: str
    path: tuple[str, ...] | None
    title: str
    meaning: str


TIMES = (
    Time(
        "ttft",
        "ttft_s",
        ("latency", "ttft_s"),
        "Time to first token",
        "From the request at the gateway to its first token, held and queued included.",
    ),
    Time(
        "step-latency",
        "step_s",
        ("latency", "step_s"),
        "Step latency",
        "From the request at the gateway to the end of its tool runs.",
    ),
    Time(
        "program-completion",
        "program_s",
        ("latency", "program_s"),
        "Program completion time",
        "From a program's arrival to its end, of those that finished in the measured time.",
    ),
    Time(
        "final-answer",
        "answer_s",
        None,
        "Time to the first token of the final answer (FTR)",
        "From a program's arrival to the first token of its last call, of those that finished in the "
        "measured time.",
    ),
)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """A distribution of each time; then tails against the load."""
    for time in TIMES:
        yield _distribution(study, time)
    for percentile in ("p50", "p95", "p99"):
        yield over_loads(
            study,
            Measure(("latency", "ttft_s", percentile), f"{percentile} of TTFT, s", log=True),
            slug=f"ttft-{percentile}",
            question=QUESTION,
            title=f"Time to first token, {percentile}, against load",
            look_at="A percentile is shown only where there are samples enough to state it.",
        )
    yield over_loads(
        study,
        Measure(("latency", "step_s", "p95"), "p95 of step latency, s", log=True),
        slug="step-p95",
        question=QUESTION,
        title="Step latency, p95, against load",
        look_at="One step in twenty takes longer than this.",
    )


def _distribution(study: Study, time: Time) -> Figure | Omitted:
    rows = [row for load in study.loads for arm in study.arms for row in _curve(study, time, load, arm)]
    if not rows:
        return Omitted(time.slug, "nothing of the kind ended in the measured time of any run")
    loads = list(dict.fromkeys(row["load"] for row in rows))
    return Figure(
        id=time.slug,
        question=QUESTION,
        title=time.title,
        caption=caption(
            study,
            time.meaning,
            "Further left is faster; where curves cross, one is better for most and worse for some.",
            "All repeats together, in bins 6 % wide; bands are the least and the most of the repeats."
            if any("least" in row for row in rows)
            else "In bins 6 % wide.",
            which_load(loads),
        ),
        spec=_spec(study, rows, time),
        table=_table(study, time),
    )


def _curve(study: Study, time: Time, load: Load, arm: str) -> list[dict[str, Any]]:
    repeats: list[Histogram] = [getattr(run.seen, time.attribute) for run in study.of(arm, load)]
    repeats = [histogram for histogram in repeats if histogram.total]
    if not repeats:
        return []
    points = reduce(add, repeats).cumulative()
    kept, last = [], -1.0
    for point in points:
        if point.share - last >= LEAST_SHARE or point is points[-1]:
            kept.append(point)
            last = point.share
    edges = np.array([point.upto for point in kept])
    each = np.array([histogram.at(edges) for histogram in repeats])
    rows = []
    for i, point in enumerate(kept):
        row = {"arm": arm, "load": str(load), "x": rounded(point.upto), "y": rounded(point.share * 100)}
        if len(repeats) > 1:
            row |= {
                "least": rounded(float(each[:, i].min()) * 100),
                "most": rounded(float(each[:, i].max()) * 100),
            }
        rows.append(row)
    return rows


def _spec(study: Study, rows: list[dict[str, Any]], time: Time) -> Spec:
    x = alt.X(
        "x:Q",
        title=f"{time.title[0].lower()}{time.title[1:]}, s",
        scale=alt.Scale(type="log", nice=False),
        axis=alt.Axis(format=SECONDS, tickCount=6, grid=False),
    )
    scale = alt.Scale(domain=[0, 100])
    return lines(study, rows, Axes(x, "at most, s", "% at most as long", scale))


def _table(study: Study, time: Time) -> Table:
    """Means of the repeats' percentiles where summaries have them, else quantiles of the bins."""
    rows: list[tuple[Cell, ...]] = []
    for load in study.loads:
        for arm in study.arms:
            repeats: list[Histogram] = [getattr(run.seen, time.attribute) for run in study.of(arm, load)]
            count = sum(histogram.total for histogram in repeats)
            cells = [_percentile(study, time, arm, load, name) for name in FLOORS]
            rows.append((str(load), arm, count, *cells))
    return Table(("load", "scheduler", "samples", *(f"{name}, s" for name in FLOORS)), tuple(rows))


def _percentile(study: Study, time: Time, arm: str, load: Load, name: str) -> float | int | None:
    if time.path is None:
        repeats: list[Histogram] = [getattr(run.seen, time.attribute) for run in study.of(arm, load)]
        enough = [histogram for histogram in repeats if histogram.total >= FLOORS[name]]
        quantiles = [histogram.quantile(int(name[1:]) / 100) for histogram in enough]
        found = [value for value in quantiles if value is not None]
    else:
        found = values(study, Measure((*time.path, name), name), arm, load)
    return rounded(sum(found) / len(found)) if found else None

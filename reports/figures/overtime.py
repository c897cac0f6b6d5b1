"""A number over the time of a run: the mean of the repeats, and the band from the least to the most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import altair as alt
import numpy as np
from numpy.typing import NDArray

from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, rounded
from reports.figures.lines import Axes, lines
from reports.figures.looks import caption, which_load
from reports.overtime import Series
from reports.study import Study, StudyRun

Floats = NDArray[np.float64]
TABLE_POINTS = 12  # of each line; the chart has them all


def over_time(
    study: Study,
    series: Callable[[Series], Floats],
    *,
    slug: str,
    question: str,
    title: str,
    unit: str,
    look_at: str,
    scale: float = 1.0,
) -> Figure | Omitted:
    """The figure of a series; omitted where it is empty in every run."""
    rows = [row for group in _groups(study) for row in _rows(group, series, scale)]
    if not rows:
        return Omitted(slug, "no run has samples of it")
    loads = list(dict.fromkeys(row["load"] for row in rows))
    return Figure(
        id=slug,
        question=question,
        title=title,
        caption=caption(
            study,
            look_at,
            "Lines are means of the repeats, bands go from the least to the most."
            if any("least" in row for row in rows)
            else "",
            which_load(loads),
            "The dashed line is where measuring begins.",
        ),
        spec=_spec(study, rows, unit),
        table=_table(rows, unit),
    )


def _groups(study: Study) -> list[list[StudyRun]]:
    """The repeats of each load and arm."""
    found = [study.of(arm, load) for load in study.loads for arm in study.arms]
    return [group for group in found if group]


def _rows(
    group: Sequence[StudyRun], series: Callable[[Series], Floats], scale: float
) -> list[dict[str, Any]]:
    repeats = [series(run.seen.series) * scale for run in group]
    columns = zip(*(values.tolist() for values in repeats), strict=True)
    rows = []
    for middle, values in zip(group[0].grid.middles, columns, strict=True):
        known = [value for value in values if value == value]  # noqa: PLR0124 - not-a-number is unknown
        if not known:
            continue
        row = {
            "arm": group[0].arm,
            "load": str(group[0].load),
            "x": rounded(middle / 60),
            "y": rounded(sum(known) / len(known)),
        }
        if len(known) > 1:
            row |= {"least": rounded(min(known)), "most": rounded(max(known))}
        rows.append(row)
    return rows


def _spec(study: Study, rows: list[dict[str, Any]], unit: str) -> Spec:
    begins = [{"load": str(run.load), "x": rounded(start(run) / 60)} for run in study.runs]
    x = alt.X("x:Q", title="minutes since the run began", scale=alt.Scale(nice=False))
    return lines(
        study,
        rows,
        Axes(x, "minute", unit, alt.Scale(zero=True)),
        rules=[row for i, row in enumerate(begins) if row not in begins[:i]],
    )


def start(run: StudyRun) -> float:
    """When measuring begins, seconds since the run began."""
    return float(run.summary["window"]["start_s"])


def _table(rows: list[dict[str, Any]], unit: str) -> Table:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["load"], row["arm"]), []).append(row)
    found: list[tuple[Cell, ...]] = []
    for (load, arm), group in groups.items():
        picks = np.unique(np.linspace(0, len(group) - 1, min(TABLE_POINTS, len(group))).round().astype(int))
        found += [(load, arm, group[i]["x"], group[i]["y"]) for i in picks.tolist()]
    return Table(("load", "scheduler", "minute", unit), tuple(found))

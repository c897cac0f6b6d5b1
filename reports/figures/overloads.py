"""A number of each run against the load: points for the repeats, a line through their means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import altair as alt

from reports.figures.figure import Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import (
    HEIGHT,
    arm_colour,
    arm_shape,
    caption,
    faded,
    load_axis,
    seconds_scale,
    toggle,
)
from reports.measures import pick
from reports.study import Load, Study, StudyRun

Row: TypeAlias = dict[str, Any]
Mean: TypeAlias = Callable[[list[float]], float]


def arithmetic(values: list[float]) -> float:
    """The mean of numbers; at least one."""
    return sum(values) / len(values)


def geometric(values: list[float]) -> float:
    """The mean of ratios >= 0, as the verdict takes it; 0 where one is 0. At least one."""
    return math.exp(arithmetic([math.log(value) for value in values])) if min(values) > 0 else 0.0


class Measure(NamedTuple):
    """A number of a run's summary: where it stands, its name with the unit, and how to show it.

    `scale` multiplies it before it is shown. `difference`: beside the baseline it is a difference, not a
    ratio. `log`: its axis is logarithmic, as for times that differ by orders of magnitude.
    """

    path: tuple[str, ...]
    title: str
    scale: float = 1.0
    difference: bool = False
    log: bool = False


def over_loads(
    study: Study, measure: Measure, *, slug: str, question: str, title: str, look_at: str
) -> Figure | Omitted:
    """The figure of a measure; omitted where no run has it."""
    rows = _rows(study, measure)
    if not rows:
        return Omitted(slug, f"no run has a value of {'.'.join(measure.path)}")
    return Figure(
        id=slug,
        question=question,
        title=title,
        caption=caption(study, look_at, "Points are repeats, the line goes through their means."),
        spec=_spec(study, rows, measure.title, log=measure.log),
        table=_table(study, measure),
        relative_spec=_relative(study, measure),
    )


def values(study: Study, measure: Measure, arm: str, load: Load) -> list[float]:
    """The measure of each repeat that has it, in order of seed."""
    found = (_value(run, measure) for run in study.of(arm, load))
    return [value for value in found if value is not None]


def _value(run: StudyRun, measure: Measure) -> float | None:
    value = pick(run.summary, measure.path)
    return None if value is None else value * measure.scale


def _rows(
    study: Study, measure: Measure, of: Callable[[StudyRun], float | None] | None = None
) -> list[Row]:
    rows = []
    for run in study.runs:
        value = of(run) if of else _value(run, measure)
        if value is not None:
            rows.append(
                {
                    "arm": run.arm,
                    "load": str(run.load),
                    "x": run.load.value,
                    "y": rounded(value),
                    "seed": run.seed,
                }
            )
    return rows


def _spec(study: Study, rows: list[Row], title: str, *, log: bool, mean: Mean = arithmetic) -> Spec:
    shown = toggle()
    y = alt.Y("y:Q", title=title)
    if log:
        scale, axis = seconds_scale(max(row["y"] for row in rows))
        y = alt.Y("y:Q", title=title, scale=scale, axis=axis)
    what = [alt.Tooltip("arm:N", title="scheduler"), alt.Tooltip("load:N", title="load")]
    x, colour = load_axis(study.loads), arm_colour(study)
    points = (
        alt.Chart(alt.NamedData("runs"))
        .mark_point(filled=True, size=40)
        .encode(
            x=x,
            y=y,
            color=colour,
            shape=arm_shape(study),
            opacity=faded(shown, 0.5),
            tooltip=[*what, alt.Tooltip("y:Q", title=title), alt.Tooltip("seed:N", title="seed")],
        )
    )
    means = alt.Chart(alt.NamedData("means")).encode(x=x, y=y, color=colour, opacity=faded(shown))
    spread = [
        alt.Tooltip("y:Q", title=f"mean, {title}"),
        alt.Tooltip("least:Q", title="least"),
        alt.Tooltip("most:Q", title="most"),
        alt.Tooltip("repeats:Q", title="repeats"),
    ]
    dots = means.mark_point(filled=True, size=95).encode(shape=arm_shape(study), tooltip=[*what, *spread])
    chart = alt.layer(points, means.mark_line(strokeWidth=2.5), dots).add_params(shown)
    return finish(chart, {"runs": rows, "means": _means(rows, mean)}, height=HEIGHT)


def _means(rows: list[Row], mean: Mean) -> list[Row]:
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        found.setdefault((row["arm"], row["load"]), []).append(row)
    return [
        {
            "arm": arm,
            "load": load,
            "x": group[0]["x"],
            "y": rounded(mean([row["y"] for row in group])),
            "least": min(row["y"] for row in group),
            "most": max(row["y"] for row in group),
            "repeats": len(group),
        }
        for (arm, load), group in found.items()
    ]


def _relative(study: Study, measure: Measure) -> Spec | None:
    """Each repeat beside the baseline's repeat of the same load and seed."""
    if len(study.arms) < 2:
        return None
    beside = {(run.load, run.seed): _value(run, measure) for run in study.of(study.baseline)}

    def against(run: StudyRun) -> float | None:
        own, other = _value(run, measure), beside.get((run.load, run.seed))
        if own is None or other is None or (not other and not measure.difference):
            return None
        return own - other if measure.difference else own / other

    rows = _rows(study, measure, against)
    if not rows:
        return None
    name = study.baseline if len(study.baseline) <= 24 else "the baseline"
    title = f"{measure.title} {'minus' if measure.difference else '÷'} {name}"
    return _spec(study, rows, title, log=False, mean=arithmetic if measure.difference else geometric)


def _table(study: Study, measure: Measure) -> Table:
    rows = []
    for load in study.loads:
        for arm in study.arms:
            found = values(study, measure, arm, load)
            mean = sum(found) / len(found) if found else None
            rows.append(
                (
                    str(load),
                    arm,
                    rounded(mean),
                    rounded(min(found, default=None)),
                    rounded(max(found, default=None)),
                    len(found),
                )
            )
    return Table(("load", "scheduler", f"mean, {measure.title}", "least", "most", "repeats"), tuple(rows))

"""Stacked bars: one bar for each load and arm, cut into parts; means of the repeats."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import altair as alt

from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import caption, faded, legend, load_title, name_axis, toggle
from reports.measures import pick
from reports.study import Load, Study, StudyRun

BAR = 22  # pixels of a bar with the gap after it


def stacked(
    study: Study,
    parts: Mapping[str, tuple[str, ...]],
    colours: Mapping[str, str],
    *,
    slug: str,
    question: str,
    title: str,
    unit: str,
    look_at: str,
    scale: float = 1.0,
    per: tuple[str, ...] | None = None,
    relative: bool = False,
) -> Figure | Omitted:
    """The figure of `parts` (name -> path in the summary); omitted where no run has them.

    Each run's part is multiplied by `scale` and divided by the run's number at `per`. `relative`: it can
    also be drawn in percent of the baseline's sum under the same load.
    """

    def value(run: StudyRun, path: tuple[str, ...]) -> float | None:
        part, of = pick(run.summary, path), pick(run.summary, per) if per else 1.0
        return None if part is None or not of else part * scale / of

    rows = [
        row for load in study.loads for arm in study.arms for row in _rows(study, load, arm, parts, value)
    ]
    if not rows:
        return Omitted(slug, "no run has these numbers")
    return Figure(
        id=slug,
        question=question,
        title=title,
        caption=caption(
            study,
            look_at,
            f"A bar is the mean of the repeats under one load ({load_title(study.loads)}) and scheduler.",
        ),
        spec=_spec(rows, colours, unit),
        table=_table(rows, parts, unit),
        relative_spec=_relative(study, rows, colours) if relative and len(study.arms) > 1 else None,
    )


def _rows(
    study: Study,
    load: Load,
    arm: str,
    parts: Mapping[str, tuple[str, ...]],
    value: Callable[[StudyRun, tuple[str, ...]], float | None],
) -> list[dict[str, Any]]:
    rows = []
    for order, (part, path) in enumerate(parts.items()):
        found = [value(run, path) for run in study.of(arm, load)]
        known = [number for number in found if number is not None]
        if known:
            rows.append(
                {
                    "bar": f"{load.value:g} · {arm}",
                    "load": str(load),
                    "arm": arm,
                    "part": part,
                    "order": order,
                    "y": rounded(sum(known) / len(known)),
                    "repeats": len(known),
                }
            )
    return rows


def _relative(study: Study, rows: list[dict[str, Any]], colours: Mapping[str, str]) -> Spec | None:
    whole: dict[str, float] = {}
    for row in rows:
        if row["arm"] == study.baseline:
            whole[row["load"]] = whole.get(row["load"], 0.0) + row["y"]
    found = [
        row | {"y": rounded(row["y"] / whole[row["load"]] * 100)} for row in rows if whole.get(row["load"])
    ]
    name = study.baseline if len(study.baseline) <= 24 else "the baseline"
    return _spec(found, colours, f"% of {name}'s") if found else None


def _spec(rows: list[dict[str, Any]], colours: Mapping[str, str], unit: str) -> Spec:
    shown = toggle("part")
    bars = list(dict.fromkeys(row["bar"] for row in rows))
    chart = (
        alt.Chart(alt.NamedData("parts"))
        .mark_bar(height={"band": 0.8})
        .encode(
            y=alt.Y("bar:N", sort=bars, title=None, axis=name_axis()),
            x=alt.X("y:Q", title=unit, stack="zero", scale=alt.Scale(nice=False)),  # shares end at 100
            color=alt.Color(
                "part:N",
                scale=alt.Scale(domain=list(colours), range=list(colours.values())),
                title=None,
                legend=legend(list(colours)),
            ),
            order=alt.Order("order:Q"),
            opacity=faded(shown),
            tooltip=[
                alt.Tooltip("arm:N", title="scheduler"),
                alt.Tooltip("load:N", title="load"),
                alt.Tooltip("part:N", title="part"),
                alt.Tooltip("y:Q", title=unit),
                alt.Tooltip("repeats:Q", title="repeats"),
            ],
        )
        .add_params(shown)
    )
    return finish(chart, {"parts": rows}, height=BAR * len(bars))


def _table(rows: list[dict[str, Any]], parts: Mapping[str, tuple[str, ...]], unit: str) -> Table:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["load"], row["arm"]), {})[row["part"]] = row["y"]
    lines: list[tuple[Cell, ...]] = [
        (load, arm, *(values.get(part) for part in parts)) for (load, arm), values in found.items()
    ]
    return Table(("load", "scheduler", *(f"{part}, {unit}" for part in parts)), tuple(lines))

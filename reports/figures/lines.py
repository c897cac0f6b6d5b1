"""Lines by arm with bands and tooltips, for curves over time and cumulative distributions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt

from reports.figures.figure import Spec, finish
from reports.figures.looks import (
    HEIGHT,
    NEUTRAL,
    arm_colour,
    arm_dash,
    faded,
    line_legend,
    picked,
    picker,
    toggle,
)
from reports.study import Study


class Axes(NamedTuple):
    """The two axes, what their numbers are called in tooltips, and how points are joined."""

    x: alt.X
    x_name: str
    y_title: str
    y_scale: alt.Scale
    interpolate: str = "linear"


def lines(
    study: Study,
    rows: Sequence[Mapping[str, Any]],
    axes: Axes,
    rules: Sequence[Mapping[str, Any]] = (),
) -> Spec:
    """A spec of rows with `arm`, `load`, `x`, `y` and perhaps `least` and `most`, for one load at a time.

    `rules` have `load` and `x`: dashed verticals.
    """
    shown = toggle()
    load = picker("load", "Load", list(dict.fromkeys(row["load"] for row in rows)))
    base = picked(alt.Chart(alt.NamedData("lines")), load)
    x, colour = axes.x, arm_colour(study, line_legend(study))
    y = alt.Y("y:Q", title=axes.y_title, scale=axes.y_scale)
    line = base.mark_line(strokeWidth=2, interpolate=axes.interpolate).encode(
        x=x, y=y, color=colour, strokeDash=arm_dash(study), opacity=faded(shown)
    )
    layers = [line, _hover(base, axes, colour)]
    if any("least" in row for row in rows):
        band = base.mark_area(interpolate=axes.interpolate).encode(
            x=x,
            y=alt.Y("least:Q", title=axes.y_title),
            y2="most:Q",
            color=colour,
            opacity=faded(shown, 0.18),
        )
        layers.insert(0, band)
    if rules:
        rule = picked(alt.Chart(alt.NamedData("rules")), load)
        layers.insert(0, rule.mark_rule(strokeDash=[4, 4], color=NEUTRAL).encode(x=x))
    chart = alt.layer(*layers).add_params(shown, *([load] if load is not None else []))
    return finish(chart, {"lines": rows} | ({"rules": rules} if rules else {}), height=HEIGHT)


def _hover(base: Any, axes: Axes, colour: alt.Color) -> Any:
    """Points that nobody sees: they make the tooltips easy to hit."""
    return base.mark_point(size=120, filled=True).encode(
        x=axes.x,
        y=alt.Y("y:Q", title=axes.y_title),
        color=colour,
        opacity=alt.value(0),
        tooltip=[
            alt.Tooltip("arm:N", title="scheduler"),
            alt.Tooltip("load:N", title="load"),
            alt.Tooltip("x:Q", title=axes.x_name),
            alt.Tooltip("y:Q", title=axes.y_title),
            alt.Tooltip("least:Q", title="least"),
            alt.Tooltip("most:Q", title="most"),
        ],
    )

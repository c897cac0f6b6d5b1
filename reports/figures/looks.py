"""How charts look: colours, legends that switch, axes of loads. Shared by all figures.

Colours have a contrast of at least 3:1 to white and to near-black, so one set serves light and dark; the
first four stay apart under each colour blindness, and shapes and dashes tell arms apart without colour.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from reports.figures.figure import rounded
from reports.study import Load, Study, short
from reports.wording import sort_of

NEUTRAL = "#8a929e"
BASELINE_COLOUR = "#767f8c"
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#7a5cd0", "#c0609a", "#a07c00")
DASHES = ([1, 0], [6, 3], [2, 2], [8, 3, 2, 3], [4, 2, 1, 2], [10, 4])
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down")

# The parts of a step, from waiting (warm) over the model's work (blue) to the tools' (green).
PART_COLOURS = {
    "hold": "#b8620b",
    "queue": "#d89a3c",
    "prefill": "#2f5fa8",
    "decode": "#5b95d6",
    "sandbox": "#1b7a50",
    "tool": "#6fae4e",
}
# What memory is spent on: work (blue), waste (warm), and what waits for reuse or stays blank.
COST_COLOURS = {
    "decode": "#5b95d6",
    "prefill": "#2f5fa8",
    "recompute": "#c2410c",
    "caching": "#c9a227",
    "unused": NEUTRAL,
}
STATE_COLOURS = {
    "paused": "#b8620b",
    "waiting": "#d89a3c",
    "reasoning": "#3b78c4",
    "acting": "#3d9a5f",
    "open": NEUTRAL,
}

HEIGHT = 280
LEGEND_LETTERS = 48  # side by side on a telephone
BRIEF = 18  # letters of each of two names that share a label
SECONDS = ",.6~f"  # 0.1, 10, 1,000


def arm_scale(study: Study) -> alt.Scale:
    """One colour per arm, the same in all figures; more arms than colours begin again."""
    others = [arm for arm in study.arms if arm != study.baseline]
    colours = [BASELINE_COLOUR, *(COLOURS[i % len(COLOURS)] for i in range(len(others)))]
    return alt.Scale(domain=[study.baseline, *others], range=colours)


def arm_colour(study: Study, shown_as: alt.Legend | None = None) -> alt.Color:
    """Colour by arm, with the legend above the chart."""
    return alt.Color("arm:N", scale=arm_scale(study), title=None, legend=shown_as or legend(study.arms))


def arm_dash(study: Study) -> alt.StrokeDash:
    """Dashes by arm, in the legend of lines."""
    dashes = _cycle(DASHES, len(study.arms))
    scale = alt.Scale(domain=list(study.arms), range=dashes)
    return alt.StrokeDash("arm:N", scale=scale, title=None, legend=line_legend(study))


def arm_shape(study: Study) -> alt.Shape:
    """Shapes by arm."""
    scale = alt.Scale(domain=list(study.arms), range=_cycle(SHAPES, len(study.arms)))
    return alt.Shape("arm:N", scale=scale, title=None, legend=legend(study.arms))


def _cycle(values: Sequence[Any], count: int) -> list[Any]:
    """`count` of the values; each further round begins one later, so that colour and value never repeat."""
    size = len(values)
    return [values[(i + i // size) % size] for i in range(count)]


def legend(names: Sequence[str], **options: Any) -> alt.Legend:
    """A legend of `names` above the chart, in columns that a narrow page has room for."""
    longest = max(map(len, names), default=0)
    return alt.Legend(
        orient="top",
        direction="horizontal",
        columns=max(1, min(4, LEGEND_LETTERS // (longest + 4))),
        labelLimit=300,
        symbolOpacity=1,
        **options,
    )


def line_legend(study: Study) -> alt.Legend:
    """A legend of lines, long enough to tell the dashes."""
    return legend(study.arms, symbolType="stroke", symbolStrokeWidth=3, symbolSize=400)


def name_axis() -> alt.Axis:
    """An axis of names, which leaves the chart room on a narrow page."""
    return alt.Axis(labelLimit=210, ticks=False)


def brief_arms(study: Study) -> dict[str, str]:
    """Names of the arms short enough to stand before another name, and all different."""
    return {
        arm: arm if len(arm) <= BRIEF else f"{short(arm, BRIEF - 4)} #{number}"
        for number, arm in enumerate(study.arms, start=1)
    }


def seconds_scale(longest: float) -> tuple[alt.Scale, alt.Axis]:
    """An axis from 0 to `longest` for times that differ by orders of magnitude: linear to 0.1, then log.

    Below a second there are hardly any orders of magnitude, and the axis is an ordinary one.
    """
    if longest < 1:
        return alt.Scale(zero=True), alt.Axis(format=SECONDS, tickCount=8)
    ticks = [0.0, *(10.0**power for power in range(-1, 9) if 10.0**power <= longest)]
    domain = [0, rounded(longest * 1.05)]
    scale = alt.Scale(type="symlog", constant=0.1, domain=domain, nice=False)
    return scale, alt.Axis(values=ticks, format=SECONDS)


def toggle(field: str = "arm") -> Any:
    """A selection by clicks on the legend; nothing selected shows everything."""
    return alt.selection_point(name="shown", fields=[field], bind="legend", toggle="true")


def faded(shown: Any, opacity: float = 1.0) -> Any:
    """Opacity of what the legend has switched off."""
    return alt.when(shown).then(alt.value(opacity)).otherwise(alt.value(0.06))


def picker(name: str, label: str, options: Sequence[str]) -> Any:
    """A drop-down list with the last option chosen; null where there is nothing to choose."""
    if len(options) < 2:
        return None
    bound = alt.binding_select(options=list(options), name=f"{label} ")
    return alt.param(name=name, value=options[-1], bind=bound)


def picked(chart: Any, param: Any, field: str = "load") -> Any:
    """The rows of a chart that belong to what was picked."""
    return chart if param is None else chart.transform_filter(alt.datum[field] == param)


def which_load(loads: Sequence[str]) -> str:
    """What a chart with a `picker` of loads shows at first, in words."""
    return f"Shown is {loads[-1]} unless another load is chosen." if len(loads) > 1 else f"At {loads[-1]}."


def load_title(loads: Sequence[Load]) -> str:
    """The title of an axis of loads."""
    units = {load.unit for load in loads}
    return units.pop() if len(units) == 1 else "load"


def load_axis(loads: Sequence[Load]) -> alt.X:
    """An axis over loads: to scale where there are several of one kind, else side by side."""
    values = [load.value for load in loads]
    if len({load.kind for load in loads}) > 1 or len(loads) < 2:
        return alt.X(
            "load:N",
            title=None,
            sort=[str(load) for load in loads],
            axis=alt.Axis(labelAngle=0),
        )
    spread = max(values) / min(values) > 12
    scale = alt.Scale(type="log" if spread else "linear", zero=False, nice=False, padding=24)
    return alt.X(
        "x:Q",
        title=load_title(loads),
        scale=scale,
        axis=alt.Axis(values=values, grid=False, labelOverlap=True),
    )


def sort(study: Study) -> str:
    """`Simulated.`, or what else the numbers are."""
    return f"{sort_of(simulated=study.simulated).capitalize()}."


def caption(study: Study, *sentences: str) -> str:
    """Sentences, and whether the numbers are simulated or measured."""
    return " ".join(sentence for sentence in (*sentences, sort(study)) if sentence)

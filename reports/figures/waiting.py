"""Who waits: the programs that waited longest, how waits are spread, and how unequal they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import altair as alt

from reports.aggregate import WORST
from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.lines import Axes, lines
from reports.figures.looks import (
    BRIEF,
    arm_colour,
    brief_arms,
    caption,
    faded,
    name_axis,
    picked,
    picker,
    seconds_scale,
    toggle,
    which_load,
)
from reports.figures.overloads import Measure, over_loads
from reports.figures.stacks import BAR
from reports.study import Load, Study, short

QUESTION = "Who waits?"
SHOWN = 24  # programs of all arms together, at most six of each
GINI = Measure(("fairness", "wait_gini_share"), "Gini coefficient of waiting", difference=True)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """The worst programs, the distribution of worst waits, its Gini coefficient."""
    yield _worst_programs(study)
    yield _distribution(study)
    yield over_loads(
        study,
        GINI,
        slug="wait-gini",
        question=QUESTION,
        title="Inequality of waiting against load",
        look_at="0: all programs wait alike; towards 1: one waits for all. Short waits can be unequal and "
        "harmless: read it with the longest wait.",
    )


def _worst_programs(study: Study) -> Figure | Omitted:
    slug = "worst-programs"
    rows = [row for load in study.loads for arm in study.arms for row in _worst(study, load, arm)]
    if not rows:
        return Omitted(slug, "no program was there in the measured time")
    loads = list(dict.fromkeys(row["load"] for row in rows))
    return Figure(
        id=slug,
        question=QUESTION,
        title="The programs that waited longest",
        caption=caption(
            study,
            f"The longest wait of one call, of the {_each(study)} programs that fared worst under each "
            "scheduler, all repeats together.",
            "A wait that was open when the run ended counts as far as it got.",
            which_load(loads),
        ),
        spec=_bars(study, rows),
        table=Table(
            ("load", "scheduler", "program", "seed", "longest wait, s", "steps done", "how it ended"),
            tuple(
                (row["load"], row["arm"], row["program"], row["seed"], row["y"], row["steps"], row["ended"])
                for row in rows
            ),
        ),
    )


def _each(study: Study) -> int:
    return max(2, min(6, SHOWN // len(study.arms)))


def _worst(study: Study, load: Load, arm: str) -> list[dict[str, Any]]:
    runs, names = study.of(arm, load), brief_arms(study)
    waiters = [(one, run.seed) for run in runs for one in run.seen.waiters]
    waiters.sort(key=lambda pair: (-pair[0].worst_wait_s, pair[0].program_id, pair[1]))
    rows: list[dict[str, Any]] = []
    for rank, (one, seed) in enumerate(waiters[: _each(study)], start=1):
        repeat = f" s{seed}" if len(runs) > 1 else ""
        bar = f"{names[arm]} · {short(one.program_id, BRIEF)}{repeat}"
        rows.append(
            {
                "arm": arm,
                "load": str(load),
                "bar": bar if all(row["bar"] != bar for row in rows) else f"{bar} #{rank}",
                "order": study.arms.index(arm) * WORST + rank,
                "program": short(one.program_id),
                "seed": seed,
                "y": rounded(one.worst_wait_s),
                "steps": one.steps_done,
                "ended": short(one.ended_at),
            }
        )
    return rows


def _bars(study: Study, rows: list[dict[str, Any]]) -> Spec:
    shown, load = toggle(), picker("load", "Load", list(dict.fromkeys(row["load"] for row in rows)))
    scale, axis = seconds_scale(max(row["y"] for row in rows))
    chart = (
        picked(alt.Chart(alt.NamedData("waiters")), load)
        .mark_bar(height={"band": 0.8})
        .encode(
            x=alt.X("y:Q", title="longest wait of one call, s", scale=scale, axis=axis),
            y=alt.Y("bar:N", sort=alt.EncodingSortField("order", op="min"), title=None, axis=name_axis()),
            color=arm_colour(study),
            opacity=faded(shown),
            tooltip=[
                alt.Tooltip("arm:N", title="scheduler"),
                alt.Tooltip("load:N", title="load"),
                alt.Tooltip("program:N", title="program"),
                alt.Tooltip("seed:N", title="seed"),
                alt.Tooltip("y:Q", title="longest wait, s"),
                alt.Tooltip("steps:Q", title="steps done"),
                alt.Tooltip("ended:N", title="how it ended"),
            ],
        )
        .add_params(shown, *([load] if load is not None else []))
    )
    most = max(Counter(row["load"] for row in rows).values())
    return finish(chart, {"waiters": rows}, height=BAR * most)


def _distribution(study: Study) -> Figure | Omitted:
    slug = "worst-waits"
    rows: list[dict[str, Any]] = []
    table: list[tuple[Cell, ...]] = []
    for load in study.loads:
        for arm in study.arms:
            repeats = [run.seen.worst_wait_s for run in study.of(arm, load)]
            if not repeats or not (together := reduce(add, repeats)).total:
                continue
            points = together.cumulative()
            if points[0].share:  # some did not wait at all
                points.insert(0, type(points[0])(0.0, points[0].share))
            rows += [
                {"arm": arm, "load": str(load), "x": rounded(p.upto), "y": rounded(p.share * 100)}
                for p in points
            ]
            cells = [rounded(together.quantile(share)) for share in (0.5, 0.9, 1.0)]
            table.append((str(load), arm, together.total, *cells))
    if not rows:
        return Omitted(slug, "no program was there in the measured time")
    loads = list(dict.fromkeys(row["load"] for row in rows))
    return Figure(
        id=slug,
        question=QUESTION,
        title="Longest wait of each program",
        caption=caption(
            study,
            "How many programs never waited longer for one call than what stands below; a curve that rises "
            "late has programs that starve.",
            which_load(loads),
        ),
        spec=_curves(study, rows),
        table=Table(("load", "scheduler", "programs", "half, s", "90 %, s", "all, s"), tuple(table)),
    )


def _curves(study: Study, rows: list[dict[str, Any]]) -> Spec:
    scale, axis = seconds_scale(max(row["x"] for row in rows))
    x = alt.X("x:Q", title="longest wait of one call, s", scale=scale, axis=axis)
    scale = alt.Scale(domain=[0, 100])
    return lines(study, rows, Axes(x, "at most, s", "% of programs at most as long", scale, "step-after"))

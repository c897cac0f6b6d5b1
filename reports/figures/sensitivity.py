"""What a scheduler's parameters change: a heat map where a study sweeps one or two of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from reports.figures.figure import Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import caption, picked, picker
from reports.figures.overloads import arithmetic
from reports.figures.throughput import PROGRAMS, STEPS, WORST_WAIT
from reports.measures import pick
from reports.study import Study, short

QUESTION = "How much do the parameters matter?"
MEASURES = (("steps-per-min", STEPS), ("programs-per-h", PROGRAMS), ("worst-wait", WORST_WAIT))
CELL = 44  # pixels of a row


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """A heat map of each measure for each scheduler with several configurations."""
    swept = {name: keys for name in study.schedulers if (keys := _differing(study, name))}
    if not swept:
        yield Omitted("sensitivity", "no scheduler ran with several configurations")
    for number, (scheduler, keys) in enumerate(swept.items()):
        prefix = "sensitivity" if not number else f"sensitivity-{number + 1}"
        if len(keys) > 2:
            yield Omitted(prefix, f"{len(keys)} parameters of {scheduler} differ, and a map has two axes")
            continue
        for slug, measure in MEASURES:
            rows = _rows(study, scheduler, keys, measure.path)
            if not rows:
                yield Omitted(f"{prefix}-{slug}", f"no run has a value of {'.'.join(measure.path)}")
                continue
            yield Figure(
                id=f"{prefix}-{slug}",
                question=QUESTION,
                title=f"{scheduler}: {measure.title}",
                caption=caption(
                    study,
                    f"Means of the repeats by {' and '.join(map(short, keys))}: alike in colour means that "
                    "the parameter matters little.",
                ),
                spec=_spec(rows, keys, measure.title),
                table=_table(rows, keys, measure.title),
            )


def _differing(study: Study, scheduler: str) -> list[str]:
    """The parameters in which runs of a scheduler differ, by name."""
    configs = [run.config for run in study.runs if run.scheduler == scheduler]
    names = sorted({name for config in configs for name in config})
    return [name for name in names if len({repr(config.get(name)) for config in configs}) > 1]


def _rows(study: Study, scheduler: str, keys: list[str], path: tuple[str, ...]) -> list[dict[str, Any]]:
    """Rows of a map: by two parameters for each load, or by one parameter and the load."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for run in study.runs:
        value = pick(run.summary, path)
        if run.scheduler == scheduler and value is not None:
            place = [run.config.get(key) for key in keys]
            cells.setdefault((run.load, *place), []).append(value)
    order = sorted(cells, key=lambda cell: (cell[0], *map(_rank, cell[1:])))
    return [
        {
            "load": str(load),
            "a": _text(place[0]),
            "b": _text(place[1]) if len(keys) > 1 else f"{load.value:g}",
            "y": rounded(arithmetic(cells[load, *place])),
            "repeats": len(cells[load, *place]),
        }
        for load, *place in order
    ]


def _rank(value: object) -> tuple[bool, float, str]:
    """Numbers by size, then the rest by name."""
    is_number = isinstance(value, int | float)
    return not is_number, float(value) if isinstance(value, int | float) else 0.0, str(value)


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else short(str(value))


def _spec(rows: list[dict[str, Any]], keys: list[str], unit: str) -> Spec:
    loads = list(dict.fromkeys(row["load"] for row in rows))
    two = len(keys) > 1
    load = picker("load", "Load", loads) if two else None
    titles = (short(keys[0]), short(keys[1]) if two else loads[0].partition(" ")[2])
    domain = [min(row["y"] for row in rows), max(row["y"] for row in rows)]
    middle = sum(domain) / 2  # viridis is dark below it
    down = list(dict.fromkeys(row["b"] for row in rows))
    base = picked(alt.Chart(alt.NamedData("cells")), load).encode(
        x=alt.X(
            "a:N",
            sort=list(dict.fromkeys(row["a"] for row in rows)),
            title=titles[0],
            axis=alt.Axis(labelAngle=0),
        ),
        y=alt.Y("b:N", sort=down, title=titles[1]),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "y:Q",
            title=unit,
            scale=alt.Scale(scheme="viridis", domain=domain),
            legend=alt.Legend(orient="top"),
        ),
        tooltip=[
            alt.Tooltip("a:N", title=titles[0]),
            alt.Tooltip("b:N", title=titles[1]),
            alt.Tooltip("load:N", title="load"),
            alt.Tooltip("y:Q", title=unit),
            alt.Tooltip("repeats:Q", title="repeats"),
        ],
    )
    ink = alt.when(alt.datum.y < middle).then(alt.value("white")).otherwise(alt.value("black"))
    numbers = base.mark_text(fontSize=13).encode(text=alt.Text("y:Q", format=",.4~r"), color=ink)
    chart = alt.layer(cells, numbers)
    chart = chart.add_params(load) if load is not None else chart
    return finish(chart, {"cells": rows}, height=CELL * len(down))


def _table(rows: list[dict[str, Any]], keys: list[str], unit: str) -> Table:
    names = [short(key) for key in keys]
    cells = tuple(
        (row["load"], row["a"], *([row["b"]] if len(keys) > 1 else []), row["y"], row["repeats"])
        for row in rows
    )
    return Table(("load", *names, unit, "repeats"), cells)

"""What a few programs did when: a Gantt chart of each scheduler's excerpt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import altair as alt

from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import (
    BRIEF,
    STATE_COLOURS,
    brief_arms,
    caption,
    faded,
    legend,
    name_axis,
    toggle,
)
from reports.spans import PROGRAMS, STATES, Excerpt
from reports.study import Study, short

QUESTION = "What did single programs do?"
ROWS = 30  # programs of all arms together
PIXELS = 900  # gaps and spans that are smaller on such a width are joined to the span before
ROW = 17


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """One chart with the excerpts of all arms below each other."""
    found = [(run, run.seen.excerpt) for run in study.runs if run.seen.excerpt is not None]
    shown = [(run, excerpt) for run, excerpt in found if excerpt.spans]
    if not shown:
        yield Omitted("timeline", "no program was there when measuring began")
        return
    begin = max(excerpt.start_s for _, excerpt in shown)
    end = min(excerpt.end_s for _, excerpt in shown)
    each = max(3, min(PROGRAMS, ROWS // len(shown)))
    names = brief_arms(study)
    rows = [row for run, excerpt in shown for row in _rows(names[run.arm], excerpt, (begin, end), each)]
    if not rows:
        yield Omitted("timeline", "the measured times of the runs do not overlap")
        return
    yield Figure(
        id="timeline",
        question=QUESTION,
        title="A few programs over time",
        caption=caption(
            study,
            f"{shown[0][0].load}, seed {shown[0][0].seed}, {(end - begin) / 60:.3g} minutes from where "
            f"measuring begins; {each} programs of each scheduler, from the longest wait to the least, of "
            f"{', '.join(str(excerpt.there) for _, excerpt in shown)} that were there.",
            f"Pieces shorter than {(end - begin) / PIXELS:.2g} s are joined to their neighbours.",
            "paused is held at the gateway, waiting queued in the engine, open a step that never ended.",
            "" if study.simulated else f"Servers do not tell a call's queue: it is part of {STATES[2]}.",
            "Drag to move; hold Ctrl and turn the wheel, or pinch, to zoom; double-click to see all again.",
        ),
        spec=_spec(rows, (begin, end)),
        table=_table(rows),
    )


def _rows(arm: str, excerpt: Excerpt, window: tuple[float, float], each: int) -> list[dict[str, Any]]:
    """Spans of `each` of the programs, at even ranks again, in minutes."""
    begin, end = window
    programs = excerpt.programs
    step = max(1.0, (len(programs) - 1) / max(1, each - 1))
    ranks = (min(len(programs) - 1, round(i * step)) for i in range(min(each, len(programs))))
    bars: dict[str, str] = {}
    for rank in ranks:
        bar = f"{arm} · {short(programs[rank], BRIEF)}"
        bars[programs[rank]] = bar if bar not in bars.values() else f"{bar} #{rank + 1}"
    least = (end - begin) / PIXELS
    rows: list[dict[str, Any]] = []
    for span in excerpt.spans:
        left, right = max(span.start_s, begin), min(span.end_s, end)
        if span.program_id not in bars or right <= left:
            continue
        bar = bars[span.program_id]
        last = rows[-1] if rows and rows[-1]["bar"] == bar else None
        small = right - left < least or (last is not None and last["state"] == span.state)
        if last is not None and small and left - last["to"] < least:
            last["to"] = right
        else:
            rows.append({"bar": bar, "state": span.state, "from": left, "to": right})
    return [row | {"from": rounded(row["from"] / 60, 6), "to": rounded(row["to"] / 60, 6)} for row in rows]


def _spec(rows: list[dict[str, Any]], window: tuple[float, float]) -> Spec:
    shown = toggle("state")
    zoom = alt.selection_interval(
        name="zoom", bind="scales", encodings=["x"], zoom="wheel![event.ctrlKey]", clear="dblclick"
    )
    bars = list(dict.fromkeys(row["bar"] for row in rows))
    chart = (
        alt.Chart(alt.NamedData("spans"))
        .mark_bar(height={"band": 0.75}, clip=True)
        .encode(
            x=alt.X(
                "from:Q",
                title="minutes since the run began",
                scale=alt.Scale(domain=[rounded(edge / 60, 6) for edge in window], nice=False),
                axis=alt.Axis(tickCount=10, labelOverlap=True, labelFlush=True),
            ),
            x2="to:Q",
            y=alt.Y("bar:N", sort=bars, title=None, axis=name_axis()),
            color=alt.Color(
                "state:N",
                scale=alt.Scale(domain=list(STATES), range=[STATE_COLOURS[state] for state in STATES]),
                title=None,
                legend=legend(STATES),
            ),
            opacity=faded(shown),
            tooltip=[
                alt.Tooltip("bar:N", title="program"),
                alt.Tooltip("state:N", title="what it did"),
                alt.Tooltip("from:Q", title="from minute"),
                alt.Tooltip("to:Q", title="to minute"),
            ],
        )
        .add_params(shown, zoom)
    )
    return finish(chart, {"spans": rows}, height=ROW * len(bars))


def _table(rows: list[dict[str, Any]]) -> Table:
    """Minutes of each program in each state."""
    sums: dict[str, dict[str, float]] = {}
    for row in rows:
        states = sums.setdefault(row["bar"], dict.fromkeys(STATES, 0.0))
        states[row["state"]] += row["to"] - row["from"]
    lines: list[tuple[Cell, ...]] = [
        (bar, *(rounded(states[state]) for state in STATES)) for bar, states in sums.items()
    ]
    return Table(("scheduler and program", *(f"{state}, min" for state in STATES)), tuple(lines))

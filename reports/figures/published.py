"""A paper's figure beside ours, where the study is a panel of it.

The published values are `results/published/thunderagent.json`, with their source. A study is that panel
when workload, model, hardware and replicas are those of the paper and its load is a concurrency.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import altair as alt

from reports.figures.cache import HIT_RATE
from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import HEIGHT, NEUTRAL, arm_scale, faded, legend, toggle
from reports.figures.overloads import Measure, arithmetic, values
from reports.figures.throughput import STEPS
from reports.study import Load, Study, short

QUESTION = "How does it compare with the published figure?"
PANELS = {"4a": STEPS, "5a": HIT_RATE}
OURS = {"vllm": "vLLM", "thunder": "ThunderAgent", "continuum": "Continuum"}  # our name: the paper's
SETUP = {"workload": "swe-lite", "model": "GLM-4.6-FP8", "hardware": "8xH100", "replicas": 1}
WHOSE = MINE, PAPER = ("ours", "paper")
PAPER_COLOURS = ("#7a5cd0", "#c0609a", "#a07c00")  # of systems of the paper that did not run here


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """The panels of the paper that our runs can stand beside."""
    why_not = _why_not(study)
    published = None if why_not else published_values()
    for panel, measure in PANELS.items():
        slug = f"published-{panel}"
        if why_not:
            yield Omitted(slug, why_not)
        elif published is None:
            yield Omitted(slug, "the published values are not part of this installation")
        else:
            yield _figure(study, slug, panel, measure, published)


def published_values() -> dict[str, Any] | None:
    """The published figures with their source; null where the file does not come with the program."""
    file = Path(__file__).parents[2] / "results" / "published" / "thunderagent.json"
    if not file.is_file():
        return None
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def _why_not(study: Study) -> str:
    """Why the study is no panel of the paper; empty when it is one."""
    for name, wanted in SETUP.items():
        strange = next((run.spec.get(name) for run in study.runs if run.spec.get(name) != wanted), None)
        if strange is not None:
            return f"{name} is {short(str(strange))}, the paper's is {wanted}"
    if any(name not in run.spec for run in study.runs for name in SETUP):
        return f"a run does not say its {', '.join(SETUP)}"
    if any(load.kind != "concurrency" for load in study.loads):
        return "the paper's load is a number of programs at a time"
    if not any(run.scheduler in OURS for run in study.runs):
        return "no scheduler of the paper ran"
    return ""


def _figure(
    study: Study, slug: str, panel: str, measure: Measure, published: Mapping[str, Any]
) -> Figure | Omitted:
    rows = [*_ours(study, measure), *_papers(study, published["figures"][panel]["values"])]
    if not {row["load"] for row in rows if row["of"] == PAPER} & {str(load) for load in study.loads}:
        return Omitted(slug, "no load of the paper was run")
    simulated = " (simulated)" if study.simulated else ""
    table: list[tuple[Cell, ...]] = [(row["load"], row["arm"], row["of"], row["y"]) for row in rows]
    return Figure(
        id=slug,
        question=QUESTION,
        title=f"Figure {panel} of {published['source']}: {measure.title}",
        caption=f"Dashed: the paper, measured with {published['setup']['workload']} and "
        f"{published['setup']['model']} on {published['setup']['hardware']}. Solid: ours{simulated}, means "
        "of the repeats. Our programs are not the paper's, so compare shapes and ratios, not heights.",
        spec=_spec(study, rows, measure.title),
        table=Table(("load", "scheduler", "whose", measure.title), tuple(table)),
        relative_spec=_relative(study, rows, measure),
    )


def _ours(study: Study, measure: Measure) -> list[dict[str, Any]]:
    arms = [arm for arm in study.arms if any(run.scheduler in OURS for run in study.of(arm))]
    return [
        {"arm": arm, "of": MINE, "load": str(load), "x": load.value, "y": rounded(arithmetic(found))}
        for arm in arms
        for load in study.loads
        if (found := values(study, measure, arm, load))
    ]


def _papers(study: Study, systems: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
    """The paper's systems, each under the name of our arm for it, if one ran."""
    return [
        {
            "arm": _arm_of(study, system),
            "of": PAPER,
            "load": str(Load("concurrency", float(load))),
            "x": float(load),
            "y": rounded(value),
        }
        for system, points in systems.items()
        for load, value in points.items()
    ]


def _arm_of(study: Study, system: str) -> str:
    mine = next((run.arm for run in study.runs if OURS.get(run.scheduler) == system), None)
    return mine or f"{system} (paper only)"


def _relative(study: Study, rows: list[dict[str, Any]], measure: Measure) -> Spec | None:
    """Ours beside our baseline, the paper's beside its own."""
    base = {(row["of"], row["load"]): row["y"] for row in rows if row["arm"] == study.baseline}
    found = []
    for row in rows:
        beside = base.get((row["of"], row["load"]))
        if beside is not None and (beside or measure.difference):
            value = row["y"] - beside if measure.difference else row["y"] / beside
            found.append(row | {"y": rounded(value)})
    title = f"{measure.title} {'minus' if measure.difference else '÷'} the baseline of each"
    return _spec(study, found, title) if len({row["arm"] for row in found}) > 1 else None


def _spec(study: Study, rows: list[dict[str, Any]], unit: str) -> Spec:
    shown = toggle()
    known = arm_scale(study)
    strangers = [name for name in dict.fromkeys(row["arm"] for row in rows) if name not in study.arms]
    colours = [*known["range"], *PAPER_COLOURS[: len(strangers)]]
    points = sorted({row["x"] for row in rows})
    names = [*study.arms, *strangers]
    grey = {"symbolFillColor": NEUTRAL, "symbolStrokeColor": NEUTRAL}
    base = alt.Chart(alt.NamedData("points")).encode(
        x=alt.X(
            "x:Q",
            title="programs at a time",
            scale=alt.Scale(zero=False, nice=False, padding=24),
            axis=alt.Axis(values=points, grid=False),
        ),
        y=alt.Y("y:Q", title=unit),
        color=alt.Color(
            "arm:N",
            scale=alt.Scale(domain=[*known["domain"], *strangers], range=colours),
            title=None,
            legend=legend(names),
        ),
        opacity=faded(shown),
    )
    lines = base.mark_line(strokeWidth=2.5).encode(
        strokeDash=alt.StrokeDash(
            "of:N",
            scale=alt.Scale(domain=list(WHOSE), range=[[1, 0], [5, 4]]),
            title=None,
            legend=legend(WHOSE, **grey),
        )
    )
    dots = base.mark_point(filled=True, size=70).encode(
        shape=alt.Shape(
            "of:N",
            scale=alt.Scale(domain=list(WHOSE), range=["circle", "diamond"]),
            title=None,
            legend=legend(WHOSE, **grey),
        ),
        tooltip=[
            alt.Tooltip("arm:N", title="scheduler"),
            alt.Tooltip("of:N", title="whose"),
            alt.Tooltip("load:N", title="load"),
            alt.Tooltip("y:Q", title=unit),
        ],
    )
    return finish(alt.layer(lines, dots).add_params(shown), {"points": rows}, height=HEIGHT)

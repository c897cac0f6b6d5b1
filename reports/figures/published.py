"""A paper's figures beside ours, where the study is a panel of them.

The published values are `results/published/thunderagent.json`, with their source and the set-up of each
panel. A study is that panel when workload, model, hardware and replicas are those of the set-up and its
load is a concurrency.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any

import altair as alt

from reports.figures.cache import HIT_RATE
from reports.figures.figure import Cell, Figure, Omitted, Spec, Table, finish, rounded
from reports.figures.looks import HEIGHT, NEUTRAL, arm_scale, faded, legend, toggle
from reports.figures.overloads import Measure, arithmetic, values
from reports.figures.throughput import STEPS
from reports.study import Load, Study, short
from reports.wording import sort_of

QUESTION = "How does it compare with the published figure?"
MEASURES = {
    "steps_per_min": STEPS,
    "hit_pct": HIT_RATE,
    "step_s": Measure(("latency", "step_s", "mean"), "step latency, mean, s", log=True),
}
OURS = {"vllm": "vLLM", "thunder": "ThunderAgent", "continuum": "Continuum"}  # our name: the paper's
SETUP = ("workload", "model", "hardware", "replicas")
WHOSE = MINE, PAPER = ("ours", "paper")
PAPER_COLOURS = ("#7a5cd0", "#c0609a", "#a07c00")  # of systems of the paper that did not run here


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """The panels of the paper that our runs can stand beside."""
    published = published_values()
    setups = {name for name, setup in published["setups"].items() if _is(study, setup)}
    why_not = _why_not(study, published)
    if why_not:
        yield Omitted("published", why_not)
        return
    for panel, about in published["figures"].items():
        measure = MEASURES.get(about.get("measure", ""))
        if measure is not None and about["setup"] in setups and "doubt" not in about:
            yield _figure(study, f"published-{panel}", panel, measure, published)


def published_values() -> dict[str, Any]:
    """The published figures with their source."""
    text = (files("results.published") / "thunderagent.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def _is(study: Study, setup: Mapping[str, Any]) -> bool:
    return all(run.spec.get(name) == setup[name] for run in study.runs for name in SETUP)


def _why_not(study: Study, published: Mapping[str, Any]) -> str:
    """Why the study is no panel of the paper; empty when it is one."""
    if any(name not in run.spec for run in study.runs for name in SETUP):
        return f"a run does not say its {', '.join(SETUP)}"
    if not any(_is(study, setup) for setup in published["setups"].values()):
        spec = study.runs[0].spec
        place = f"{spec['replicas']} x {short(str(spec['hardware']))}"
        return f"the paper has no panel of {short(str(spec['workload']))} with {spec['model']} on {place}"
    if any(load.kind != "concurrency" for load in study.loads):
        return "the paper's load is a number of programs at a time"
    if not any(run.scheduler in OURS for run in study.runs):
        return "no scheduler of the paper ran"
    return ""


def _figure(
    study: Study, slug: str, panel: str, measure: Measure, published: Mapping[str, Any]
) -> Figure | Omitted:
    about = published["figures"][panel]
    setup = published["setups"][about["setup"]]
    rows = [*_ours(study, measure), *_papers(study, about["values"])]
    if not {row["load"] for row in rows if row["of"] == PAPER} & {str(load) for load in study.loads}:
        return Omitted(slug, "no load of the paper was run")
    table: list[tuple[Cell, ...]] = [(row["load"], row["arm"], row["of"], row["y"]) for row in rows]
    return Figure(
        id=slug,
        question=QUESTION,
        title=f"Figure {panel} of {published['source']}: {measure.title}",
        caption=f"Dashed: paper, {about['title']} on {setup['hardware']}. Solid: ours "
        f"({sort_of(simulated=study.simulated)}), means of the repeats. "
        "Our programs are not the paper's, so compare shapes and ratios, not heights.",
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

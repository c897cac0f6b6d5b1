"""The figures of a study, one module per question.

A module has `draw(study)`, which gives its figures, or for one that the study has no data for the reason.
Charts are made with Altair and handed on as plain Vega-Lite specs with their data inside. The same study
gives the same specs, byte for byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from reports.figures import (
    cache,
    latency,
    published,
    replicas,
    sandboxes,
    sensitivity,
    spending,
    throughput,
    timeline,
    waiting,
)
from reports.figures.figure import Figure, Omitted, Table, render_png, render_svg
from reports.study import Study

__all__ = ["Figure", "Omitted", "Table", "draw", "figures", "omitted", "render_png", "render_svg"]

_MODULES: tuple[Callable[[Study], Iterator[Figure | Omitted]], ...] = (
    throughput.draw,
    cache.draw,
    spending.draw,
    latency.draw,
    waiting.draw,
    replicas.draw,
    sandboxes.draw,
    sensitivity.draw,
    timeline.draw,
    published.draw,
)


def draw(study: Study) -> tuple[list[Figure], list[Omitted]]:
    """The figures that the study has data for, those of a question together, and what was left out."""
    drawn = [one for module in _MODULES for one in module(study)]
    return (
        [one for one in drawn if isinstance(one, Figure)],
        [one for one in drawn if isinstance(one, Omitted)],
    )


def figures(study: Study) -> list[Figure]:
    """The figures of `draw`."""
    return draw(study)[0]


def omitted(study: Study) -> list[Omitted]:
    """What `draw` left out, and why."""
    return draw(study)[1]

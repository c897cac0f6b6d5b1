"""What a figure is, and how it becomes a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Spec: TypeAlias = dict[str, Any]
Cell: TypeAlias = str | float | int | None

FILE_WIDTH = 720  # pixels of a chart in a file; on the page it takes the width it gets
FILE_SCALE = 2.0  # sharp in print and on fine screens


class Table(NamedTuple):
    """What a chart shows, as text and numbers; null where nothing is known. Units are in `columns`."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


@dataclass(frozen=True, slots=True)
class Figure:
    """A chart that answers `question`. `id` stays the same between versions: links point to it.

    `spec` is Vega-Lite with its data inside, `relative_spec` the same beside the baseline. Neither has a
    background or a colour of text: whoever embeds them gives those in the Vega configuration.
    """

    id: str
    question: str
    title: str
    caption: str
    spec: Spec
    table: Table
    relative_spec: Spec | None = None


class Omitted(NamedTuple):
    """A figure that the study has no data for, and why."""

    id: str
    reason: str


def finish(chart: Any, data: Mapping[str, Sequence[Mapping[str, Any]]], **size: Any) -> Spec:
    """An Altair chart over named data as a Vega-Lite spec with that data, as wide as its container.

    Tests check that every spec compiles; checking it against Altair's schema each time would take longer
    than all the rest. The data go in last, so that Altair copies none of them.
    """
    spec: Spec = chart.to_dict(validate=False)
    spec.pop("config", None)  # Altair's theme; the page has its own
    return {
        **spec,
        "width": "container",
        "background": None,
        "autosize": {"type": "fit-x", "contains": "padding"},
        **size,
        "datasets": {name: [dict(row) for row in rows] for name, rows in data.items()},
    }


def render_svg(figure: Figure, folder: Path, note: str = "") -> Path:
    """Write `<id>.svg` into `folder` and say where it is; `note` stands below its title. No browser."""
    import vl_convert  # noqa: PLC0415 - a JavaScript engine, for files only

    path = folder / f"{figure.id}.svg"
    path.write_text(vl_convert.vegalite_to_svg(for_file(figure, note)), encoding="utf-8")
    return path


def render_png(figure: Figure, folder: Path, note: str = "") -> Path:
    """Write `<id>.png` into `folder` and say where it is; `note` stands below its title. No browser."""
    import vl_convert  # noqa: PLC0415 - a JavaScript engine, for files only

    path = folder / f"{figure.id}.png"
    path.write_bytes(vl_convert.vegalite_to_png(for_file(figure, note), scale=FILE_SCALE))
    return path


def for_file(figure: Figure, note: str = "") -> Spec:
    """The spec of a figure that stands alone: white, titled, a note below the title, no controls."""
    title = {"text": figure.title, "anchor": "start", "fontSize": 15}
    return {
        **figure.spec,
        "width": FILE_WIDTH,
        "background": "white",
        "padding": 12,
        "title": title | ({"subtitle": note} if note else {}),
    }


def rounded(value: float | None, digits: int = 4) -> float | int | None:
    """To so many significant digits, which is more than a chart can show; null for not-a-number."""
    if value is None or value != value:  # noqa: PLR0124 - not-a-number alone differs from itself
        return None
    short = float(f"{value:.{digits}g}")
    return int(short) if short.is_integer() else short

"""A verdict in the terminal: one table per load, then the verdict in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from reports.measures import PARTS
from reports.verdict import Verdict

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NOTHING = "-"


def _number(places: int) -> Callable[[Any], str]:
    return lambda value: f"{value:,.{places}f}"


def _seconds(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def _bytes(value: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:,.3g} TB"


def _tokens(value: float) -> str:
    for unit in ("", "k", "M"):
        if value < 1000:
            return f"{value:.0f}{unit}"
        value /= 1000
    return f"{value:,.0f}G"


# Heading, names of the numbers, and how each is written.
_COLUMNS: tuple[tuple[str, tuple[tuple[str, Callable[[Any], str]], ...]], ...] = (
    ("steps\n/min", (("steps_per_min", _number(1)),)),
    ("programs\n/h", (("programs_per_h", _number(1)),)),
    ("KV\nhits", (("hit_rate_share", "{:.1%}".format),)),
    ("computed\nagain", (("recomputed_tokens", _tokens), ("recomputed_share", "{:.0%}".format))),
    ("TTFT s\np50 p95", (("ttft_p50_s", _seconds), ("ttft_p95_s", _seconds))),
    ("worst\nwait s", (("worst_wait_s", _seconds),)),
    ("disk\npeak", (("disk_peak_bytes", _bytes),)),
    ("leaked", (("leaked", _number(0)),)),
)


def render(verdict: Verdict, console: Console) -> None:
    """Print a verdict; made to fit 80 columns, so the split of the step is a table of its own."""
    for load in verdict["loads"]:
        simulated = ", simulated" if verdict["simulated"] else ""
        console.print(f"\n[bold]{load['label']}{simulated}[/bold]")
        console.print(_table(load["schedulers"]))
        console.print(_split(load["schedulers"]))
        for sentence in load["sentences"]:
            console.print(sentence, markup=False, highlight=False)


def _table(rows: list[Verdict]) -> Table:
    table = _empty([heading for heading, _ in _COLUMNS])
    for row in rows:
        cells = []
        for _, parts in _COLUMNS:
            texts = [NOTHING if row[name] is None else write(row[name]) for name, write in parts]
            cells.append(" ".join(texts))
        table.add_row(row["scheduler"], *cells)
    return table


def _split(rows: list[Verdict]) -> Table:
    """Mean seconds of a step and of its six parts, which sum to it."""
    table = _empty(["step s", *(f"{sign} {part}" for sign, part in zip("=+++++", PARTS, strict=True))])
    for row in rows:
        values = [row["step_mean_s"], *(row[f"{part}_s"] for part in PARTS)]
        table.add_row(row["scheduler"], *(NOTHING if v is None else f"{v:,.1f}" for v in values))
    return table


def _empty(headings: list[str]) -> Table:
    from rich import box  # noqa: PLC0415 - rich is slow to import, and --help does without
    from rich.table import Table  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("scheduler", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table

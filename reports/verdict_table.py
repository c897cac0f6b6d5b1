"""A verdict in the terminal: one table per load, then the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.measures import PARTS
from reports.text import NOTHING, number, shown
from reports.verdict import Verdict

# Heading, and the names of the numbers under it.
_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("steps\n/min", ("steps_per_min",)),
    ("programs\n/h", ("programs_per_h",)),
    ("KV\nhits", ("hit_rate_share",)),
    ("computed\nagain", ("recomputed_tokens", "recomputed_share")),
    ("TTFT s\np50 p95", ("ttft_p50_s", "ttft_p95_s")),
    ("worst\nwait s", ("worst_wait_s",)),
    ("disk\npeak", ("disk_peak_bytes",)),
    ("leaked", ("leaked",)),
)


def render(verdict: Verdict, console: Console) -> None:
    """Print a verdict; made to fit 80 columns, so the split of the step is a table of its own."""
    for load in verdict["loads"]:
        simulated = ", simulated" if verdict["simulated"] else ""
        console.print(f"\n[bold]{load['label']}{simulated}[/bold]")
        rows = [(shown(row["scheduler"]), row) for row in load["schedulers"]]
        rows += [(f"{shown(row['scheduler'])} INVALID", row) for row in load["invalid"]]
        console.print(_table(rows))
        console.print(_split(rows))
        for sentence in load["sentences"]:
            console.print(sentence, markup=False, highlight=False)


def _table(rows: Sequence[tuple[str, Verdict]]) -> Table:
    table = _empty([heading for heading, _ in _COLUMNS])
    for name, row in rows:
        cells = [" ".join(_written(number_name, row) for number_name in names) for _, names in _COLUMNS]
        table.add_row(Text(name), *cells)
    return table


def _written(name: str, row: Verdict) -> str:
    if name == "recomputed_share" and row[name] is not None:
        return f"{row[name]:.0%}"  # beside the tokens there is no room for more
    return number(name, row[name])


def _split(rows: Sequence[tuple[str, Verdict]]) -> Table:
    """Mean seconds of a step and of its six parts, which sum to it."""
    table = _empty(["step s", *(f"{sign} {part}" for sign, part in zip("=+++++", PARTS, strict=True))])
    for name, row in rows:
        values = [row["step_mean_s"], *(row[f"{part}_s"] for part in PARTS)]
        table.add_row(Text(name), *(NOTHING if v is None else f"{v:,.1f}" for v in values))
    return table


def _empty(headings: list[str]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 0, 0, 1))
    table.add_column("scheduler", overflow="fold")
    for heading in headings:
        table.add_column(heading, justify="right")
    return table

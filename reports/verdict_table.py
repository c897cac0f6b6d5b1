"""A verdict in the terminal: one table per load, then the verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, inf, log10

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.bound import told
from reports.measures import PARTS
from reports.text import NOTHING, number, shown
from reports.verdict import Verdict
from reports.wording import sort_of

# Heading, and the names of the numbers under it.
_COLUMNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("steps\n/min", ("steps_per_min",)),
    ("prog\n/h", ("programs_per_h",)),
    ("KV\nhits", ("hit_rate_share",)),
    ("computed\nagain", ("recomputed_tokens", "recomputed_share")),
    ("TTFT s\np50 p95", ("ttft_p50_s", "ttft_p95_s")),
    ("worst\nwait s", ("worst_wait_s",)),
    ("disk\npeak", ("disk_peak_bytes",)),
    ("leaked", ("leaked",)),
)
_WHOLE_FROM = {"ttft_p50_s": 10, "ttft_p95_s": 10, "steps_per_min": 100, "programs_per_h": 100}
_BOUNDED = (("steps/min\nof bound", ("steps_per_min", "of_bound_share")), *_COLUMNS[1:])


def render(verdict: Verdict, console: Console) -> None:
    """Print a verdict; made to fit 80 columns, so the split of the step is a table of its own."""
    for load in verdict["loads"]:
        console.print(f"\n[bold]{load['label']}, {sort_of(simulated=verdict['simulated'])}[/bold]")
        rows = [(shown(row["scheduler"]), row) for row in load["schedulers"]]
        rows += [(f"{shown(row['scheduler'])} INVALID", row) for row in load["invalid"]]
        bound = load["bound_steps_per_min"]
        console.print(_table(rows, _COLUMNS if bound is None else _BOUNDED))
        console.print(_split(rows))
        if bound is not None:
            console.print(f"{told(bound)}\n", markup=False, highlight=False)
        groups = [_grouped(name, row) for name, row in rows if row["groups_finished"] is not None]
        if groups:
            console.print(f"groups finished: {'; '.join(groups)}.\n", markup=False, highlight=False)
        for sentence in load["sentences"]:
            console.print(sentence, markup=False, highlight=False)


def _table(rows: Sequence[tuple[str, Verdict]], columns: Sequence[tuple[str, tuple[str, ...]]]) -> Table:
    table = _empty([heading for heading, _ in columns])
    for name, row in rows:
        cells = [" ".join(_written(number_name, row) for number_name in names) for _, names in columns]
        table.add_row(Text(name), *cells)
    return table


def _written(name: str, row: Verdict) -> str:
    if name in {"recomputed_share", "of_bound_share"} and row[name] is not None:
        return f"{row[name]:.0%}"  # there is no room for more
    if row[name] is not None and row[name] >= _WHOLE_FROM.get(name, inf):
        return f"{row[name]:,.0f}"
    if name == "disk_peak_bytes":
        return number(name, _rounded(row[name]))
    return number(name, row[name])


def _rounded(size: float | None) -> float | None:
    """To whole units where those have two digits or more, else to a tenth: 39 GB, 101 GB, 3.3 TB."""
    return size and float(f"{size:.{3 if floor(log10(size)) % 3 == 2 else 2}g}")


def _grouped(name: str, row: Verdict) -> str:
    """How long groups take to their slowest member, in a clause."""
    count, mean_s, share = (
        number(key, row[key]) for key in ("groups_finished", "group_mean_s", "straggler_share")
    )
    if row["group_mean_s"] is None:
        return f"{name} {count}"
    return f"{name} {count}, mean {mean_s} s to the slowest member, {share} of it waiting for stragglers"


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

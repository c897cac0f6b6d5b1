"""Plain tables on stdout for the listing commands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import click
from rich.console import Console
from rich.table import Table


def print_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], *, title: str | None = None
) -> None:
    """A table; headings that end in `>` are of numbers and line up on the right."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
    for heading in headings:
        right = heading.endswith(">")
        table.add_column(heading.rstrip(">"), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    Console(markup=False, highlight=False).print(table)


def print_names(
    names: Sequence[tuple[str, str]], headings: Sequence[str], of_your_own: str, *, as_json: bool
) -> None:
    """What can be named on the command line, each with its line, and how to name one of your own."""
    if as_json:
        click.echo(json.dumps([{"name": name, "summary": line} for name, line in names], indent=2))
        return
    print_table(headings, names)
    click.echo(f"\nOf your own: {of_your_own}")

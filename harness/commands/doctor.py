"""`thunderbench doctor`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.commands.options import json_option
from harness.doctor.checks import examine
from harness.doctor.findings import Finding

DEFAULT_PORT = 8300  # the gateway's own; this command loads nothing that may be broken
STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}


@click.command(short_help="Check this machine.")
@click.option("--output-dir", "-o", default="results", show_default=True, help="Where results would go.")
@click.option("--port", default=DEFAULT_PORT, show_default=True, help="Port that the gateway would take.")
@json_option
@click.pass_context
def doctor(context: click.Context, *, output_dir: str, port: int, as_json: bool) -> None:
    """Check whether this machine can run, serve and measure, and say how to mend what cannot.

    Exits with 0 when there is no problem, else with 2. Notes are about parts that not everybody needs.

    \b
    Examples:
      thunderbench doctor
      thunderbench doctor -o /data/results --port 8080
      thunderbench doctor --json
    """  # noqa: D301 - click keeps line breaks after a real backspace
    found = examine(Path(output_dir), port)
    if as_json:
        click.echo(json.dumps([one._asdict() for one in found], indent=2))
    else:
        show(found, Console(highlight=False))
    if any(one.level == "problem" for one in found):
        context.exit(2)


def show(found: Sequence[Finding], console: Console) -> None:
    """A table, each mend below its finding, and a last line that counts."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "check", "found"):
        table.add_column(heading, overflow="fold")
    for one in found:
        said = Text(one.found)
        if one.level != "ok":
            said.append(f"\nexpected {one.expected}", style="dim")
            said.append(f"\n{one.mend}", style=STYLES[one.level])
        table.add_row(Text(one.level, style=STYLES[one.level]), Text(one.name), said)
    console.print(table)
    problems, notes = (sum(one.level == level for one in found) for level in ("problem", "note"))
    console.print(f"\n{_counted(problems, 'problem')}, {_counted(notes, 'note')}")


def _counted(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"

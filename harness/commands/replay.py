"""`thunderbench replay`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.commands.options import json_option
from harness.records import find_runs, open_run
from harness.replay import replay as replay_run
from harness.replay import untold


@click.command(short_help="Reproduce decisions.")
@click.argument("run", type=click.Path(path_type=Path))
@json_option
def replay(run: Path, *, as_json: bool) -> None:
    """Feed the recorded events of RUN to its policy again; every action must come out the same.

    RUN is the folder of a run, or of a study: then all its runs are replayed, apart from those behind
    somebody else's gateway. The first difference ends with exit code 6 and says at which event it is.

    \b
    Examples:
      thunderbench replay results/sweep/thunder-c96-s0
      thunderbench replay results/sweep
    """  # noqa: D301 - click keeps line breaks after a real backspace
    found: list[dict[str, Any]] = []
    folders = find_runs(run)
    for folder in folders:
        gateway = untold(open_run(folder)) if len(folders) > 1 else None
        if gateway is not None:
            found.append({"run": folder.name, "scheduler": gateway, "events": None, "actions": None})
            if not as_json:
                click.echo(f"{folder.name}: somebody else's gateway, which does not tell its decisions")
            continue
        result = replay_run(folder)
        found.append({"run": folder.name, **result._asdict()})
        if not as_json:
            click.echo(f"{folder.name}: {result.events} events, {result.actions} actions: all the same")
    if as_json:
        click.echo(json.dumps(found, indent=2))

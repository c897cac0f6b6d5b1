"""`thunderbench paper`."""

from __future__ import annotations

import json
import os
import shlex
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from harness import provenance
from harness.commands.options import json_option
from harness.commands.run import explain
from harness.errors import SetupError
from harness.paper import tables
from harness.paper.figures import Figure, figures, names, published
from harness.paper.studies import Measured, measured, speedups, studies, values
from harness.progress import View, choose_view
from harness.runner import RESULTS, SPEC, cores, run_study
from harness.settings import load_spec
from harness.spec import RunSpec


class _Open:
    """A view that stays open when a study ends; the next one goes on with it."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.note, self.started, self.advanced = view.note, view.started, view.advanced
        self.ended, self.refresh = view.ended, view.refresh

    def close(self) -> None:
        """Not yet."""


@click.command(short_help="Run a paper's figures again.")
@click.argument("wanted", metavar="FIGURE...", nargs=-1)
@click.option("--list", "listed", is_flag=True, help="Print the names of the figures; run nothing.")
@click.option("--duration", help="Measured time after warm-up. [default: 1h, the rollouts 3h]")
@click.option("--seed", help="Seed of the programs. [default: 0]")
@click.option(
    "--efficiency",
    help="Step times from data sheets (derived), or slower, as one real server showed (measured). "
    "[default: derived]",
)
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="Results folder; what it already holds is not run again. [default: a new one in results/]",
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    envvar="THUNDERBENCH_JOBS",
    help="Runs at a time. [default: as many as cores]",
)
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@json_option
def paper(
    wanted: tuple[str, ...],
    *,
    listed: bool,
    output_dir: Path | None,
    jobs: int | None,
    no_progress: bool,
    as_json: bool,
    **given: Any,
) -> int:
    """Run the panels of ThunderAgent's figures and print the published numbers beside ours.

    FIGURE is fig4a, fig4 for all its panels, or table2; none means everything. Ours are runs in virtual
    time with one set of hardware constants for all panels; what is compared best are the ratios between
    schedulers, marked * where they differ from the paper's by more than 25 %. Runs that are INVALID are
    named below the tables (exit code 5). The results are ordinary studies: `thunderbench report
    FOLDER/swe-glm` draws one of them.

    \b
    Examples:
      thunderbench paper fig4a fig5a
      thunderbench paper fig4 -o results/fig4
      thunderbench paper fig4b --efficiency measured
      thunderbench paper --list
      thunderbench paper table2 --json | jq .figures
    """  # noqa: D301 - click keeps line breaks after a real backspace
    if listed:
        click.echo(json.dumps(names()) if as_json else "\n".join(names()))
        return 0
    found = figures(wanted)
    settings = {"duration_s" if name == "duration" else name: v for name, v in given.items() if v}
    specs = studies(found, settings)
    folder = output_dir or _new_folder()
    _same_studies(folder, specs)
    began = time.monotonic()
    again = _again(wanted, given, folder)
    code, invalid = _play(specs, folder, jobs or cores(), again, quiet=no_progress or as_json)
    if code != 0:
        return code
    runs = measured(folder, specs)
    compared = [_compare(figure, runs) for figure in found]
    if as_json:
        told = {"folder": str(folder), "invalid": invalid, **tables.as_json(compared)}
        click.echo(json.dumps(told, indent=2))
    else:
        tables.render(compared, Console())
        for reason in invalid:
            click.echo(f"INVALID: {reason}")
        click.echo(f"\nResults: {folder} ({time.monotonic() - began:.0f} s of wall time)")
    return 5 if invalid else 0


def _compare(figure: Figure, runs: Measured) -> tables.Compared:
    ours = values(figure, runs)
    why = published()["setups"][figure.cells[0].arm.setup]["why"]
    return tables.Compared(figure, why, ours, speedups(figure, ours))


def _new_folder() -> Path:
    return RESULTS / f"{datetime.now(UTC).strftime('%Y%m%dT%H%M%SZ')}-paper"


def _same_studies(folder: Path, specs: dict[str, RunSpec]) -> None:
    """Raise SetupError when the folder holds one of the studies with other settings."""
    for name, spec in specs.items():
        if (folder / name / SPEC).is_file() and load_spec(folder / name / SPEC) != spec:
            raise SetupError(
                f"{folder / name} holds the study {name} with other settings",
                "the same figures, duration and seed as before",
                "Choose another --output-dir.",
            )


def _again(wanted: tuple[str, ...], given: dict[str, str | None], folder: Path) -> str:
    """The command that does what is missing in `folder`."""
    settings = [part for name, value in given.items() if value for part in (f"--{name}", value)]
    return shlex.join(["thunderbench", "paper", *wanted, *settings, "-o", str(folder)])


def _play(
    specs: dict[str, RunSpec], folder: Path, jobs: int, again: str, *, quiet: bool
) -> tuple[int, list[str]]:
    """Run what is missing; the exit code, and which runs are INVALID. A study that fails ends it."""
    total = sum(len(spec.runs()) for spec in specs.values())
    view = choose_view(sys.stderr, total, quiet=quiet, environment=os.environ)
    facts = provenance.of_study(sys.argv[1:])
    invalid: list[str] = []
    try:
        for name, spec in specs.items():
            study = run_study(spec, folder / name, jobs=jobs, view=_Open(view), provenance=facts)
            if study.summary is None:
                return explain(study, len(spec.runs()), verbose=False, again=again), invalid
            invalid += [f"{name}/{reason}" for reason in study.summary["invalid"]]
    finally:
        view.close()
    return 0, invalid

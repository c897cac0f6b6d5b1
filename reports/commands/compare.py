"""`thunderbench compare`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from reports.compare import Comparison, Incomparable, compare_paths


@click.command(short_help="Compare runs or studies.")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--baseline", help="Scheduler or study to compare with. [default: vllm, else the first that is given]"
)
@click.option("--force", is_flag=True, help="Compare runs that differ in more than their schedulers.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
def compare(results: tuple[Path, ...], *, baseline: str | None, force: bool, as_json: bool) -> int:
    """Compare RESULTS: folders of runs or studies, or saved baselines.

    Schedulers are compared with each other. Where two of RESULTS hold the same scheduler, it is compared
    with itself, before and after. Runs are paired by seed, and refused when they differ in workload, plan,
    model, hardware, engine options, backend or window; --force compares them nevertheless.

    Exit codes: 0 compared, 2 nothing to compare, or not comparable, 5 no valid run to compare.

    \b
    Examples:
      thunderbench compare results/sweep
      thunderbench compare results/before results/after
      thunderbench compare results/sweep/thunder-c96-s0 results/sweep/vllm-c96-s0
      thunderbench compare results/mine results/theirs --baseline thunder --force
      thunderbench compare results/sweep --json | jq '.loads[0].comparisons'
    """  # noqa: D301 - click keeps line breaks after a real backspace
    try:
        found = compare_paths(results, baseline=baseline, force=force)
    except Incomparable as error:
        for line in error.differences:
            click.echo(f"differs: {line}", err=True)
        raise
    if as_json:
        click.echo(json.dumps(found, indent=2, allow_nan=False))
    else:
        from rich.console import Console  # noqa: PLC0415 - --json does without

        from reports.compare_table import render  # noqa: PLC0415

        render(found, Console())
    return 0 if _compared(found) else 5


def _compared(found: Comparison) -> bool:
    return any(load["comparisons"] for load in found["loads"])

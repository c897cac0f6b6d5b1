"""`thunderbench baseline`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from reports.baseline import RunSummary

_ABOUT = ("thunderbench_version", "git_commit", "study_started_utc", "command")


@click.group(short_help="Save or show baselines.")
def baseline() -> None:
    """Keep what a gate compares with: one small Parquet file, to be committed to a repository.

    \b
    Examples:
      thunderbench baseline save results/sweep -o results/baselines/main.parquet
      thunderbench baseline show results/baselines/main.parquet
    """  # noqa: D301 - click keeps line breaks after a real backspace


@baseline.command(short_help="Save a baseline.")
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The file to write, also over an old one. [default: results/baselines/ and the folder's name]",
)
@click.option("--allow-invalid", is_flag=True, help="Save INVALID runs too; a gate refuses them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
def save(results: Path, *, output: Path | None, allow_invalid: bool, as_json: bool) -> int:
    """Save the summaries of the runs in RESULTS. INVALID runs are refused with exit code 5.

    \b
    Examples:
      thunderbench baseline save results/sweep
      thunderbench baseline save results/sweep -o results/baselines/main.parquet
    """  # noqa: D301 - click keeps line breaks after a real backspace
    from reports.baseline import FOLDER, runs_of, save  # noqa: PLC0415 - pyarrow, not for --help
    from reports.gate import refuse_invalid  # noqa: PLC0415
    from reports.wording import counted  # noqa: PLC0415

    runs = runs_of(results)
    if not allow_invalid:
        refuse_invalid(runs)
    file = output or FOLDER / f"{results.absolute().name}.parquet"
    save(runs, file)
    size = file.stat().st_size
    if as_json:
        click.echo(json.dumps({"baseline": str(file), "runs": len(runs), "bytes": size}, indent=2))
    else:
        click.echo(f"Baseline: {file} ({counted(len(runs), 'run')}, {size / 1000:.0f} kB)")
    return 0


@baseline.command(short_help="Show a baseline.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
def show(file: Path, *, as_json: bool) -> int:
    """Show what a baseline holds and what made it. FILE may be a results folder too.

    \b
    Examples:
      thunderbench baseline show results/baselines/main.parquet
      thunderbench baseline show results/baselines/main.parquet --json | jq '.[0].summary.throughput'
    """  # noqa: D301 - click keeps line breaks after a real backspace
    from reports.baseline import runs_of  # noqa: PLC0415 - pyarrow, not for --help

    runs = runs_of(file)
    click.echo(json.dumps([_facts(run) for run in runs], indent=2) if as_json else _table(runs))
    return 0


def _facts(run: RunSummary) -> dict[str, Any]:
    return {
        "run": run.name,
        "scheduler": run.scheduler,
        "load": run.load,
        "value": run.value,
        "seed": run.seed,
        "plan_hash": run.plan_hash,
        "invalid": list(run.invalid),
        "provenance": run.provenance,
        "summary": run.summary,
    }


def _table(runs: Sequence[RunSummary]) -> str:
    """One line per run, then what made them."""
    from reports.measures import MEASURES, label, pick  # noqa: PLC0415
    from reports.text import number, shown  # noqa: PLC0415

    columns = {"steps/min": "steps_per_min", "KV hits": "hit_rate_share", "TTFT p95 s": "ttft_p95_s"}
    lines = [f"{'scheduler':<20} {'load':<26} {'seed':>6}" + "".join(f"{title:>11}" for title in columns)]
    for run in runs:
        numbers = [number(name, pick(run.summary, MEASURES[name].path)) for name in columns.values()]
        lines.append(
            f"{shown(run.scheduler, 20):<20} {label(run.load, run.value):<26} {run.seed:>6}"
            + "".join(f"{text:>11}" for text in numbers)
        )
        lines += [f"    INVALID: {shown(reason, 400)}" for reason in run.invalid]
    lines.append("")
    for key in _ABOUT:
        values = dict.fromkeys(str(run.provenance.get(key, "unknown")) for run in runs)
        lines.append(f"{key:<22} {shown(', '.join(values), 200)}")
    return "\n".join(lines)

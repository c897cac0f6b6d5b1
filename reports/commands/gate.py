"""`thunderbench gate`."""

from __future__ import annotations

import os
from pathlib import Path

import click

from reports.measures import MEASURES
from reports.thresholds import ALIASES, DEFAULTS

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"  # a file whose Markdown GitHub shows on the page of the job


@click.command(
    short_help="Fail when results got worse.", epilog=f"Metrics: {', '.join([*ALIASES, *MEASURES])}."
)
@click.argument("results", type=click.Path(path_type=Path))
@click.option(
    "--baseline",
    required=True,
    type=click.Path(path_type=Path),
    help="A file of `baseline save`, or a results folder.",
)
@click.option(
    "--fail-on",
    "limits",
    multiple=True,
    metavar="LIMIT",
    help="METRIC<-NUMBER[%] or METRIC>+NUMBER[%]: with % relative to the baseline, without absolute; "
    f"repeatable. [default: {' '.join(DEFAULTS)}]",
)
@click.option("--scheduler", metavar="NAME", help="Check this one only. [default: all]")
@click.option("--strict", is_flag=True, help="Exit 7 when inconclusive, instead of 0.")
@click.option("--force", is_flag=True, help="Compare runs although their settings differ.")
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    help="Where the files go. [default: gate/ in the results folder of the study]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
def gate(
    results: Path,
    *,
    baseline: Path,
    limits: tuple[str, ...],
    scheduler: str | None,
    strict: bool,
    force: bool,
    output_dir: Path | None,
    as_json: bool,
) -> int:
    """Check RESULTS against a baseline, scheduler by scheduler, load by load, paired by seed.

    A check fails when the change is beyond its limit and significant. Exit codes: 0 pass, 6 regression,
    7 inconclusive (with --strict), 5 invalid runs, 2 bad input; 1 is a bug of ours, never a regression.
    Writes verdict.json, junit.xml, summary.md (also to $GITHUB_STEP_SUMMARY) and the JSON of
    github-action-benchmark.

    \b
    Examples:
      thunderbench gate results/now --baseline results/baselines/main.parquet
      thunderbench gate results/now --baseline results/before --fail-on 'throughput<-2%'
      thunderbench gate results/now --baseline main.parquet --strict --json | jq -r .outcome
    """  # noqa: D301 - click keeps line breaks after a real backspace
    from reports import outputs  # noqa: PLC0415 - numpy and pyarrow, not for --help
    from reports.baseline import runs_of  # noqa: PLC0415
    from reports.gate import gate as decide  # noqa: PLC0415
    from reports.thresholds import parse_all  # noqa: PLC0415

    thresholds = parse_all(limits)
    verdict = decide(runs_of(results), runs_of(baseline), thresholds, scheduler=scheduler, force=force)
    folder = output_dir or _place(results)
    outputs.write(verdict, folder, strict=strict)
    _append_summary(outputs.markdown(verdict))
    code = verdict.exit_code(strict=strict)
    if as_json:
        click.echo(outputs.dumped({**verdict.json(), "exit_code": code, "folder": str(folder)}), nl=False)
    else:
        fails_on = ", ".join(threshold.text for threshold in thresholds)
        click.echo(f"Fails on {fails_on}{'' if limits else ' (default)'}; ", nl=False)
        click.echo(outputs.text(verdict))
        click.echo(f"Files: {folder}")
    return code


def _place(results: Path) -> Path:
    """In the folder of the study; beside the folder of a run or a file, which are written once."""
    is_study = results.is_dir() and not (results / "provenance.json").exists()
    return results / "gate" if is_study else results.absolute().with_name(f"{results.stem}-gate")


def _append_summary(markdown: str) -> None:
    """Show the verdict on the page of a GitHub job; that it cannot be shown is no reason to fail it."""
    file = os.environ.get(SUMMARY_VARIABLE)
    if not file:
        return
    try:
        with Path(file).open("a", encoding="utf-8") as summary:
            summary.write(f"{markdown}\n")
    except OSError as error:
        click.echo(f"thunderbench: no job summary in {SUMMARY_VARIABLE}: {error.strerror}", err=True)

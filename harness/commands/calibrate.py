"""`thunderbench calibrate`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness import profiles
from harness.calibrate import outcome
from harness.calibrate.evidence import STEP_COLUMNS, Evidence, OfRequests, OfSteps
from harness.calibrate.fit import Calibration
from harness.calibrate.fit import calibrate as fit
from harness.calibrate.outcome import Subject
from harness.calibrate.predict import Load
from harness.calibrate.timings import is_step_file, read_requests
from harness.commands.calibrate_server import Wanted, calibrate_server
from harness.commands.options import json_option
from harness.commands.tables import print_table
from harness.errors import SetupError
from harness.export.files import refuse_taken, whole_file
from harness.export.meter import Meter
from harness.records import find_runs
from harness.runner import SPEC
from harness.settings import read_spec
from harness.spec import EngineSpec, RunSpec

_ENGINE = EngineSpec()  # with vLLM's defaults for large GPUs


def _server_options(command: Callable[..., None]) -> Callable[..., None]:
    """What only the measuring of a server takes."""
    count = click.IntRange(min=1)
    options = (
        click.option(
            "--backend", "url", metavar="URL", help="Measure this running server instead of FILE."
        ),
        click.option("--dry-run", is_flag=True, help="Say what would be sent to the server, and stop."),
        click.option(
            "--kv-tokens", type=count, help="KV capacity in tokens. [default: as the server says]"
        ),
        click.option(
            "--max-num-batched-tokens",
            type=count,
            default=_ENGINE.max_num_batched_tokens,
            show_default=True,
            help="The server's option; vLLM's default is 2048 on smaller GPUs and CPUs.",
        ),
        click.option(
            "--max-num-seqs",
            type=count,
            default=_ENGINE.max_num_seqs,
            show_default=True,
            help="The server's option; vLLM's default is 256 on smaller GPUs, 128 on CPUs.",
        ),
        click.option(
            "--max-prompt", type=count, default=32768, show_default=True, help="Longest prompt to send."
        ),
        click.option(
            "--max-batch", type=count, default=64, show_default=True, help="Most requests at a time."
        ),
        click.option(
            "--repeats", type=count, default=3, show_default=True, help="How often each size is measured."
        ),
        click.option(
            "--time-limit",
            type=click.FloatRange(min=1),
            default=480.0,
            show_default=True,
            metavar="SECONDS",
            help="Begin no measurement after so long.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    short_help="Fit step times to timings or a running server.",
    epilog="FILE: a trace whose steps have started_at, ttft_s and llm_s; the results folder of a run; or "
    f"engine steps in CSV or Parquet, with the columns {', '.join(STEP_COLUMNS)}.",
)
@click.argument("file", type=click.Path(path_type=Path), required=False)
@_server_options
@click.option("--model", "-m", help="Model profile (see `models`). [default: GLM-4.6-FP8]")
@click.option("--hardware", help="GPUs of one replica. [default: 8xH100]")
@click.option("--kv-dtype", help="Type of the KV cache, e.g. fp8 or auto. [default: fp8]")
@click.option(
    "--coverage",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Share of the server's programs that FILE holds.",
)
@click.option(
    "--holdout",
    type=click.FloatRange(0.05, 0.9),
    default=0.3,
    show_default=True,
    help="Share of the programs, or sizes, not fitted to, which the errors are told of.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Which are held out; the order.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="TOML file to write: for `run -c`, of a server for `run --profile`. [default: none]",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@json_option
def calibrate(
    *,
    file: Path | None,
    url: str | None,
    no_progress: bool,
    as_json: bool,
    coverage: float,
    time_limit: float,
    **given: Any,
) -> None:
    """Fit the constants of the step time to what was measured, and say how far off they are.

    Fitted are the shares of peak FLOPS and bandwidth and the seconds lost per step. A constant that the
    timings do not identify keeps its default. Errors are of programs that were not fitted to.

    \b
    Examples:
      thunderbench calibrate trace.jsonl --model GLM-4.6-FP8 --hardware 8xH100 -o calibrated.toml
      thunderbench run -c calibrated.toml
      thunderbench calibrate trace.jsonl --coverage 0.5 --holdout 0.2 --seed 1
      thunderbench calibrate steps.csv --model Qwen3-8B --hardware 1xH100 --kv-dtype auto --json
      thunderbench calibrate --backend http://127.0.0.1:8000 --hardware 1xH200 -o profile.toml
      thunderbench run --backend sim --profile profile.toml

    With --backend, prefills and decodes of many sizes are measured at the server, all constants of the step
    time are fitted, and what the measurements cannot tell apart is said. Prompts are random token ids; send
    them to no server that others use. OPENAI_API_KEY is sent, if set.
    """  # noqa: D301 - click keeps line breaks after a real backspace
    quiet = no_progress or as_json
    place: dict[str, Any] = {name: given.pop(name) or None for name in ("model", "hardware", "kv_dtype")}
    if url is not None:
        if file is not None:
            raise SetupError(f"{file} and --backend {url}", "one of the two")
        how: dict[str, Any] = {"quiet": quiet, "as_json": as_json, "time_limit_s": time_limit}
        calibrate_server(Wanted(url=url, **how, **place, **given))
        return
    if file is None:
        raise SetupError("neither FILE nor --backend", "recorded timings, or a running server's URL")
    common = {name: given[name] for name in ("output", "force", "holdout", "seed")}
    _calibrate_file(file, place, coverage=coverage, quiet=quiet, as_json=as_json, **common)


def _calibrate_file(
    file: Path,
    given: dict[str, str | None],
    *,
    coverage: float,
    output: Path | None,
    force: bool,
    quiet: bool,
    holdout: float,
    seed: int,
    as_json: bool,
) -> None:
    if output is not None:
        refuse_taken(output, force=force)
    spec = _spec(file, given)
    evidence = _evidence(file, coverage, quiet=quiet)
    subject = Subject(file.name, spec, coverage, holdout, seed, evidence.what)
    with Meter(sys.stderr, os.environ, what="fits") as meter:
        found = fit(
            evidence,
            subject.step_time,
            holdout=holdout,
            seed=seed,
            on_progress=None if quiet else meter,
        )
    if output is not None:
        with whole_file(output, force=force) as out:
            out.write(outcome.toml(subject, found))
    if as_json:
        click.echo(json.dumps(outcome.as_json(subject, found), indent=2))
    else:
        _print(subject, found, output)


def _spec(file: Path, given: dict[str, Any]) -> RunSpec:
    """Model and hardware: what was said, else those of a run, else the defaults. Raises SetupError."""
    settings = None
    if file.is_dir():
        settings = find_runs(file)[0] / SPEC
    spec = read_spec(
        {name: value or None for name, value in given.items()}, file=settings, environment=os.environ
    )
    profile, gpus = profiles.model(spec.model), profiles.hardware(spec.hardware)
    profiles.refuse_uneven_split(profile, gpus)
    profiles.kv_bytes_per_token(profile, spec.kv_dtype, gpus.count)  # an unknown type is the user's to know
    return spec


def _evidence(file: Path, coverage: float, *, quiet: bool) -> Evidence:
    if is_step_file(file):
        return OfSteps(file)
    with Meter(sys.stderr, os.environ, what="MB read") as meter:
        return OfRequests(Load(read_requests(file, None if quiet else meter), coverage))


def _print(subject: Subject, found: Calibration, output: Path | None) -> None:
    _, groups = subject.what
    click.echo(
        f"{subject.place}\n{subject.source}: fitted on {found.fitted_groups:,} {groups}, judged by the "
        f"{found.held_out_groups:,} held out (seed {subject.seed})\n"
    )
    print_table(["constant", "default>", "fitted>", "95 %", ""], outcome.constant_rows(found))
    if line := outcome.outside_line(found):
        click.echo(f"\n{line}")
    requests = f"{found.after[0].rows:,} {subject.what[0]}"
    click.echo(f"\nSeconds of the {requests} held out. Error: median of |predicted / recorded - 1|.")
    print_table(["", "", "p50>", "p90>", "ratio p50>", "p90>", "error>"], outcome.score_rows(found))
    if output is not None:
        click.echo(f"\nWritten: {output} (thunderbench run -c {output})")

"""`thunderbench run`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from harness import provenance
from harness.commands.options import json_option, place_options
from harness.commands.show import print_summary
from harness.errors import SetupError
from harness.lazy import named
from harness.progress import choose_view
from harness.resolve import resolve, setup_errors
from harness.runner import Study, cores, new_folder, resumed_spec, run_study
from harness.settings import UNITS_LEFT_OUT, read_spec
from harness.spec import RunSpec
from harness.worker import Failed
from schedulers.registry import field_names

AFTER_RUN = "reports.commands.report:after_run"


@click.command(short_help="Compare schedulers.")
@click.option(
    "--workload", help="A name (see `workloads`), trace:FILE or module:Class. [default: swe-lite]"
)
@click.option(
    "--scheduler",
    "schedulers",
    multiple=True,
    help="A name (see `schedulers`), cap:32 or module:Class; repeatable. [default: thunder and vllm]",
)
@place_options
@click.option("--request-rate", help="Open loop instead: programs per second, e.g. 0.02,0.05.")
@click.option("--burstiness", help="Shape of the arrival gaps; 1 is Poisson, below 1 bursts. [default: 1]")
@click.option(
    "--arrival-times", help="Open loop with given arrivals, seconds: 0,1.5,20; or trace: as recorded."
)
@click.option(
    "--duration", help="Measured time after warm-up, 90s, 10m, 1h; inf: until all end. [default: 1h]"
)
@click.option("--warmup", help="Time cut off before measuring. [default: 10m]")
@click.option("--repeats", help="Repeats with seeds seed, seed+1, ...; paired. [default: 1]")
@click.option(
    "--router",
    envvar="THUNDERBENCH_ROUTER",
    help="Who places calls, under every scheduler that has a router. [default: each scheduler's own]",
)
@click.option("--release/--no-release", default=None, help="Whether clients say when a program is over.")
@click.option(
    "--reference/--no-reference",
    default=None,
    help="Also play `unlimited`, the bound of endless KV memory. [default: yes]",
)
@click.option("--replicas", help="Engines behind the scheduler. [default: 1]")
@click.option(
    "--backend",
    multiple=True,
    help="What to run on: virtual time (virtual, or vllm-core: vLLM's own scheduler), vllm: real servers "
    "that are started (--set live.model_path=DIR), URL: a running server, external:URL: somebody else's "
    "gateway as one more arm; the last two repeatable. [default: virtual]",
)
@click.option(
    "--profile",
    type=click.Path(path_type=Path),
    help="What `calibrate` wrote of a real server, to predict it with (--config and flags win).",
)
@click.option("--api", help="How prompts go to real servers: tokens, or chat. [default: tokens]")
@click.option(
    "--start-spread", help="Closed loop: time over which the first programs start. [default: 0, at once]"
)
@click.option("--goodput", help="Limits of good steps, seconds: ttft_s:2,tpot_s:0.1,step_s:60.")
@click.option("--sample-every", help="Time between two samples, virtual or real. [default: 5s]")
@click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="TOML file with settings (flags win)."
)
@click.option("--output-dir", "-o", help="Results folder, new or empty. [default: a new one in results/]")
@click.option(
    "--resume", type=click.Path(path_type=Path), help="Do what is missing in this results folder."
)
@click.option(
    "--jobs",
    "-j",
    type=click.IntRange(min=1),
    envvar="THUNDERBENCH_JOBS",
    help="Runs at a time. [default: as many as cores; on real servers one]",
)
@click.option(
    "--report", is_flag=True, help="Also write report.html into the results folder (see `report`)."
)
@click.option("--dry-run", is_flag=True, help="Print the resolved settings and the runs; run nothing.")
@click.option("--no-progress", is_flag=True, help="Show no progress.")
@click.option("--quiet", "-q", is_flag=True, help="Show no progress and no place of results.")
@click.option("--verbose", "-v", is_flag=True, help="Show tracebacks of runs that failed.")
@json_option
def run(
    *,
    sets: tuple[str, ...],
    config: Path | None,
    profile: Path | None,
    api: str | None,
    resume: Path | None,
    router: str | None,
    jobs: int | None,
    report: bool,
    dry_run: bool,
    no_progress: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **flags: Any,
) -> int:
    """Run the same programs under every scheduler and say which wins and why.

    Programs are played in virtual time, or on real servers (--backend). Settings come from flags, then
    THUNDERBENCH_* (THUNDERBENCH_CONCURRENCY=24,48), then the TOML file of --config, then --profile, then
    the defaults. The results folder holds them all, resolved, in spec.toml.

    \b
    Examples:
      thunderbench run --workload swe-lite --scheduler thunder --scheduler vllm
      thunderbench run --concurrency 24,48,72,96 --repeats 5 --report -o results/sweep
      thunderbench run --model Qwen3-8B --hardware 1xH100 --duration 10m --set scheduler.thunder.delta_t_s=2
      thunderbench run --workload trace:programs.jsonl --scheduler my_module:MyPolicy --scheduler vllm
      thunderbench run --scheduler vllm --scheduler cap:32 --router cache_aware --replicas 2
      thunderbench run --profile h200.toml --concurrency 24,48
      thunderbench run --backend http://gpu1:8000 --backend http://gpu2:8000 --duration 20m
      thunderbench run --backend vllm --set live.model_path=/models/Qwen3-8B --set live.gpus="0;1"
      thunderbench run --backend http://gpu1:8000 --backend external:http://gateway:9000 --scheduler thunder
      thunderbench run --resume results/sweep
      thunderbench run -c results/sweep/spec.toml -o results/again
    """  # noqa: D301 - click keeps line breaks after a real backspace
    given = {UNITS_LEFT_OUT.get(name, name): _said(value) for name, value in flags.items()}
    given["live"] = None if api is None else {"api": api}
    read = _reader(given, sets, profile, router)
    if resume is None:
        spec = read(config)
        folder = new_folder(spec)
    elif config is None and given["output_dir"] is None:
        spec, folder = resumed_spec(resume, read), resume
    else:
        raise SetupError("--resume with --config or --output-dir", "--resume FOLDER alone")
    if dry_run:
        _print_plan(spec, folder, as_json=as_json)
        return 0
    at_once = _at_once(jobs, spec)
    total = len(spec.runs())
    view = choose_view(sys.stderr, total, quiet=quiet or no_progress or as_json, environment=os.environ)
    facts = provenance.of_study(sys.argv[1:])
    study = run_study(spec, folder, jobs=at_once, view=view, provenance=facts)
    if study.summary is None:
        return explain(study, total, verbose=verbose)
    print_summary(study.summary, folder, as_json=as_json, quiet=quiet)
    if report:
        named(AFTER_RUN)(folder, quiet=quiet or as_json)
    return 5 if study.summary["invalid"] else 0


def _reader(
    given: Mapping[str, Any], sets: Iterable[str], profile: Path | None, router: str | None
) -> Callable[[Path | None], RunSpec]:
    """What makes a resolved spec of a settings file (null: of none) and all that was said besides."""
    below = None if profile is None else _read_profile(profile)

    def read(file: Path | None) -> RunSpec:
        def spec(more: Iterable[str] = ()) -> RunSpec:
            return read_spec(given, [*more, *sets], file=file, profile=below, environment=os.environ)

        return resolve(spec() if router is None else spec(_routed(spec().own_schedulers, router)))

    return read


def _at_once(jobs: int | None, spec: RunSpec) -> int:
    """How many runs are played at a time. Raises `SetupError` for several on real servers."""
    if not spec.is_live:
        return jobs or cores()
    if (jobs or 1) > 1:
        raise SetupError(
            f"--jobs {jobs} with the backend {spec.backend}", "one run at a time on real servers"
        )
    return 1


def _said(value: Any) -> Any:
    """Null for a flag that was not given."""
    return None if value in ((), "") else value


def _read_profile(file: Path) -> dict[str, Any]:
    from harness.profile_file import read_profile  # noqa: PLC0415 - for those who have one

    return read_profile(file)


def _routed(schedulers: Iterable[str], router: str) -> list[str]:
    """Settings that give every scheduler this router. Raises `SetupError` when none has a router."""
    with setup_errors():
        has = {name: "router" in field_names(name) for name in schedulers}
    without = [name for name in has if not has[name]]
    if len(without) == len(has):
        names = " or ".join(without) or "external gateways"
        raise SetupError(
            f"--router {router}, and no parameter `router` of {names}",
            "a scheduler that has one",
            "Such as --scheduler vllm",
        )
    if without:
        keep = "keep their" if len(without) > 1 else "keeps its"
        _say(f"no parameter `router`, so {' and '.join(without)} {keep} own placement")
    return [f"scheduler.{name}.router={router}" for name in has if has[name]]


def explain(study: Study, total: int, *, verbose: bool, again: str | None = None) -> int:
    """Say why a study is not complete and how to go on (`again`: the command); the exit code."""
    for name, failed in study.failed.items():
        _say(f"run {name} failed: {failed.reason}")
        if failed.trace and (verbose or failed.exit_code == 1):
            click.echo(failed.trace, err=True)
    kept = sum(1 for _ in study.folder.glob("*/DONE"))
    if kept:
        again = again or f"thunderbench run --resume {study.folder}"
        _say(f"{kept} of {total} runs are kept; go on with: {again}")
    if study.stopped_by is not None:
        _say(f"interrupted by {signal.Signals(study.stopped_by).name}")
        return 130
    return _exit_code(study.failed)


def _exit_code(failed: dict[str, Failed]) -> int:
    """A bug of ours is never hidden; the set-up is to blame only if it is to blame for every failure."""
    codes = {outcome.exit_code for outcome in failed.values()}
    if 1 in codes:
        return 1
    return codes.pop() if len(codes) == 1 else 4


def _print_plan(spec: RunSpec, folder: Path, *, as_json: bool) -> None:
    names = [key.name for key in spec.runs()]
    if as_json:
        settings = spec.model_dump(mode="json", exclude=spec.untold)
        click.echo(json.dumps({"folder": str(folder), "runs": names, "spec": settings}, indent=2))
        return
    click.echo(spec.toml())
    click.echo(f"# {len(names)} runs into {folder}, in this order:")
    for name in names:
        click.echo(f"#   {name}")


def _say(line: str) -> None:
    click.echo(f"thunderbench: {line}", err=True)

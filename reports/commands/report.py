"""`thunderbench report`, and `--report` of `thunderbench run`."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import click

from harness.errors import SetupError
from reports.text import shown
from reports.wording import sort_of

if TYPE_CHECKING:
    from reports.content import Content

NAME = "report.html"
PATIENCE_S = 2.0


@click.command(short_help="Write the HTML report.")
@click.argument("paths", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The file to write. [default: report.html in the folder of the study]",
)
@click.option(
    "--baseline", metavar="NAME", help="What others are compared with. [default: vllm, or the first]"
)
@click.option(
    "--png", metavar="DIR", type=click.Path(path_type=Path), help="Also every chart as PNG, here."
)
@click.option(
    "--svg", metavar="DIR", type=click.Path(path_type=Path), help="Also every chart as SVG, here."
)
@click.option("--quiet", "-q", is_flag=True, help="Show no progress and no place of the report.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, and only JSON, on stdout.")
def report(
    paths: tuple[Path, ...],
    *,
    output: Path | None,
    baseline: str | None,
    png: Path | None,
    svg: Path | None,
    quiet: bool,
    as_json: bool,
) -> None:
    """Write one HTML file that says which scheduler to take, by how much, why and how sure that is.

    RUN is the folder of a study or of a run; several make one report. The file needs no network and no
    other file: it can be mailed, archived and printed. The same results give the same file, byte by byte.

    \b
    Examples:
      thunderbench report results/sweep
      thunderbench report results/monday results/tuesday -o both.html
      thunderbench report results/sweep --baseline vllm --png charts/
      thunderbench report results/sweep --json | jq -r .report
    """  # noqa: D301 - click keeps line breaks after a real backspace
    with Telling(_nothing if quiet or as_json else _on_stderr) as tell:
        made = make(paths, output, baseline, tell)
        charts = _draw(made.content, png, svg, tell)
    if as_json:
        click.echo(json.dumps(_facts(made, charts), indent=2))
        return
    for run, reasons in made.content.invalid.items():
        _on_stderr(f"INVALID: {shown(run)}: {shown(reasons, 400)}")
    if not quiet:
        click.echo(f"Report: {made.path} ({made.size / 1e6:.1f} MB)")


def after_run(folder: Path, *, quiet: bool) -> None:
    """Write the report of a study that has just ended into its folder, and say where it is."""
    with Telling(_nothing if quiet else _on_stderr) as tell:
        made = make([folder], None, None, tell)
    if not quiet:
        click.echo(f"Report: {made.path}")


class Made(NamedTuple):
    """A report that was written: where, how many bytes, and what it says."""

    path: Path
    size: int
    content: Content


def make(
    paths: Sequence[Path], output: Path | None, baseline: str | None, tell: Callable[[str], None]
) -> Made:
    """Read results, write the page. Raises SetupError when either cannot be done."""
    from harness.records import refuse_unfinished  # noqa: PLC0415 - pyarrow, not for --help
    from reports.content import content  # noqa: PLC0415 - Altair, not for --help
    from reports.page import render, write  # noqa: PLC0415
    from reports.study import load_study  # noqa: PLC0415

    for path in paths:
        refuse_unfinished(path)
    place = output or _place(paths)
    if place.is_dir():
        raise SetupError(f"{place} is a folder", "a file to write", f"Give -o {place / NAME}")
    tell("reading results")
    study = load_study(paths, baseline)
    if not any((run.summary.get("throughput") or {}).get("steps") for run in study.runs):
        raise SetupError(
            "no step ended in the measured window of any run", "runs that measured something", "Run longer."
        )
    found = content(study, tell)
    tell("writing the page")
    page = render(found)
    write(page, place)
    return Made(place, len(page.encode()), found)


def _place(paths: Sequence[Path]) -> Path:
    """Beside the results: in the folder of the study, or in the one that holds all that were given.

    A run's own folder is written once, by the run, so the report of a run goes beside it.
    """
    if len(paths) > 1:
        return Path(os.path.commonpath([path.absolute() for path in paths])) / NAME
    (path,) = paths
    is_run = (path / "provenance.json").exists()
    return path.absolute().with_name(f"{path.absolute().name}.html") if is_run else path / NAME


def _draw(content: Content, png: Path | None, svg: Path | None, tell: Callable[[str], None]) -> list[Path]:
    """Every chart as a file, in the formats for which there is a folder."""
    from reports.figures import render_png, render_svg  # noqa: PLC0415 - Altair

    written = []
    for folder, draw in ((png, render_png), (svg, render_svg)):
        if folder is None:
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for figure in content.figures:
                tell(f"drawing {figure.id}")
                written.append(draw(figure, folder, sort_of(simulated=content.simulated)))
        except OSError as error:
            raise SetupError(
                f"cannot write into {folder}: {error.strerror}", "a folder that can be written"
            ) from error
    return written


def _facts(made: Made, charts: Sequence[Path]) -> dict[str, Any]:
    content = made.content
    return {
        "report": str(made.path),
        "bytes": made.size,
        "simulated": content.simulated,
        "verdict": content.verdict.sentences,
        "figures": [figure.id for figure in content.figures],
        "omitted": dict(content.omitted),
        "invalid": content.invalid,
        "charts": [str(path) for path in charts],
    }


class Telling:
    """Says what is being done once it has taken `PATIENCE_S`, and from then on at every step."""

    def __init__(self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._began_s = clock()
        self._doing = ""
        self._timer = threading.Timer(PATIENCE_S, self._show)
        self._timer.daemon = True

    def __call__(self, doing: str) -> None:
        """This is done now."""
        self._doing = doing
        if self._clock() - self._began_s >= PATIENCE_S:
            self._show()

    def _show(self) -> None:
        if self._doing:
            self._say(f"{self._doing} ...")

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()


def _on_stderr(line: str) -> None:
    click.echo(f"thunderbench: {line}", err=True)


def _nothing(_line: str) -> None:
    pass

"""The command line. Only click is imported here, so that `thunderbench --help` answers at once.

Exit codes: 0 fine, 1 our bug, 2 the user's set-up or usage, 4 a run failed, 5 finished but invalid,
6 a replay differs or a gate fails, 7 a gate is inconclusive, 130 interrupted.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from harness.errors import ThunderbenchError
from harness.lazy import named

# name -> where it is, and its line in --help
COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("harness.commands.run:run", "Run a workload under one or more schedulers and say which wins."),
    "show": ("harness.commands.show:show", "Print the summary of a finished study again."),
    "serve": ("harness.commands.serve:serve", "Serve with a scheduler, in front of real servers."),
    "report": ("reports.commands.report:report", "Write one HTML file that says which scheduler to take."),
    "compare": ("reports.commands.compare:compare", "Compare runs or studies in the terminal."),
    "gate": ("reports.commands.gate:gate", "Fail when results are worse than a baseline."),
    "baseline": ("reports.commands.baseline:baseline", "Save a baseline for `gate`, or look at one."),
    "replay": ("harness.commands.replay:replay", "Check that a run's decisions can be reproduced exactly."),
    "import": ("harness.commands.import_:import_", "Make programs of recorded traces, to be played."),
    "export": ("harness.commands.export:export", "Write a run as a trace, for other tools or a viewer."),
    "paper": ("harness.commands.paper:paper", "Run a paper's figures; theirs and ours side by side."),
    "calibrate": ("harness.commands.calibrate:calibrate", "Fit step times to timings or a running server."),
    "validate": ("harness.commands.validate:validate", "Replay a recorded run and say how far off we are."),
    "doctor": ("harness.commands.doctor:doctor", "Check this machine, and say how to mend what fails."),
    "workloads": ("harness.commands.workloads:workloads", "List the workloads, or look at one."),
    "schedulers": ("harness.commands.schedulers:schedulers", "List the schedulers, or look at one."),
    "models": ("harness.commands.models:models", "List model and hardware profiles, and what fits where."),
}


class LazyGroup(click.Group):
    """Imports a sub-command when it is called, and turns every error into its line and exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name; null when there is none."""
        if cmd_name not in COMMANDS:
            return None
        command = named(COMMANDS[cmd_name][0])
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The table's lines, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but an unknown command names the nearest."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

            close = get_close_matches(args[0], COMMANDS, n=1)
            hint = f". Did you mean {close[0]}?" if close else ""
            raise click.UsageError(f"no command {args[0]!r}; expected one of {', '.join(COMMANDS)}{hint}")
        return super().resolve_command(ctx, args)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run and exit. Errors of the user's making are one line on stderr; ours a traceback."""
        options["standalone_mode"] = False
        try:
            code = super().main(*args, **options)
        except ThunderbenchError as error:
            _complain(str(error))
            code = error.exit_code
        except click.ClickException as error:
            _complain(error.format_message())
            code = 2
        except (KeyboardInterrupt, click.Abort):
            _complain("interrupted")
            code = 130
        sys.exit(code or 0)


def _complain(message: str) -> None:
    click.echo(f"thunderbench: error: {' '.join(message.split())}", err=True)


def _print_version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:  # noqa: FBT001 - click's
    if wanted:
        from harness.provenance import thunderbench_version  # noqa: PLC0415 - not for --help

        click.echo(f"thunderbench {thunderbench_version()}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 fine, 1 a bug of ours, 2 set-up or usage, 4 a run failed, 5 finished but "
    "invalid, 6 a replay differs or a gate fails, 7 a gate is inconclusive, 130 interrupted.",
)
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Print the version.",
)
def cli() -> None:
    """Compare schedulers for LLM agents on the same work.

    \b
    Examples:
      thunderbench run --workload swe-lite --scheduler thunder --scheduler vllm
      thunderbench workloads show swe-lite
      thunderbench run --help
    """  # noqa: D301 - click keeps line breaks after a real backspace


def main(args: Sequence[str] | None = None) -> None:
    """The console script."""
    cli.main(args=args, prog_name="thunderbench")

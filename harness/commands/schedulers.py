"""`thunderbench schedulers`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from enum import Enum
from itertools import pairwise
from typing import Any, cast

import click

from harness.commands.options import json_option
from harness.commands.tables import print_names, print_table
from harness.resolve import setup_errors
from schedulers import registry


@click.group(invoke_without_command=True, short_help="List the schedulers.")
@json_option
@click.pass_context
def schedulers(context: click.Context, *, as_json: bool) -> None:
    """List the schedulers, or `show` one with its parameters.

    \b
    Examples:
      thunderbench schedulers
      thunderbench schedulers show thunder
      thunderbench schedulers show my_module:MyPolicy --json
    """  # noqa: D301 - click keeps line breaks after a real backspace
    if context.invoked_subcommand:
        return
    print_names(
        registry.names(), ["scheduler", "what it does"], "--scheduler my_module:MyPolicy", as_json=as_json
    )


@schedulers.command(short_help="One scheduler.")
@click.argument("name")
@json_option
def show(name: str, *, as_json: bool) -> None:
    """Show the scheduler NAME: what it does, what it needs, its parameters and their defaults.

    \b
    Examples:
      thunderbench schedulers show thunder
      thunderbench run --set scheduler.thunder.delta_t_s=2
    """  # noqa: D301 - click keeps line breaks after a real backspace
    with setup_errors():
        policy = cast("Any", registry.resolve(name))
    about = {
        "name": name,
        "summary": inspect.cleandoc(policy.__doc__ or ""),
        "needs": sorted(policy.needs),
        "observes": sorted(event.__name__ for event in policy.observes),
        "manages_sandboxes": policy.manages_sandboxes,
        "parameters": _parameters(policy.Config),
    }
    if as_json:
        click.echo(json.dumps(about, indent=2))
        return
    click.echo(f"{name}: {about['summary']}\n")
    click.echo(f"needs: {', '.join(about['needs']) or 'nothing beyond taking requests'}")
    click.echo(
        f"sandboxes: {'prepared and reclaimed by it' if policy.manages_sandboxes else 'left to the agents'}"
    )
    if not about["parameters"]:
        click.echo("parameters: none")
        return
    click.echo()
    print_table(
        ["parameter", "default", "meaning"],
        [[row["name"], str(row["default"]), row["meaning"]] for row in about["parameters"]],
    )
    click.echo(f"\nChange one with --set scheduler.{name}.{about['parameters'][0]['name']}=VALUE")


def _parameters(config: type[Any]) -> list[dict[str, Any]]:
    """Name, default and meaning of every field; the meaning is the text that follows it in the source."""
    meanings = _texts_after_fields(config)
    rows = []
    for field in dataclasses.fields(config):
        default = None if field.default is dataclasses.MISSING else field.default
        if isinstance(default, Enum):
            default = default.value
        rows.append({"name": field.name, "default": default, "meaning": meanings.get(field.name, "")})
    return rows


def _texts_after_fields(config: type[Any]) -> dict[str, str]:
    """Field name -> string that stands below it; empty where the source is not at hand."""
    try:
        body = cast("ast.ClassDef", ast.parse(textwrap.dedent(inspect.getsource(config))).body[0]).body
    except (OSError, TypeError, SyntaxError):
        return {}
    return {
        field.target.id: " ".join(text.value.value.split())
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }

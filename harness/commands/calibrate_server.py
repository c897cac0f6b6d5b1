"""`thunderbench calibrate --backend URL`: what the command does with a running server."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import click

from harness import profiles
from harness.calibrate import server_outcome as outcome
from harness.calibrate.measure import Measured, measure
from harness.calibrate.plan import Plan, Room, describe, make_plan
from harness.calibrate.server import About, HttpServer
from harness.calibrate.server_fit import DENSE, Experts, fit_server
from harness.calibrate.server_outcome import Labels, Outcome
from harness.commands.tables import print_table
from harness.errors import SetupError
from harness.export.files import refuse_taken
from harness.export.meter import Meter
from harness.profile_file import write_profile


class Wanted(NamedTuple):
    """What the command line asks for."""

    url: str
    output: Path | None
    force: bool
    as_json: bool
    dry_run: bool
    quiet: bool
    model: str | None
    hardware: str | None
    kv_dtype: str | None
    kv_tokens: int | None
    max_num_batched_tokens: int
    max_num_seqs: int
    max_prompt: int
    max_batch: int
    repeats: int
    time_limit_s: float
    holdout: float
    seed: int


def calibrate_server(wanted: Wanted) -> None:
    """Measure a server and fit; print, and write the profile. Raises `SetupError` and `EngineFailed`."""
    if wanted.output is not None:
        refuse_taken(wanted.output, force=wanted.force)
    about, plan, measured = asyncio.run(_measured(wanted))  # not uvloop: its time counts whole milliseconds
    if measured is None:
        _print_plan(wanted, about, plan)
        return
    fit = fit_server(
        measured.points,
        wanted.max_num_batched_tokens,
        experts=_experts(wanted.model or about.model),
        holdout=wanted.holdout,
        seed=wanted.seed,
    )
    labels = Labels(
        wanted.model,
        wanted.hardware,
        wanted.kv_dtype,
        wanted.kv_tokens,
        wanted.max_num_seqs,
        wanted.max_num_batched_tokens,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    found = Outcome(about, labels, plan, measured, fit)
    if wanted.output is not None:
        write_profile(
            wanted.output,
            outcome.settings(found),
            outcome.provenance(found),
            outcome.comments(found),
            force=wanted.force,
        )
    if wanted.as_json:
        click.echo(json.dumps(outcome.as_json(found), indent=2))
    else:
        _print(found, wanted.output)


async def _measured(wanted: Wanted) -> tuple[About, Plan, Measured | None]:
    async with HttpServer(wanted.url, os.environ.get("OPENAI_API_KEY", "")) as server:
        about = await server.about()
        kv_tokens = wanted.kv_tokens or about.kv_tokens
        batch = min(wanted.max_batch, wanted.max_num_seqs)
        length = about.max_model_len or wanted.max_prompt + 1024
        room = Room(
            length, kv_tokens, wanted.max_num_batched_tokens, batch, wanted.max_prompt, wanted.max_prompt
        )
        plan = make_plan(room, repeats=wanted.repeats, seed=wanted.seed)
        if wanted.dry_run:
            return about, plan, None
        with Meter(sys.stderr, os.environ, what="measurements") as meter:
            measured = await measure(
                plan,
                server.send,
                time_limit_s=wanted.time_limit_s,
                on_progress=None if wanted.quiet else meter,
            )
        return about, plan, measured


def _experts(model: str) -> Experts:
    """The routed experts of a model that is known; any other is taken to have none."""
    try:
        known = profiles.model(model)
    except SetupError:
        return DENSE
    return Experts(known.experts, known.experts_per_token)


def _print_plan(wanted: Wanted, about: About, plan: Plan) -> None:
    if wanted.as_json:
        told = {
            "server": about._asdict(),
            "sizes": [size._asdict() for size in plan.sizes],
            "repeats": plan.repeats,
            "requests": plan.requests,
            "prompt_tokens": plan.prompt_tokens,
            "output_tokens": plan.output_tokens,
        }
        click.echo(json.dumps(told, indent=2))
        return
    click.echo(_place(about))
    for line in describe(plan):
        click.echo(line)
    click.echo(f"It ends after {wanted.time_limit_s:g} s, or when every size is measured.")


def _place(about: About) -> str:
    version = f"vLLM {about.version}" if about.version else "a server of unknown version"
    tokens = "unknown" if about.kv_tokens is None else f"{about.kv_tokens:,} tokens"
    return f"{about.model} at {about.url} ({version}), KV cache {tokens}"


def _print(found: Outcome, output: Path | None) -> None:
    fit, measured = found.fit, found.measured
    click.echo(
        f"{_place(found.about)}\n{len(measured.points)} sizes measured in {measured.seconds:.0f} s: "
        f"fitted to {len(fit.fitted)}, judged by the {len(fit.held_out)} held out "
        f"(seed {found.plan.seed})\n"
    )
    print_table(["constant", "fitted>", "95 %", ""], outcome.constant_rows(found))
    click.echo("\nErrors of sizes held out: |predicted / measured - 1|")
    print_table(["", "sizes>", "median>", "p90>"], outcome.error_rows(found))
    click.echo()
    for line in outcome.notes(found):
        click.echo(line)
    if output is not None:
        click.echo(f"\nWritten: {output} (thunderbench run --backend sim --profile {output})")

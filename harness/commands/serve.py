"""`thunderbench serve`."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness import provenance
from harness.commands.options import json_option
from harness.errors import SetupError
from harness.open_files import allow_many_connections
from schedulers.registry import field_names

if TYPE_CHECKING:
    from harness.live.config import ServeSpec
    from harness.live.serve import Service


@click.command(short_help="Serve with a scheduler, in front of real servers.")
@click.option("--scheduler", help="A name (see `schedulers`) or module:Class. [default: thunder]")
@click.option(
    "--backend",
    "backends",
    multiple=True,
    metavar="URL",
    help="A server: http://gpu1:8000, or with engine hooks http://gpu1:8000#hooks=unix:/path.sock "
    "(or tcp:127.0.0.1:7700); repeatable.",
)
@click.option("--host", help="Address to listen on. [default: 127.0.0.1]")
@click.option("--port", help="Port to listen on; 0: any that is free. [default: 8300]")
@click.option("--api-key-env", metavar="NAME", help="Variable that holds the key clients must send.")
@click.option("--backend-api-key-env", metavar="NAME", help="Variable that holds the servers' key.")
@click.option(
    "--insecure", is_flag=True, default=None, help="Let others than this machine in without a key."
)
@click.option(
    "--session-headers", metavar="NAMES", help="Headers that may name a program, first one first."
)
@click.option("--router", help="Who places calls, if the scheduler has a router. [default: its own]")
@click.option("--kv-tokens", help="KV capacity of a server, where it does not say. [default: as it says]")
@click.option("--block-size", help="KV block size in tokens, where a server does not say.")
@click.option(
    "--engine-priority",
    is_flag=True,
    default=None,
    help="The servers run with --scheduling-policy priority.",
)
@click.option("--idle-ttl", help="A program without a call for so long is over. [default: 1h]")
@click.option("--drain-timeout", help="How long to finish answers when stopped. [default: 30s]")
@click.option("--upstream-timeout", help="A server silent for so long has failed. [default: 15m]")
@click.option("--write-timeout", help="A client that takes nothing for so long is cut. [default: 60s]")
@click.option("--body-limit", help="Longest request, such as 64MB. [default: 64MiB]")
@click.option("--wait", help="Wait so long for a server to be up. [default: not at all]")
@click.option("--sample-every", help="Time between two looks at a server. [default: 1s]")
@click.option("--access-log", metavar="FILE", help="One line of JSON per call; - is stdout.")
@click.option("--log-bodies", is_flag=True, default=None, help="Log requests in full, too.")
@click.option(
    "--otel",
    is_flag=True,
    default=None,
    help="Export a span per call; OTEL_EXPORTER_OTLP_ENDPOINT says where.",
)
@click.option("--seed", help="Seed of the scheduler. [default: 0]")
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="NAME=VALUE",
    help="scheduler.NAME.X=V or any setting; repeatable.",
)
@click.option(
    "--config", "-c", type=click.Path(path_type=Path), help="TOML file with settings (flags win)."
)
@click.option("--output-dir", "-o", help="New folder for decisions and tables, as a run's.")
@json_option
def serve(
    *, sets: tuple[str, ...], config: Path | None, router: str | None, as_json: bool, **flags: Any
) -> int:
    """Serve OpenAI's API in front of vLLM servers, with any scheduler of thunderbench.

    Clients say which program a request belongs to: body field program_id, or a header such as X-Session-Id;
    POST /programs/release says that one is over. Settings come from flags, then THUNDERBENCH_*, then
    --config, then the defaults. SIGTERM finishes what is being answered, then stops.

    \b
    Examples:
      thunderbench serve --scheduler thunder --backend http://gpu1:8000 --backend http://gpu2:8000
      thunderbench serve --backend http://127.0.0.1:8000 -o results/today --access-log access.jsonl
      thunderbench serve --backend http://gpu1:8000 --host 0.0.0.0 --api-key-env GATEWAY_KEY
      thunderbench replay results/today
    """  # noqa: D301 - click keeps line breaks after a real backspace
    from harness.live.config import UNITS_LEFT_OUT, read_serve_spec  # noqa: PLC0415 - pydantic

    given = {UNITS_LEFT_OUT.get(n, n): None if value in {(), ""} else value for n, value in flags.items()}

    def read(more: tuple[str, ...] = ()) -> ServeSpec:
        return read_serve_spec(given, (*more, *sets), file=config, environment=os.environ)

    spec = read()
    if router is not None:
        spec = read(_routed(spec.scheduler, router))
    return _run(spec, as_json=as_json)


def _run(spec: ServeSpec, *, as_json: bool) -> int:
    import uvloop  # noqa: PLC0415 - not for --help

    from harness.live import serve as live  # noqa: PLC0415 - aiohttp

    logging.basicConfig(format="thunderbench: %(message)s", level=logging.WARNING, stream=sys.stderr)
    secrets = live.secrets_of(spec, os.environ)
    facts = provenance.of_study(sys.argv[1:])
    allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        announce = partial(_announce, spec, as_json=as_json)
        return runner.run(live.serve(spec, secrets, facts, announce))


def _announce(spec: ServeSpec, service: Service, *, as_json: bool) -> None:
    up = service.driver.replicas
    replicas = {name: server.url for name, server in spec.servers.items()}
    if as_json:
        told = {
            "address": service.address,
            "scheduler": spec.scheduler,
            "replicas": {
                name: {
                    "url": url,
                    "up": name in up,
                    "kv_tokens": up[name].kv_tokens if name in up else None,
                }
                for name, url in replicas.items()
            },
        }
        click.echo(json.dumps(told))
    else:
        lines = [
            f"{name} {url} ({f'{up[name].kv_tokens:,} tokens of KV' if name in up else 'down'})"
            for name, url in replicas.items()
        ]
        click.echo(
            f"thunderbench: {spec.scheduler} serves at {service.address}: {', '.join(lines)}", err=True
        )
    sys.stdout.flush()


def _routed(scheduler: str, router: str) -> tuple[str, ...]:
    """The setting that gives the scheduler this router. Raises `SetupError` when it has none."""
    from harness.resolve import setup_errors  # noqa: PLC0415 - pydantic

    with setup_errors():
        has_one = "router" in field_names(scheduler)
    if not has_one:
        raise SetupError(
            f"--router {router}, and no parameter `router` of {scheduler}",
            "a scheduler that has one",
            "Such as --scheduler vllm",
        )
    return (f"scheduler.{scheduler}.router={router}",)

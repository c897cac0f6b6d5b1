from __future__ import annotations

import io
import json
import socket

import pytest
from rich.console import Console

from harness.commands.doctor import DEFAULT_PORT, show
from harness.doctor.findings import Finding
from harness.live.config import ServeSpec
from tests.harness.commands.conftest import Invoke

NAMES = [
    "Python",
    "dependencies",
    "CPU",
    "memory",
    "shared memory",
    "disk",
    "open files",
    "loopback",
    "gateway port",
    "clock",
    "GPUs",
    "vLLM",
    "engine hooks",
    "containers",
    "browser",
]


def shown(*found: Finding, **options: object) -> str:
    out = io.StringIO()
    show(found, Console(file=out, width=60, highlight=False, **options))
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def test_the_table_has_each_mend_below_its_finding() -> None:
    text = shown(
        Finding("memory", "ok", "19.7 GiB [of 23]", "4 GiB"),
        Finding("clock", "note", "hpet", "tsc", "Boot with clocksource=tsc."),
        Finding("open files", "problem", "1,024", "more than 8,192", "Run `ulimit -n 65536`."),
    )
    assert text == (
        "         check       found\n"
        "ok       memory      19.7 GiB [of 23]\n"
        "note     clock       hpet\n"
        "                     expected tsc\n"
        "                     Boot with clocksource=tsc.\n"
        "problem  open files  1,024\n"
        "                     expected more than 8,192\n"
        "                     Run `ulimit -n 65536`.\n"
        "\n"
        "1 problem, 1 note"
    )


def test_people_see_levels_in_colour() -> None:
    text = shown(Finding("memory", "problem", "1", "2", "x"), force_terminal=True, color_system="standard")
    assert "\x1b[1;31mproblem\x1b[0m" in text
    assert "1 problem, no notes" in text


def test_this_machine_is_examined_and_the_exit_code_says_whether_there_is_a_problem(
    invoke: Invoke, tmp_path
) -> None:
    """One real run; the port is taken, so there is at least that problem."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = invoke("doctor", "--json", "-o", tmp_path, "--port", port)
    found = {one["name"]: one for one in json.loads(result.stdout)}
    assert (result.exit_code, list(found)) == (2, NAMES)
    assert found["Python"]["level"] == found["loopback"]["level"] == "ok"
    assert found["gateway port"] == {
        "name": "gateway port",
        "level": "problem",
        "found": f"{port}: Address already in use",
        "expected": f"port {port} free for the gateway",
        "mend": f"End what listens there (`ss -ltnp 'sport = :{port}'`), or serve with another --port.",
    }


@pytest.mark.parametrize(("level", "code"), [("ok", 0), ("note", 0), ("problem", 2)])
def test_only_problems_change_the_exit_code(invoke: Invoke, monkeypatch, level, code) -> None:
    monkeypatch.setattr(
        "harness.commands.doctor.examine", lambda *_: [Finding("memory", level, "1", "2", "x")]
    )
    result = invoke("doctor")
    assert (result.exit_code, "memory" in result.stdout) == (code, True)


def test_the_port_that_is_tried_is_the_gateways_own() -> None:
    assert ServeSpec.model_fields["port"].default == DEFAULT_PORT

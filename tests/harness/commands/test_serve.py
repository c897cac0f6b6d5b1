"""The flags of `serve` become its spec, and its start is told in a line or as JSON."""

import json
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.commands.serve import serve
from harness.live import serve as live
from harness.live.config import UNITS_LEFT_OUT, ServeSpec
from schedulers.contract import ReplicaUp

URLS = ["http://a:1", "http://b:2#hooks=unix:/s"]


@pytest.fixture
def served(monkeypatch):
    """What was to be served; the gateway itself is one that has started."""
    seen = []

    async def stand_in(spec, secrets, provenance, announce):
        seen.append((spec, secrets, provenance["command"]))
        up = {"r0": ReplicaUp("r0", 65_536, 16)}
        announce(SimpleNamespace(address="http://127.0.0.1:9", driver=SimpleNamespace(replicas=up)))
        return 130

    monkeypatch.setattr(live, "serve", stand_in)
    return seen


def backends():
    return [word for url in URLS for word in ("--backend", url)]


def test_every_flag_reaches_its_field(served, monkeypatch):
    monkeypatch.setenv("MINE", "m-key")
    monkeypatch.setenv("THEIRS", "t-key")
    flags = "--scheduler vllm --host 0.0.0.0 --port 7 --api-key-env MINE --backend-api-key-env THEIRS "
    flags += "--insecure --session-headers A,B --router least_busy --kv-tokens 5 --block-size 6 "
    flags += "--engine-priority --idle-ttl 7m --drain-timeout 8 --upstream-timeout 9 --write-timeout 10 "
    flags += "--body-limit 11kB --wait 12 --sample-every 13 --access-log x --log-bodies --otel --seed 14 "
    flags += "--set read_timeout_s=15 -o out"
    result = CliRunner().invoke(cli, ["serve", *backends(), *flags.split(" ")])
    assert result.exit_code == 130, result.output
    spec, secrets, _ = served[0]
    assert spec == ServeSpec(
        scheduler="vllm",
        backends=URLS,
        host="0.0.0.0",  # noqa: S104 - what is asked for
        port=7,
        api_key_env="MINE",
        backend_api_key_env="THEIRS",
        insecure=True,
        session_headers=("A", "B"),
        overrides={"scheduler": {"vllm": {"router": "least_busy"}}},
        kv_tokens=5,
        block_size=6,
        engine_priority=True,
        idle_ttl_s=420,
        drain_timeout_s=8,
        upstream_timeout_s=9,
        write_timeout_s=10,
        body_limit_bytes=11_000,
        wait_s=12,
        sample_every_s=13,
        access_log="x",
        log_bodies=True,
        otel=True,
        seed=14,
        read_timeout_s=15,
        output_dir="out",
    )
    assert (secrets.own, secrets.servers) == ("m-key", "t-key")
    assert "-key" not in spec.toml()


def test_every_option_has_a_field():
    names = {parameter.name for parameter in serve.params} - {"sets", "config", "router", "as_json"}
    assert {UNITS_LEFT_OUT.get(name, name) for name in names} <= set(ServeSpec.model_fields)


def test_nothing_said_is_the_default(served):
    CliRunner().invoke(cli, ["serve", *backends()])
    assert served[0][0] == ServeSpec(backends=URLS)


def test_the_start_is_a_line_on_stderr_or_json_on_stdout(served):
    del served
    text = CliRunner().invoke(cli, ["serve", *backends()])
    line = "thunderbench: thunder serves at http://127.0.0.1:9: r0 http://a:1 (65,536 tokens of KV), "
    assert (text.stdout, text.stderr) == ("", line + "r1 http://b:2 (down)\n")
    machine = CliRunner().invoke(cli, ["serve", *backends(), "--json"])
    assert json.loads(machine.stdout) == {
        "address": "http://127.0.0.1:9",
        "scheduler": "thunder",
        "replicas": {
            "r0": {"url": "http://a:1", "up": True, "kv_tokens": 65_536},
            "r1": {"url": "http://b:2", "up": False, "kv_tokens": None},
        },
    }
    assert machine.stderr == ""


def test_a_router_for_a_scheduler_without_one_is_refused(served):
    result = CliRunner().invoke(cli, ["serve", *backends(), "--router", "x"])
    assert (result.exit_code, served) == (2, [])
    assert "no parameter `router` of thunder; expected a scheduler that has one" in result.stderr

"""`serve` as a process: it records, drains when told to stop, and refuses in one line what cannot work."""

import asyncio
import json
import os
import signal
import socket
import sys
from contextlib import asynccontextmanager

import pytest
from click.testing import CliRunner

from harness.cli import cli
from harness.records import open_run
from harness.replay import replay
from tests.harness.live.scripted_server import (
    ENDLESS,
    STREAM,
    TEXT,
    ScriptedServer,
    ask,
    chat,
    chunk,
    head,
    until,
    usual,
)

METRICS = b"""vllm:cache_config_info{block_size="16",num_gpu_blocks="1000"} 1.0
vllm:num_requests_running 1.0
vllm:num_requests_waiting 0.0
vllm:kv_cache_usage_perc 0.5
vllm:prefix_cache_queries_total 100.0
vllm:prefix_cache_hits_total 60.0
"""


def served(calls=usual):
    """A server that is looked at, and answers calls by another script."""

    async def script(request):
        if request.path in {"/health", "/metrics"}:
            yield head(200, "text/plain", length=len(METRICS)) + METRICS
            return
        async for piece in calls(request):
            yield piece

    return ScriptedServer(script)


def asked(server):
    return [request for request in server.requests if request.path.startswith("/v1/")]


@asynccontextmanager
async def process(*args, environment=None):
    """`thunderbench serve --json` on a free port: its process and address. Killed by its id at the end."""
    command = ("-c", "from harness.cli import main; main()", "serve", "--json", "--port", "0")
    started = await asyncio.create_subprocess_exec(
        sys.executable,
        *command,
        *args,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    try:
        line = await started.stdout.readline()
        if not line:
            raise AssertionError((await started.stderr.read()).decode())
        yield started, json.loads(line)
    finally:
        if started.returncode is None:
            started.kill()
            await started.wait()


def test_what_was_served_is_a_run_whose_decisions_replay(tmp_path):
    folder, log = tmp_path / "run", tmp_path / "access.jsonl"

    async def run():
        async with (
            served() as one,
            served() as two,
            process(
                *("--scheduler", "thunder", "--backend", one.url, "--backend", two.url),
                *("-o", str(folder), "--access-log", str(log), "--sample-every", "0.05"),
                *("--set", "scheduler.thunder.delta_t_s=0.1"),
            ) as (started, told),
        ):
            url = told["address"]
            for _ in range(3):
                await asyncio.gather(*(ask(url, body=chat(f"p{n}", stream=n % 2 == 0)) for n in range(4)))
            facts = {"program_id": "p0", "event": "tool_started", "tool": "bash", "call_id": "p0/0"}
            await ask(url, "POST", "/programs/events", json.dumps(facts).encode())
            facts |= {"event": "tool_finished", "duration_s": 0.5, "observation_tokens": 7}
            await ask(url, "POST", "/programs/events", json.dumps(facts).encode())
            await ask(url, "POST", "/programs/release", b'{"program_id": "p0"}')
            metrics = await ask(url, "GET", "/metrics")
            started.send_signal(signal.SIGTERM)
            return told, metrics, await started.wait()

    told, metrics, code = asyncio.run(run())
    assert code == 0
    assert (told["scheduler"], list(told["replicas"])) == ("thunder", ["r0", "r1"])
    assert told["replicas"]["r0"]["kv_tokens"] == 16_000
    assert b'thunderbench:calls_total{end="finished",scheduler="thunder"} 12.0' in metrics.body
    result, recorded = replay(folder), open_run(folder)
    assert (result.scheduler, result.actions >= 12) == ("thunder", True)
    assert recorded.provenance["simulated"] is False
    assert recorded.spec["scheduler"] == "thunder"
    programs = recorded.table("programs").to_pylist()
    ends = {row["program_id"]: row["ended_at"] for row in programs}
    assert ends == {"p0": "finished", "p1": "unfinished", "p2": "unfinished", "p3": "unfinished"}
    assert {row["steps_done"] for row in programs} == {3}
    calls = recorded.table("calls").to_pylist()
    assert [(c["prompt_tokens"], c["output_tokens"], c["cached_tokens"]) for c in calls] == [
        (12, 3, 8)
    ] * 12
    assert [row["tool"] for row in recorded.table("tools").to_pylist()] == ["bash"]
    assert {row["used_tokens"] for row in recorded.table("samples").to_pylist()} == {8000}
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(lines) == 12
    assert {(line["end"], line["status"], line["output_tokens"]) for line in lines} == {
        ("finished", 200, 3)
    }
    assert not any("body" in line for line in lines)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)]
)
def test_told_to_stop_it_ends_its_streams_and_takes_no_calls(number, code):
    async def run():
        more = asyncio.Event()

        async def script(_):
            yield ENDLESS
            await more.wait()
            yield chunk(STREAM[-1]) + b"0\r\n\r\n"

        async with served(script) as server, process("--backend", server.url) as (started, told):
            url = told["address"]
            streaming = asyncio.ensure_future(ask(url, body=chat("a", stream=True)))
            await until(lambda: asked(server))
            started.send_signal(number)
            while (late := await ask(url, "GET", "/health")).status == 200:
                pass
            late = await ask(url, body=chat("b"))
            more.set()
            return await streaming, late, await started.wait()

    stream, late, ended = asyncio.run(run())
    assert (stream.body, stream.whole) == (TEXT[0] + STREAM[-1], True)
    assert (late.status, late.headers["retry-after"]) == (503, "5")
    assert ended == code


def test_draining_is_bounded():
    async def run():
        async def script(_):
            yield ENDLESS
            await asyncio.Event().wait()

        async with (
            served(script) as server,
            process("--backend", server.url, "--drain-timeout", "0.1") as (started, told),
        ):
            streaming = asyncio.ensure_future(ask(told["address"], body=chat("a", stream=True)))
            await until(lambda: asked(server))
            started.send_signal(signal.SIGTERM)
            return await streaming, await started.wait()

    stream, code = asyncio.run(run())
    assert (stream.body, stream.whole, code) == (TEXT[0], False, 0)


def test_told_twice_it_does_not_wait_and_its_results_are_whole(tmp_path):
    folder = tmp_path / "run"

    async def run():
        async def script(_):
            yield ENDLESS
            await asyncio.Event().wait()

        async with (
            served(script) as server,
            process("--backend", server.url, "--drain-timeout", "1h", "-o", str(folder)) as (started, told),
        ):
            url = told["address"]
            streaming = asyncio.ensure_future(ask(url, body=chat("a", stream=True)))
            await until(lambda: asked(server))
            started.send_signal(signal.SIGTERM)
            while (await ask(url, "GET", "/health")).status == 200:
                pass
            started.send_signal(signal.SIGTERM)
            return await streaming, await asyncio.wait_for(started.wait(), 30)

    stream, code = asyncio.run(run())
    assert (stream.body, stream.whole, code) == (TEXT[0], False, 0)
    assert replay(folder).scheduler == "thunder"


def test_killed_it_leaves_nothing_that_looks_whole_and_the_servers_are_let_go(tmp_path):
    folder = tmp_path / "run"

    async def run():
        async def script(_):
            yield ENDLESS
            await asyncio.Event().wait()

        async with (
            served(script) as server,
            process("--backend", server.url, "-o", str(folder)) as (started, told),
        ):
            streaming = asyncio.ensure_future(ask(told["address"], body=chat("a", stream=True)))
            await until(lambda: asked(server))
            started.kill()
            await asyncio.wait_for(server.cut.wait(), 20)
            return await streaming, await started.wait()

    stream, code = asyncio.run(run())
    assert (stream.whole, code) == (False, -signal.SIGKILL)
    assert [path.name for path in tmp_path.iterdir()] == ["run.partial"]


def test_programs_whose_clients_never_release_are_over_in_time():
    async def run():
        async with served() as server, process("--backend", server.url, "--idle-ttl", "0.2") as (_, told):
            await ask(told["address"], body=chat("p"))
            before = json.loads((await ask(told["address"], "GET", "/programs")).body)
            async with asyncio.timeout(20):
                while (await ask(told["address"], "GET", "/programs")).body != b"{}":
                    pass
            return list(before)

    assert asyncio.run(run()) == ["p"]


def test_it_waits_for_a_server_and_stops_at_once_when_told_so_meanwhile():
    async def run():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            command = (
                "-c",
                "from harness.cli import main; main()",
                "serve",
                "--backend",
                url,
                "--wait",
                "1h",
            )
            started = await asyncio.create_subprocess_exec(
                sys.executable, "-u", *command, "--port", "0", stderr=asyncio.subprocess.PIPE
            )
            try:
                async with asyncio.timeout(60):
                    while b"signal" not in _handlers(started.pid):  # noqa: ASYNC110 - it says nothing yet
                        await asyncio.sleep(0)
                    started.send_signal(signal.SIGTERM)
                    return await started.wait()
            finally:
                if started.returncode is None:
                    started.kill()
                    await started.wait()

    assert asyncio.run(run()) == 0


def _handlers(pid):
    """`signal` once the process catches SIGTERM itself."""
    with open(f"/proc/{pid}/status", "rb") as status:  # noqa: PTH123 - a line of it
        caught = next(line for line in status if line.startswith(b"SigCgt"))
    return b"signal" if int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1 else b""


def refused(*args, environment=None):
    result = CliRunner().invoke(cli, ["serve", *args], env=environment)
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    return result.exit_code, result.stderr.removeprefix("thunderbench: error: ").rstrip("\n")


def test_a_port_that_is_taken_and_servers_that_are_not_there_are_one_line():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        async def run():
            async with served() as server:
                args = ("--backend", server.url, "--port", str(port))
                return await asyncio.to_thread(_in_process, *args)

        code, text = asyncio.run(run())
    assert code == 2
    assert f"--port {port}" in text
    assert "Choose another --port" in text
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        code, text = refused("--backend", f"http://127.0.0.1:{port}")
    assert code == 2
    assert text.startswith("no backend answers (http://127.0.0.1:")
    assert text.endswith("expected a server that runs. Start one, or wait for it with --wait 5m")


def _in_process(*args):
    import subprocess  # noqa: PLC0415 - for this one

    command = [sys.executable, "-c", "from harness.cli import main; main()", "serve", *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert len(done.stderr.splitlines()) == 1
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no --backend; expected the address of a server"),
        (("--backend", "gpu1:8000"), "backends.0 = 'gpu1:8000'; expected an address such as http://"),
        (
            ("--backend", "http://a", "--host", "192.0.2.1"),
            "settings that do not fit together; expected --api-key-env",
        ),
        (
            ("--backend", "http://a", "--api-key-env", "NOT_SET"),
            "environment variable NOT_SET is empty or not set",
        ),
        (("--backend", "http://a", "--scheduler", "thundr"), "scheduler 'thundr'; expected one of vllm,"),
        (("--backend", "http://a", "--scheduler", "continuum"), "scheduler 'continuum' needs `pin`"),
        (
            ("--backend", "http://a#hooks=unix:/nowhere.sock"),
            "no engine hooks of replica r0 at unix:/nowhere.sock",
        ),
        (
            ("--backend", "http://a", "--set", "scheduler.thunder.delta=1"),
            "thunder has no parameter 'delta'; expected one of delta_t_s",
        ),
        (
            ("--backend", "http://a", "--body-limit", "12 apples"),
            "body_limit_bytes = '12 apples'; expected a size",
        ),
        (
            ("--backend", "http://a", "--session-headers", "a b"),
            "session_headers.0 = 'a b'; expected letters",
        ),
        (
            ("--backend", "http://a", "--log-bodies"),
            "settings that do not fit together; expected --access-log",
        ),
        (
            ("--backend", "http://a", "--access-log", "/nowhere/x", "--kv-tokens", "0"),
            "kv_tokens = '0'; expected",
        ),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_2(args, said):
    code, text = refused(*args)
    assert code == 2
    assert said in text


def test_a_policy_with_unmet_needs_is_told_the_command_that_starts_the_server_right():
    _, text = refused("--backend", "http://gpu1:8000", "--scheduler", "continuum")
    assert "THUNDERBENCH_HOOKS=unix:/tmp/thunderbench-hooks.sock vllm serve MODEL --scheduler-cls" in text
    assert text.endswith("--backend http://gpu1:8000#hooks=unix:/tmp/thunderbench-hooks.sock")

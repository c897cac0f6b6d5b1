"""Servers are started side by side, waited for, and gone afterwards, however the harness ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.errors import EngineFailed, SetupError
from harness.live import servers as module
from harness.live.servers import (
    ALWAYS,
    ON_CPU,
    ROOT,
    ServerOptions,
    Servers,
    command,
    environment,
    refuse,
)
from harness.live.warden import below
from tests.harness.live.processes import PATIENCE_S, Watched, watched

VLLM = [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
TELLING = ["--enable-prefix-caching", "--enable-prompt-tokens-details"]
FAKE = Path(__file__).with_name("fake_server.py")


def fake(options: ServerOptions, replica_index: int, port: int, socket: Path | None) -> list[str]:
    """The model's name says how each replica behaves: `well,dies`."""
    del socket
    behaviours = options.model.split(",")
    return [sys.executable, "-I", "-S", str(FAKE), str(port), behaviours[replica_index % len(behaviours)]]


# ---------------------------------------------------------------- commands


def test_the_shortest_command() -> None:
    assert command(ServerOptions(model="m"), 0, 8000, None) == [
        *VLLM, "--model", "m", "--host", "127.0.0.1", "--port", "8000", *TELLING,
    ]  # fmt: skip


def test_every_option_in_the_command_of_a_replica() -> None:
    options = ServerOptions(
        model="/models/q",
        served_model_name="q",
        tensor_parallel_size=2,
        gpus=((0, 1), (2, 3)),
        load_format="dummy",
        kv_cache_dtype="fp8",
        num_gpu_blocks_override=256,
        block_size=32,
        max_model_len=4096,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        gpu_memory_utilization=0.85,
        kv_offloading_size=8.0,
        scheduling_policy="priority",
        hooks=True,
        extra_args=("--enforce-eager",),
    )
    assert command(options, 1, 8001, Path("/run/a/1.sock")) == [
        "env", "CUDA_VISIBLE_DEVICES=2,3", "THUNDERBENCH_HOOKS=unix:/run/a/1.sock",
        *VLLM, "--model", "/models/q", "--host", "127.0.0.1", "--port", "8001", *TELLING,
        "--served-model-name", "q", "--tensor-parallel-size", "2", "--load-format", "dummy",
        "--kv-cache-dtype", "fp8", "--num-gpu-blocks-override", "256", "--block-size", "32",
        "--max-model-len", "4096", "--max-num-seqs", "64", "--max-num-batched-tokens", "2048",
        "--gpu-memory-utilization", "0.85", "--kv-offloading-size", "8.0",
        "--scheduling-policy", "priority",
        "--scheduler-cls", "harness.live.vllm_hooks.HookedScheduler", "--enforce-eager",
    ]  # fmt: skip


def test_every_field_of_the_options_reaches_a_server() -> None:
    """A field that nobody reads would be a promise not kept."""
    elsewhere = {"model", "served_model_name", "tensor_parallel_size", "gpus", "port", "host"}
    elsewhere |= {"hooks", "extra_args", "environment", "ready_timeout_s"}
    assert set(module._OPTIONS) | elsewhere == set(ServerOptions.model_fields)


def test_the_environment_of_a_cpu_server(tmp_path: Path) -> None:
    options = ServerOptions(model=str(tmp_path))
    assert environment(options, 2, {"HOME": "/h"}, has_gpu=False, cores=8) == {
        **ALWAYS, **ON_CPU, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "4", "HOME": "/h",
    }  # fmt: skip


def test_the_environment_of_a_gpu_server_with_a_model_of_the_hub() -> None:
    assert environment(ServerOptions(model="org/name"), 1, {}, has_gpu=True, cores=8) == ALWAYS


def test_whose_setting_wins() -> None:
    options = ServerOptions(model="m", environment={"OMP_NUM_THREADS": "3"})
    inherited = {"OMP_NUM_THREADS": "2", "VLLM_CPU_KVCACHE_SPACE": "7"}
    found = environment(options, 4, inherited, has_gpu=False, cores=2)
    assert found == {**ALWAYS, **ON_CPU, "VLLM_CPU_KVCACHE_SPACE": "7", "OMP_NUM_THREADS": "3"}


@pytest.mark.parametrize(("inherited", "path"), [({}, ""), ({"PYTHONPATH": "/mine"}, ":/mine")])
def test_servers_with_hooks_can_import_the_harness(inherited: dict[str, str], path: str) -> None:
    found = environment(ServerOptions(model="m", hooks=True), 1, inherited, has_gpu=True, cores=1)
    assert found == {**ALWAYS, "PYTHONPATH": f"{ROOT}{path}"}
    assert (ROOT / "harness" / "live" / "servers.py").samefile(str(module.__file__))


@pytest.mark.parametrize(
    ("options", "replicas", "found"),
    [
        (ServerOptions(model="m"), 0, "0 replicas"),
        (ServerOptions(model="m"), 2, "2 replicas and no GPUs named: each would take the first one"),
        (ServerOptions(model="m", gpus=((0,),)), 2, "GPUs of 1 replicas for 2"),
        (
            ServerOptions(model="m", gpus=((0,), (1, 2)), tensor_parallel_size=1),
            2,
            "replica 1 on GPUs [1, 2] with tensor_parallel_size 1",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(options: ServerOptions, replicas: int, found: str) -> None:
    with pytest.raises(SetupError) as caught:
        refuse(options, replicas, has_gpu=True)
    assert caught.value.found == found


def test_one_replica_may_take_all_gpus_and_several_the_cpu() -> None:
    refuse(ServerOptions(model="m"), 1, has_gpu=True)
    refuse(ServerOptions(model="m"), 2, has_gpu=False)


# ---------------------------------------------------------------- starting and stopping


def test_two_replicas_answer_inside_the_block_and_are_gone_after_it(tmp_path: Path) -> None:
    told: list[str] = []
    options = ServerOptions(model="well")
    with Servers(options, 2, tmp_path / "logs", told.append, build=fake) as servers:
        assert len(set(servers.urls)) == 2
        assert servers.hook_addresses == ()
        assert servers.alive()
        assert servers.failure() is None
        assert [f"{url} {i}" for i, url in enumerate(servers.urls)] == [
            f"http://127.0.0.1:{words[-2]} {i}" for i, words in enumerate(servers.commands)
        ]
        everyone = [p for pid in servers.pids for p in (pid, *below(pid))]
        with watched(everyone) as pids:
            assert len(everyone) == 6
            servers.stop()
            assert pids.gone()
        servers.stop()
    assert told[0] == f"starting 2 x well, logs in {tmp_path / 'logs'}"
    assert sorted(line.partition(" after ")[0] for line in told if " answers at " in line) == [
        f"server {i} answers at {url}" for i, url in enumerate(servers.urls)
    ]
    assert len(servers.start_s) == 2
    assert (tmp_path / "logs" / "server-1.log").read_text() == "loading the model\n"


def test_waiting_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TELL_EVERY_S", 0.0)
    told: list[str] = []
    with Servers(ServerOptions(model="well"), 1, tmp_path, told.append, build=fake):
        pass
    waits = [line for line in told if line.startswith("waiting for server 0 for ")]
    assert waits
    assert {line.partition(" s: ")[2] for line in waits} <= {"nothing logged yet", "loading the model"}


def test_hooks_get_a_short_socket_each_which_is_removed(tmp_path: Path) -> None:
    """A socket's path has at most 107 characters; folders of results are longer."""
    deep = tmp_path / ("x" * 120)
    with Servers(ServerOptions(model="well", hooks=True), 2, deep, build=fake) as servers:
        paths = [Path(address.removeprefix("unix:")) for address in servers.hook_addresses]
        assert [path.name for path in paths] == ["0.sock", "1.sock"]
        assert all(len(str(path)) < 108 for path in paths)
        folder = paths[0].parent
        assert folder.is_dir()
    assert not folder.exists()


def test_a_server_that_ends_at_its_start_is_told_with_its_error(tmp_path: Path) -> None:
    servers = Servers(ServerOptions(model="well,dies"), 2, tmp_path, build=fake)
    with pytest.raises(SetupError) as caught, servers:
        pytest.fail("it must not start")
    assert caught.value.found == (
        "server 1 ended with exit code 3: ValueError: No common block size for 16. "
        f"(log: {tmp_path / 'server-1.log'})"
    )
    assert not servers.alive()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    options = ServerOptions(model="silent", ready_timeout_s=0.01)
    servers = Servers(options, 1, tmp_path, build=fake)
    with pytest.raises(SetupError, match="does not answer") as caught, servers:
        pytest.fail("it must not start")
    assert caught.value.found.startswith(
        f"server 0 does not answer {servers.urls[0]}/health after 0.01 s: "
    )
    assert caught.value.fix == "Raise ready_timeout_s if it was still loading."
    assert not servers.alive()


def test_a_deaf_server_is_killed_after_the_grace(tmp_path: Path) -> None:
    with Servers(ServerOptions(model="deaf"), 1, tmp_path, build=fake, stop_grace_s=0.01) as servers:
        (pid,) = servers.pids
        with watched([pid, *below(pid)]) as pids:
            servers.stop()
            assert pids.gone()


def test_a_server_that_ends_in_the_middle_is_reported(tmp_path: Path) -> None:
    with Servers(ServerOptions(model="well"), 2, tmp_path, build=fake) as servers:
        warden = servers.pids[1]
        os.kill(below(warden)[0], signal.SIGKILL)
        os.waitid(os.P_PID, warden, os.WEXITED | os.WNOWAIT)
        assert not servers.alive()
        failure = servers.failure()
    assert isinstance(failure, EngineFailed)
    assert str(failure) == (
        f"server 1 ended by SIGKILL (out of memory?): loading the model (log: {tmp_path / 'server-1.log'})"
    )


def test_a_server_and_its_group_end_with_a_warden_that_is_killed(tmp_path: Path) -> None:
    """Only what left the group is out of reach then."""
    with Servers(ServerOptions(model="well"), 1, tmp_path, build=fake) as servers:
        (warden,) = servers.pids
        with watched(below(warden)) as pids:
            os.kill(warden, signal.SIGKILL)
            servers.stop()
            with pytest.raises(ProcessLookupError):
                os.killpg(warden, 0)
            assert not pids.gone()


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        servers = Servers(ServerOptions(model="well", port=port), 1, tmp_path, build=fake)
        with pytest.raises(SetupError) as caught, servers:
            pytest.fail("it must not start")
    assert caught.value.found.startswith(f"port {port} of 127.0.0.1 cannot be had (")
    assert caught.value.expected == f"1 free ports from {port}"


# ---------------------------------------------------------------- the harness's own end

HARNESS = """
import json, os, signal, sys
from pathlib import Path
from harness.live.servers import ServerOptions, Servers
from harness.live.warden import below
from tests.harness.live.test_servers import fake

how, folder = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
with Servers(ServerOptions(model="well"), 2, Path(folder), build=fake) as servers:
    pids = below(os.getpid())
    if how == "forks":
        pid = os.fork()
        if pid == 0:
            signal.pause()
        pids.append(pid)
    print(json.dumps(pids), flush=True)
    if how == "raises":
        sys.stdin.read()
        raise RuntimeError("a bug of ours")
    signal.pause()
"""


@contextmanager
def harness(how: str, folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int], Watched]]:
    """A harness with two servers up: its process, those below it, and a watch on the six of the servers."""
    process = subprocess.Popen(
        [sys.executable, "-c", HARNESS, how, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        with watched(pids[:6]) as servers:
            yield process, pids, servers
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_server_outlives_a_harness_that_is_ended_by_a_signal(number: int, tmp_path: Path) -> None:
    with harness("waits", tmp_path) as (process, pids, servers):
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == -number
        assert servers.survivors() == []
    assert len(pids) == 6


def test_servers_end_even_if_a_copy_of_the_harness_holds_their_pipes(tmp_path: Path) -> None:
    """A process forked from the harness has the pipes too, so they do not end with the harness."""
    with harness("forks", tmp_path) as (process, pids, servers), watched(pids[6:]) as copy:
        process.kill()
        assert servers.survivors() == []
        assert not copy.gone()


def test_ctrl_c_ends_the_servers_before_the_harness(tmp_path: Path) -> None:
    with harness("waits", tmp_path) as (process, _, servers):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == -signal.SIGINT
        assert servers.gone()


def test_a_crash_of_the_harness_ends_the_servers_first(tmp_path: Path) -> None:
    with harness("raises", tmp_path) as (process, _, servers):
        assert process.communicate(timeout=PATIENCE_S)[1].endswith(b"RuntimeError: a bug of ours\n")
        assert process.returncode == 1
        assert servers.gone()

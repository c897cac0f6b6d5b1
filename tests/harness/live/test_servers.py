"""Servers are started side by side, waited for, and gone afterwards, however the harness ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from harness.errors import EngineFailed, SetupError
from harness.live import servers as module
from harness.live.server_command import ROOT, ServerOptions
from harness.live.servers import Servers
from harness.live.warden import below
from tests.harness.live.processes import PATIENCE_S, Watched, watched

GRACE_S = 0.1  # what the children of the fake servers do not heed
FAKE = Path(__file__).with_name("fake_server.py")


def fake(options: ServerOptions, replica_index: int, port: int, folder: Path) -> list[str]:
    """The model's name says how each replica behaves: `well,dies`; each leaves a file behind."""
    (folder / "left").touch()
    behaviours = options.model.split(",")
    return [sys.executable, "-I", "-S", str(FAKE), str(port), behaviours[replica_index % len(behaviours)]]


# ---------------------------------------------------------------- starting and stopping


def test_two_replicas_answer_inside_the_block_and_are_gone_after_it(tmp_path: Path) -> None:
    told: list[str] = []
    options = ServerOptions(model="well")
    with Servers(options, 2, tmp_path / "logs", told.append, build=fake, stop_grace_s=GRACE_S) as servers:
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
    with Servers(ServerOptions(model="well"), 1, tmp_path, told.append, build=fake, stop_grace_s=GRACE_S):
        pass
    waits = [line for line in told if line.startswith("waiting for server 0 for ")]
    assert waits
    assert {line.partition(" s: ")[2] for line in waits} <= {"nothing logged yet", "loading the model"}


def test_hooks_get_a_short_socket_each_and_its_folder_is_removed(tmp_path: Path) -> None:
    """A socket's path has at most 107 characters; folders of results are longer."""
    deep = tmp_path / ("x" * 120)
    with Servers(
        ServerOptions(model="well", hooks=True), 2, deep, build=fake, stop_grace_s=GRACE_S
    ) as servers:
        paths = [Path(address.removeprefix("unix:")) for address in servers.hook_addresses]
        assert [path.name for path in paths] == ["hooks.sock", "hooks.sock"]
        assert all(len(str(path)) < 108 for path in paths)
        folders = [path.parent for path in paths]
        assert [list(folder.iterdir()) for folder in folders] == [[folder / "left"] for folder in folders]
        assert len(set(folders)) == 2
    assert [folder.exists() for folder in folders] == [False, False]


def test_the_folder_of_a_warden_that_is_killed_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Servers(
        ServerOptions(model="well"), 1, tmp_path / "logs", build=fake, stop_grace_s=GRACE_S
    ) as servers:
        (warden,) = servers.pids
        with watched(below(warden)):
            os.kill(warden, signal.SIGKILL)
            servers.stop()
    assert [path.name for path in tmp_path.iterdir()] == ["logs"]


def test_a_port_is_kept_for_a_server_until_it_answers(tmp_path: Path) -> None:
    """Nobody else is given it, but who asks for it by number and allows its reuse may listen, as vLLM."""
    with ExitStack() as held:
        (port,) = module._hold_ports(ServerOptions(model="m"), 1, held)
        with socket.socket() as stranger, pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S):
                pass
    with Servers(ServerOptions(model="well"), 1, tmp_path, build=fake, stop_grace_s=GRACE_S) as servers:
        port = int(servers.commands[0][-2])
        servers.stop()
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(("127.0.0.1", port))


def test_a_server_that_ends_at_its_start_is_told_with_its_error(tmp_path: Path) -> None:
    servers = Servers(ServerOptions(model="well,dies"), 2, tmp_path, build=fake, stop_grace_s=GRACE_S)
    with pytest.raises(SetupError) as caught, servers:
        pytest.fail("it must not start")
    assert caught.value.found == (
        "server 1 ended with exit code 3: ValueError: No common block size for 16. "
        f"(log: {tmp_path / 'server-1.log'})"
    )
    assert not servers.alive()


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    options = ServerOptions(model="silent", ready_timeout_s=0.01)
    servers = Servers(options, 1, tmp_path, build=fake, stop_grace_s=GRACE_S)
    with pytest.raises(SetupError, match="does not answer") as caught, servers:
        pytest.fail("it must not start")
    assert caught.value.found.startswith(
        f"server 0 does not answer {servers.urls[0]}/health after 0.01 s: "
    )
    assert caught.value.fix == "Raise ready_timeout_s if it was still loading."
    assert not servers.alive()


def test_a_deaf_server_is_killed_after_the_grace(tmp_path: Path) -> None:
    with Servers(ServerOptions(model="deaf"), 1, tmp_path, build=fake, stop_grace_s=GRACE_S) as servers:
        (pid,) = servers.pids
        with watched([pid, *below(pid)]) as pids:
            servers.stop()
            assert pids.gone()


def test_a_server_that_ends_in_the_middle_is_reported(tmp_path: Path) -> None:
    with Servers(ServerOptions(model="well"), 2, tmp_path, build=fake, stop_grace_s=GRACE_S) as servers:
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
    with Servers(ServerOptions(model="well"), 1, tmp_path, build=fake, stop_grace_s=GRACE_S) as servers:
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
        servers = Servers(
            ServerOptions(model="well", port=port), 1, tmp_path, build=fake, stop_grace_s=GRACE_S
        )
        with pytest.raises(SetupError) as caught, servers:
            pytest.fail("it must not start")
    assert caught.value.found.startswith(f"port {port} of 127.0.0.1 cannot be had (")
    assert caught.value.expected == f"1 free ports from {port}"


# ---------------------------------------------------------------- the harness's own end

HARNESS = """
import json, os, signal, sys
from pathlib import Path
from harness.live.server_command import ServerOptions
from harness.live.servers import Servers
from harness.live.warden import below
from tests.harness.live.test_servers import GRACE_S, fake

how, folder = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)
with Servers(ServerOptions(model="well"), 2, Path(folder), build=fake, stop_grace_s=GRACE_S) as servers:
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
    (folder / "tmp").mkdir()
    process = subprocess.Popen(
        [sys.executable, "-c", HARNESS, how, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(folder / "tmp")},
    )
    try:
        assert process.stdout is not None
        pids = json.loads(process.stdout.readline())
        with watched(pids[:6]) as servers:
            yield process, pids, servers
    finally:
        process.kill()
        process.communicate()


def test_no_server_outlives_a_harness_that_is_killed_nor_do_its_files(tmp_path: Path) -> None:
    with harness("waits", tmp_path) as (process, pids, servers):
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
        assert servers.survivors() == []
    assert len(pids) == 6
    assert list((tmp_path / "tmp").iterdir()) == []


def test_servers_end_even_if_a_copy_of_the_harness_holds_their_pipes(tmp_path: Path) -> None:
    """A process forked from the harness has the pipes too, so they do not end with the harness."""
    with harness("forks", tmp_path) as (process, pids, servers), watched(pids[6:]) as copy:
        process.kill()
        assert servers.survivors() == []
        assert not copy.gone()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_end_the_servers_before_the_harness(number: int, tmp_path: Path) -> None:
    with harness("waits", tmp_path) as (process, _, servers):
        process.send_signal(number)
        assert process.wait(PATIENCE_S) == -signal.SIGINT
        assert servers.gone()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_whoever_handles_sigterm_goes_on_doing_so(tmp_path: Path) -> None:
    def mine(*_: object) -> None: ...

    before = signal.signal(signal.SIGTERM, mine)
    try:
        with Servers(ServerOptions(model="well"), 1, tmp_path, build=fake, stop_grace_s=GRACE_S):
            assert signal.getsignal(signal.SIGTERM) is mine
        assert signal.getsignal(signal.SIGTERM) is mine
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_crash_of_the_harness_ends_the_servers_first(tmp_path: Path) -> None:
    with harness("raises", tmp_path) as (process, _, servers):
        assert process.communicate(timeout=PATIENCE_S)[1].endswith(b"RuntimeError: a bug of ours\n")
        assert process.returncode == 1
        assert servers.gone()

"""What is started below a warden ends with the warden's parent, and the warden's end means that it did."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from harness.live import warden
from harness.live.warden import below
from tests.harness.live.processes import PATIENCE_S, watched

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="wardens rest on prctl and /proc")

# Heeds no SIGTERM, and has a child in a session of its own that does not either; says when both stand.
STUBBORN = """
import os, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(writing, b"x")
    signal.pause()
os.read(reading, 1)
print("up", flush=True)
signal.pause()
"""
# Ends in order on SIGTERM, with an exit code of its own.
ORDERLY = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("up", flush=True)
signal.pause()
"""
# Ends when told to, while what it started goes on in a session of its own.
LEAVING = """
import os, signal, sys
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.write(writing, b"x")
    signal.pause()
os.read(reading, 1)
signal.signal(signal.SIGUSR1, lambda *_: os._exit(5))
print("up", flush=True)
signal.pause()
"""


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(warden.__file__), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        try:
            yield process
            process.terminate()
            process.wait(PATIENCE_S)
        finally:
            process.kill()


def say_up(process: subprocess.Popen[bytes]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"


def test_the_exit_code_is_the_servers() -> None:
    with running("--", *python("raise SystemExit(3)")) as process:
        assert process.wait(PATIENCE_S) == 3


def test_a_server_ended_by_a_signal_shows_as_in_a_shell() -> None:
    with running("--", *python("import os; os.kill(os.getpid(), 6)")) as process:
        assert process.wait(PATIENCE_S) == 128 + signal.SIGABRT


def test_a_command_that_is_not_there_is_named() -> None:
    with running("--", "/no/such/server") as process:
        assert process.wait(PATIENCE_S) == 127
        assert process.stderr is not None
        said = process.stderr.read()
    assert said == b"warden: error: cannot start /no/such/server: No such file or directory\n"


@pytest.mark.parametrize(
    "arguments", [[], ["--"], ["x"], ["--grace", "--", "x"], ["--other", "1", "--", "x"]]
)
def test_usage(arguments: list[str]) -> None:
    with running(*arguments) as process:
        _, said = process.communicate(timeout=PATIENCE_S)
    assert (said, process.returncode) == (
        b"usage: warden [--grace SECONDS] [--remove FOLDER] -- COMMAND...\n",
        2,
    )


def test_sigterm_is_forwarded_and_the_server_may_end_in_order() -> None:
    with running("--", *python(ORDERLY)) as process:
        say_up(process)
        process.terminate()
        assert process.wait(PATIENCE_S) == 7


def test_the_end_of_the_pipe_ends_the_server_in_order() -> None:
    with running("--", *python(ORDERLY)) as process:
        say_up(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 7


def test_a_deaf_server_and_its_far_child_are_killed_after_the_grace() -> None:
    with running("--grace", "0.01", "--", *python(STUBBORN)) as process:
        say_up(process)
        with watched(below(process.pid)) as pids:
            assert len(below(process.pid)) == 2
            process.terminate()
            assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
            assert pids.gone()


def test_what_a_server_leaves_behind_ends_with_it() -> None:
    with running("--grace", "0.1", "--", *python(LEAVING)) as process:
        say_up(process)
        server, far_child = below(process.pid)
        with watched([far_child]) as pids:
            os.kill(server, signal.SIGUSR1)
            assert process.wait(PATIENCE_S) == 5
            assert pids.gone()


def test_the_folder_of_a_server_goes_when_nothing_of_the_server_is_left(tmp_path: Path) -> None:
    folder = tmp_path / "of one server"
    folder.mkdir()
    (folder / "socket").touch()
    with running("--grace", "0.01", "--remove", str(folder), "--", *python(STUBBORN)) as process:
        say_up(process)
        assert folder.exists()
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_a_server_does_not_outlive_a_warden_that_is_killed() -> None:
    with running("--", *python(ORDERLY)) as process:
        say_up(process)
        with watched(below(process.pid)) as pids:
            process.kill()
            assert pids.survivors() == []


def test_a_server_gets_no_stdin_and_usual_signals() -> None:
    """The pipe that says whether the harness lives is the warden's alone, and SIGCHLD is as anywhere."""
    code = (
        "import os, signal; fds = sorted(map(int, os.listdir('/proc/self/fd'))); "
        "print(os.readlink('/proc/self/fd/0'), fds, "
        "[signal.getsignal(s) == signal.SIG_DFL for s in (15, 1, 17)], flush=True)"
    )
    with running("--", *python(code)) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
    assert said == b"/dev/null [0, 1, 2, 3] [True, True, True]\n"  # 3: the listing itself


def test_below_takes_any_name_of_a_process(tmp_path: Path) -> None:
    """The name in /proc/<pid>/stat may hold what ends it."""
    odd = tmp_path / "a) S 1 ("
    odd.symlink_to(sys.executable)
    with running("--", str(odd), *python(ORDERLY)[1:]) as process:
        say_up(process)
        (server,) = below(process.pid)
        assert Path(f"/proc/{server}/comm").read_text() == "a) S 1 (\n"
        assert [process.pid, server] == [p for p in below(os.getpid()) if p in {process.pid, server}]

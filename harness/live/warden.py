"""The small process between the harness and a server, which never lets the server outlive the harness.

    harness --pipe--> warden (reads it as stdin) --> server --> its own processes (vLLM's EngineCore, ...)

The harness holds the writing end of the pipe and never writes. When the harness ends, however it ends
(`kill -9` too), the pipe ends, and the warden ends the server: SIGTERM, then SIGKILL after a grace.

The warden is a child subreaper (prctl): when a process below it dies, Linux hands that one's children to
the warden and not to init. So whatever the server started stays below the warden, in whatever session or
process group, and the warden's own exit says that nothing of it is left.

    python -m harness.live.warden [--grace SECONDS] [--remove FOLDER] -- COMMAND...

`--remove` names a folder of the server's own, which goes when nothing of the server is left.

Exits with the server's exit code, 128 + n when signal n ended it, 127 when it could not be started.
Standard library only, no import of the harness: it is started by its path, without site packages.
"""

from __future__ import annotations

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

GRACE_S = 15.0  # vLLM needs about two to end its engine in order
ORPHAN_GRACE_S = 2.0  # a process that outlives its server to clean up (Python's resource tracker) is quick
PARENT_POLL_S = 1.0
KILL_AGAIN_S = 0.05

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_NOT_STARTED = 127  # as a shell says it


class Warden:
    """Runs one command and ends everything below it. Times in seconds of the monotonic clock."""

    def __init__(self, command: list[str], grace_s: float) -> None:
        self._parent = os.getppid()
        self._grace_s = grace_s
        self._stopping = False
        self._wake, wake = os.pipe()
        os.set_blocking(wake, False)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        for number in _STOPS:
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._code: int | None = None
        self._server = _start(command)

    def run(self) -> int:
        """Wait for the server's end, or bring it about; returns the exit code once nothing is left."""
        while self._code is None and not self._stopping:
            self._wait(PARENT_POLL_S, watch_parent=True)
        if self._code is None:
            with suppress(ProcessLookupError):
                os.kill(self._server, signal.SIGTERM)
            self._wait_until(time.monotonic() + self._grace_s, server_only=True)
        if self._code is not None:
            orphans_s = min(ORPHAN_GRACE_S, self._grace_s)
            self._wait_until(time.monotonic() + orphans_s, server_only=False)
        while not self._reap():
            for pid in below(os.getpid()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._wait(KILL_AGAIN_S)
        assert self._code is not None, "nothing is left, but nobody saw the server end"
        return self._code

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _wait_until(self, deadline_s: float, *, server_only: bool) -> None:
        """Wait for the server, or for everything, to end by itself."""
        while not self._reap() and not (server_only and self._code is not None):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return
            self._wait(left_s)

    def _wait(self, for_s: float, *, watch_parent: bool = False) -> None:
        """Until a signal comes (a child's end is one), or the parent is gone when that is watched."""
        ready, _, _ = select.select([self._wake, *([0] if watch_parent else [])], [], [], for_s)
        if self._wake in ready:
            os.read(self._wake, 512)
        if 0 in ready and not os.read(0, 512):
            self._stopping = True
        # A copy of the pipe's other end, in a process forked from the harness, keeps it open.
        if os.getppid() != self._parent:
            self._stopping = True
        self._reap()

    def _reap(self) -> bool:
        """Take in whoever has ended; true when no process is left below."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                return False
            if pid == self._server:
                code = os.waitstatus_to_exitcode(status)
                self._code = code if code >= 0 else 128 - code


def _start(command: list[str]) -> int:
    """Start the server, which gets no stdin, and dies with a warden that is itself killed."""
    warden = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(command, warden)
    return pid


def _become(command: list[str], warden: int) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (*_STOPS, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == warden:  # else it was killed before that was asked for
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.execvp(command[0], command)  # noqa: S606 - running a command is what a warden is for
    except OSError as error:
        os.write(2, f"warden: error: cannot start {command[0]}: {error.strerror}\n".encode())
    finally:
        os._exit(_NOT_STARTED)


def below(pid: int) -> list[int]:
    """Every process under this one, children before grandchildren; none where there is no /proc."""
    children = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile
            # pid (name) state ppid ..., and a name may hold brackets and blanks
            fields = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children[int(fields[1])].append(int(entry.name))
    found = list(children[pid])
    for each in found:
        found.extend(children[each])
    return found


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed")


def main(arguments: list[str]) -> int:
    """`[--grace SECONDS] [--remove FOLDER] -- COMMAND...`."""
    options, command = _split(arguments)
    if not command or options.keys() - {"--grace", "--remove"}:
        sys.stderr.write("usage: warden [--grace SECONDS] [--remove FOLDER] -- COMMAND...\n")
        return 2
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    code = Warden(command, float(options.get("--grace", GRACE_S))).run()
    if "--remove" in options:
        shutil.rmtree(options["--remove"], ignore_errors=True)
    return code


def _split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options with their values, and the command; no command where the two cannot be told apart."""
    at = arguments.index("--") if "--" in arguments else 0
    if at % 2 or "--" not in arguments:
        return {}, []
    return dict(zip(arguments[:at:2], arguments[1:at:2], strict=True)), arguments[at + 1 :]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

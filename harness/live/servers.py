"""vLLM servers that the harness starts, waits for and ends.

    with Servers(ServerOptions(model="/models/qwen"), replicas=2, logs=folder, view=print) as servers:
        servers.urls          # one per replica, all of them answering

Each replica is one server process below a warden (`warden.py`), which ends it when the harness is gone,
however it went, and removes the folder of its sockets. `server_command.py` says how servers are started.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket as sockets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple, Self

from harness.errors import EngineFailed, SetupError
from harness.live import warden
from harness.live.server_command import (
    HOOKS_SOCKET,
    ServerOptions,
    command,
    environment,
    has_gpu,
    refuse,
)
from harness.live.server_log import last_lines, why

POLL_S = 0.1
TELL_EVERY_S = 5.0
HEALTH_TIMEOUT_S = 2.0
STOP_GRACE_S = 15.0  # between SIGTERM and SIGKILL
WARDEN_GRACE_S = 10.0  # beyond that, for the warden to see that nothing is left

View = Callable[[str], None]
Build = Callable[[ServerOptions, int, int, Path], list[str]]


class _Replica(NamedTuple):
    """A started server: `process` is its warden."""

    name: str
    host: str
    port: int
    log: Path
    folder: Path  # of its sockets
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ending(self) -> str:
        """How and why it ended."""
        code = self.process.returncode
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number in signal.valid_signals():
            how = f"by {signal.Signals(number).name}"
            how += " (out of memory?)" if number == signal.SIGKILL else ""
        else:
            how = f"with exit code {code}"
        return f"{self.name} ended {how}: {why(self.log)} (log: {self.log})"


class Servers:
    """So many replicas, all answering inside the `with` block and all gone after it.

    `logs` is the folder of the logs, one `server-<n>.log` per replica. `view` is told in words what is
    being waited for, every few seconds. `build` makes the commands (tests start something smaller).
    Inside the block SIGTERM is what Ctrl-C is, unless somebody handles it.

    Ordinary code, not asyncio: entering takes as long as the slowest server. Raises `SetupError`, with the
    error that the server's log names, when one ends before it answers or does not answer in time.
    """

    def __init__(
        self,
        options: ServerOptions,
        replicas: int,
        logs: Path,
        view: View = lambda _: None,
        *,
        build: Build = command,
        stop_grace_s: float = STOP_GRACE_S,
    ) -> None:
        self._gpu = has_gpu()
        refuse(options, replicas, has_gpu=self._gpu)
        self._options, self._count, self._logs, self._view = options, replicas, logs, view
        self._build, self._grace_s = build, stop_grace_s
        self._replicas: list[_Replica] = []
        self._undo = ExitStack()
        self.commands: list[list[str]] = []  # of the replicas, as started
        self.start_s: list[float] = []  # seconds until each answered, the first one first

    @property
    def urls(self) -> tuple[str, ...]:
        """Base URL of each replica, without `/v1`."""
        return tuple(replica.url for replica in self._replicas)

    @property
    def hook_addresses(self) -> tuple[str, ...]:
        """Where each replica listens for engine hooks, `unix:<path>`; none without hooks."""
        if not self._options.hooks:
            return ()
        return tuple(f"unix:{replica.folder / HOOKS_SOCKET}" for replica in self._replicas)

    @property
    def pids(self) -> tuple[int, ...]:
        """Process of each replica's warden; everything of the server is below it."""
        return tuple(replica.process.pid for replica in self._replicas)

    def alive(self) -> bool:
        """Whether no server has ended."""
        return all(replica.process.poll() is None for replica in self._replicas)

    def failure(self) -> EngineFailed | None:
        """Which servers have ended, how and why; null while all run."""
        ended = [replica.ending() for replica in self._replicas if replica.process.poll() is not None]
        return EngineFailed("; ".join(ended)) if ended else None

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(_sigterm_interrupts())
            undo.callback(self.stop)
            with ExitStack() as held:
                self._start(held)
                self._wait()
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def stop(self) -> None:
        """End all servers, and wait until no process of theirs is left. Again: without effect.

        Their wardens go on with it when this is interrupted.
        """
        for replica in self._replicas:
            _stdin(replica.process).close()
            replica.process.terminate()
        deadline = time.monotonic() + self._grace_s + WARDEN_GRACE_S
        for replica in self._replicas:
            _await_end(replica.process, max(deadline - time.monotonic(), 0.0))
            shutil.rmtree(replica.folder, ignore_errors=True)  # of a warden that was killed

    def _start(self, held: ExitStack) -> None:
        """Start every replica; its port is held until `held` is left."""
        options = self._options
        self._logs.mkdir(parents=True, exist_ok=True)
        found = environment(options, self._count, os.environ, has_gpu=self._gpu, cores=os.cpu_count() or 1)
        for index, port in enumerate(_hold_ports(options, self._count, held)):
            # Not among the logs: the path of a socket may have 107 characters.
            folder = Path(tempfile.mkdtemp(prefix="thunderbench-"))
            words = self._build(options, index, port, folder)
            log = self._logs / f"server-{index}.log"
            self.commands.append(words)
            with log.open("wb") as out:
                process = _under_warden(words, found, out, folder, self._grace_s)
            self._replicas.append(_Replica(f"server {index}", options.host, port, log, folder, process))
        self._view(f"starting {self._count} x {options.model}, logs in {self._logs}")

    def _wait(self) -> None:
        """Return when every replica answers."""
        begin = told = time.monotonic()
        waiting = list(self._replicas)
        while waiting:
            now = time.monotonic()
            for replica in list(waiting):
                if replica.process.poll() is not None:
                    raise SetupError(replica.ending(), "a server that starts")
                if _answers(replica.host, replica.port):
                    waiting.remove(replica)
                    self.start_s.append(now - begin)
                    self._view(f"{replica.name} answers at {replica.url} after {now - begin:.0f} s")
            if waiting and now - begin > self._options.ready_timeout_s:
                self._time_out(waiting[0])
            if waiting and now - told >= TELL_EVERY_S:
                told = now
                for replica in waiting:
                    doing = "".join(last_lines(replica.log)[-1:]) or "nothing logged yet"
                    self._view(f"waiting for {replica.name} for {now - begin:.0f} s: {doing}")
            if waiting:
                with suppress(subprocess.TimeoutExpired):
                    waiting[0].process.wait(POLL_S)

    def _time_out(self, replica: _Replica) -> None:
        raise SetupError(
            f"{replica.name} does not answer {replica.url}/health after "
            f"{self._options.ready_timeout_s:g} s: {why(replica.log)} (log: {replica.log})",
            "a server that is ready in that time",
            "Raise ready_timeout_s if it was still loading.",
        )


def _under_warden(
    words: list[str], found: Mapping[str, str], out: IO[bytes], folder: Path, grace_s: float
) -> subprocess.Popen[bytes]:
    """Start a command below a warden, which reads our pipe and ends when that does.

    In a session of its own: Ctrl-C reaches the harness alone, which then ends the servers in order.
    """
    script = [sys.executable, "-I", "-S", str(Path(warden.__file__).resolve())]
    return subprocess.Popen(  # noqa: S603 - the command is the user's own
        [*script, "--grace", str(grace_s), "--remove", str(folder), "--", *words],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=subprocess.STDOUT,
        env=found,
        start_new_session=True,
    )


def _stdin(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdin is not None, "started with a pipe"
    return process.stdin


def _await_end(process: subprocess.Popen[bytes], for_s: float) -> None:
    try:
        process.wait(for_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.returncode == -signal.SIGKILL:
        # The warden was killed, and saw nothing end: what is left is in its group. It is gone when no
        # signal finds it; an init that never reaps would keep it there for ever, hence the bound.
        deadline = time.monotonic() + WARDEN_GRACE_S
        with suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(process.pid, signal.SIGKILL)
                time.sleep(POLL_S)


def _answers(host: str, port: int) -> bool:
    """Whether `/health` says 200. `http.client` and not `urllib`, which would ask a proxy."""
    connection = http.client.HTTPConnection(host, port, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _hold_ports(options: ServerOptions, replicas: int, held: ExitStack) -> list[int]:
    """A port per replica that nobody listens on, and that nobody is given while `held` is open.

    A socket that is bound and does not listen keeps others from the port, those excepted who ask for it
    by number and allow its reuse, as vLLM does. So two harnesses that start servers at the same time
    never take the server of the other for their own.
    """
    found = []
    for port in [options.port + index if options.port else 0 for index in range(replicas)]:
        holder = held.enter_context(sockets.socket())
        holder.setsockopt(sockets.SOL_SOCKET, sockets.SO_REUSEADDR, 1)
        try:
            holder.bind((options.host, port))
        except (OSError, OverflowError) as error:
            raise SetupError(
                f"port {port} of {options.host} cannot be had ({error})",
                f"{replicas} free ports from {options.port}",
                "Choose another port, or 0 for free ones.",
            ) from error
        found.append(holder.getsockname()[1])
    return found


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Have SIGTERM raise `KeyboardInterrupt`, so that servers end in order; only where it would kill."""
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

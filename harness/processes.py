"""Runs side by side: one process per run, at most so many at a time.

Why not `concurrent.futures`: a worker that dies for good (out of memory, say) breaks its whole pool, and
here one run must not take the others along. A process of its own also gives every run a fresh policy,
engine and heap, and its memory back at once. Processes are forked on Linux, which costs milliseconds
where starting anew costs a second of imports; the parent starts no thread while runs are going on, which
is what makes forking safe. Elsewhere they are spawned.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any, NamedTuple

from harness.progress import View
from harness.worker import Done, Failed

POLL_S = 0.1
KILL_AFTER_S = 5.0
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOPS = (signal.SIGINT, signal.SIGTERM)

_CONTEXT = (
    multiprocessing.get_context("fork") if sys.platform == "linux" else multiprocessing.get_context("spawn")
)


class Job(NamedTuple):
    """`target(*args, connection)` runs in a process of its own and reports there."""

    name: str
    target: Callable[..., None]
    args: tuple[Any, ...]


class Results(NamedTuple):
    """Outcome by name of every job that ended, and the signal that stopped the rest (null: none did)."""

    outcomes: dict[str, Done | Failed]
    stopped_by: int | None


def run_jobs(jobs: Iterable[Job], at_once: int, view: View) -> Results:
    """Run all jobs in their order. SIGINT and SIGTERM end the processes at once and return.

    Must be called in the main thread, which alone may handle signals.
    """
    queue = deque(jobs)
    outcomes: dict[str, Done | Failed] = {}
    running: dict[Connection, tuple[str, BaseProcess]] = {}
    with _stop_signals() as caught:
        try:
            while (queue or running) and not caught:
                while queue and len(running) < at_once:
                    job = queue.popleft()
                    connection, process = _start(job)
                    running[connection] = job.name, process
                    view.started(job.name)
                for ready in wait(list(running), timeout=POLL_S):
                    connection = ready  # type: ignore[assignment]  # only connections are waited for
                    name, process = running[connection]
                    outcome = _hear(connection, name, process, view)
                    if outcome is not None:
                        del running[connection]
                        outcomes[name] = outcome
                        view.ended(name, outcome.reason if isinstance(outcome, Failed) else "done")
                view.refresh()
        finally:
            _end_all(running)
    return Results(outcomes, caught[0] if caught else None)


def _start(job: Job) -> tuple[Connection, BaseProcess]:
    ours, theirs = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(
        target=_enter, args=(os.getpid(), job.target, *job.args, theirs), name=job.name
    )
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)  # until the new process has its own handlers
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    theirs.close()
    return ours, process


def _enter(parent: int, target: Callable[..., None], *args: Any) -> None:
    """First in every process: Ctrl-C is for the parent, which ends the others with SIGTERM.

    Stdout belongs to the parent's result, so what a scheduler or workload prints goes to stderr.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    _end_with(parent)
    sys.stdout = sys.stderr
    target(*args)


def _end_with(parent: int) -> None:
    """Have Linux end this process when its parent dies, however that dies.

    Elsewhere a process ends when it next reports to a parent that is gone. Forked ones never would: they
    hold copies of the ends that the parent reads from.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
        if os.getppid() != parent:  # it died before it was asked for
            os.kill(os.getpid(), signal.SIGTERM)


def _hear(connection: Connection, name: str, process: BaseProcess, view: View) -> Done | Failed | None:
    """Take one message; the outcome once the job has ended."""
    try:
        message = connection.recv()
    except (EOFError, OSError):
        message = None
    if message is not None and not isinstance(message, (Done, Failed)):
        view.advanced(name, message)
        return None
    connection.close()
    process.join()
    if message is None:
        return Failed(f"its process died without a word (exit code {process.exitcode})", 4)
    return message


def _end_all(running: dict[Connection, tuple[str, BaseProcess]]) -> None:
    for _, process in running.values():
        process.terminate()
    for connection, (_, process) in running.items():
        process.join(KILL_AFTER_S)
        if process.is_alive():
            process.kill()
            process.join()
        connection.close()


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list in place of their usual effect."""
    caught: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        caught.append(number)

    old = {number: signal.signal(number, note) for number in _STOPS}
    try:
        yield caught
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)

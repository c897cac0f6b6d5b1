from __future__ import annotations

import multiprocessing
import os
import select
import signal
import sys
from multiprocessing.connection import Connection

import pytest

from harness.processes import Job, run_jobs
from harness.progress import Progress, Silent
from harness.worker import Done, Failed

HALF = Progress(1.0, 2.0, 0, 0, 0.0, None)


class Listener(Silent):
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def started(self, run: str) -> None:
        self.told.append((run, "started"))

    def advanced(self, run: str, progress: Progress) -> None:
        self.told.append((run, progress))

    def ended(self, run: str, outcome: str) -> None:
        self.told.append((run, outcome))


def finishes(parent: Connection) -> None:
    parent.send(HALF)
    parent.send(Done())


def fails(parent: Connection) -> None:
    parent.send(Failed("no luck", 4))


def dies(parent: Connection) -> None:
    del parent
    os._exit(9)


def hangs(parent: Connection) -> None:
    parent.send(HALF)
    signal.pause()


def prints(parent: Connection) -> None:
    print("a scheduler says hello", flush=True)
    parent.send(Done())


def hangs_on(parent: Connection) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    hangs(parent)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere jobs end at their next report")
def test_jobs_end_with_a_parent_that_is_killed() -> None:
    """Both hold the writing end of a pipe, which ends when the last of them does."""
    reading, writing = os.pipe()
    parent = multiprocessing.get_context("fork").Process(
        target=run_jobs, args=([Job("hangs", hangs, ())] * 2, 2, Stopper(signal.SIGKILL, count=2))
    )
    parent.start()
    os.close(writing)
    parent.join()
    assert parent.exitcode == -signal.SIGKILL
    ended, _, _ = select.select([reading], [], [], 30.0)
    assert ended
    assert os.read(reading, 1) == b""
    os.close(reading)


def test_what_a_job_prints_stays_out_of_the_result(capfd: pytest.CaptureFixture[str]) -> None:
    run_jobs([Job("prints", prints, ())], 1, Silent())
    assert capfd.readouterr() == ("", "a scheduler says hello\n")


def test_one_at_a_time_is_told_in_order() -> None:
    view = Listener()
    results = run_jobs([Job("a", finishes, ()), Job("b", finishes, ())], 1, view)
    assert results.outcomes == {"a": Done(), "b": Done()}
    assert results.stopped_by is None
    assert view.told == [(n, what) for n in "ab" for what in ("started", HALF, "done")]


def test_a_job_that_dies_does_not_take_the_others_along() -> None:
    jobs = [Job("fails", fails, ()), Job("dies", dies, ()), Job("fine", finishes, ())]
    results = run_jobs(jobs, 2, Silent())
    assert results.outcomes == {
        "fails": Failed("no luck", 4),
        "dies": Failed("its process died without a word (exit code 9)", 4),
        "fine": Done(),
    }


class Stopper(Listener):
    """Sends this process a signal when a job makes progress for the last of `count` times."""

    def __init__(self, number: int, count: int = 1) -> None:
        super().__init__()
        self.number, self.left = number, count

    def advanced(self, run: str, progress: Progress) -> None:
        super().advanced(run, progress)
        self.left -= 1
        if not self.left:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_what_runs_starts_nothing_more_and_keeps_what_ended(number: int) -> None:
    before = signal.getsignal(number)
    jobs = [Job("done", finishes, ()), Job("hangs", hangs, ()), Job("never", finishes, ())]
    results = run_jobs(jobs, 1, Stopper(number, count=2))
    assert results.outcomes == {"done": Done()}
    assert results.stopped_by == number
    assert signal.getsignal(number) == before


def test_a_job_deaf_to_sigterm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.processes.KILL_AFTER_S", 0.01)
    results = run_jobs([Job("deaf", hangs_on, ())], 1, Stopper(signal.SIGINT))
    assert (results.outcomes, results.stopped_by) == ({}, signal.SIGINT)

"""What a study shows while it runs: live bars on a terminal, plain lines elsewhere, or nothing.

Everything goes to stderr; stdout belongs to the result. A view is told of each run's start, progress and
end, and its `refresh` is called a few times per second; it reads no clock of its own but the one given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TextIO

from harness.virtual.driver import Progress

PLAIN_EVERY_S = 5.0


class View(Protocol):
    """Who shows a study's progress."""

    def note(self, line: str) -> None:
        """Something to wait for that is no run."""
        ...

    def started(self, run: str) -> None:
        """A run began."""
        ...

    def advanced(self, run: str, progress: Progress) -> None:
        """A run got this far."""
        ...

    def ended(self, run: str, outcome: str) -> None:
        """A run is over; `outcome` is `done` or what went wrong, in one line."""
        ...

    def refresh(self) -> None:
        """Show what is new, if it is time to."""
        ...

    def close(self) -> None:
        """Nothing follows."""
        ...


class Silent:
    """Shows nothing."""

    def note(self, line: str) -> None:
        """Nothing."""

    def started(self, run: str) -> None:
        """Nothing."""

    def advanced(self, run: str, progress: Progress) -> None:
        """Nothing."""

    def ended(self, run: str, outcome: str) -> None:
        """Nothing."""

    def refresh(self) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Plain:
    """One line per run that starts or ends, and one per run every few seconds in between."""

    def __init__(self, out: TextIO, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._out, self._total, self._clock = out, total, clock
        self._latest: dict[str, Progress] = {}
        self._ended = 0
        self._shown_s = clock()

    def note(self, line: str) -> None:
        """A line."""
        self._say(line)

    def started(self, run: str) -> None:
        """A line."""
        self._say(f"{run}: started")

    def advanced(self, run: str, progress: Progress) -> None:
        """Kept for the next lines."""
        self._latest[run] = progress

    def ended(self, run: str, outcome: str) -> None:
        """A line."""
        self._latest.pop(run, None)
        self._ended += 1
        self._say(f"{run}: {outcome} ({self._ended} of {self._total} runs)")

    def refresh(self) -> None:
        """A line per run that moved, if the last ones are old enough."""
        if self._clock() - self._shown_s < PLAIN_EVERY_S:
            return
        self._shown_s = self._clock()
        for run, progress in self._latest.items():
            self._say(f"{run}: {describe(progress)}")
        self._latest.clear()

    def close(self) -> None:
        """Nothing is open."""

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class Bars:
    """A rich bar per run. It redraws only in `refresh`, so it needs no thread (see `processes`)."""

    def __init__(self, out: TextIO, total: int) -> None:
        from rich import progress as bars  # noqa: PLC0415 - slow to import, and only wanted on a terminal
        from rich.console import Console  # noqa: PLC0415

        self._total = total
        self._ended = 0
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(bar_width=12),
            bars.TextColumn("{task.fields[figures]}"),
            console=Console(file=out),
            auto_refresh=False,
            transient=True,
        )
        self._tasks: dict[str, Any] = {}
        self._bars.start()

    def note(self, line: str) -> None:
        """A line above the bars."""
        self._bars.console.print(line, markup=False, highlight=False)

    def started(self, run: str) -> None:
        """A new bar."""
        self._tasks[run] = self._bars.add_task(run, total=1.0, figures="starting")

    def advanced(self, run: str, progress: Progress) -> None:
        """Move the bar; one without a known end pulses."""
        share = progress.now_s / progress.end_s if progress.end_s else None
        total = None if share is None else 1.0
        self._bars.update(self._tasks[run], completed=share or 0.0, total=total, figures=_brief(progress))

    def ended(self, run: str, outcome: str) -> None:
        """The bar gives way to a line above the others."""
        self._ended += 1
        self._bars.remove_task(self._tasks.pop(run))
        self._bars.console.print(
            f"{run}: {outcome} ({self._ended} of {self._total} runs)", markup=False, highlight=False
        )

    def refresh(self) -> None:
        """Redraw."""
        self._bars.refresh()

    def close(self) -> None:
        """Give the terminal back."""
        self._bars.stop()


def describe(progress: Progress) -> str:
    """The figures of a run in one line."""
    end = "" if progress.end_s is None else f" of {_hours(progress.end_s)}"
    hit = "" if progress.hit_rate is None else f", hit rate {progress.hit_rate:.1%}"
    return (
        f"{_hours(progress.now_s)}{end}, {progress.programs_done} programs done, "
        f"{progress.steps_per_min:.1f} steps/min{hit}"
    )


def _brief(progress: Progress) -> str:
    """The same in less than 50 columns, so that a bar and a name fit beside it."""
    end = "" if progress.end_s is None else f"/{_hours(progress.end_s)}"
    hit = "" if progress.hit_rate is None else f", {progress.hit_rate:.0%} hits"
    done = f"{progress.programs_done} done, {progress.steps_per_min:.1f}/min"
    return f"{_hours(progress.now_s)}{end}, {done}{hit}"


def choose_view(out: TextIO, total: int, *, quiet: bool, environment: Mapping[str, str]) -> View:
    """Bars on a terminal, plain lines elsewhere and in CI, nothing when `quiet`."""
    if quiet:
        return Silent()
    dumb = environment.get("TERM") == "dumb" or environment.get("CI", "") not in {"", "0", "false"}
    return Bars(out, total) if out.isatty() and not dumb else Plain(out, total)


def _hours(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

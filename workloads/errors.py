"""Errors of the workloads, all of them the user's input.

WorkloadError            what was asked for cannot be made into programs
+-- UnknownWorkload      no workload of that name; names the nearest
+-- TraceError           a recorded program is malformed; names file, line and field
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class WorkloadError(Exception):
    """The input cannot work. `found` was given, `expected` would work, `fix` is what to do (or empty)."""

    def __init__(self, found: str, expected: str, fix: str = "") -> None:
        super().__init__(found, expected, fix)
        self.found, self.expected, self.fix = found, expected, fix

    def __str__(self) -> str:
        text = f"{self.found}; expected {self.expected}"
        return f"{text}. {self.fix}" if self.fix else text


class UnknownWorkload(WorkloadError):
    """No workload is called `name`. `nearest` holds the known names that look like it."""

    def __init__(self, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        nearest = tuple(get_close_matches(name, names, n=3, cutoff=0.5))
        super().__init__(
            f"no workload is called {name!r}",
            f"one of {', '.join(names)}, trace:FILE or module:Class",
            nearest_hint(nearest),
        )
        self.name, self.nearest = name, nearest

    def __reduce__(self) -> tuple[object, ...]:
        return WorkloadError, (self.found, self.expected, self.fix)


class TraceError(WorkloadError):
    """Line `line` (from 1) of the recorded programs in `file` is wrong at `field`."""

    def __init__(self, file: str, line: int, field: str, found: str, expected: str) -> None:
        super().__init__(f"{file}, line {line}, field {field}: {found}", expected)
        self.file, self.line, self.field = file, line, field

    def __reduce__(self) -> tuple[object, ...]:
        return WorkloadError, (self.found, self.expected, self.fix)


def nearest_hint(nearest: Iterable[str]) -> str:
    """`Did you mean a or b?`, empty when nothing is near."""
    listed = list(nearest)
    return f"Did you mean {' or '.join(listed)}?" if listed else ""

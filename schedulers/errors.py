"""Errors of the schedulers, split by blame.

    PolicyError               a fact or an order contradicts what went before: a bug of driver or policy
    SchedulerSetupError       what the user asked for cannot be built: one line with the mend, exit 2
    +-- UnknownScheduler      no scheduler of that name, or no such class at that path
    +-- NotAPolicy            the class at that path is no policy
    +-- BadConfig             a parameter that does not exist, or a value that makes no sense

`conformance.ConformanceError`, what a policy's own test raises, stands with the checks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class PolicyError(Exception):
    """An event that the state of its program or replica does not allow. Nothing was changed.

    `event` is the refused fact (or order), `program` the program or replica it is about, `state` what
    it was in, `reason` what is wrong, `story` what happened to it before, oldest line first.
    """

    exit_code = 1

    def __init__(
        self, event: object, program: str, state: str, reason: str, story: Iterable[str] = ()
    ) -> None:
        self.event, self.program, self.state, self.reason = event, program, state, reason
        self.story = tuple(story)
        super().__init__(event, program, state, reason, self.story)

    def __str__(self) -> str:
        text = f"{self.event!r} refused: {self.reason}; {self.program} is {self.state}"
        return "\n  ".join([text, *self.story])


class SchedulerSetupError(Exception):
    """What the user gave cannot work: `found`, what would work (`expected`), what to do (`fix`)."""

    exit_code = 2

    def __init__(self, found: str, expected: str, fix: str = "") -> None:
        super().__init__(found, expected, fix)
        self.found, self.expected, self.fix = found, expected, fix

    def __str__(self) -> str:
        text = f"{self.found}; expected {self.expected}"
        return f"{text}. {self.fix}" if self.fix else text


class UnknownScheduler(SchedulerSetupError):
    """No scheduler of that name, or no such class at that path."""


class NotAPolicy(SchedulerSetupError):
    """A class that lacks what every policy has."""


class BadConfig(SchedulerSetupError):
    """A parameter that a policy does not have, or a value that it cannot take."""


def nearest(name: str, known: Sequence[str]) -> str:
    """A sentence that points at the most similar known name; empty when none is similar."""
    close = get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {close[0]!r}?" if close else ""


def require(field: str, value: object, *, ok: bool, expected: str) -> None:
    """Raise `BadConfig` unless `ok`; for the `__post_init__` of a `Config`."""
    if not ok:
        raise BadConfig(f"{field} = {value!r}", expected)

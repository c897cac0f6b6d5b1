"""Errors, split by blame.

    ThunderbenchError
    +-- SetupError           the user's set-up or input: one line with the mend, exit 2
    +-- PolicyFailed         the scheduler under test raised: one line that names it, exit 2
    +-- EngineFailed         the server or engine under test died: recorded, exit 4
    +-- ReplayDiffers        a replay did not reproduce a recorded decision, exit 6

Anything else that escapes is our bug: traceback, exit 1.
"""

from __future__ import annotations


class ThunderbenchError(Exception):
    """Base of every error that thunderbench raises on purpose."""

    exit_code = 1


class SetupError(ThunderbenchError):
    """What the user gave cannot work.

    `found` says what was given, `expected` what would work, `fix` what to do (may be empty).
    """

    exit_code = 2

    def __init__(self, found: str, expected: str, fix: str = "") -> None:
        super().__init__(found, expected, fix)
        self.found, self.expected, self.fix = found, expected, fix

    def __str__(self) -> str:
        text = f"{self.found}; expected {self.expected}"
        return f"{text}. {self.fix}" if self.fix else text


class PolicyFailed(ThunderbenchError):
    """A scheduler raised (`__cause__`), or gave no list of actions, in the middle of a run.

    Of the user's own making, so exit 2; of ours it is a bug like any other, exit 1.
    """

    exit_code = 2


class EngineFailed(ThunderbenchError):
    """The engine under test stopped working in the middle of a run."""

    exit_code = 4


class ReplayDiffers(ThunderbenchError):
    """The first decision that a replay did not reproduce."""

    exit_code = 6

    def __init__(self, seq: int, now: float, event: str, recorded: str, replayed: str) -> None:
        super().__init__(seq, now, event, recorded, replayed)
        self.seq, self.now, self.event = seq, now, event
        self.recorded, self.replayed = recorded, replayed

    def __str__(self) -> str:
        return (
            f"event {self.seq} at {self.now!r} s, {self.event}: "
            f"recorded {self.recorded}, replayed {self.replayed}"
        )

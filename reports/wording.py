"""Words and names as the page writes them."""

from __future__ import annotations

from collections.abc import Sequence

SIMULATED, MEASURED = "simulated", "measured on real servers"


def sort_of(*, simulated: bool) -> str:
    """What sort of numbers these are, in words."""
    return SIMULATED if simulated else MEASURED


def counted(count: int, noun: str) -> str:
    """`1 run`, `8 runs`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`; empty without words."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else "".join(words)


def clipped(text: str, length: int) -> str:
    """A text of at most `length` letters; what is cut off shows as an ellipsis."""
    return text if len(text) <= length else f"{text[: length - 1]}\u2026"


def slug(text: str) -> str:
    """A text as the last part of a link: `how-much-work-gets-done`."""
    letters = (letter if letter.isascii() and letter.isalnum() else " " for letter in text.lower())
    return "-".join("".join(letters).split())[:60] or "section"

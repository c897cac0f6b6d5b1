"""The numbers of a run that reports speak of: where each stands in its `summary`, and which way is better.

What the numbers mean is said once, in `harness.metrics`; units stand in the names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# The parts of a step, in order; they sum to it.
PARTS = ("hold", "queue", "prefill", "decode", "sandbox", "tool")


def pick(summary: Mapping[str, Any], path: Sequence[str]) -> float | None:
    """The number at `path`; null where any step of it is missing."""
    found: Any = summary
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None
    return None if found is None else float(found)

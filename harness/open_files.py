"""How many files this process may open: each stream through a gateway takes two."""

from __future__ import annotations

import resource


def allow_many_connections() -> None:
    """Open files up to what the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

"""Which replica takes a call: the routers of the policy `vllm`.

A router sees the program and the replicas that are up (never none), in the order they came up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from schedulers.ledger import Account, ProgramEntry


class Router(Protocol):
    """Chooses among `replicas`, which is not empty."""

    def choose(self, entry: ProgramEntry, replicas: Sequence[Account]) -> Account:
        """The replica for the next call of `entry`."""
        ...


def least_loaded(replicas: Sequence[Account]) -> Account:
    """The replica with the fewest calls in flight; among equals the one that came up first."""
    return min(replicas, key=lambda account: (account.calls, account.index))


class LeastLoaded:
    """Each call goes to the replica with the fewest calls in flight."""

    def choose(self, entry: ProgramEntry, replicas: Sequence[Account]) -> Account:  # noqa: ARG002 (Router)
        """Fewest calls in flight, then the one that came up first."""
        return replicas[0] if len(replicas) == 1 else least_loaded(replicas)


class RoundRobin:
    """Calls go to the replicas in turn, whoever sends them."""

    def __init__(self) -> None:
        self._last = -1  # index of the replica chosen last

    def choose(self, entry: ProgramEntry, replicas: Sequence[Account]) -> Account:  # noqa: ARG002 (Router)
        """The next replica after the last one, in the order they came up, however many come and go."""
        later = [account for account in replicas if account.index > self._last]
        chosen = later[0] if later else replicas[0]
        self._last = chosen.index
        return chosen


class Session:
    """A program's calls stay on the replica of its first, which went to the least loaded one."""

    def choose(self, entry: ProgramEntry, replicas: Sequence[Account]) -> Account:
        """The program's replica while it is up; the least loaded one otherwise."""
        return least_loaded(replicas) if entry.account is None else entry.account


ROUTERS: Mapping[str, Callable[[], Router]] = {
    "least-loaded": LeastLoaded,
    "round-robin": RoundRobin,
    "session": Session,
}

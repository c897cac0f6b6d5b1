"""Servers that are away in the middle of a run: how often, how long, and when to give the run up.

A server that comes back is an outcome: its calls failed, were tried again, and the summary says how long it
was away. With no server left nothing can happen any more, and calls would be held for as long as clients
wait, which is an hour: such a run is ended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness.errors import EngineFailed
from harness.live.clock import LoopClock
from schedulers.contract import Action, Event, ReplicaDown, ReplicaUp

GIVE_UP_AFTER_S = 60.0  # more than a supervisor takes to notice; a run without servers is worth nothing


class Outages:
    """Give `decide` to the driver in place of the recorder's. `why` says what is known of a server.

    `give_up` is told once no server has been there for `GIVE_UP_AFTER_S`.
    """

    def __init__(
        self,
        clock: LoopClock,
        decide: Callable[[float, Event, list[Action]], None],
        *,
        why: Callable[[str], str],
        give_up: Callable[[Exception], None],
    ) -> None:
        self._clock, self._decide, self._why, self._give_up = clock, decide, why, give_up
        self._up: set[str] = set()
        self._since: dict[str, float] = {}  # servers that are away
        self._away: dict[str, tuple[int, float]] = {}  # times, seconds, without the one under way

    def decide(self, now: float, event: Event, actions: list[Action]) -> None:
        """A fact, and what the policy answered."""
        self._decide(now, event, actions)
        match event:
            case ReplicaUp():
                self._up.add(event.replica)
                times, seconds = self._away.get(event.replica, (0, 0.0))
                if event.replica in self._since:
                    self._away[event.replica] = times, seconds + now - self._since.pop(event.replica)
            case ReplicaDown():
                self._up.discard(event.replica)
                self._since[event.replica] = now
                times, seconds = self._away.get(event.replica, (0, 0.0))
                self._away[event.replica] = times + 1, seconds
                if not self._up:
                    self._clock.at(now + GIVE_UP_AFTER_S, self._look, now)
            case _:
                pass

    def summary(self) -> dict[str, Any]:
        """`{"r0": {"times": 1, "away_s": 12.5}}` of those servers that were away, JSON-able."""
        now = self._clock.now
        return {
            name: {"times": times, "away_s": seconds + now - self._since.get(name, now)}
            for name, (times, seconds) in self._away.items()
        }

    def _look(self, since_s: float) -> None:
        """Give up if all servers have been away since then."""
        if not self._up and max(self._since.values()) == since_s:
            told = "; ".join(f"{self._why(name)}" for name in self._since)
            self._give_up(EngineFailed(f"no server is left, for {GIVE_UP_AFTER_S:g} s ({told})"))

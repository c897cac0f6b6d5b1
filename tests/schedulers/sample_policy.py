"""A policy of a user's own, written against the contract alone: one call at a time, in order of arrival.

Type-checked strictly, run by the registry's and the conformance tests, never imported by the product.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from schedulers.contract import (
    Action,
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Capability,
    Dispatch,
    Event,
    FirstToken,
    Hold,
    Policy,
    ProgramArrived,
    ProgramFinished,
    ReplicaDown,
    ReplicaUp,
)
from schedulers.errors import BadConfig, PolicyError


@dataclass(frozen=True)
class LimitConfig:
    limit: int = 1
    """Calls in flight at once, on all replicas together."""

    def __post_init__(self) -> None:
        if self.limit < 1:
            raise BadConfig(f"limit = {self.limit}", "at least 1")


class Limit:
    """At most so many calls in flight, first come first served."""

    name: ClassVar[str] = "limit"
    Config = LimitConfig

    def __init__(self, config: LimitConfig, rng: Random) -> None:
        self.config = config
        self.rng = rng
        self.programs: set[str] = set()
        self.replicas: list[str] = []
        self.waiting: deque[str] = deque()
        self.running: set[str] = set()

    def handle(self, event: Event, now: float) -> list[Action]:  # noqa: ARG002 (Policy)
        match event:
            case ProgramArrived(program_id):
                self.programs.add(program_id)
            case ProgramFinished(program_id):
                self.known(event, program_id in self.programs)
                self.programs.remove(program_id)
            case CallArrived(program_id, call_id):
                self.known(event, program_id in self.programs)
                self.waiting.append(call_id)
                return self.start() or [Hold(call_id)]
            case CallFinished(_, call_id) | FirstToken(_, call_id) | CallDispatched(_, call_id):
                self.known(event, call_id in self.running)
                if isinstance(event, CallFinished):
                    self.running.remove(call_id)
            case CallFailed(_, call_id):
                self.running.discard(call_id)
                if call_id in self.waiting:
                    self.waiting.remove(call_id)
            case ReplicaUp(replica):
                self.replicas.append(replica)
            case ReplicaDown(replica):
                self.known(event, replica in self.replicas)
                self.replicas.remove(replica)
            case _:
                pass
        return self.start()

    def start(self) -> list[Action]:
        actions: list[Action] = []
        while self.waiting and self.replicas and len(self.running) < self.config.limit:
            call_id = self.waiting.popleft()
            self.running.add(call_id)
            actions.append(Dispatch(call_id, self.replicas[0]))
        return actions

    def known(self, event: Event, it_is: bool) -> None:  # noqa: FBT001 (an assertion)
        if not it_is:
            raise PolicyError(event, "it", "unknown", "nobody told me")

    def check_invariants(self) -> None:
        assert len(self.running) <= self.config.limit


class FullLimit(Limit):
    """The same with every attribute of the contract: at `MAKE` a type checker compares the two."""

    needs: ClassVar[frozenset[Capability]] = frozenset()
    observes: ClassVar[frozenset[type[Any]]] = frozenset()
    manages_sandboxes: ClassVar[bool] = False


MAKE: Callable[[LimitConfig, Random], Policy] = FullLimit


def drive(policy: Policy, event: Event) -> list[Action]:
    """What a driver does with a policy."""
    return policy.handle(event, 0.0)

"""Policy `vllm`: plain vLLM behind a load balancer. Every call goes to an engine the moment it comes.

What the engine then does (FCFS queue, LRU prefix cache, preemption by recompute) is all the scheduling
there is. It is the baseline of every paper in the field.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from schedulers.base import LedgerPolicy
from schedulers.contract import (
    Action,
    CallArrived,
    CallFailed,
    CallFinished,
    Capability,
    Dispatch,
    Hold,
    ProgramArrived,
    ProgramFinished,
    ReplicaDown,
    ReplicaUp,
    Tick,
)
from schedulers.errors import PolicyError, require
from schedulers.ledger import OpenCall
from schedulers.lifecycle import State
from schedulers.routing import ROUTERS


@dataclass(frozen=True, slots=True)
class VllmConfig:
    """Parameters of `vllm`."""

    router: str = "least-loaded"
    """How a call finds its replica: least-loaded, round-robin or session."""

    def __post_init__(self) -> None:
        require("router", self.router, ok=self.router in ROUTERS, expected=f"one of {', '.join(ROUTERS)}")


class Vllm(LedgerPolicy):
    """Plain vLLM: every call is passed on at once."""

    name: ClassVar[str] = "vllm"
    needs: ClassVar[frozenset[Capability]] = frozenset()
    observes: ClassVar[frozenset[type[Any]]] = frozenset()
    manages_sandboxes: ClassVar[bool] = False
    Config: ClassVar[type[VllmConfig]] = VllmConfig

    def __init__(self, config: VllmConfig, rng: Random) -> None:
        super().__init__(
            {
                ProgramArrived: self._program_arrived,
                CallArrived: self._call_arrived,
                CallFinished: self._call_ended,
                CallFailed: self._call_ended,
                ProgramFinished: self._program_finished,
                ReplicaUp: self._replica_up,
                ReplicaDown: self._replica_down,
                Tick: self._tick,
            }
        )
        self.config = config
        self.rng = rng
        self._router = ROUTERS[config.router]()

    def _program_arrived(self, event: ProgramArrived, now: float) -> list[Action]:
        self.ledger.arrive(event, now)
        return []

    def _call_arrived(self, event: CallArrived, now: float) -> list[Action]:
        call = self.ledger.open_call(event, now)
        return [self._send(call)] if self.ledger.replicas else [Hold(event.call_id)]

    def _call_ended(self, event: CallFinished | CallFailed, now: float) -> list[Action]:
        self.ledger.end_call(event, now)
        return []

    def _program_finished(self, event: ProgramFinished, now: float) -> list[Action]:
        self.ledger.finish(event, now)
        return []

    def _replica_up(self, event: ReplicaUp, now: float) -> list[Action]:  # noqa: ARG002 (handler)
        self.ledger.replica_up(event)
        return [
            self._send(call)
            for call in self.ledger.calls.values()
            if call.account is None and call.entry.state is not State.TERMINATED
        ]

    def _replica_down(self, event: ReplicaDown, now: float) -> list[Action]:
        """Nothing to order: the calls it had will be reported as failed, later ones go elsewhere."""
        self.ledger.replica_down(event, now)
        return []

    def _tick(self, event: Tick, now: float) -> list[Action]:  # noqa: ARG002 (handler)
        raise PolicyError(event, "the policy", "without a clock", "vllm never asks to be woken")

    def _send(self, call: OpenCall) -> Action:
        """Dispatch a held call. A program's home is the replica that got its latest call."""
        entry = call.entry
        target = self._router.choose(entry, list(self.ledger.replicas.values()))
        if entry.account is None:
            self.ledger.place(entry, target)
        elif entry.account is not target:
            self.ledger.move(entry, target)
        self.ledger.dispatch(call, target)
        return Dispatch(call.call_id, target.name)

"""A policy's orders to engines, told to the engine that has the program's context."""

from __future__ import annotations

from collections.abc import Collection

from harness.live.ports import Hooks
from schedulers.contract import Evict, Pin, Retain, Unpin

EngineOrder = Pin | Unpin | Evict | Retain


def order(
    hooks: Hooks, action: EngineOrder, last_replica: str | None, replicas: Collection[str], now: float
) -> None:
    """Pass an order on. `last_replica` is where the program's last call ended, null for a program unknown.

    A program without a context has nothing to keep. A pin of a program that is over may be anywhere.
    """
    if isinstance(action, Unpin):
        for replica in replicas if last_replica is None else (last_replica,):
            if replica in replicas:
                hooks.unpin(replica, action.program_id)
        return
    if last_replica is None or last_replica not in replicas:
        return
    match action:
        case Pin():
            for_s = max(action.until - now, 0.0)
            hooks.pin(last_replica, action.program_id, for_s, yields=action.yields)
        case Evict():
            hooks.evict(last_replica, action.program_id, action.tail_tokens)
        case Retain():
            hooks.retain(last_replica, action.program_id, action.kind, action.priority, action.ttl_s)

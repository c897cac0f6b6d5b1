"""Facts in, orders out: what the tests of the policies share."""

from collections.abc import Mapping

from schedulers.contract import (
    Action,
    CallArrived,
    CallFinished,
    Dispatch,
    Event,
    Policy,
    ProgramArrived,
    ReplicaUp,
)
from schedulers.registry import build


def make(name: str, replicas: Mapping[str, int], **overrides: str) -> Policy:
    policy = build(name, overrides, seed=1)
    for replica, kv_tokens in replicas.items():
        feed(policy, 0.0, ReplicaUp(replica, kv_tokens, 16))
    return policy


def feed(policy: Policy, now: float, *events: Event) -> list[Action]:
    """All orders that the events lead to, invariants checked after each event."""
    actions: list[Action] = []
    for event in events:
        actions += policy.handle(event, now)
        policy.check_invariants()
    return actions


def start(policy: Policy, now: float, program: str, tokens: int, *, sandbox: bool = False) -> list[Action]:
    """A program arrives and with it its first call, `program/0`."""
    arrived = ProgramArrived(program, sandbox)
    return feed(policy, now, arrived, CallArrived(program, f"{program}/0", tokens))


def finish(program: str, n: int, prompt: int, output: int = 0) -> CallFinished:
    return CallFinished(program, f"{program}/{n}", prompt, output, None)


def act(policy: Policy, now: float, program: str, tokens: int) -> None:
    """A program arrives, is admitted at once, and has ended its first call at `now` with `tokens`."""
    assert Dispatch(f"{program}/0", "r0") in start(policy, now, program, tokens)
    assert feed(policy, now, finish(program, 0, tokens)) == []

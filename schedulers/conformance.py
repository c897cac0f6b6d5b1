"""What every policy has to satisfy, as checks that anybody can run on a policy of their own.

    from schedulers.conformance import check_policy
    check_policy(lambda: build("my_module:MyPolicy", {}, seed=1))

`make` returns a fresh policy each time, built the same way. A check raises `ConformanceError`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from schedulers.contract import (
    CallArrived,
    CallFinished,
    Dispatch,
    Event,
    FirstToken,
    Hold,
    Policy,
    ProgramArrived,
    ProgramFinished,
    ReplicaDown,
)
from schedulers.errors import PolicyError
from schedulers.testing import BadOrder, Played, ScriptedCall, ScriptedDriver, ScriptedProgram, chain

Make: TypeAlias = Callable[[], Policy]


class ConformanceError(AssertionError):
    """A policy breaks a rule: `rule` names it, `found` says how."""

    def __init__(self, rule: str, found: str) -> None:
        super().__init__(rule, found)
        self.rule, self.found = rule, found

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}"


def roomy(make: Make) -> ScriptedDriver:
    """Two replicas with room for everybody."""
    programs = tuple(chain(f"p{i}", 100, 20, 4, arrives_s=0.3 * i) for i in range(6))
    return ScriptedDriver(make(), {"r0": 10_000, "r1": 10_000}, programs)


def crowded(make: Make) -> ScriptedDriver:
    """Programs that outgrow one replica together, with sub-agents, failures and slow tools among them."""
    growing = tuple(chain(f"p{i}", 100 + i, 60, 8, arrives_s=0.1 * i) for i in range(8))
    slow = ScriptedProgram("slow", ((ScriptedCall(200, 10, 12.0), ScriptedCall(300, 10, None)),), 1.0)
    flaky = ScriptedProgram("flaky", ((ScriptedCall(150, 10, 1.0, fails=True), ScriptedCall(160)),), 1.0)
    lanes = tuple((ScriptedCall(120 + i), ScriptedCall(180 + i)) for i in range(3))
    swarm = ScriptedProgram("swarm", lanes, 2.0, needs_sandbox=True)
    return ScriptedDriver(make(), {"r0": 1_500}, (*growing, slow, flaky, swarm))


def oversize(make: Make) -> ScriptedDriver:
    """Two programs too large for either replica by their own estimate, among small ones."""
    small = tuple(chain(f"p{i}", 100, 30, 6) for i in range(6))
    large = tuple(chain(f"big{i}", 1_100, 10, 3, arrives_s=1.0) for i in range(2))
    return ScriptedDriver(make(), {"r0": 1_000, "r1": 600}, (*small, *large))


def outage(make: Make) -> ScriptedDriver:
    """First one replica goes down and comes back, then, for a while, both are down."""
    programs = tuple(chain(f"p{i}", 100, 20, 12, arrives_s=0.4 * i) for i in range(6))
    outages = {"r0": (3.2, 20.0), "r1": (9.7, 16.0)}
    return ScriptedDriver(make(), {"r0": 2_000, "r1": 2_000}, programs, outages=outages)


SCRIPTS: Mapping[str, Callable[[Make], ScriptedDriver]] = {
    "roomy": roomy,
    "crowded": crowded,
    "oversize": oversize,
    "outage": outage,
}


def check_orders(make: Make) -> None:
    """Orders make sense.

    Each call is dispatched at most once, to a replica that is up; and every call that arrives is
    answered at once, by a `Dispatch` or a `Hold`.
    """
    for name, script in SCRIPTS.items():
        played = _play(make, name, script)
        for now, event, actions in played.log:
            if isinstance(event, CallArrived):
                said = [a for a in actions if isinstance(a, Dispatch | Hold) and a.call_id == event.call_id]
                if len(said) != 1:
                    raise ConformanceError("answer", f"{name}: {event} at {now} s was answered by {said}")


def check_deterministic(make: Make) -> None:
    """The same events give the same orders, whoever plays them."""
    for name, script in SCRIPTS.items():
        policy = make()
        for now, event, actions in _play(make, name, script).log:
            again = policy.handle(event, now)
            if again != actions:
                raise ConformanceError(
                    "determinism", f"{name}: {event} at {now} s gave {actions}, then {again}"
                )


def check_progress(make: Make) -> None:
    """Every program finishes, so nothing that is held is held for ever."""
    for name, script in SCRIPTS.items():
        played = _play(make, name, script)
        arrived = {e.program_id for _, e, _ in played.log if isinstance(e, ProgramArrived)}
        left = sorted(arrived - set(played.finished))
        if left:
            held = ", ".join(played.held) or "none"
            raise ConformanceError("progress", f"{name}: {', '.join(left)} never finished; held: {held}")


def check_refusals(make: Make) -> None:
    """Facts that contradict what went before raise `PolicyError` and change nothing."""
    for name, script in SCRIPTS.items():
        policy = make()
        for now, event, actions in _play(make, name, script).log:
            for wrong in _contradictions(event):
                try:
                    policy.handle(wrong, now)
                except PolicyError:
                    continue
                raise ConformanceError("refusal", f"{name}: {wrong} at {now} s was taken for a fact")
            after = policy.handle(event, now)
            if after != actions:
                raise ConformanceError(
                    "refusal",
                    f"{name}: after refused facts, {event} at {now} s gave {after}, not {actions}",
                )


CHECKS: Mapping[str, Callable[[Make], None]] = {
    "orders": check_orders,
    "determinism": check_deterministic,
    "progress": check_progress,
    "refusals": check_refusals,
}


def check_policy(make: Make) -> None:
    """All checks, one after the other."""
    for check in CHECKS.values():
        check(make)


def _play(make: Make, name: str, script: Callable[[Make], ScriptedDriver]) -> Played:
    try:
        return script(make).run(until=2_000.0)
    except BadOrder as error:
        raise ConformanceError("orders", f"{name}: {error}") from error


def _contradictions(event: Event) -> list[Event]:
    """Facts that cannot be true just before `event`."""
    wrong: list[Event] = [
        CallArrived("nobody", "nobody/1", 10),
        FirstToken("nobody", "nobody/1"),
        ProgramFinished("nobody"),
        ReplicaDown("nowhere"),
    ]
    if isinstance(event, CallArrived):
        wrong.append(CallFinished(event.program_id, event.call_id, event.prompt_tokens, 1, None))
    return wrong

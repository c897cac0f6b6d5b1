"""Replay: a recorded run's policy, built anew and fed the recorded events, must answer the same.

A policy is a pure function of its configuration, its seed, and the events with their `now`. All of them
are recorded, so every action of any run can be reproduced exactly. This is what says that a policy reads
no clock, no global state and no order of a hash: parity between virtual and live runs rests on it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import ReplayDiffers, SetupError
from harness.live_spec import is_external
from harness.records import Run, open_run
from schedulers import registry
from schedulers.contract import Action, Policy
from schedulers.errors import PolicyError, SchedulerSetupError

CHECK_EVERY = 256  # events; checking invariants costs as much as many events


class ReplayResult(NamedTuple):
    """A replay that reproduced every decision."""

    scheduler: str
    events: int
    actions: int
    until_s: float | None  # time of the last event


def replay(folder: Path, check_every: int = CHECK_EVERY) -> ReplayResult:
    """Replay the run in `folder`; `check_invariants` is called every `check_every` events and at the end.

    Raises ReplayDiffers at the first decision that is not reproduced, SetupError when the run cannot be
    read or its policy not be built, AssertionError when an invariant is broken. Memory is bounded.
    """
    run = open_run(folder)
    policy = _policy(run)
    events = actions = 0
    until_s = None
    for decision in run.decisions():
        try:
            answer = policy.handle(decision.event, decision.now_s)
        except PolicyError as error:
            replayed = f"a refusal ({str(error).splitlines()[0]})"
        else:
            replayed = "" if list(answer) == decision.actions else _show(answer)
        if replayed:
            event, recorded = repr(decision.event), _show(decision.actions)
            raise ReplayDiffers(decision.seq, decision.now_s, event, recorded, replayed)
        events += 1
        actions += len(decision.actions)
        until_s = decision.now_s
        if not events % check_every:
            policy.check_invariants()
    policy.check_invariants()
    return ReplayResult(policy.name, events, actions, until_s)


def untold(run: Run) -> str | None:
    """The gateway of somebody else's that decided in a run, so that nothing is recorded; null: ours did."""
    name = _recorded(run)[0]
    return name if is_external(name) else None


def _recorded(run: Run) -> tuple[str, Mapping[str, Any], int]:
    """Name, resolved config and seed of the policy, as in `provenance["policy"]`."""
    try:
        recorded = run.provenance["policy"]
        return recorded["name"], recorded["config"], recorded["seed"]
    except (KeyError, TypeError):
        raise SetupError(
            f"{run.folder}: its provenance names no policy", "name, config and seed of a policy"
        ) from None


def _policy(run: Run) -> Policy:
    name, config, seed = _recorded(run)
    if is_external(name):
        raise SetupError(
            f"{run.folder} was played behind {name}, which does not tell its decisions",
            "a run of a scheduler of ours",
        )
    try:
        return registry.build(name, _texts(config), seed)
    except SchedulerSetupError as error:
        raise SetupError(error.found, error.expected, error.fix) from error


def _texts(config: Mapping[str, Any]) -> dict[str, str]:
    """Configuration values as the registry reads them; floats keep every digit."""
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in config.items()}


def _show(actions: list[Action]) -> str:
    return "[" + ", ".join(map(repr, actions)) + "]"

"""The life of a program, as a table.

A program has a *phase* and a *status* (ThunderAgent, section 4.1):

- **reasoning**: a call of it is open, that is, held at the gateway or in flight at an engine; sub-agents
  may have several open at once. **acting**: none is (a tool runs, or the agent thinks).
- **active**: it belongs to a replica. **paused**: it belongs to none, its calls are held.
  **terminated**: its client is done with it; calls still in flight are only waited for.

`NEW` is neither: the program exists, no call came yet. Its first call makes it `REASONING_PAUSED`,
because new programs enter through the same queue as paused ones; a policy that has room resumes it
in the same breath.

`TABLE[state][step]` is all there is; a pair that is missing is illegal. Whether a call's end is the
*last* one is for the ledger to know, it counts them. A failed call ends like any other: the paper's
published code waits for a `usage` that never comes and leaves such programs reasoning for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

from schedulers.errors import PolicyError


class Phase(StrEnum):
    """What a program does."""

    REASONING = "reasoning"
    ACTING = "acting"


class Status(StrEnum):
    """Where a program stands with the scheduler."""

    ACTIVE = "active"
    PAUSED = "paused"
    TERMINATED = "terminated"


class State(StrEnum):
    """Phase and status together."""

    NEW = "new"
    REASONING_ACTIVE = "reasoning, active"
    REASONING_PAUSED = "reasoning, paused"
    ACTING_ACTIVE = "acting, active"
    ACTING_PAUSED = "acting, paused"
    TERMINATED = "terminated"

    @property
    def phase(self) -> Phase | None:
        """What the program does; null before its first call and after its end."""
        return _PHASE.get(self)

    @property
    def status(self) -> Status | None:
        """Where it stands; null before its first call."""
        return _STATUS.get(self)


class Step(StrEnum):
    """What can happen to a program: facts (first five) and the scheduler's decisions (last two)."""

    CALL_ARRIVED = "call arrived"
    CALL_ENDED = "call ended, others are open"
    LAST_CALL_ENDED = "last open call ended"
    RELEASED = "program finished"
    REPLICA_LOST = "replica lost"
    PAUSED = "paused"
    RESUMED = "resumed"


TABLE: Mapping[State, Mapping[Step, State]] = {
    State.NEW: {
        Step.CALL_ARRIVED: State.REASONING_PAUSED,
        Step.RELEASED: State.TERMINATED,
    },
    State.REASONING_ACTIVE: {
        Step.CALL_ARRIVED: State.REASONING_ACTIVE,
        Step.CALL_ENDED: State.REASONING_ACTIVE,
        Step.LAST_CALL_ENDED: State.ACTING_ACTIVE,
        Step.PAUSED: State.REASONING_PAUSED,
        Step.REPLICA_LOST: State.REASONING_PAUSED,
        Step.RELEASED: State.TERMINATED,
    },
    State.ACTING_ACTIVE: {
        Step.CALL_ARRIVED: State.REASONING_ACTIVE,
        Step.PAUSED: State.ACTING_PAUSED,
        Step.REPLICA_LOST: State.ACTING_PAUSED,
        Step.RELEASED: State.TERMINATED,
    },
    State.REASONING_PAUSED: {
        Step.CALL_ARRIVED: State.REASONING_PAUSED,
        Step.CALL_ENDED: State.REASONING_PAUSED,  # calls of a lost replica fail one by one
        Step.LAST_CALL_ENDED: State.ACTING_PAUSED,
        Step.RESUMED: State.REASONING_ACTIVE,
        Step.RELEASED: State.TERMINATED,
    },
    State.ACTING_PAUSED: {
        Step.CALL_ARRIVED: State.REASONING_PAUSED,
        Step.RESUMED: State.ACTING_ACTIVE,
        Step.RELEASED: State.TERMINATED,
    },
    State.TERMINATED: {
        Step.CALL_ENDED: State.TERMINATED,  # released with calls in flight
        Step.LAST_CALL_ENDED: State.TERMINATED,
        Step.REPLICA_LOST: State.TERMINATED,
    },
}

_PHASE: Mapping[State, Phase] = {
    State.REASONING_ACTIVE: Phase.REASONING,
    State.REASONING_PAUSED: Phase.REASONING,
    State.ACTING_ACTIVE: Phase.ACTING,
    State.ACTING_PAUSED: Phase.ACTING,
}
_STATUS: Mapping[State, Status] = {
    State.REASONING_ACTIVE: Status.ACTIVE,
    State.ACTING_ACTIVE: Status.ACTIVE,
    State.REASONING_PAUSED: Status.PAUSED,
    State.ACTING_PAUSED: Status.PAUSED,
    State.TERMINATED: Status.TERMINATED,
}


def advance(
    state: State,
    step: Step,
    *,
    event: object = None,
    program: str = "the program",
    story: Iterable[str] = (),
) -> State:
    """The state after `step`. Raises `PolicyError` for a pair that `TABLE` does not have.

    `event`, `program` and `story` only tell the error what to say.
    """
    after = TABLE[state].get(step)
    if after is None:
        legal = ", ".join(TABLE[state])
        raise PolicyError(
            step if event is None else event,
            program,
            state,
            f"{step} is not possible, only: {legal}",
            story,
        )
    return after

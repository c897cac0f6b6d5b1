"""Scenarios on which the two engines once differed, kept for good."""

from __future__ import annotations

from harness.virtual.engine import EngineOptions, Piece
from tests.harness.virtual.scenario import Play, Scenario, Turn
from tests.harness.virtual.strategies import STEP_TIMES

TWIN = (Turn((Piece("s", 6),), Piece("o", 4)),)

FOUND = {
    # The head of the running preempts itself (priority policy, a tie): vLLM schedules nothing for once
    # and does so in no time.
    "a step that schedules nothing": Scenario(
        EngineOptions(11, 1, 3, 5, "priority"),
        STEP_TIMES[1],
        (
            Play("a", TWIN),
            Play("z", TWIN),
            Play("b", (Turn((Piece("b", 5),), Piece("bo", 6)),), 0.0046),
        ),
    ),
    # The same, and those who stay must not be counted as one step further.
    "who stays after a step that schedules nothing": Scenario(
        EngineOptions(56, 7, 2, 20, "priority"),
        STEP_TIMES[0],
        (
            Play("a", (Turn((Piece("a", 30),), Piece("ao", 7)),), 0.0018),
            Play("c", (Turn((Piece("c", 10),), Piece("co", 7)),), 0.0018),
        ),
    ),
}

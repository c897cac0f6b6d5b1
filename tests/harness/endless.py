"""A workload without rounds, for tests: it has no `size`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workloads.model import Call, Program, Segment, SegmentKind


class Endless:
    """One call per program."""

    def __init__(self, *, seed: int, overrides: Mapping[str, str]) -> None:
        self.seed = seed
        self.overrides = overrides
        self.name = "endless"
        self.params: Mapping[str, Any] = {}
        self.size = None
        self.notes: tuple[str, ...] = ()

    def program(self, index: int) -> Program:
        task = Segment(f"task-{self.seed}-{index}", SegmentKind.TASK, 100)
        output = Segment(f"out-{self.seed}-{index}", SegmentKind.THOUGHT, 10)
        return Program(f"p{index}", (Call(f"c{index}", None, (task,), output),))


class Unplayable(Endless):
    """Calls that ask for nothing."""

    def program(self, index: int) -> Program:
        (call,) = super().program(index).calls
        return Program(f"p{index}", (Call(call.call_id, None, (), call.output),))

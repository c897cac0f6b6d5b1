"""Who still needs a sandbox and who has one: the book of a policy that manages sandboxes."""

from __future__ import annotations

from collections.abc import Container

from schedulers.contract import Action, PrepareSandbox, ProgramArrived, ReclaimSandbox


class SandboxBook:
    """Each program that needs a sandbox has it prepared at most once and, if so, reclaimed once."""

    def __init__(self) -> None:
        self.lacking: dict[str, None] = {}  # need one that nobody has asked for yet
        self.prepared: dict[str, None] = {}  # have one, or will

    def arrive(self, event: ProgramArrived) -> None:
        """A program exists."""
        if event.needs_sandbox:
            self.lacking[event.program_id] = None

    def prepare(self, program_id: str) -> list[Action]:
        """The order to prepare its sandbox, unless it needs none or has one."""
        if program_id not in self.lacking:
            return []
        del self.lacking[program_id]
        self.prepared[program_id] = None
        return [PrepareSandbox(program_id)]

    def reclaim(self, program_id: str) -> list[Action]:
        """A program finished: the order to remove what was prepared for it."""
        self.lacking.pop(program_id, None)
        if program_id not in self.prepared:
            return []
        del self.prepared[program_id]
        return [ReclaimSandbox(program_id)]

    def check_invariants(self, programs: Container[str]) -> None:
        """Nobody is in both lists, and nobody is in one who is not there."""
        for program_id in (*self.lacking, *self.prepared):
            assert program_id in programs, f"a sandbox of {program_id}, who is not there"
        assert not self.lacking.keys() & self.prepared.keys(), "prepared and still lacking"

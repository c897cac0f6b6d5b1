"""`ports.Sandboxes` of replay agents: the policy's orders reach agents whose sandboxes are timed waits."""

from __future__ import annotations

from harness.virtual.agents import Agents


class AgentSandboxes:
    """Hands orders on to `agents`, once they are set."""

    def __init__(self) -> None:
        self.agents: Agents | None = None

    def prepare(self, program_id: str) -> None:
        """Begin preparing; without effect for a program that is not here."""
        if self.agents is not None and program_id in self.agents.live:
            self.agents.prepare(program_id)

    def reclaim(self, program_id: str) -> None:
        """Remove it."""
        if self.agents is not None:
            self.agents.reclaim(program_id)

"""Orders about sandboxes reach the agents, once there are some."""

from harness.live.replay.sandboxes import AgentSandboxes


class Agents:
    def __init__(self):
        self.live, self.told = {"here": None}, []

    def prepare(self, program_id):
        self.told.append(("prepare", program_id))

    def reclaim(self, program_id):
        self.told.append(("reclaim", program_id))


def test_preparing_is_for_programs_that_are_here_and_reclaiming_for_all():
    seam = AgentSandboxes()
    seam.prepare("here")
    seam.reclaim("here")
    seam.agents = agents = Agents()
    for program_id in ("here", "gone"):
        seam.prepare(program_id)
        seam.reclaim(program_id)
    assert agents.told == [("prepare", "here"), ("reclaim", "here"), ("reclaim", "gone")]

"""Tools as real commands: real processes, so these run on an ordinary loop and wait for what happens."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.live.replay.clock import AgentClock, HeldClock
from harness.live.replay.commands import ToolCommands
from harness.live.replay.leash import held
from tests.harness.live.processes import watched
from workloads.model import ToolRun

BASH = ToolRun("bash", 0.25, 40)


def play(command, *tools, timeout_s=60.0, programs="p"):
    """Run every tool in every program side by side: how they ended, whose they were, files by program."""

    async def main():
        clock = HeldClock()
        clock.begin()
        ended = asyncio.Queue()

        def note(live, tool):
            ended.put_nowait((live.program.id, tool.name))

        agents = AgentClock(clock, after=lambda: None, on_error=print)
        commands = ToolCommands(command, timeout_s, agents, print)
        try:
            for name in programs:
                for tool in tools:
                    commands.run(SimpleNamespace(program=SimpleNamespace(id=name)), tool, note)
            seen = sorted([await ended.get() for _ in range(len(tools) * len(programs))])
            folders = dict(commands._folders)
            files = {(n, f.name): f.read_text() for n, folder in folders.items() for f in folder.iterdir()}
            for name in programs:
                commands.program_over(name)
            assert list(commands._root.iterdir()) == []
        finally:
            await commands.stop()
        assert not commands._root.exists()
        return commands.ends, seen, files

    return asyncio.run(main())


def test_a_command_finds_the_facts_of_its_run_in_a_folder_of_its_programs_own():
    command = 'echo "$TOOL $TOOL_S $OBSERVATION_TOKENS $PROGRAM_ID $PWD $HOME" > said'
    ends, seen, files = play(command, BASH)
    *facts, folder, home = files["p", "said"].split()
    assert (ends, seen) == ({"done": 1}, [("p", "bash")])
    assert facts == ["bash", "0.25", "40", "p"]
    assert folder == home


def test_keys_of_the_harness_stay_outside(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    _, _, files = play("env > said", BASH)
    names = {line.partition("=")[0] for line in files["p", "said"].splitlines()}
    given = {"PATH", "HOME", "TOOL", "TOOL_S", "OBSERVATION_TOKENS", "PROGRAM_ID"}
    assert names - {"PWD", "SHLVL", "_"} == given


def test_tools_of_a_program_share_its_folder_and_programs_share_none():
    tools = ToolRun("write", 0.0, 1), ToolRun("edit", 0.0, 1)
    ends, _, files = play('echo "$PROGRAM_ID" >> "$TOOL"', *tools, programs="pq")
    assert ends == {"done": 4}
    assert files == {(name, tool): f"{name}\n" for name in "pq" for tool in ("write", "edit")}


@pytest.mark.parametrize("command", ["exit 3", "kill -9 $$", "no-such-command"])
def test_a_command_that_fails_has_ended(command):
    ends, seen, _ = play(command, BASH)
    assert (ends, seen) == ({"failed": 1}, [("p", "bash")])


def test_a_command_that_takes_too_long_is_killed():
    ends, seen, _ = play("sleep 600", BASH, timeout_s=0.2)
    assert (ends, seen) == ({"killed": 1}, [("p", "bash")])


def test_what_a_command_leaves_in_the_background_ends_with_it(tmp_path):
    play(f"sleep 600 & echo $! > {tmp_path}/pid", BASH)
    assert is_gone((tmp_path / "pid").read_text().strip())


def is_gone(pid):
    """Whether nothing runs under it; what was killed may not have been reaped yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_the_leash_holds_what_began_and_did_not_end():
    assert held(["+1\n", "+2\n", "-1\n", "+3\n"]) == {2, 3}
    assert held([]) == set()


HARNESS = """
import asyncio
from types import SimpleNamespace
from harness.live.replay.clock import AgentClock, HeldClock
from harness.live.replay.commands import ToolCommands
from workloads.model import ToolRun

async def main():
    clock = HeldClock()
    clock.begin()
    agents = AgentClock(clock, after=print, on_error=print)
    commands = ToolCommands("sleep 600 & cd FOLDER; echo $$ $! > pids; wait", 600, agents, print)
    print(commands._root, commands._leash.pid, flush=True)
    commands.run(SimpleNamespace(program=SimpleNamespace(id="p")), ToolRun("bash", 1.0, 1), print)
    await asyncio.sleep(600)

asyncio.run(main())
"""


def test_nothing_is_left_when_the_harness_is_killed(tmp_path):
    os.mkfifo(tmp_path / "pids")
    harness = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HARNESS).replace("FOLDER", str(tmp_path))],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[4],
    )
    try:
        root, leash = harness.stdout.readline().split()
        pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
        with watched([*pids, int(leash)]) as family:
            assert not family.gone()
            os.kill(harness.pid, signal.SIGKILL)
            assert family.survivors() == []
        assert not Path(root).exists()
    finally:
        harness.kill()
        harness.wait()
        harness.stdout.close()

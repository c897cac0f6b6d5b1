"""Tools as real commands: what a tool run takes is then what its command takes on this machine.

A recording says how long a tool ran and not what it did, so there is one command for all of them, with the
facts of the run in its environment:

    TOOL                 its name
    TOOL_S               the seconds that it took where it was recorded
    OBSERVATION_TOKENS   the tokens that it returned
    PROGRAM_ID

Each program has a folder of its own, which its commands find as working directory and HOME, and which is
removed when it ends. Each command is a process group of its own, with an environment of PATH and the above:
keys stay outside. It is not kept from the rest of the machine: this is no sandbox for what is not trusted.
Its output is thrown away; the tokens that an agent reads are those of the plan. A command that fails has
ended all the same, as an agent's would, and is counted; one that takes too long is killed and counted.
What a command leaves in the background is killed with its end; `leash.py` sees to it that nothing is left
when the harness itself is killed.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from harness.live.replay import leash
from harness.live.replay.clock import AgentClock
from harness.virtual.agents import ToolEnded
from harness.virtual.programs import LiveCall
from workloads.model import ToolRun

# A command tells the leash of its group before anything else, and holds the pipe open until it has: so
# there is no moment in which the harness could be killed and the command not be known.
_ANNOUNCED = 'echo "+$$" >&0; exec 0</dev/null; exec /bin/sh -c "$1"'
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ToolCommands:
    """Runs `command` with `sh` for each tool run; one that takes longer than `timeout_s` is killed.

    `ends` counts how they ended: `done`, `failed`, `killed`. Call `program_over` for every program that
    ends, and `stop` at last.
    """

    def __init__(
        self, command: str, timeout_s: float, clock: AgentClock, on_error: Callable[[Exception], None]
    ) -> None:
        self._command, self._timeout_s = command, timeout_s
        self._clock, self._on_error = clock, on_error
        self._root = Path(tempfile.mkdtemp(prefix="thunderbench-tools-"))
        reading, self._to_leash = os.pipe()
        self._leash = subprocess.Popen(  # noqa: S603 - our own script
            [sys.executable, "-I", "-S", leash.__file__, str(self._root)],
            stdin=reading,
            start_new_session=True,
        )
        os.close(reading)
        self._folders: dict[str, Path] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.ends: Counter[str] = Counter()

    def run(self, live: LiveCall, tool: ToolRun, ended: ToolEnded) -> None:
        """Start a tool run; `ended` is called when its command has ended."""
        task = asyncio.get_running_loop().create_task(self._run(live, tool, ended), name=tool.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def program_over(self, program_id: str) -> None:
        """Remove a program's folder; without effect when it has none."""
        folder = self._folders.pop(program_id, None)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    async def stop(self) -> None:
        """Kill what runs, and remove all folders."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        os.close(self._to_leash)
        self._leash.wait()  # it removes the folder

    async def _run(self, live: LiveCall, tool: ToolRun, ended: ToolEnded) -> None:
        try:
            self.ends[await self._play(live.program.id, tool)] += 1
        except Exception as error:  # noqa: BLE001 - a task's error would be lost: it ends the run
            self._on_error(error)
            return
        self._clock.as_of(self._clock.now, ended, live, tool)

    async def _play(self, program_id: str, tool: ToolRun) -> str:
        folder = self._folder(program_id)
        process = await asyncio.create_subprocess_exec(
            "/bin/sh",
            "-c",
            _ANNOUNCED,
            "sh",
            self._command,
            cwd=folder,
            env={
                "PATH": _PATH,
                "HOME": str(folder),
                "TOOL": tool.name,
                "TOOL_S": repr(tool.duration_s),
                "OBSERVATION_TOKENS": str(tool.observation_tokens),
                "PROGRAM_ID": program_id,
            },
            stdin=self._to_leash,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                code = await process.wait()
        except TimeoutError:
            return "killed"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # and what it left in the background
            await process.wait()
            os.write(self._to_leash, f"-{process.pid}\n".encode())
        return "failed" if code else "done"

    def _folder(self, program_id: str) -> Path:
        if program_id not in self._folders:
            self._folders[program_id] = Path(tempfile.mkdtemp(dir=self._root))
        return self._folders[program_id]

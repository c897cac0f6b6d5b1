"""Replay agents: the programs of a workload played against a server, on the wall clock.

`harness.virtual.agents.Agents` is the agents' side here as in virtual time: arrivals, the graph of calls,
tools, sandboxes, slots that are handed over. What it tells becomes requests here: a call that arrives is
played by a task, a program that is over is released. Tools and sandboxes are timed waits.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from harness.live.driver import LiveDriver
from harness.live.ports import UpstreamFailed
from harness.live.replay.client import CallLost, HttpCaller
from harness.live.replay.clock import AgentClock
from harness.live.replay.health import Health
from harness.live.replay.prompts import Conversation, Dialect
from harness.virtual.agents import Agents
from harness.virtual.programs import LiveCall
from schedulers.contract import (
    CallArrived,
    CallFailed,
    CallFinished,
    Event,
    ProgramArrived,
    ProgramFinished,
    SandboxReady,
    ToolFinished,
    ToolStarted,
)

RELEASE_PATH = "/programs/release"  # ThunderAgent's
_NO_SUCH_PATH = {404, 405}
_FLUSH_S = 10.0  # releases that are under way when the run ends


class ReplayAgents:
    """Plays what `agents` tells. Give `tell` to `Agents`, then set `agents`.

    `driver` is that of our own gateway in this process, which is told of tools and sandboxes; null before
    somebody else's. `model` is the name by which the server knows its model. Clients that do not
    `release` never say that a program is over; `on_over` is told in any case.
    """

    def __init__(
        self,
        clock: AgentClock,
        caller: HttpCaller,
        dialect: Dialect,
        health: Health,
        *,
        model: str,
        driver: LiveDriver | None,
        releases: bool,
        on_error: Callable[[Exception], None],
        on_over: Callable[[str], None] | None = None,
    ) -> None:
        self._clock, self._caller, self._dialect, self._health = clock, caller, dialect, health
        self._model, self._driver, self._on_error = model, driver, on_error
        self._on_over = on_over
        self.agents: Agents | None = None
        self._conversations: dict[str, Conversation] = {}
        self._calls: set[asyncio.Task[None]] = set()
        self._releases: set[asyncio.Task[None]] = set()
        self._releases_programs = releases  # until the server shows that it knows no such path
        self.prompt_tokens = self.cached_tokens = 0  # of calls that ended and whose server told both

    def tell(self, event: Event) -> None:
        """A fact from the agents."""
        match event:
            case ProgramArrived():
                self._conversations[event.program_id] = Conversation(self._dialect)
                if self._driver is not None:
                    self._driver.arrive(event.program_id, needs_sandbox=event.needs_sandbox)
            case CallArrived():
                live = self._agents.calls[event.call_id]
                self._start(self._calls, self._play(live), event.call_id)
            case ProgramFinished():
                del self._conversations[event.program_id]
                if self._on_over is not None:
                    self._on_over(event.program_id)
                if self._releases_programs:
                    self._start(self._releases, self._release(event.program_id), event.program_id)
            case ToolStarted() | ToolFinished() | SandboxReady():
                if self._driver is not None:
                    self._driver.told(event)
            case _:
                pass  # how a call ended the driver knows from the gateway
        if isinstance(event, CallFinished | CallFailed | ToolFinished):
            self.count_pauses(event.program_id)

    def count_pauses(self, program_id: str) -> None:
        """Take over how often the policy paused a program that is live."""
        live = self._agents.live.get(program_id)
        ours = None if self._driver is None else self._driver.programs.get(program_id)
        if live is not None and ours is not None:
            live.pauses = ours.pauses

    async def flush(self) -> None:
        """Let the releases that are under way end."""
        if self._releases:
            await asyncio.wait(self._releases, timeout=_FLUSH_S)

    async def leave(self) -> None:
        """Release the programs that the run's end cut. Call it after `stop`.

        To a gateway that goes on they would be there still, and hold its memory in the runs that follow.
        """
        for program_id in self._conversations if self._driver is None and self._releases_programs else ():
            self._start(self._releases, self._release(program_id), program_id)
        await self.flush()

    async def stop(self) -> None:
        """Cancel what is open. No task is left."""
        tasks = [*self._calls, *self._releases]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _agents(self) -> Agents:
        assert self.agents is not None, "agents that were not set"
        return self.agents

    def _start(self, tasks: set[asyncio.Task[None]], work: Any, name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # ---------------------------------------------------------------- one call

    async def _play(self, live: LiveCall) -> None:
        """Play a call to its end, and say how it ended."""
        try:
            conversation = self._conversations[live.program.id]
            prompt = conversation.prompt(live.call)
            body = self._body(live, prompt.json())
            try:
                heard = await self._caller.call(live, self._dialect.path, body)
            except CallLost as lost:
                self._clock.as_of(self._clock.now, self._agents.call_failed, live, str(lost))
                return
            if not conversation.answered(live.call, prompt, heard):
                self._health.outputs_lost += 1
            if live.request.cached_tokens >= 0:
                self.prompt_tokens += live.request.prompt_tokens
                self.cached_tokens += live.request.cached_tokens
            self._clock.as_of(live.request.finished_s, self._agents.call_finished, live.call.call_id)
        except Exception as error:  # noqa: BLE001 - a task's error would be lost: it ends the run
            self._on_error(error)

    def _body(self, live: LiveCall, prompt: bytes) -> bytes:
        tokens = live.call.output.tokens
        fields: dict[str, Any] = {
            "model": self._model,
            "program_id": live.program.id,
            "max_tokens": tokens,
            "min_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **self._dialect.fields,
        }
        if self._driver is not None:  # taken out again by our gateway
            fields["thunderbench"] = {
                "tools": [tool.name for tool in live.call.tools],
                "needs_sandbox": live.program.program.sandbox is not None,
            }
        head = json.dumps(fields).encode()
        return b"".join((head[:-1], b', "', self._dialect.prompt_field, b'": ', prompt, b"}"))

    # ---------------------------------------------------------------- the end of a program

    async def _release(self, program_id: str) -> None:
        body = json.dumps({"program_id": program_id}).encode()
        try:
            status = await self._caller.post(RELEASE_PATH, body, program_id)
        except UpstreamFailed:
            return  # a gateway forgets programs that are quiet, too
        if status in _NO_SUCH_PATH:
            self._releases_programs = False

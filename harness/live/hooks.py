"""The client of the engine plug-in: orders for replicas that run `vllm_hooks.HookedScheduler`.

`hook_messages.py` has the messages. Orders never wait: they are written to the connection, or, while there
is none, counted as lost and logged. A lost connection is opened again in the background. The plug-in ends
what it keeps by itself when its time is over, so an order to let go that gets lost does no lasting harm.
"""

from __future__ import annotations

import asyncio
import json
import logging
import shlex
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from typing import Any

from harness.errors import SetupError
from harness.live.hook_messages import (
    ADDRESS_VARIABLE,
    PLUGIN,
    PROTOCOL,
    SCHEDULER_CLASS,
    Address,
    Evict,
    Hello,
    Message,
    Order,
    Pin,
    Retain,
    Stats,
    Unpin,
    encode,
    number_of,
    parse_address,
)
from schedulers.contract import Capability

_LOG = logging.getLogger(__name__)
_MAX_ANSWER_BYTES = 16 << 20
_MAX_UNSENT_BYTES = 1 << 20  # a plug-in that reads nothing for so long gets no more

# Of the server that policies with hooks need, besides the model and the scheduler class.
SERVER_OPTIONS = (
    "--scheduler-cls",
    SCHEDULER_CLASS,
    "--scheduling-policy",
    "priority",
    "--enable-prefix-caching",
    "--enable-prompt-tokens-details",
)


def start_command(address: str = "unix:/tmp/thunderbench-hooks.sock", model: str = "MODEL") -> str:
    """The command that starts a vLLM server with the plug-in, for a shell.

    `thunderbench` must be installed beside vLLM, or its folder stand in PYTHONPATH.
    """
    return f"{ADDRESS_VARIABLE}={shlex.quote(address)} " + shlex.join(
        ["vllm", "serve", model, *SERVER_OPTIONS]
    )


class HookClient:
    """Hooks of several replicas: `addresses` are `unix:/path.sock` or `tcp:127.0.0.1:7700`, by replica.

    `connect` first, `close` at the end. `timeout_s` bounds what is awaited; `retry_s` are the first and
    the longest pause before a lost connection is opened again. Implements `ports.Hooks`.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        *,
        timeout_s: float = 5.0,
        retry_s: tuple[float, float] = (0.1, 5.0),
    ) -> None:
        self._links = {
            replica: _Link(replica, parse_address(text), timeout_s, retry_s)
            for replica, text in addresses.items()
        }

    async def connect(self) -> None:
        """Reach every replica. Raises `SetupError`, with nothing left open, when one is not there."""
        try:
            for link in self._links.values():
                await link.connect()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Close all connections."""
        for link in self._links.values():
            await link.close()

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What every replica can do; nothing before `connect`."""
        offers = [link.capabilities for link in self._links.values()]
        return frozenset.intersection(*offers) if offers else frozenset()

    @property
    def lost(self) -> Counter[str]:
        """Orders that were not sent, by replica."""
        return Counter({replica: link.lost for replica, link in self._links.items() if link.lost})

    def hello(self, replica: str) -> Mapping[str, Any]:
        """What the replica's plug-in last said of itself."""
        return self._links[replica].hello

    def pin(self, replica: str, program_id: str, for_s: float, *, yields: bool) -> None:
        """Keep what is cached of the context of the program's call that ended last."""
        self._links[replica].send(Pin(program_id, for_s, yields))

    def unpin(self, replica: str, program_id: str) -> None:
        """Undo `pin`."""
        self._links[replica].send(Unpin(program_id))

    def evict(self, replica: str, program_id: str, tail_tokens: int | None) -> None:
        """Drop the last tokens of the program's cached context, all of it when null."""
        self._links[replica].send(Evict(program_id, tail_tokens))

    def retain(self, replica: str, program_id: str, kind: str, priority: int, for_s: float) -> None:
        """Keep segments of a kind longer than others: higher `priority` stays longer."""
        self._links[replica].send(Retain(program_id, kind, priority, for_s))

    def order(self, replica: str, program_id: str, priority: int) -> None:
        """Give the program's waiting requests another priority; smaller runs earlier."""
        self._links[replica].send(Order(program_id, priority))

    async def stats(self, replica: str, program_id: str | None = None) -> dict[str, Any]:
        """Counts of one program, or of all, as the plug-in has them (see `vllm_plugin`).

        Raises `ConnectionError` when the replica cannot be reached, or does not answer in time.
        """
        answer = await self._links[replica].ask(Stats(program_id))
        if not isinstance(answer.get("stats"), dict):
            raise ConnectionError(f"replica {replica}: {answer.get('error', 'an answer without stats')}")
        return dict(answer["stats"])


class _Link:
    """The connection to one replica."""

    def __init__(
        self, replica: str, address: Address, timeout_s: float, retry_s: tuple[float, float]
    ) -> None:
        self.replica, self._address, self._timeout_s, self._retry_s = replica, address, timeout_s, retry_s
        self.hello: dict[str, Any] = {}
        self.lost = 0
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        """As the plug-in offers them; those that this version does not know are left out."""
        known = {capability.value for capability in Capability}
        return frozenset(Capability(name) for name in self.hello.get("capabilities", ()) if name in known)

    async def connect(self) -> None:
        """Open the connection, and from now on open it again when it is lost. Raises `SetupError`."""
        reader = await self._open()
        self._task = asyncio.create_task(self._keep_open(reader))

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        await self._shut()

    def send(self, message: Message) -> None:
        """Write an order, or count it as lost."""
        if self._writer is None or self._writer.is_closing():
            self._lose(message, "no connection")
        elif self._writer.transport.get_write_buffer_size() > _MAX_UNSENT_BYTES:
            self._lose(message, "the plug-in does not read")
        else:
            self._writer.write(encode(message))

    async def ask(self, message: Message) -> dict[str, Any]:
        """Send a question and wait for its answer."""
        if self._writer is None:
            raise ConnectionError(f"replica {self.replica}: no connection to {self._address}")
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(encode(message, number))
            return await asyncio.wait_for(answer, self._timeout_s)
        except TimeoutError as error:
            raise ConnectionError(f"replica {self.replica}: no answer in {self._timeout_s:g} s") from error
        finally:
            del self._asked[number]

    # ---------------------------------------------------------------- connection

    async def _open(self) -> asyncio.StreamReader:
        """Connect and get to know the other side. Raises `SetupError`."""
        try:
            async with asyncio.timeout(self._timeout_s):
                reader, writer = await self._dial()
        except (OSError, TimeoutError) as error:
            raise self._nobody(getattr(error, "strerror", None) or type(error).__name__) from error
        try:
            writer.write(encode(Hello()))
            async with asyncio.timeout(self._timeout_s):
                line = await reader.readline()
            if not line:
                raise ConnectionResetError
            self.hello = self._checked(line)
            self._writer = writer
        except (OSError, ValueError, TimeoutError) as error:  # a line that does not end is a ValueError
            raise self._nobody(f"no hello ({type(error).__name__})") from error
        finally:
            if self._writer is not writer:
                writer.close()
        return reader

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        path, host, port = self._address
        if path:
            return await asyncio.open_unix_connection(path, limit=_MAX_ANSWER_BYTES)
        return await asyncio.open_connection(host, port, limit=_MAX_ANSWER_BYTES)

    def _nobody(self, why: str) -> SetupError:
        return SetupError(
            f"no engine hooks of replica {self.replica} at {self._address}: {why}",
            "a vLLM server that runs the plug-in",
            f"Start it so: {start_command(str(self._address))}",
        )

    def _checked(self, line: bytes) -> dict[str, Any]:
        """What is said in a hello of ours. Raises `SetupError`."""
        hello = _parsed(line).get("hello")
        if not isinstance(hello, dict) or (hello.get("plugin"), hello.get("protocol")) != (
            PLUGIN,
            PROTOCOL,
        ):
            said = line[:200].decode(errors="replace")
            raise SetupError(
                f"replica {self.replica} answers {said!r} at {self._address}",
                f"{PLUGIN} with protocol {PROTOCOL}",
                f"Start the server with this version's plug-in: {start_command(str(self._address))}",
            )
        if hello.get("vllm") not in hello.get("tested_vllm", ()):
            _LOG.warning(
                "replica %s runs vLLM %s; its engine hooks were tested with %s",
                self.replica,
                hello.get("vllm"),
                ", ".join(hello.get("tested_vllm", ())),
            )
        return hello

    async def _keep_open(self, reader: asyncio.StreamReader) -> None:
        first, longest = self._retry_s
        while True:
            await self._read(reader)
            await self._shut()
            _LOG.warning("lost the engine hooks of replica %s at %s", self.replica, self._address)
            pause = first
            while self._writer is None:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)
                try:
                    reader = await self._open()
                except SetupError as error:
                    _LOG.debug("%s", error)
            _LOG.info("engine hooks of replica %s are back; %d orders lost", self.replica, self.lost)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        """Take answers until the connection ends."""
        with suppress(OSError, ValueError):  # a line that does not end is a ValueError
            while line := await reader.readline():
                self._take(_parsed(line))

    def _take(self, answer: dict[str, Any]) -> None:
        waiter = self._asked.get(number_of(answer) or 0)
        if waiter is not None and not waiter.done():
            waiter.set_result(answer)
        elif "error" in answer:
            _LOG.warning("engine hooks of replica %s: %s", self.replica, answer["error"])

    async def _shut(self) -> None:
        writer, self._writer = self._writer, None
        for waiter in self._asked.values():
            if not waiter.done():
                waiter.set_exception(ConnectionError(f"replica {self.replica}: the connection was lost"))
        if writer is not None:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    def _lose(self, message: Message, why: str) -> None:
        self.lost += 1
        _LOG.warning("an order for replica %s is lost (%s): %s", self.replica, why, message)


def _parsed(line: bytes) -> dict[str, Any]:
    """What a plug-in said; nothing when it is no object."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}

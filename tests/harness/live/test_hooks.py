"""The client of the engine plug-in, against the plug-in's own server with a scripted engine behind it."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.live.hook_messages import (
    Address,
    BadMessage,
    Evict,
    Hello,
    Message,
    Order,
    Pin,
    Retain,
    Stats,
    Unpin,
)
from harness.live.hooks import HookClient, start_command
from harness.live.ports import Hooks
from harness.live.vllm_plugin.server import HookServer
from schedulers.contract import Capability

PATIENCE_S = 30.0
AT_ONCE = (0.001, 0.01)


class Engine:
    """Answers as the plug-in does, and keeps what it was ordered."""

    def __init__(self, *can: str, **hello: Any) -> None:
        self.ordered: list[Message] = []
        self.hello = {
            "plugin": "thunderbench-hooks",
            "protocol": 1,
            "vllm": "0.32.0",
            "tested_vllm": ["0.32.0"],
            "capabilities": can or ("pin", "evict", "retain", "priority"),
            **hello,
        }

    def answer(self, message: Message) -> dict[str, Any] | None:
        if isinstance(message, Hello):
            return {"hello": self.hello}
        if isinstance(message, Stats):
            if message.program == "refused":
                raise BadMessage("no such thing")
            return {"stats": {"asked": message.program}}
        self.ordered.append(message)
        return None


@pytest.fixture
def path() -> Iterator[Path]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "hooks.sock"


def serve(path: Path, engine: Engine) -> HookServer:
    server = HookServer(Address(str(path)), engine.answer)
    server.start()
    return server


def run(body: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await body()

    asyncio.run(bounded())


def test_orders_reach_the_engine_in_order(path: Path) -> None:
    engine = Engine()
    server = serve(path, engine)

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}"})
        await client.connect()
        hooks: Hooks = client
        hooks.pin("r0", "p", 2.5, yields=True)
        hooks.unpin("r0", "p")
        hooks.evict("r0", "p", None)
        hooks.retain("r0", "p", "task", 3, 60.0)
        client.order("r0", "p", -1)
        assert await client.stats("r0") == {"asked": None}
        assert await client.stats("r0", "p") == {"asked": "p"}
        assert client.lost == Counter()
        await client.close()

    run(body)
    server.close()
    assert engine.ordered == [
        Pin("p", 2.5, yields=True),
        Unpin("p"),
        Evict("p", None),
        Retain("p", "task", 3, 60.0),
        Order("p", -1),
    ]


def test_capabilities_are_what_every_replica_can_do_and_this_version_knows(path: Path) -> None:
    servers = [
        serve(path, Engine("pin", "evict", "teleport")),
        serve(path.with_name("other"), Engine("pin", "priority")),
    ]

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}", "r1": f"unix:{path.with_name('other')}"})
        assert client.capabilities == frozenset()
        await client.connect()
        assert client.capabilities == {Capability.PIN}
        assert client.hello("r1")["capabilities"] == ["pin", "priority"]
        await client.close()

    run(body)
    for server in servers:
        server.close()


def refusal(path: Path) -> str:
    async def body() -> str:
        with pytest.raises(SetupError) as raised:
            await HookClient({"r0": f"unix:{path}"}).connect()
        return str(raised.value)

    return asyncio.run(body())


def test_where_nothing_listens_the_command_that_would_change_that_is_given(path: Path) -> None:
    assert refusal(path) == (
        f"no engine hooks of replica r0 at unix:{path}: No such file or directory; "
        "expected a vLLM server that runs the plug-in. "
        f"Start it so: THUNDERBENCH_HOOKS=unix:{path} vllm serve MODEL "
        "--scheduler-cls harness.live.vllm_hooks.HookedScheduler --scheduling-policy priority "
        "--enable-prefix-caching --enable-prompt-tokens-details"
    )


def test_the_command_is_one_for_a_shell() -> None:
    command = start_command("unix:/tmp/a b.sock", "my model")
    assert command.startswith(
        "THUNDERBENCH_HOOKS='unix:/tmp/a b.sock' vllm serve 'my model' --scheduler-cls "
    )


@pytest.mark.parametrize("strange", [{"plugin": "other"}, {"protocol": 2}, {"protocol": None}])
def test_another_plugin_or_protocol_is_refused(path: Path, strange: dict[str, Any]) -> None:
    server = serve(path, Engine(**strange))
    text = refusal(path)
    server.close()
    assert text.startswith('replica r0 answers \'{"hello":{"plugin":')
    assert "expected thunderbench-hooks with protocol 1. Start the server" in text


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "replica r0 answers 'HTTP/1.1 400 Bad Request"),
        (b"[1]\n", "replica r0 answers '[1]"),
        (b"\xff\xfe\n", "replica r0 answers"),
    ],
)
def test_what_is_no_plugin_at_all_is_refused(path: Path, said: bytes, found: str) -> None:
    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(said)
        writer.close()

    async def body() -> None:
        async with await asyncio.start_unix_server(stranger, path):
            with pytest.raises(SetupError) as raised:
                await HookClient({"r0": f"unix:{path}"}).connect()
        assert str(raised.value).startswith(found)

    run(body)


def test_silence_and_going_away_are_refused_too(path: Path) -> None:
    async def leaving(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.close()

    async def left() -> None:
        async with await asyncio.start_unix_server(leaving, path):
            with pytest.raises(
                SetupError, match=r"no engine hooks of .*: no hello \(ConnectionResetError\)"
            ):
                await HookClient({"r0": f"unix:{path}"}).connect()

    async def body() -> None:
        kept: list[asyncio.StreamWriter] = []
        async with await asyncio.start_unix_server(lambda _, writer: kept.append(writer), path):
            with pytest.raises(SetupError, match=r"no engine hooks of .*TimeoutError"):
                await HookClient({"r0": f"unix:{path}"}, timeout_s=0.01).connect()
            for writer in kept:
                writer.close()

    run(left)
    path.unlink()
    run(body)


def test_when_one_replica_is_missing_no_connection_stays_open(path: Path) -> None:
    engine = Engine()
    server = serve(path, engine)

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}", "r1": f"unix:{path}.not"})
        with pytest.raises(SetupError, match="replica r1"):
            await client.connect()
        client.unpin("r0", "p")
        assert client.lost == Counter(r0=1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(body)
    server.close()
    assert engine.ordered == []


def test_an_untested_vllm_is_named_in_the_log(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = serve(path, Engine(vllm="0.99.0"))

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}"})
        await client.connect()
        await client.close()

    with caplog.at_level(logging.WARNING):
        run(body)
    server.close()
    assert caplog.messages == ["replica r0 runs vLLM 0.99.0; its engine hooks were tested with 0.32.0"]


async def until(true: Callable[[], bool]) -> None:
    """Let the loop turn until something holds; `run` bounds it."""
    while not true():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)


async def answered(client: HookClient) -> None:
    """Until the replica answers again."""
    while True:
        try:
            await client.stats("r0")
        except ConnectionError:
            await asyncio.sleep(0)
        else:
            return


def test_a_lost_connection_is_opened_again_and_orders_in_between_are_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Engine(), Engine("pin")
    server = serve(path, first)

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}"}, retry_s=AT_ONCE)
        await client.connect()
        server.close()
        await until(lambda: "lost the engine hooks" in caplog.text)
        client.pin("r0", "p", 1.0, yields=False)
        client.unpin("r0", "p")
        assert client.lost == Counter(r0=2)
        with pytest.raises(ConnectionError, match="replica r0: no connection to unix:"):
            await client.stats("r0")
        again = serve(path, second)
        await answered(client)
        client.unpin("r0", "q")
        await client.stats("r0")
        assert client.capabilities == {Capability.PIN}
        await client.close()
        again.close()

    with caplog.at_level(logging.WARNING):
        run(body)
    assert (first.ordered, second.ordered) == ([], [Unpin("q")])
    lost = "an order for replica r0 is lost (no connection): "
    assert [text for text in caplog.messages if text.startswith(lost)] == [
        f"{lost}Pin(program='p', for_s=1.0, yields=False)",
        f"{lost}Unpin(program='p')",
    ]


def test_a_question_under_way_when_the_connection_is_lost_fails(path: Path) -> None:
    hello = b'{"hello":{"plugin":"thunderbench-hooks","protocol":1}}\n'

    async def rude(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(hello)
        await reader.readline()
        writer.close()

    async def body() -> None:
        async with await asyncio.start_unix_server(rude, path):
            client = HookClient({"r0": f"unix:{path}"})
            await client.connect()
            with pytest.raises(ConnectionError, match="replica r0: the connection was lost"):
                await client.stats("r0")
            await client.close()

    run(body)


def test_a_question_that_is_not_answered_fails_in_time(path: Path) -> None:
    class Mute(Engine):
        def answer(self, message: Message) -> dict[str, Any] | None:
            return None if isinstance(message, Stats) else super().answer(message)

    server = serve(path, Mute())

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}"})
        await client.connect()
        client._links["r0"]._timeout_s = 0.01
        with pytest.raises(ConnectionError, match=r"replica r0: no answer in 0\.01 s"):
            await client.stats("r0")
        await client.close()

    run(body)
    server.close()


def test_a_refused_question_fails_and_a_refused_order_is_logged(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(path, Engine())

    async def body() -> None:
        client = HookClient({"r0": f"unix:{path}"})
        await client.connect()
        with pytest.raises(ConnectionError, match="replica r0: no such thing"):
            await client.stats("r0", "refused")
        client.unpin("r0", "")
        await client.stats("r0")
        await client.close()

    with caplog.at_level(logging.WARNING):
        run(body)
    server.close()
    assert caplog.messages == [
        "engine hooks of replica r0: `program` must be a text of 1 to 1024 characters"
    ]


def test_a_plugin_that_reads_nothing_gets_no_more_after_a_while(path: Path) -> None:
    hello = b'{"hello":{"plugin":"thunderbench-hooks","protocol":1}}\n'

    async def body() -> None:
        stop = asyncio.Event()

        async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(hello)
            await stop.wait()
            writer.transport.abort()

        async with await asyncio.start_unix_server(deaf, path):
            client = HookClient({"r0": f"unix:{path}"})
            await client.connect()
            for _ in range(20_000):
                client.unpin("r0", "x" * 1000)
            assert 0 < client.lost["r0"] < 20_000
            stop.set()
            await client.close()

    run(body)


def test_an_address_that_cannot_be_is_refused_at_once() -> None:
    with pytest.raises(SetupError, match="an address of this machine only"):
        HookClient({"r0": "tcp:192.0.2.1:7700"})

"""The plug-in's socket: whatever comes in, it goes on answering, with nobody driving the engine."""

from __future__ import annotations

import json
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.live.hook_messages import MAX_LINE_BYTES, Address, BadMessage, Hello, Message, Stats, Unpin
from harness.live.vllm_plugin.server import MAX_CLIENTS, HookServer

PATIENCE_S = 30.0


class Engine:
    """What stands behind the server: keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[Message] = []
        self.filler = ""
        self.asked = 0

    def answer(self, message: Message) -> dict[str, Any] | None:
        if isinstance(message, Hello):
            return {"hello": {"plugin": "this"}}
        if isinstance(message, Stats):
            self.asked += 1
            return {"stats": {"told": len(self.told), "filler": self.filler}}
        if isinstance(message, Unpin) and message.program == "unwanted":
            raise BadMessage("not that one")
        self.told.append(message)
        return None


class Client:
    """A plain socket that reads lines."""

    def __init__(self, address: Address) -> None:
        if address.path:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address.path)
        else:
            self.socket = socket.create_connection((address.host, address.port))
        self.socket.settimeout(PATIENCE_S)
        self.file = self.socket.makefile("rb")

    def say(self, data: bytes) -> None:
        self.socket.sendall(data)

    def hear(self) -> Any:
        line = self.file.readline()
        return json.loads(line) if line else None

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def path() -> Iterator[Path]:
    """Short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "hooks.sock"


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def server(path: Path, engine: Engine) -> Iterator[HookServer]:
    one = HookServer(Address(str(path)), engine.answer)
    one.start()
    yield one
    one.close()


@pytest.fixture
def client(server: HookServer) -> Iterator[Client]:
    one = Client(server.address)
    yield one
    one.close()


HELLO = b'{"do":"hello"}\n'
HELLO_ANSWER = {"hello": {"plugin": "this"}}


def test_questions_are_answered_and_orders_passed_on(client: Client, engine: Engine) -> None:
    client.say(HELLO + b'{"do":"unpin","program":"p"}\r\n\n{"do":"stats","id":7}\n')
    assert client.hear() == HELLO_ANSWER
    assert client.hear() == {"stats": {"told": 1, "filler": ""}, "id": 7}
    assert engine.told == [Unpin("p")]


def test_garbage_gets_an_error_line_and_the_connection_goes_on(client: Client) -> None:
    client.say(b'{]\n[1]\n{"do":"pin","program":"p","id":3}\n{"do":"unpin","program":"unwanted"}\n')
    assert [client.hear() for _ in range(4)] == [
        {"error": "not JSON: JSONDecodeError"},
        {"error": "a JSON object expected, not list"},
        {"error": "`for_s` must be a number from 0 to 1e+09", "id": 3},
        {"error": "not that one"},
    ]
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER


def test_a_line_may_come_in_pieces(client: Client) -> None:
    for k in range(len(HELLO)):
        client.say(HELLO[k : k + 1])
    assert client.hear() == HELLO_ANSWER


def test_a_line_that_is_too_long_ends_its_connection_and_no_other(
    server: HookServer, client: Client
) -> None:
    other = Client(server.address)
    client.say(HELLO + b"x" * (MAX_LINE_BYTES + 1))
    assert client.hear() == HELLO_ANSWER
    assert client.hear() == {"error": f"a line longer than {MAX_LINE_BYTES} bytes"}
    assert client.hear() is None
    other.say(b" " * (MAX_LINE_BYTES - len(HELLO) + 1) + HELLO)
    assert other.hear() == HELLO_ANSWER
    other.close()


def test_a_client_that_leaves_in_the_middle_of_a_line_is_forgotten(
    server: HookServer, client: Client
) -> None:
    gone = Client(server.address)
    gone.say(b'{"do":"unpin","prog')
    gone.close()
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER


def test_a_client_that_does_not_read_does_not_hold_up_the_others(
    server: HookServer, client: Client, engine: Engine
) -> None:
    """A hundred answers of a megabyte are more than any buffer: it is cut off."""
    engine.filler = "x" * (1 << 20)
    deaf = Client(server.address)
    deaf.say(b'{"do":"stats"}\n' * 100)
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER
    heard = 0
    try:
        while deaf.file.readline():
            heard += 1
    except ConnectionResetError:
        pass
    assert heard < 100
    assert engine.asked < 25  # of those that came in one piece: answers are not piled up for nobody
    deaf.close()


def test_more_clients_than_allowed_are_turned_away_until_one_leaves(server: HookServer) -> None:
    clients = [Client(server.address) for _ in range(MAX_CLIENTS)]
    for one in clients:
        one.say(HELLO)
        assert one.hear() == HELLO_ANSWER
    extra = Client(server.address)
    assert extra.hear() is None
    extra.close()
    for one in clients:
        one.close()


def test_only_the_owner_may_connect(server: HookServer, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert server.address == Address(str(path))


def test_the_file_goes_with_the_server_and_closing_twice_is_fine(path: Path, engine: Engine) -> None:
    one = HookServer(Address(str(path)), engine.answer)
    one.start()
    client = Client(one.address)
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER
    one.close()
    one.close()
    assert client.hear() is None
    assert not path.exists()
    client.close()


def test_the_socket_of_a_killed_engine_is_replaced(path: Path, engine: Engine) -> None:
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    one = HookServer(Address(str(path)), engine.answer)
    one.start()
    client = Client(one.address)
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER
    client.close()
    one.close()


def test_the_socket_of_an_engine_that_lives_is_not(
    server: HookServer, client: Client, engine: Engine
) -> None:
    with pytest.raises(SetupError, match=r"another engine listens at unix:/.*one address per engine"):
        HookServer(server.address, engine.answer)
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER


def test_a_file_that_is_no_socket_is_left_alone(path: Path, engine: Engine) -> None:
    path.write_text("mine")
    with pytest.raises(SetupError, match="is not a socket"):
        HookServer(Address(str(path)), engine.answer)
    assert path.read_text() == "mine"


def test_a_path_that_cannot_be_is_named(path: Path, engine: Engine) -> None:
    with pytest.raises(SetupError, match=r"cannot listen at unix:/.*No such file or directory"):
        HookServer(Address(str(path / "nowhere")), engine.answer)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_over_tcp_on_loopback(host: str, engine: Engine) -> None:
    one = HookServer(Address("", host, 0), engine.answer)
    one.start()
    client = Client(one.address)
    client.say(HELLO)
    assert client.hear() == HELLO_ANSWER
    with pytest.raises(SetupError, match=r"cannot listen at tcp:127\.0\.0\.1:\d+: Address already in use"):
        HookServer(one.address, engine.answer)
    client.close()
    one.close()

"""The socket of the engine plug-in: one daemon thread inside the engine's process.

It never touches the engine. What a client says is decoded here and handed to `answer`, which returns the
answer, or nothing. Whatever comes in, the thread goes on: garbage gets an error line, a line that is too
long an error line and the end of its connection, and a client that does not read is cut off.
"""

from __future__ import annotations

import os
import selectors
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import SetupError
from harness.live.hook_messages import (
    ADDRESS_VARIABLE,
    MAX_LINE_BYTES,
    Address,
    BadMessage,
    Message,
    decode,
    decode_line,
    encode_line,
    number_of,
)

Answer = Callable[[Message], dict[str, Any] | None]

MAX_CLIENTS = 64
_MAX_UNREAD_BYTES = 16 << 20  # of answers that a client has not read
_CHUNK_BYTES = 64 * 1024
_PROBE_S = 1.0


class HookServer:
    """Listens as soon as it is made; `start` answers, `close` ends. Raises `SetupError`.

    `answer` is called in the server's own thread. It may raise `BadMessage`.
    """

    def __init__(self, address: Address, answer: Answer) -> None:
        self._answer = answer
        self._own_inode: int | None = None
        self._listener = self._listen(address)
        self.address = address if address.path else Address("", *self._listener.getsockname()[:2])
        self._clients: dict[int, _Client] = {}  # by file number
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._waker, self._woken = socket.socketpair()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="thunderbench-hooks", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop, cut all connections and remove the socket's file; without effect the second time."""
        self._waker.close()
        if self._thread.is_alive():
            self._thread.join()
        self._selector.close()
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()
        self._woken.close()
        self._listener.close()
        if self._own_inode is not None:
            path = self.address.path
            with suppress(FileNotFoundError):
                if Path(path).stat().st_ino == self._own_inode:
                    Path(path).unlink()
            self._own_inode = None

    # ---------------------------------------------------------------- listening

    def _listen(self, address: Address) -> socket.socket:
        try:
            return self._listen_unix(address.path) if address.path else _listen_tcp(address)
        except OSError as error:
            raise SetupError(
                f"engine hooks cannot listen at {address}: {error.strerror or error}",
                "an address that is free, one per engine",
                f"Set {ADDRESS_VARIABLE} to another one.",
            ) from error

    def _listen_unix(self, path: str) -> socket.socket:
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # Linux gives the file this mode from its first moment
            listener.bind(path)
            Path(path).chmod(0o600)
            self._own_inode = Path(path).stat().st_ino
            listener.listen()
            listener.settimeout(0.0)
        except BaseException:
            listener.close()
            raise
        return listener

    # ---------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            for key, events in self._selector.select():
                if key.fileobj is self._woken:
                    return
                if key.fileobj is self._listener:
                    self._accept()
                else:
                    self._serve(key.data, events)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # it went away again, or there are no file numbers left just now
        if len(self._clients) >= MAX_CLIENTS:
            connection.close()
            return
        connection.settimeout(0.0)
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._selector.register(connection, selectors.EVENT_READ, client)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if events & selectors.EVENT_READ:
                for line in client.read_lines():
                    self._take(client, line)
                    client.write()  # now: answers are much longer than questions
                    if client.is_deaf():
                        client.cut_off()
                        break
            client.write()
        except OSError:
            client.over = True
        if client.over and not client.unsent:
            self._drop(client)
            return
        wanted = 0 if client.over else selectors.EVENT_READ
        self._selector.modify(
            client.socket, wanted | (selectors.EVENT_WRITE if client.unsent else 0), client
        )

    def _take(self, client: _Client, line: bytes | None) -> None:
        """Answer one line; null stands for one that is too long."""
        if line is None:
            client.unsent += encode_line({"error": f"a line longer than {MAX_LINE_BYTES} bytes"})
            return
        number = None
        try:
            fields = decode_line(line)
            number = number_of(fields)
            answer = self._answer(decode(fields))
        except BadMessage as error:
            answer = {"error": str(error)}
        if answer is not None:
            client.unsent += encode_line(answer if number is None else {**answer, "id": number})

    def _drop(self, client: _Client) -> None:
        self._selector.unregister(client.socket)
        del self._clients[client.socket.fileno()]
        client.socket.close()


class _Client:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.unsent = bytearray()
        self.over = False  # nothing more is read from it
        self._unread = bytearray()

    def read_lines(self) -> list[bytes | None]:
        """The whole lines that have come, then null when one is too long."""
        data = self.socket.recv(_CHUNK_BYTES)
        self.over = not data
        self._unread += data
        *whole, rest = self._unread.split(b"\n")
        self._unread = rest
        lines: list[bytes | None] = []
        for line in (*whole, rest):
            if len(line) > MAX_LINE_BYTES:
                self.over = True
                return [*lines, None]
            if line.strip() and line is not rest:
                lines.append(bytes(line))
        return lines

    def write(self) -> None:
        """Send what the other side takes just now."""
        if self.unsent:
            with suppress(BlockingIOError):
                del self.unsent[: self.socket.send(self.unsent)]

    def is_deaf(self) -> bool:
        """Whether its other side does not read what it asks for."""
        return len(self.unsent) > _MAX_UNREAD_BYTES

    def cut_off(self) -> None:
        """Neither read nor write any more."""
        self.unsent.clear()
        self.over = True


def _listen_tcp(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen()
        listener.settimeout(0.0)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove_stale(path: str) -> None:
    """Remove the socket that an engine left which was killed; raises `SetupError` for anything else."""
    try:
        mode = Path(path).lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SetupError(
            f"{path} is not a socket",
            "a path for the engine hooks' socket",
            f"Set {ADDRESS_VARIABLE} to another one.",
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise SetupError(
        f"another engine listens at unix:{path}",
        "one address per engine (of data-parallel engines each needs its own server)",
        f"Set {ADDRESS_VARIABLE} to another one.",
    )

"""The probes, on this machine and on what stands for another one."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from harness.doctor import probes
from harness.doctor.findings import Gpu, Vllm, reaches


def test_the_metadata_of_thunderbench_name_what_it_needs() -> None:
    assert "click>=8.1" in probes.requirements()
    assert reaches(probes.python_version(), probes.wanted_python().removeprefix(">="))


def test_a_package_that_is_absent_has_no_version() -> None:
    found = probes.installed(["click", "no-such-package-of-anybody"])
    assert found["no-such-package-of-anybody"] is None
    assert reaches(found["click"] or "0", "8.1")


def test_the_lines_of_nvidia_smi_are_read() -> None:
    listed = "NVIDIA H200, 143771, 4, 570.86.10\nNVIDIA A100 MIG 1g, [N/A], [N/A], 570.86.10\n\nodd\n"
    assert probes.read_gpus(listed) == [
        Gpu("NVIDIA H200", 143_771, 4, "570.86.10"),
        Gpu("NVIDIA A100 MIG 1g", 0, 0, "570.86.10"),
    ]


def program(folder: Path, name: str, script: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'NVIDIA L4, 23034, 0, 550.1'", ([Gpu("NVIDIA L4", 23_034, 0, "550.1")], "")),
        ("echo first; echo 'NVIDIA-SMI has failed' >&2; exit 9", (None, "NVIDIA-SMI has failed")),
        ("exit 9", (None, "nvidia-smi ended with 9")),
    ],
)
def test_nvidia_smi_is_asked(tmp_path, monkeypatch, script, expected) -> None:
    program(tmp_path, "nvidia-smi", script)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes.gpus() == expected


def test_without_nvidia_smi_there_are_no_gpus_and_no_error(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert probes.gpus() == (None, "")
    assert probes.browser() == (None, None)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A `vllm` of our own before any other: `package(source, scheduler)`."""

    def write(source: str, scheduler: str = "") -> None:
        (tmp_path / "vllm").mkdir()
        (tmp_path / "vllm" / "__init__.py").write_text(source)
        (tmp_path / "our_hooks.py").write_text(scheduler)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "vllm", raising=False)

    return write


@pytest.mark.parametrize(
    ("source", "scheduler", "expected"),
    [
        ("print('noise')\n__version__ = '9.1'", "class Ours: pass", Vllm("9.1", "", "")),
        ("raise ImportError('no libcudart')", "", Vllm("", "ImportError: no libcudart", "")),
        (
            "__version__ = '9.1'",
            "raise ValueError('not this vLLM')",
            Vllm("9.1", "", "ValueError: not this vLLM"),
        ),
        (
            "__version__ = '9.1'",
            "",
            Vllm("9.1", "", "AttributeError: module 'our_hooks' has no attribute 'Ours'"),
        ),
        ("import os; os._exit(3)", "", Vllm("", "importing it ended with 3", "")),
    ],
)
def test_vllm_and_the_hooks_are_imported_in_a_process_of_their_own(
    package, source, scheduler, expected
) -> None:
    package(source, scheduler)
    assert probes.vllm("our_hooks.Ours") == expected
    assert "our_hooks" not in sys.modules


def test_a_vllm_that_never_comes_up_is_given_up(package) -> None:
    package("import signal; signal.pause()")
    assert probes.vllm("our_hooks.Ours", 0.2) == Vllm("", "importing it took more than 0.2 s", "")


def test_the_sockets_are_the_users_or_else_the_usual_ones() -> None:
    assert probes.container_sockets({"DOCKER_HOST": "tcp://h:1", "XDG_RUNTIME_DIR": "/r"}) == ["tcp://h:1"]
    assert probes.container_sockets({"XDG_RUNTIME_DIR": "/r"}) == [
        "unix:///var/run/docker.sock",
        "unix:///r/docker.sock",
        "unix:///r/podman/podman.sock",
        "unix:///run/podman/podman.sock",
    ]
    assert probes.container_sockets({}) == ["unix:///var/run/docker.sock", "unix:///run/podman/podman.sock"]


class Daemon:
    """Answers one request on a Unix socket, or on a port of loopback."""

    def __init__(self, body: str, path: Path | None) -> None:
        self._body = body.encode()
        self._listener = socket.socket(socket.AF_INET if path is None else socket.AF_UNIX)
        self._listener.bind(("127.0.0.1", 0) if path is None else str(path))
        self._listener.listen()
        name = self._listener.getsockname()
        self.address = f"unix://{path}" if path is not None else f"tcp://{name[0]}:{name[1]}"
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connected, _ = self._listener.accept()
        with connected:
            self.request = connected.recv(4096).partition(b"\r\n")[0]
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(self._body)}\r\n\r\n"
            connected.sendall(head.encode() + self._body)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._thread.join()
        self._listener.close()
        assert self.request == b"GET /version HTTP/1.1"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"Version": "29.1", "Components": [{"Name": "Engine"}]}', "Docker 29.1 at {}"),
        ('{"Version": "4.3.1", "Components": [{"Name": "Podman Engine"}]}', "Podman 4.3.1 at {}"),
        ('{"message": "forbidden"}', ""),
        ("[]", ""),
        ("<html>", ""),
    ],
)
@pytest.mark.parametrize("on_path", [True, False])
def test_a_daemon_is_asked_for_its_version(tmp_path, body, expected, on_path) -> None:
    with Daemon(body, tmp_path / "d.sock" if on_path else None) as daemon:
        nobody = [f"unix://{tmp_path}/nobody.sock", "ssh://elsewhere", "tcp://127.0.0.1:port"]
        assert probes.container_daemon([*nobody, daemon.address]) == expected.format(daemon.address)


def test_free_disk_is_that_of_the_nearest_folder_that_exists(tmp_path) -> None:
    place, free = probes.free_disk(tmp_path / "not" / "yet")
    assert place == str(tmp_path)
    assert free > 0


def test_a_port_that_is_taken_cannot_be_listened_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert probes.listening(taken.getsockname()[1]) == os.strerror(errno.EADDRINUSE)
    assert probes.listening(0) == ""


def test_available_memory_is_the_kernels_word_or_what_is_free() -> None:
    meminfo = "MemTotal:       24000 kB\nMemFree:          100 kB\nMemAvailable:   20000 kB\n"
    assert probes.available_memory(meminfo, 7) == 20_000 * 1024
    assert probes.available_memory("MemFree: 100 kB\n", 7) == probes.available_memory(None, 7) == 7
    available, total = probes.memory()
    assert 0 < available <= total


def test_a_file_that_is_not_there_says_nothing(tmp_path) -> None:
    assert probes._text(str(tmp_path / "none")) is None

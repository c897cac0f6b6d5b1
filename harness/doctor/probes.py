"""The facts of this machine. Each probe returns what is there; what it means is judged elsewhere."""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.doctor.findings import Gpu, Vllm

VLLM_TIMEOUT_S = 120.0  # the first import on a slow disk
SHORT_TIMEOUT_S = 10.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

_TRY_VLLM = """\
import importlib, json, sys
out = sys.stdout
sys.stdout = sys.stderr
found = {"version": "", "error": "", "plugin_error": ""}
try:
    import vllm
    found["version"] = vllm.__version__
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
else:
    module, _, name = sys.argv[1].rpartition(".")
    try:
        getattr(importlib.import_module(module), name)
    except Exception as error:
        found["plugin_error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found), file=out)
"""


def python_version() -> str:
    """Of the interpreter that runs this."""
    return ".".join(map(str, sys.version_info[:3]))


def wanted_python() -> str:
    """What the metadata of thunderbench ask for; any, when it is not installed."""
    try:
        return metadata("thunderbench")["Requires-Python"] or ""
    except PackageNotFoundError:
        return ""


def requirements() -> list[str]:
    """What thunderbench needs, as its metadata say; empty when it is not installed."""
    try:
        return requires("thunderbench") or []
    except PackageNotFoundError:
        return []


def installed(names: Iterable[str]) -> dict[str, str | None]:
    """Package -> version, null when it is absent."""
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def gpus() -> tuple[list[Gpu] | None, str]:
    """What nvidia-smi lists, null when there is none; and why it failed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None, ""
    asked = [
        program,
        "--query-gpu=name,memory.total,memory.used,driver_version",
        "--format=csv,noheader,nounits",
    ]
    done = _run(asked, SHORT_TIMEOUT_S)
    if done is None or done.returncode != 0:
        return None, _complaint(done, "nvidia-smi", SHORT_TIMEOUT_S)
    return read_gpus(done.stdout), ""


def read_gpus(listed: str) -> list[Gpu]:
    """nvidia-smi's lines of name, memory and used memory in MiB, and driver; a share of a GPU has none."""
    rows = [[cell.strip() for cell in line.split(",")] for line in listed.splitlines() if line.strip()]
    return [Gpu(row[0], _mib(row[1]), _mib(row[2]), row[3]) for row in rows if len(row) == 4]


def _mib(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def vllm(scheduler_class: str, timeout_s: float = VLLM_TIMEOUT_S) -> Vllm | None:
    """Import vLLM and our scheduler for it in a process of their own; null when it is not installed."""
    if find_spec("vllm") is None:
        return None
    done = _run([sys.executable, "-c", _TRY_VLLM, scheduler_class], timeout_s)
    if done is None or done.returncode != 0:
        return Vllm("", _complaint(done, "importing it", timeout_s), "")
    return Vllm(**json.loads(done.stdout))


def _run(command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    """Null when it took too long; it is ended then."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)  # noqa: S603 - fixed programs
    except subprocess.TimeoutExpired:
        return None


def _complaint(done: subprocess.CompletedProcess[str] | None, what: str, timeout_s: float) -> str:
    if done is None:
        return f"{what} took more than {timeout_s:g} s"
    said = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return said[-1] if said else f"{what} ended with {done.returncode}"


def container_sockets(environment: Mapping[str, str]) -> list[str]:
    """Where a daemon may listen, the one that the user named alone when there is one."""
    named = environment.get("DOCKER_HOST")
    if named:
        return [named]
    runtime = environment.get("XDG_RUNTIME_DIR")
    own = [f"unix://{runtime}/docker.sock", f"unix://{runtime}/podman/podman.sock"] if runtime else []
    return ["unix:///var/run/docker.sock", *own, "unix:///run/podman/podman.sock"]


def container_daemon(addresses: Iterable[str]) -> str:
    """Name and version of the first daemon that answers; empty when none does."""
    for address in addresses:
        try:
            said = _ask_daemon(address)
        except (OSError, ValueError, http.client.HTTPException):
            continue
        if "Version" in said:
            kind = "Podman" if "podman" in json.dumps(said.get("Components", "")).lower() else "Docker"
            return f"{kind} {said['Version']} at {address}"
    return ""


def _ask_daemon(address: str) -> dict[str, Any]:
    """The answer to Docker's `/version` over a Unix socket or TCP; another scheme raises ValueError."""
    connected = _connected(address)
    connection = http.client.HTTPConnection("localhost")
    connection.sock = connected
    with closing(connection):
        connection.request("GET", "/version")
        said = json.loads(connection.getresponse().read())
    return said if isinstance(said, dict) else {}


def _connected(address: str) -> socket.socket:
    scheme, _, place = address.partition("://")
    if scheme in {"tcp", "http"}:
        host, _, number = place.partition(":")
        return socket.create_connection((host, int(number or 2375)), SHORT_TIMEOUT_S)
    if scheme != "unix":
        raise ValueError(address)
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(SHORT_TIMEOUT_S)
    try:
        connected.connect(place)
    except OSError:
        connected.close()
        raise
    return connected


def free_disk(folder: Path) -> tuple[str, int]:
    """The nearest folder that exists, and the bytes free there."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return str(place), shutil.disk_usage(place).free


def open_files() -> tuple[int, int]:
    """Soft and hard limit; -1 where there is none."""
    infinity = resource.RLIM_INFINITY
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return (-1 if soft == infinity else soft, -1 if hard == infinity else hard)


def listening(number: int) -> str:
    """Why a port of 127.0.0.1 (0: any) cannot be listened on; empty when it can."""
    with socket.socket() as trial:
        trial.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: old connections do not count
        try:
            trial.bind(("127.0.0.1", number))
            trial.listen()
        except OSError as error:
            return error.strerror or str(error)
    return ""


def memory() -> tuple[int, int]:
    """Bytes available, and in all."""
    pages = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_AVPHYS_PAGES")
    total, free = (count * os.sysconf("SC_PAGE_SIZE") for count in pages)
    return available_memory(_text("/proc/meminfo"), free), total


def available_memory(meminfo: str | None, otherwise: int) -> int:
    """Bytes, caches that can be dropped included, where the kernel says so."""
    for line in (meminfo or "").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return otherwise


def shared_memory() -> int | None:
    """Bytes of /dev/shm; null when there is none."""
    place = Path("/dev/shm")  # noqa: S108 - only its size is asked for
    return shutil.disk_usage(place).total if place.is_dir() else None


def clock_source() -> str | None:
    """The kernel's; null where it does not say."""
    text = _text("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    return text.strip() if text else None


def cpu() -> tuple[int, float]:
    """Cores that this process may use, and the load of the last minute."""
    return len(os.sched_getaffinity(0)), os.getloadavg()[0]


def browser() -> tuple[str | None, str | None]:
    """Where Chromium and chromedriver are."""
    return next(filter(None, map(shutil.which, BROWSERS)), None), shutil.which("chromedriver")


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return None

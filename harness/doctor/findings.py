"""What is made of the facts of a machine: one judge each, that sees nothing but what it is given.

`problem`: something that thunderbench is for will not work here. `note`: a part that some do not need is
missing, or a measurement may be worse for it. `mend` says what to do, and is empty where all is well.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

GIB = 1 << 30
LEAST_FILES = 8192  # 2,000 streams are 4,000 connections, and as many again while they are replaced
LEAST_DISK = GIB  # a study of some hundred runs
LEAST_MEMORY, GOOD_MEMORY = GIB, 4 * GIB
LEAST_SHM = GIB  # the processes of one vLLM server talk through it
BUSY_SHARE = 0.5  # of the cores: clients are late when they have to share
BUSY_GPU_SHARE = 0.05  # of a GPU's memory
FAST_CLOCKS = frozenset({"tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "xen", "arch_sys_counter"})


class Finding(NamedTuple):
    """What one check found."""

    name: str
    level: Literal["ok", "note", "problem"]
    found: str
    expected: str
    mend: str = ""


class Gpu(NamedTuple):
    """One GPU, as nvidia-smi lists it."""

    name: str
    memory_mib: int
    used_mib: int
    driver: str


class Vllm(NamedTuple):
    """vLLM in a process of its own; texts are empty where there is nothing to say."""

    version: str
    error: str  # why it cannot be imported
    plugin_error: str  # why its scheduler with our hooks cannot


def numbers(version: str) -> tuple[int, ...]:
    """The release of a version: `1.26.4rc1` is (1, 26, 4)."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def reaches(version: str, least: str) -> bool:
    """Whether a release is not below another: 2.0 reaches 2."""
    given, wanted = numbers(version), numbers(least)
    width = max(len(given), len(wanted))
    return given + (0,) * (width - len(given)) >= wanted + (0,) * (width - len(wanted))


def python(version: str, least: str) -> Finding:
    """`least` as package metadata say it: `>=3.11`."""
    if reaches(version, least.removeprefix(">=")):
        return Finding("Python", "ok", version, least)
    mend = f"Make the environment anew with Python {least.removeprefix('>=')} or later."
    return Finding("Python", "problem", version, least, mend)


def lower_bounds(requirements: Iterable[str]) -> dict[str, str]:
    """Package -> least version (may be empty) of everything that is required without an extra."""
    bounds = {}
    for requirement in requirements:
        text, _, marker = requirement.partition(";")
        name = re.match(r"\s*[\w.-]+", text)
        if name is not None and "extra" not in marker:
            least = re.search(r">=\s*([\w.]+)", text)
            bounds[name[0].strip()] = least[1] if least else ""
    return bounds


def dependencies(bounds: Mapping[str, str], installed: Mapping[str, str | None]) -> Finding:
    """`bounds`: package -> least version; `installed`: package -> version, null when it is absent."""
    expected = f"{len(bounds)} packages, none below its least version"
    if not bounds:
        mend = "Run `pip install -e .` in the folder of thunderbench."
        return Finding("dependencies", "problem", "thunderbench is not installed", "its metadata", mend)
    wrong = {}  # package -> what is wrong
    for name, least in bounds.items():
        version = installed[name]
        if version is None:
            wrong[name] = f"{name} is missing"
        elif not reaches(version, least):
            wrong[name] = f"{name} {version} is below {least}"
    if not wrong:
        return Finding("dependencies", "ok", f"{len(bounds)} packages", expected)
    named = " ".join(f"'{name}>={bounds[name]}'" if bounds[name] else name for name in wrong)
    mend = f"pip install --upgrade {named}"
    return Finding("dependencies", "problem", ", ".join(wrong.values()), expected, mend)


def gpus(found: Sequence[Gpu] | None, error: str) -> Finding:
    """Null: there is no nvidia-smi. `error`: it is there, and failed."""
    expected = "GPUs that are free, for servers of your own"
    if error:
        mend = "Mend the driver: `nvidia-smi` has to list the GPUs. In a container: --gpus all."
        return Finding("GPUs", "problem", error, expected, mend)
    if not found:
        mend = "None is needed for virtual time, for servers elsewhere, and for vLLM on the CPU."
        return Finding("GPUs", "note", "none", expected, mend)
    text = ", ".join(f"{gpu.name} {gpu.memory_mib / 1024:.0f} GiB" for gpu in found)
    text += f"; driver {found[0].driver}"
    busy = [i for i, gpu in enumerate(found) if gpu.used_mib > BUSY_GPU_SHARE * gpu.memory_mib]
    if busy:
        which = ", ".join(map(str, busy))
        mend = f"Somebody uses GPU {which}: end it, or leave it out with CUDA_VISIBLE_DEVICES."
        return Finding("GPUs", "note", f"{text}; in use: {which}", expected, mend)
    return Finding("GPUs", "ok", text, expected)


def vllm(found: Vllm | None, tested: Sequence[str]) -> Finding:
    """Null: it is not installed."""
    expected = f"vLLM {' or '.join(tested)}, which this was tested with"
    install = f"pip install 'vllm=={tested[-1]}'"
    if found is None:
        mend = f"Needed for --backend vllm and vllm-core only: {install}"
        return Finding("vLLM", "note", "not installed", expected, mend)
    if found.error:
        return Finding(
            "vLLM", "problem", f"cannot be imported: {found.error}", expected, f"{install}, anew"
        )
    if found.version.partition("+")[0] not in tested:
        mend = f"It may work; if its scheduler differs: {install}"
        return Finding("vLLM", "note", found.version, expected, mend)
    return Finding("vLLM", "ok", found.version, expected)


def plugin(found: Vllm | None, tested: Sequence[str]) -> Finding:
    """The scheduler with our hooks; it loads into a vLLM that can be imported."""
    expected = "loads into vLLM; `continuum` and other policies that pin need it"
    if found is None or found.error:
        return Finding("engine hooks", "note", "no vLLM to load into", expected, "See vLLM.")
    if found.plugin_error:
        mend = f"pip install 'vllm=={tested[-1]}', or take policies that need no hooks."
        return Finding("engine hooks", "problem", found.plugin_error, expected, mend)
    return Finding("engine hooks", "ok", "load", expected)


def containers(daemon: str, tried: Sequence[str]) -> Finding:
    """`daemon`: what answered, empty for none; `tried`: the sockets that were asked."""
    expected = "Docker or Podman, for tools in real sandboxes"
    if daemon:
        return Finding("containers", "ok", daemon, expected)
    mend = "Start it (`systemctl start docker`), join its group, or set DOCKER_HOST."
    return Finding("containers", "note", f"none at {', '.join(tried)}", expected, mend)


def disk(folder: str, free: int) -> Finding:
    """`free` in bytes, where the results go."""
    expected = f"{LEAST_DISK / GIB:.0f} GiB free for results"
    found = f"{free / GIB:.1f} GiB free at {folder}"
    if free >= LEAST_DISK:
        return Finding("disk", "ok", found, expected)
    return Finding(
        "disk", "problem", found, expected, "Remove old results, or give another folder with -o."
    )


def open_files(soft: int, hard: int) -> Finding:
    """Limits of this process; below 0 there is none. `serve` raises its soft limit to the hard one."""
    expected = f"more than {LEAST_FILES:,}: 2,000 streams need as many"
    if hard < 0 or hard > LEAST_FILES:
        most = "no limit" if hard < 0 else f"{hard:,}"
        found = most if soft == hard else f"{soft:,}, at most {most}"
        return Finding("open files", "ok", found, expected)
    mend = "Raise `nofile` in /etc/security/limits.conf (a container: --ulimit nofile=65536)."
    return Finding("open files", "problem", f"at most {hard:,}", expected, mend)


def loopback(error: str) -> Finding:
    """`error`: why no port of 127.0.0.1 could be had; empty when one could."""
    expected = "ports on 127.0.0.1"
    if not error:
        return Finding("loopback", "ok", "can be listened on", expected)
    return Finding("loopback", "problem", error, expected, "Bring it up: `ip link set lo up`.")


def port(number: int, error: str) -> Finding:
    """`error`: why the gateway's port could not be had."""
    expected = f"port {number} free for the gateway"
    if not error:
        return Finding("gateway port", "ok", f"{number} is free", expected)
    mend = f"End what listens there (`ss -ltnp 'sport = :{number}'`), or serve with another --port."
    return Finding("gateway port", "problem", f"{number}: {error}", expected, mend)


def memory(available: int, total: int) -> Finding:
    """Bytes."""
    expected = f"{GOOD_MEMORY / GIB:.0f} GiB available"
    found = f"{available / GIB:.1f} of {total / GIB:.1f} GiB available"
    if available >= GOOD_MEMORY:
        return Finding("memory", "ok", found, expected)
    mend = "End what uses it, or run fewer at a time (--jobs 1)."
    return Finding("memory", "note" if available >= LEAST_MEMORY else "problem", found, expected, mend)


def shared_memory(size: int | None) -> Finding:
    """Bytes of /dev/shm; null when there is none."""
    expected = f"{LEAST_SHM / GIB:.0f} GiB at /dev/shm, for vLLM's processes"
    if size is not None and size >= LEAST_SHM:
        return Finding("shared memory", "ok", f"{size / GIB:.1f} GiB", expected)
    found = "no /dev/shm" if size is None else f"{size / GIB:.2f} GiB"
    mend = "Start the container with --shm-size=8g or --ipc=host."
    return Finding("shared memory", "note", found, expected, mend)


def clock(source: str | None) -> Finding:
    """The kernel's clock source; null where it does not say."""
    expected = f"one that is read without a system call: {', '.join(sorted(FAST_CLOCKS))}"
    if source in FAST_CLOCKS:
        return Finding("clock", "ok", str(source), expected)
    mend = "Times cost more to take here; on bare metal boot with clocksource=tsc."
    return Finding("clock", "note", source or "unknown", expected, mend)


def cpu(cores: int, load: float) -> Finding:
    """Cores that this process may use, and the load of the last minute."""
    expected = "2 cores or more, mostly idle: one for the gateway or client"
    found = f"{cores} cores, load {load:.1f}"
    if cores < 2:
        mend = "Run the client on a machine of its own."
        return Finding("CPU", "note", found, expected, mend)
    if load > BUSY_SHARE * cores:
        mend = "Wait until the machine is idle before you measure: late clients make a run invalid."
        return Finding("CPU", "note", found, expected, mend)
    return Finding("CPU", "ok", found, expected)


def browser(chromium: str | None, driver: str | None) -> Finding:
    """Paths, null where there is none."""
    expected = "Chromium and chromedriver, for the tests of reports only"
    if chromium and driver:
        return Finding("browser", "ok", f"{chromium}, {driver}", expected)
    missing = [name for name, path in (("Chromium", chromium), ("chromedriver", driver)) if not path]
    mend = "Reports are written without them; for the tests: apt-get install chromium chromium-driver"
    return Finding("browser", "note", f"no {' and no '.join(missing)}", expected, mend)

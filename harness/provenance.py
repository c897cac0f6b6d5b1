"""Where results come from: what ran, on what, from which source, when. Never a secret, never a host."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# `tokens` are counted here all the time and never secret; a `token` is.
_SECRET_NAME = re.compile(r"key|token(?!s)|secret|passw(?:or)?d|credential", re.IGNORECASE)
_SECRET = re.compile(rf"((?:{_SECRET_NAME.pattern})[\w-]*[=:\s]\s*)\S+", re.IGNORECASE)
_LOGIN = re.compile(r"(?<=://)[^/\s@]+@")
_SHORTEST_SECRET = 6  # shorter values of such variables are words like `on`


def thunderbench_version() -> str:
    """Version of the installed distribution, `unknown` when it runs from a bare folder."""
    try:
        return version("thunderbench")
    except PackageNotFoundError:
        return "unknown"


def of_study(command: Sequence[str]) -> dict[str, Any]:
    """What all runs of a study share. `command` is the command line without the program."""
    return {
        "thunderbench_version": thunderbench_version(),
        "git_commit": _git_commit(),
        "python_version": platform.python_version(),
        "python_implementation": sys.implementation.name,
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "command": redacted(" ".join(["thunderbench", *command]), os.environ),
        "study_started_utc": utc_now(),
    }


def utc_now() -> str:
    """The wall clock, ISO 8601 in UTC, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def redacted(text: str, environment: Mapping[str, str]) -> str:
    """`text` without secrets.

    Gone are values of names that sound like one, values of such variables of the environment wherever
    they occur, and logins in addresses.
    """
    for name, value in environment.items():
        if _SECRET_NAME.search(name) and len(value) >= _SHORTEST_SECRET:
            text = text.replace(value, "***")
    return _LOGIN.sub("***@", _SECRET.sub(r"\1***", text))


def _git_commit() -> str | None:
    """Commit of our own checkout, marked when files differ from it; null outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        dirty = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if dirty else commit


def _git(root: Path, *args: str) -> str:
    git = ["git", "-C", str(root), *args]
    return subprocess.run(git, capture_output=True, text=True, check=True, timeout=10).stdout.strip()  # noqa: S603 - fixed words

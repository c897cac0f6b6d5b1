"""The small process that ends tools' commands when their harness is gone, however it went.

It reads `+GROUP` and `-GROUP` lines from a pipe whose other end the harness holds: process groups that
began and ended. When the pipe ends it kills the groups that are left, removes the folder that it was given,
and ends. Standard library only; started by its path, without site packages.

    python leash.py FOLDER
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress


def held(lines: Iterable[str]) -> set[int]:
    """The groups that began and did not end."""
    groups: set[int] = set()
    for line in lines:
        if line.startswith("+"):
            groups.add(int(line[1:]))
        else:
            groups.discard(int(line[1:]))
    return groups


def main(folder: str) -> None:
    """Wait for the pipe's end, then leave nothing."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the end of the pipe is what ends it
    for group in held(sys.stdin):
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])

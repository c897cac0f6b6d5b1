"""Why a server ended, from its log: the errors it names, without the noise around them.

vLLM repeats one failure in every process, each time with a traceback, under a prefix of process, level,
time and place. The first error named is the cause; a reader wants that line and where the log lies.
"""

from __future__ import annotations

import re
from pathlib import Path

TAIL_BYTES = 512 * 1024  # of a log; the end of a server fits many times
MOST_CAUSES = 3
LAST_LINES = 5
LONGEST = 400  # characters of one line

# (EngineCore pid=71) ERROR 11-21 06:29:16 [core.py:1510] text
_PREFIX = re.compile(r"^(?:\([^)]*\)\s*)?(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
_CAUSE = re.compile(
    r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt|OutOfMemory)\w*(?::.*)?$"  # the last line of a traceback
    r"|\S+: error: .+"  # argparse, and the warden
    r"|\S+: No module named .+"  # python -m
)
_RELAYED = ("See root cause above", "See stack trace for root cause")  # said by those who only heard of it


def last_lines(path: Path) -> list[str]:
    """The lines at the end of a log that are not empty, without vLLM's prefixes; none without a log."""
    if not path.exists():
        return []
    with path.open("rb") as log:
        log.seek(max(path.stat().st_size - TAIL_BYTES, 0))
        text = log.read().decode(errors="replace")
    lines = (_PREFIX.sub("", line).rstrip()[:LONGEST] for line in text.splitlines())
    return [line for line in lines if line]


def why(path: Path) -> str:
    """The errors that a log names, in their order, each once, or else its last lines; on one line."""
    lines = last_lines(path)
    causes = [line for line in lines if _CAUSE.match(line) and not any(r in line for r in _RELAYED)]
    told = list(dict.fromkeys(causes))[:MOST_CAUSES] or lines[-LAST_LINES:]
    return " | ".join(line.strip() for line in told) or "it wrote nothing"

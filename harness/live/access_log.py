"""The access log: one line of JSON per call, written when it is over.

Times are `time`, UTC when the call was over, and durations in seconds: `hold_s` until it was sent to a
replica, `ttft_s` until its first output token, `total_s` until its end; null where it did not come so far.
Token counts are the server's, or estimates where the server does not count. Keys and headers are
never logged, and bodies only when that was asked for.

A line that cannot be written (a full disk, a pipe that nobody reads) is lost, and said once: calls go on.
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

from harness.errors import SetupError
from harness.live.exchange import Ended
from harness.provenance import utc_now

logger = logging.getLogger(__name__)

STDOUT = "-"


class AccessLog:
    """Appends to the file at `place`, or writes to stdout. Raises `SetupError` when it cannot."""

    def __init__(self, place: str, *, bodies: bool = False) -> None:
        self._place, self._bodies = place, bodies
        self.lost = 0  # lines
        self._file = None
        if place != STDOUT:
            try:
                self._file = Path(place).open("ab", buffering=0)  # noqa: SIM115 - see close
            except OSError as error:
                raise SetupError(f"access log {place}: {error.strerror}", "a file to append to") from None

    def ended(self, ended: Ended) -> None:
        """A call is over."""
        entry = entry_of(ended)
        if self._bodies:
            entry["body"] = ended.body.decode("utf-8", "replace")
        line = json.dumps(entry, ensure_ascii=False) + "\n"
        try:
            if self._file is None:
                sys.stdout.write(line)
                sys.stdout.flush()
            else:
                self._file.write(line.encode("utf-8", "backslashreplace"))
        except OSError as error:
            if not self.lost:
                logger.error("access log %s: %s; lines are lost", self._place, error.strerror)  # noqa: TRY400
            self.lost += 1

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def entry_of(ended: Ended) -> dict[str, Any]:
    """What a line holds."""
    call = ended.call
    arrived, usage = call.arrived_s, call.usage

    def after(when: float | None) -> float | None:
        return None if when is None else round(when - arrived, 6)

    return {
        "time": utc_now(),
        "program": call.program_id,
        "call": call.call_id,
        "path": ended.path,
        "model": ended.model,
        "stream": ended.stream,
        "replica": None if call.placement is None else call.placement.replica,
        "status": ended.status or None,
        "end": call.end,
        "reason": call.reason or None,
        "prompt_tokens": None if usage is None else usage.prompt_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "cached_tokens": None if usage is None else usage.cached_tokens,
        "hold_s": after(call.placed_s),
        "ttft_s": after(call.first_token_s),
        "total_s": after(call.ended_s),
    }

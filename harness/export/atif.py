"""ATIF-v1.8 trajectories (Harbor): JSON lines, one trajectory per program, one agent step per call.

ATIF keeps one trajectory per file; a run has thousands, so each stands on a line of its own. Texts are
empty, as a run knows lengths only. `timestamp` is when the request reached the gateway. Times and waits
that ATIF has no field for are in `extra`, under our names, in seconds; the length of what a tool returned
is in `extra.observation_tokens` of its result.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

from harness.export.base import Source, compact
from harness.export.programs import Played
from harness.provenance import thunderbench_version
from harness.rows import CallRow, ToolRow

VERSION = "ATIF-v1.8"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TEXTS = "messages, tool arguments and observations: a run knows their lengths only, so texts are empty"
_ORDER = "calls that ran side by side: steps of a trajectory follow each other, in order of arrival"


class Atif:
    """See the module's text."""

    suffix = ".atif.jsonl"

    def write(self, source: Source, out: TextIO) -> None:
        """One line per program."""
        account = source.account
        for played in source.programs():
            out.write(compact(_trajectory(source, played)) + "\n")
            account.dropped[_TEXTS] += len(played.calls)
            account.kept["tool runs"] += sum(map(len, played.tools.values()))
            latest = 0.0
            for row in played.calls:
                account.estimated[_ORDER] += row.arrived_s < latest
                latest = max(latest, row.ended_s)


def _trajectory(source: Source, played: Played) -> dict[str, Any]:
    program, calls = played.program, played.calls
    return {
        "schema_version": VERSION,
        "session_id": program.program_id,
        "trajectory_id": program.program_id,
        "agent": {"name": "thunderbench", "version": thunderbench_version(), "model_name": source.model},
        "steps": [_step(source, number, row, played) for number, row in enumerate(calls, 1)],
        "final_metrics": {
            "total_prompt_tokens": sum(row.prompt_tokens for row in calls),
            "total_completion_tokens": sum(row.output_tokens for row in calls),
            "total_cached_tokens": _known_sum([row.cached_tokens for row in calls]),
            "total_steps": len(calls),
        },
        "extra": {
            "task_id": program.task_id,
            "arrived": _iso(source, program.arrived_s),
            "finished": None if program.finished_s is None else _iso(source, program.finished_s),
            "ended_at": program.ended_at,
            "pauses": program.pauses,
            "worst_wait_s": program.worst_wait_s,
        },
    }


def _known_sum(values: list[int | None]) -> int | None:
    """Their sum; null unless all are known."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _step(source: Source, number: int, row: CallRow, played: Played) -> dict[str, Any]:
    step: dict[str, Any] = {
        "step_id": number,
        "timestamp": _iso(source, row.arrived_s),
        "source": "agent",
        "model_name": source.model,
        "message": "",
        "metrics": {
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.output_tokens,
            "cached_tokens": row.cached_tokens,
            "extra": {
                "time_to_first_token_s": row.first_token_s - row.arrived_s,
                "known_tokens": row.known_tokens,
                "recomputed_tokens": row.recomputed_tokens,
                "preemptions": row.preemptions,
            },
        },
        "llm_call_count": 1,
        "extra": {
            "call_id": row.call_id,
            "replica": row.replica,
            "finished": _iso(source, row.finished_s),
            "hold_s": row.hold_s,
            "queue_s": row.queue_s,
            "prefill_s": row.prefill_s,
            "decode_s": row.decode_s,
            "sandbox_s": row.sandbox_s,
            "tool_s": row.tool_s,
        },
    }
    tools = played.tools.get(row.call_id)
    if tools:
        calls = [_tool_call(source, f"{row.call_id}/tool/{k}", tool) for k, tool in enumerate(tools)]
        step["tool_calls"] = [call for call, _ in calls]
        step["observation"] = {"results": [result for _, result in calls]}
    return step


def _tool_call(source: Source, name: str, tool: ToolRow) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tool call, and the result that goes into the observation."""
    times = {
        "started": _iso(source, tool.started_s),
        "duration_s": round(tool.finished_s - tool.started_s, 9),
    }
    call = {"tool_call_id": name, "function_name": tool.tool, "arguments": {}, "extra": times}
    seen = {"observation_tokens": tool.observation_tokens}
    return call, {"source_call_id": name, "content": "", "extra": seen}


def _iso(source: Source, seconds: float) -> str:
    """A time of the run in UTC, to the microsecond."""
    moment = _EPOCH + timedelta(microseconds=source.unix_ns(seconds) // 1000)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


WRITER = Atif()

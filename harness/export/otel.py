"""OpenTelemetry spans after the GenAI conventions: `{"spans": [...]}`, one span per line.

A program is a trace: a span `invoke_agent`, and below it a span `chat` per call and `execute_tool` per
tool run. Times are UNIX nanoseconds. Ids are hashes of the program, call and tool run and of the run
itself (its start), so exporting twice gives the same file. What the conventions have no name for is in
attributes `thunderbench.*`; what a run does not know has no attribute. (All of the GenAI conventions are
still in development.)
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, TextIO

from harness.export.base import Source, compact
from harness.export.programs import Played
from harness.rows import CallRow, ToolRow

_CONTENT = (
    "calls without what their prompts share with other programs: spans hold texts or nothing, and a run "
    "knows lengths"
)


class OTel:
    """See the module's text."""

    suffix = ".otel.json"

    def write(self, source: Source, out: TextIO) -> None:
        """The spans of each program: the program, then its calls, each followed by its tool runs."""
        out.write('{"spans": [')
        separator = "\n"
        for played in source.programs():
            for span in _Spans(source, played).spans():
                out.write(separator + compact(span))
                separator = ",\n"
            source.account.dropped[_CONTENT] += len(played.calls)
            source.account.kept["tool runs"] += sum(map(len, played.tools.values()))
        out.write("\n]}\n")


class _Spans:
    """The spans of one program."""

    def __init__(self, source: Source, played: Played) -> None:
        self.source, self.played = source, played
        self.trace_id = _hash(16, str(source.started_ns), played.program.program_id)
        self.root = _hash(8, self.trace_id)

    def spans(self) -> list[dict[str, Any]]:
        """All of them."""
        found = [self._program()]
        for row in self.played.calls:
            found.append(self._call(row))
            tools = self.played.tools.get(row.call_id, ())
            found += [self._tool(number, tool) for number, tool in enumerate(tools)]
        return found

    def _program(self) -> dict[str, Any]:
        program = self.played.program
        end_s = program.finished_s
        if end_s is None:  # as far as it got
            end_s = max(row.ended_s for row in self.played.calls)
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": program.task_id or "agent",
            "thunderbench.ended_at": program.ended_at,
            "thunderbench.pauses": program.pauses,
            "thunderbench.worst_wait_s": program.worst_wait_s,
        }
        return self._span("invoke_agent", self.root, None, program.arrived_s, end_s, attributes)

    def _call(self, row: CallRow) -> dict[str, Any]:
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": self.source.model,
            "gen_ai.response.id": row.call_id,
            "gen_ai.usage.input_tokens": row.prompt_tokens,
            "gen_ai.usage.output_tokens": row.output_tokens,
            "gen_ai.usage.cache_read.input_tokens": row.cached_tokens,
            "thunderbench.replica": row.replica,
            "thunderbench.time_to_first_token_s": row.first_token_s - row.arrived_s,
            "thunderbench.hold_s": row.hold_s,
            "thunderbench.queue_s": row.queue_s,
            "thunderbench.prefill_s": row.prefill_s,
            "thunderbench.decode_s": row.decode_s,
            "thunderbench.sandbox_s": row.sandbox_s,
            "thunderbench.known_tokens": row.known_tokens,
            "thunderbench.recomputed_tokens": row.recomputed_tokens,
            "thunderbench.preemptions": row.preemptions,
        }
        span_id = _hash(8, self.trace_id, row.call_id)
        name = f"chat {self.source.model}"
        return self._span(name, span_id, self.root, row.arrived_s, row.finished_s, attributes)

    def _tool(self, number: int, tool: ToolRow) -> dict[str, Any]:
        tool_call_id = f"{tool.call_id}/tool/{number}"
        attributes = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": tool.tool,
            "gen_ai.tool.call.id": tool_call_id,
            "thunderbench.call_id": tool.call_id,
            "thunderbench.observation_tokens": tool.observation_tokens,
        }
        span_id = _hash(8, self.trace_id, tool_call_id)
        name = f"execute_tool {tool.tool}"
        return self._span(name, span_id, self.root, tool.started_s, tool.finished_s, attributes)

    def _span(
        self,
        name: str,
        span_id: str,
        parent: str | None,
        start_s: float,
        end_s: float,
        attributes: dict[str, Any],
    ) -> dict[str, Any]:
        shared = {
            "gen_ai.provider.name": "thunderbench",
            "gen_ai.conversation.id": self.played.program.program_id,
        }
        return {
            "trace_id": self.trace_id,
            "span_id": span_id,
            "parent_span_id": parent,
            "name": name,
            "start_time": self.source.unix_ns(start_s),
            "end_time": self.source.unix_ns(end_s),
            "attributes": {k: v for k, v in attributes.items() if v is not None} | shared,
        }


def _hash(size: int, *names: str) -> str:
    """An id of `size` bytes in hex digits."""
    return blake2b("\0".join(names).encode(), digest_size=size).hexdigest()


WRITER = OTel()

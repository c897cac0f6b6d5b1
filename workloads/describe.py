"""What a workload looks like before anybody runs it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import fsum
from typing import Any

from workloads.base import Workload
from workloads.model import Program, Segment


@dataclass(frozen=True, slots=True)
class Spread:
    """Quantiles (straight lines between the ranks), mean and maximum of a set of numbers."""

    p10: float
    p50: float
    p90: float
    p95: float
    p99: float
    mean: float
    max: float

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Spread | None:
        """The spread of `numbers`; null when there are none."""
        ranked = sorted(numbers)
        if not ranked:
            return None
        p10, p50, p90, p95, p99 = (_quantile(ranked, share) for share in (0.1, 0.5, 0.9, 0.95, 0.99))
        return cls(p10, p50, p90, p95, p99, mean=_mean(ranked), max=float(ranked[-1]))


@dataclass(frozen=True, slots=True)
class WorkloadSummary:
    """The first `programs` programs of a workload; null where it has nothing of the kind.

    Tokens are per call unless the name says otherwise. `live_context_tokens` is the mean over
    programs of a program's mean prompt plus output over its calls: N programs at once want about N
    times as much KV cache. `hit_rate` is that of an infinite prefix cache over all programs, one after
    the other; `hit_rate_alone` has a cache for each program alone. Only whole blocks of `block_size`
    tokens hit, and never a prompt's last token, as in vLLM.
    """

    workload: str
    programs: int
    tasks: int
    calls: int
    block_size: int
    steps: Spread | None
    initial_prompt_tokens: Spread | None
    prompt_tokens: Spread | None
    new_tokens: Spread | None
    output_tokens: Spread | None
    final_context_tokens: Spread | None
    live_context_tokens: float
    tool_s: Spread | None
    timeout_share: float | None
    shared_prefix_tokens: int
    hit_rate: float
    hit_rate_alone: float
    sandbox_image_bytes: int
    sandbox_writable_bytes: int
    sandbox_programs: int
    prepare_alone_s: Spread | None
    prepare_s_per_peer: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def describe(workload: Workload, programs: int = 300, block_size: int = 16) -> WorkloadSummary:
    """Look at the first `programs` programs of `workload`.

    Sandbox bytes are those of all together: each image once, each program's own layer.
    """
    seen = [workload.program(index) for index in range(programs)]
    contexts = [_contexts(program) for program in seen]
    calls = [call for program in seen for call in program.calls]
    prompts = [prompt for per_program in contexts for prompt, _ in per_program]
    tools = [tool.duration_s for call in calls for tool in call.tools]
    boxes = [program.sandbox for program in seen if program.sandbox]
    together = PrefixTree()
    hits = sum(_hits(together, program, block_size) for program in seen)
    alone = sum(_hits(PrefixTree(), program, block_size) for program in seen)
    limit = workload.params.get("tool.timeout_s")
    return WorkloadSummary(
        workload=workload.name,
        programs=len(seen),
        tasks=len({program.task_id or program.program_id for program in seen}),
        calls=len(calls),
        block_size=block_size,
        steps=Spread.of(len(program.calls) for program in seen),
        initial_prompt_tokens=Spread.of(per_program[0][0] for per_program in contexts),
        prompt_tokens=Spread.of(prompts),
        new_tokens=Spread.of(_tokens(call.new) for call in calls if call.parent),
        output_tokens=Spread.of(call.output.tokens for call in calls),
        final_context_tokens=Spread.of(sum(per_program[-1]) for per_program in contexts),
        live_context_tokens=_mean([_mean([p + o for p, o in per_program]) for per_program in contexts]),
        tool_s=Spread.of(tools),
        timeout_share=None if limit is None or not tools else _mean([t >= limit for t in tools]),
        shared_prefix_tokens=_shared_prefix(seen),
        hit_rate=hits / max(1, sum(prompts)),
        hit_rate_alone=alone / max(1, sum(prompts)),
        sandbox_image_bytes=sum({box.image: box.image_bytes for box in boxes}.values()),
        sandbox_writable_bytes=sum(box.writable_bytes for box in boxes),
        sandbox_programs=len(boxes),
        prepare_alone_s=Spread.of(box.prepare_s + box.prepare_s_per_peer for box in boxes),
        prepare_s_per_peer=_mean([box.prepare_s_per_peer for box in boxes]) if boxes else None,
    )


class _Node:
    """Contexts that agree so far; `edges` lead on, by content key."""

    __slots__ = ("edges",)

    def __init__(self) -> None:
        self.edges: dict[str, _Edge] = {}


class _Edge:
    """A content seen at this place: its longest length, and what followed each whole length."""

    __slots__ = ("ends", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self.ends: dict[int, _Node] = {}


class PrefixTree:
    """All contexts so far, by content; finds the longest known prefix of a new one."""

    def __init__(self) -> None:
        self.root = _Node()

    def match(self, node: _Node, segments: Iterable[Segment]) -> int:
        """Tokens of `segments`, which follow `node`, that are known."""
        known = 0
        at: _Node | None = node
        for segment in segments:
            edge = at.edges.get(segment.key) if at else None
            if edge is None:
                break
            known += min(edge.tokens, segment.tokens)
            at = edge.ends.get(segment.tokens)
        return known

    def add(self, node: _Node, segments: Iterable[Segment], less: int = 0) -> _Node:
        """Put `segments` behind `node`, the last without its `less` last tokens; returns the end."""
        for segment in segments:
            edge = node.edges.setdefault(segment.key, _Edge())
            edge.tokens = max(edge.tokens, segment.tokens - less)
            node = edge.ends.setdefault(segment.tokens, _Node())
        return node


def _hits(tree: PrefixTree, program: Program, block: int) -> int:
    """Prompt tokens of `program` found in an infinite cache holding `tree`, which then holds it too.

    A call computes its prompt and its output but for the last token, so a child finds all of its
    parent's context but that token; the match starts at the end of the parent's prompt.
    """
    ends: dict[str, tuple[_Node, int]] = {}
    outputs: dict[str, Segment] = {}
    found = 0
    for call in program.calls:
        start, before = ends[call.parent] if call.parent else (tree.root, 0)
        behind = (outputs[call.parent], *call.new) if call.parent else call.new
        prompt = before + _tokens(behind)
        known = before + tree.match(start, behind)
        found += min(known, prompt - 1) // block * block
        end = tree.add(start, behind)
        tree.add(end, (call.output,), less=1)
        ends[call.call_id], outputs[call.call_id] = (end, prompt), call.output
    return found


def _contexts(program: Program) -> list[tuple[int, int]]:
    """Prompt and output tokens of each call."""
    whole: dict[str, int] = {}
    sizes = []
    for call in program.calls:
        prompt = (whole[call.parent] if call.parent else 0) + _tokens(call.new)
        whole[call.call_id] = prompt + call.output.tokens
        sizes.append((prompt, call.output.tokens))
    return sizes


def _shared_prefix(programs: Sequence[Program]) -> int:
    """Leading tokens that the first prompts of all programs have in common."""
    firsts = [program.calls[0].new for program in programs]
    shared = 0
    for place in zip(*firsts, strict=False):
        if len({segment.key for segment in place}) > 1:
            break
        shared += min(segment.tokens for segment in place)
        if len({segment.tokens for segment in place}) > 1:
            break
    return shared if len(programs) > 1 else 0


def _tokens(segments: Iterable[Segment]) -> int:
    return sum(segment.tokens for segment in segments)


def _mean(numbers: Sequence[float]) -> float:
    return fsum(numbers) / len(numbers) if numbers else 0.0


def _quantile(ranked: Sequence[float], share: float) -> float:
    place = share * (len(ranked) - 1)
    low = int(place)
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (place - low) * (ranked[high] - ranked[low])

"""What the plug-in knows of each program: its open requests, its last context, its counts.

A request belongs to the program named in `vllm_xargs` of its body. Of the request that ended last the
hashes of its whole blocks are kept, not its tokens: a hash finds the block as long as it is cached.

The engine's thread writes; `rows` may be called from another one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from harness.live.hook_messages import (
    MAX_NAME_CHARS,
    PROGRAM_ARGUMENT,
    SEGMENTS_ARGUMENT,
    Segment,
    parse_segments,
)

MAX_PROGRAMS = 4096  # remembered; then those longest unseen are forgotten
_REST_KIND = "thought"  # what follows the listed segments is what the model wrote


@dataclass(frozen=True, slots=True)
class Context:
    """Prompt and output of a request that ended: hashes of its blocks, and what it consists of."""

    hashes: Sequence[Any] = ()
    tokens: int = 0
    segments: tuple[Segment, ...] = ()

    def blocks_of(self, kind: str, block_size: int) -> list[int]:
        """Places of the whole blocks that hold a token of such a segment, in order."""
        places: set[int] = set()
        start = 0
        for segment in (*self.segments, Segment(_REST_KIND, self.tokens)):
            end = min(start + segment.tokens, self.tokens)
            if segment.kind == kind and end > start:
                places.update(range(start // block_size, -(-end // block_size)))
            start = end
        return sorted(place for place in places if place < len(self.hashes))


@dataclass(slots=True)
class _Program:
    requests: int = 0
    looked_up: int = 0  # prompt tokens
    found: int = 0
    preemptions: int = 0
    context: Context = field(default_factory=Context)
    open: dict[str, Any] = field(default_factory=dict)  # vLLM's requests by their id


class Programs:
    """All programs of one engine. `max_hashes` bounds what is kept of their contexts together."""

    def __init__(self, block_size: int, max_hashes: int) -> None:
        self._block_size, self._max_hashes = block_size, max_hashes
        self._programs: OrderedDict[str, _Program] = OrderedDict()  # last seen last
        self._new: dict[str, tuple[_Program, Any]] = {}  # requests not yet scheduled, by id
        self._hashes = 0  # kept
        self._lock = Lock()

    # ---------------------------------------------------------------- what happens

    def opened(self, request: Any, keep: Mapping[str, int]) -> None:
        """A request was added. Programs in `keep` are not forgotten."""
        name = program_of(request)
        if name is None:
            return
        with self._lock:
            program = self._programs.setdefault(name, _Program())
            self._programs.move_to_end(name)
            program.requests += 1
            program.open[request.request_id] = request
            self._new[request.request_id] = program, request
            self._forget(keep)

    def scheduled(self, new_requests: Iterable[Any]) -> None:
        """Of vLLM's `SchedulerOutput`: requests sent to the workers for the first time."""
        if not self._new:
            return
        for new in new_requests:
            known = self._new.pop(new.req_id, None)
            if known is not None:
                program, request = known
                program.looked_up += request.num_prompt_tokens
                program.found += new.num_computed_tokens

    def preempted(self, request: Any) -> None:
        """A request lost its blocks."""
        program = self._programs.get(program_of(request) or "")
        if program is not None:
            program.preemptions += 1

    def ended(self, request: Any) -> None:
        """A request ended, in whatever way; what it holds may be freed."""
        name = program_of(request)
        program = self._programs.get(name or "")
        if name is None or program is None:
            return
        # The last token is never computed by the request that made it, so a block that it fills is not
        # of this context; vLLM would not look it up either.
        whole = (request.num_tokens - 1) // self._block_size
        hashes = request.block_hashes[:whole]
        segments = parse_segments(request.sampling_params.extra_args.get(SEGMENTS_ARGUMENT))
        with self._lock:
            self._new.pop(request.request_id, None)
            program.open.pop(request.request_id, None)
            self._remember(program, Context(hashes, request.num_tokens, segments))
            self._programs.move_to_end(name)
            self._forget_contexts(program)

    # ---------------------------------------------------------------- what is asked

    def context(self, name: str) -> Context:
        """Of the program's request that ended last; empty when there is none."""
        program = self._programs.get(name)
        return Context() if program is None else program.context

    def waiting(self, name: str) -> list[Any]:
        """The program's requests that are not running."""
        program = self._programs.get(name)
        requests = () if program is None else program.open.values()
        return [r for r in requests if r.status.name != "RUNNING" and not r.is_finished()]

    def shared_blocks(self, name: str, context: Context, at_least: int) -> int:
        """Leading blocks of a context that contexts of other programs begin with; `at_least` where fewer.

        A hash stands for all that precedes it. So who agrees at one place agrees up to there.
        """
        for other, program in list(self._programs.items()):
            theirs, ours = program.context.hashes, context.hashes
            if other == name:
                continue
            most = min(len(theirs), len(ours))
            while at_least < most and theirs[at_least] == ours[at_least]:
                at_least += 1
        return at_least

    def rows(self, name: str | None, blocks_of: Mapping[str, int]) -> dict[str, dict[str, int]]:
        """Counts by program, of one or of all. May be called from another thread."""
        with self._lock:
            known = self._programs
            chosen = list(known.items()) if name is None else [(name, known[name])] if name in known else []
            return {
                key: {
                    "requests": program.requests,
                    "prompt_tokens": program.looked_up,
                    "cached_tokens": program.found,
                    "preemptions": program.preemptions,
                    "pinned_tokens": blocks_of.get(key, 0) * self._block_size,
                }
                for key, program in chosen
            }

    # ---------------------------------------------------------------- bounds

    def _remember(self, program: _Program, context: Context) -> None:
        self._hashes += len(context.hashes) - len(program.context.hashes)
        program.context = context

    def _forget(self, keep: Mapping[str, int]) -> None:
        """Forget the program longest unseen of which nothing is open or kept."""
        if len(self._programs) <= MAX_PROGRAMS:
            return
        for name, program in self._programs.items():
            if not program.open and name not in keep:
                self._remember(program, Context())
                del self._programs[name]
                return

    def _forget_contexts(self, newest: _Program) -> None:
        """Forget contexts of programs longest unseen while they are too large together.

        Far more hashes than there are blocks: what they stand for is long evicted.
        """
        if self._hashes <= self._max_hashes:
            return
        for program in self._programs.values():
            if program is not newest:
                self._remember(program, Context())
            if self._hashes <= self._max_hashes:
                return


def program_of(request: Any) -> str | None:
    """The program that a request of vLLM's names; null when none, or none that could be one."""
    parameters = request.sampling_params
    extra = None if parameters is None else parameters.extra_args
    name = extra.get(PROGRAM_ARGUMENT) if extra else None
    return name if isinstance(name, str) and 0 < len(name) <= MAX_NAME_CHARS else None

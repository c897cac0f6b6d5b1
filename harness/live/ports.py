"""What the live driver is connected to: the seams behind which real servers stand, or tests.

    clients --HTTP--> gateway --> relay --> LiveDriver --events--> policy
                                   |            |  `--actions--> Hooks (engine plug-in), Sandboxes
                                   `--> Upstream (servers)

A relay takes one call from its arrival to its end: it opens the call at the driver, waits until the policy
has placed it, sends it to that replica through `Upstream`, and tells the driver what came back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from schedulers.contract import Capability


class Usage(NamedTuple):
    """Token counts of a call as the server reports them; `cached_tokens` is null where it does not."""

    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


class Placement(NamedTuple):
    """The policy's decision about a call."""

    replica: str
    priority: int


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request to a replica. `path` begins with a slash and includes the query, if there is one."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Answer(Protocol):
    """What a replica answers. `chunks` may be read once; `close` must be called, also after an error.

    Header names keep the server's spelling; repeated headers stay repeated.
    """

    @property
    def status(self) -> int:
        """HTTP status."""
        ...

    @property
    def headers(self) -> list[tuple[str, str]]:
        """Headers as received, those of the connection itself (hop by hop) left out."""
        ...

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, in pieces of any size. Raises `UpstreamFailed` when it breaks off."""
        ...

    async def close(self) -> None:
        """Give the connection back, or cut it when the body was not read to its end."""
        ...


class UpstreamFailed(Exception):
    """A replica did not answer, or broke off. `reason` is one line; an outcome, not a bug."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UpstreamTimedOut(UpstreamFailed):
    """A replica was silent for too long."""


class Upstream(Protocol):
    """All replicas, by name."""

    async def send(self, replica: str, request: Outgoing) -> Answer:
        """Send a request; returns with the answer's head. Raises `UpstreamFailed`."""
        ...


class Hooks(Protocol):
    """What an engine can be told beyond taking requests. Never blocks; a message that is lost is logged.

    `for_s` are seconds from now: the engine has a clock of its own.
    """

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What every replica can do."""
        ...

    def pin(self, replica: str, program_id: str, for_s: float, *, yields: bool) -> None:
        """Keep what is cached of the context of the program's call that ended last."""
        ...

    def unpin(self, replica: str, program_id: str) -> None:
        """Undo `pin`."""
        ...

    def evict(self, replica: str, program_id: str, tail_tokens: int | None) -> None:
        """Drop the last tokens of the program's cached context, all of it when null."""
        ...

    def retain(self, replica: str, program_id: str, kind: str, priority: int, for_s: float) -> None:
        """Keep segments of a kind longer than others: higher `priority` stays longer."""
        ...


class Sandboxes(Protocol):
    """Whoever owns the programs' sandboxes."""

    def prepare(self, program_id: str) -> None:
        """Begin preparing; `LiveDriver.tell(SandboxReady(...))` follows."""
        ...

    def reclaim(self, program_id: str) -> None:
        """Remove it."""
        ...


@dataclass(slots=True)
class ReplicaMetrics:
    """What a server's `/metrics` says; null where it does not say. Totals count from its start."""

    running: int | None = None
    waiting: int | None = None
    kv_usage_share: float | None = None
    kv_tokens: int | None = None
    block_size: int | None = None
    queries_total: int | None = None
    hits_total: int | None = None
    preemptions_total: int | None = None
    prompt_tokens_total: int | None = None
    output_tokens_total: int | None = None
    offload_queries_total: int | None = None  # of a CPU tier (vllm:external_prefix_cache_*)
    offload_hits_total: int | None = None
    raw: dict[str, float] = field(default_factory=dict)  # every sample that was looked at, by its own name

    @property
    def kv_used_tokens(self) -> int | None:
        """Tokens in the KV cache that requests hold."""
        if self.kv_usage_share is None or self.kv_tokens is None:
            return None
        return round(self.kv_usage_share * self.kv_tokens)

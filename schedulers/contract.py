"""The contract between a scheduling policy and whatever drives it.

A policy is a pure function of events: `handle(event, now)` is its only door, it returns the actions to
carry out, in order. Events are facts in the past tense, actions are commands; both are frozen and made
of strings and numbers only, so that a run's whole decision log can be written down and replayed.
`now` is seconds on the run's own clock (virtual or monotonic) and never decreases between two events.

Nothing in this package reads a clock, draws a random number that was not handed in, or does I/O.
(This file is over our budget of 400 lines, so that every event and action is in one place.)
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any, ClassVar, Protocol, TypeAlias


class Capability(StrEnum):
    """What an engine can do beyond taking requests; a policy lists what it `needs`."""

    PRIORITY = "priority"
    PIN = "pin"
    EVICT = "evict"
    RETAIN = "retain"
    OFFLOAD = "offload"
    PREFETCH = "prefetch"
    REPLICATE = "replicate"
    PARTIAL_PREFILL = "partial_prefill"
    EARLY_TOOL = "early_tool"
    ENDLESS_KV = "endless_kv"  # a KV cache that nothing fills: a simulated engine's, for bounds


# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class ProgramArrived:
    """A program exists; its first call follows. `needs_sandbox`: its tools run in one."""

    program_id: str
    needs_sandbox: bool


@dataclass(frozen=True, slots=True)
class PromptSeen:
    """What the prompt of a call that is about to arrive consists of (optional; comes before it).

    The prompt is the context of the call `extends` (its prompt, then its output `output` of the
    `PromptSeen` of that call), or nothing where that is null, followed by `content`: segments as lines
    of `TOKENS KEY`. Two prompts share a prefix exactly as far as their segments agree in key, and of two
    segments with one key the shorter is a prefix of the longer. `output` is the key of what the call
    will generate.
    """

    program_id: str
    call_id: str
    extends: str | None
    content: str
    output: str


@dataclass(frozen=True, slots=True)
class CallArrived:
    """A request is at the gateway. `prompt_tokens` is the whole prompt, as well as it is known."""

    program_id: str
    call_id: str
    prompt_tokens: int


@dataclass(frozen=True, slots=True)
class CallDispatched:
    """The request was handed to the engine of `replica`."""

    program_id: str
    call_id: str
    replica: str


@dataclass(frozen=True, slots=True)
class FirstToken:
    """The first output token of a call came back."""

    program_id: str
    call_id: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """`tokens` more output tokens of a call came back (optional, only if the policy `observes` it).

    Told in lumps, just before each `Tick`: for every call in flight that got further since the last.
    """

    program_id: str
    call_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ToolCallParsed:
    """The arguments of a tool call are complete in the stream (optional); at the latest when it ends."""

    program_id: str
    call_id: str
    tool: str


@dataclass(frozen=True, slots=True)
class CallFinished:
    """A call ended well. Counts are the engine's `usage`; `cached_tokens` is null where not reported."""

    program_id: str
    call_id: str
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int | None


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A call ended without a result: refused, aborted by its client, or the engine failed."""

    program_id: str
    call_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ToolStarted:
    """A tool run began."""

    program_id: str
    call_id: str
    tool: str


@dataclass(frozen=True, slots=True)
class ToolProgressed:
    """A running tool reported `share` (0..1) of its work done (optional)."""

    program_id: str
    call_id: str
    tool: str
    share: float


@dataclass(frozen=True, slots=True)
class ToolFinished:
    """A tool run ended after `duration_s` seconds of its own time."""

    program_id: str
    call_id: str
    tool: str
    duration_s: float
    observation_tokens: int


@dataclass(frozen=True, slots=True)
class ProgramFinished:
    """All calls and tools of a program ended, or its client released it."""

    program_id: str


@dataclass(frozen=True, slots=True)
class SandboxReady:
    """A sandbox asked for with `PrepareSandbox` can run tools."""

    program_id: str


@dataclass(frozen=True, slots=True)
class ReplicaSampled:
    """Load of a replica as its engine reports it (optional)."""

    replica: str
    running: int
    waiting: int
    kv_used_tokens: int


@dataclass(frozen=True, slots=True)
class KvChanged:
    """`tokens` cached tokens of a program left (< 0) or entered (> 0) a replica's cache (optional).

    Counted are the leading tokens of the prompt that is about to arrive; told just before it arrives, so
    that a policy which adds them up knows for each replica what it would find there.
    """

    replica: str
    program_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class ReplicaUp:
    """A replica serves. `kv_tokens` is the capacity of its KV cache in tokens."""

    replica: str
    kv_tokens: int
    block_size: int


@dataclass(frozen=True, slots=True)
class ReplicaDown:
    """A replica is gone; its calls are reported as `CallFailed` one by one."""

    replica: str


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by `WakeAt` has come."""


Event: TypeAlias = (
    ProgramArrived
    | PromptSeen
    | CallArrived
    | CallDispatched
    | FirstToken
    | Decoded
    | ToolCallParsed
    | CallFinished
    | CallFailed
    | ToolStarted
    | ToolProgressed
    | ToolFinished
    | ProgramFinished
    | SandboxReady
    | ReplicaSampled
    | KvChanged
    | ReplicaUp
    | ReplicaDown
    | Tick
)

# ------------------------------------------------------------------ actions


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Hand a call to a replica. Smaller `priority` runs earlier where the engine queues by priority."""

    call_id: str
    replica: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Hold:
    """Keep a call at the gateway until a later `Dispatch`."""

    call_id: str


@dataclass(frozen=True, slots=True)
class Pause:
    """The program no longer counts as resident anywhere; its next calls are held."""

    program_id: str


@dataclass(frozen=True, slots=True)
class Resume:
    """The paused program belongs to `replica` from now on (held calls still need a `Dispatch`)."""

    program_id: str
    replica: str


@dataclass(frozen=True, slots=True)
class Pin:
    """Keep the program's cached blocks until `until` (seconds of the run's clock).

    A pin that `yields` also gives way to a waiting call for which memory is missing.
    """

    program_id: str
    until: float
    yields: bool = False


@dataclass(frozen=True, slots=True)
class Unpin:
    """Undo `Pin`."""

    program_id: str


@dataclass(frozen=True, slots=True)
class Evict:
    """Drop the last `tail_tokens` of the program's cached context, all of it when null."""

    program_id: str
    tail_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Retain:
    """Order eviction by segment kind: higher `priority` stays longer, for `ttl_s` seconds."""

    program_id: str
    kind: str
    priority: int
    ttl_s: float


@dataclass(frozen=True, slots=True)
class Offload:
    """Move the program's cached blocks to `tier`."""

    program_id: str
    tier: str


@dataclass(frozen=True, slots=True)
class Prefetch:
    """Bring the program's blocks back from `tier` to `replica`."""

    program_id: str
    replica: str
    tier: str


@dataclass(frozen=True, slots=True)
class Replicate:
    """Copy cached segments of `kind` to `replica`."""

    program_id: str
    kind: str
    replica: str


@dataclass(frozen=True, slots=True)
class PartialPrefill:
    """Prefill the first `tokens` tokens of the program's next prompt now."""

    program_id: str
    tokens: int


@dataclass(frozen=True, slots=True)
class StartTool:
    """Start a parsed tool before its call has ended."""

    call_id: str
    tool: str


@dataclass(frozen=True, slots=True)
class PrepareSandbox:
    """Begin preparing the program's sandbox."""

    program_id: str


@dataclass(frozen=True, slots=True)
class ReclaimSandbox:
    """Remove the program's sandbox and free its disk."""

    program_id: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Deliver a `Tick` at `time` (seconds of the run's clock), or one for several times that have come."""

    time: float


Action: TypeAlias = (
    Dispatch
    | Hold
    | Pause
    | Resume
    | Pin
    | Unpin
    | Evict
    | Retain
    | Offload
    | Prefetch
    | Replicate
    | PartialPrefill
    | StartTool
    | PrepareSandbox
    | ReclaimSandbox
    | WakeAt
)

# ------------------------------------------------------------------ policies


@dataclass(frozen=True, slots=True)
class NoConfig:
    """The `Config` of a policy without parameters."""


class Policy(Protocol):
    """What a scheduler is. Built as `PolicyClass(config, rng)`; `config` is a `PolicyClass.Config`.

    `Config` is a frozen dataclass with defaults (absent: `NoConfig`). `needs` are engine capabilities
    without which the policy is refused at start. `observes` names the optional, frequent events
    (`PromptSeen`, `Decoded`, `ToolCallParsed`, `ToolProgressed`, `ReplicaSampled`, `KvChanged`) that a
    driver delivers only when asked; an instance may observe more than its class, as its configuration
    wants. A policy with `manages_sandboxes` issues `PrepareSandbox` and
    `ReclaimSandbox` itself; without it, agents prepare their sandbox before their first call and
    nobody reclaims it.
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]]
    manages_sandboxes: ClassVar[bool]

    @property
    def observes(self) -> frozenset[type[Any]]:
        """Optional events to deliver."""
        ...

    def handle(self, event: Event, now: float) -> list[Action]:
        """Take one fact, return what to do.

        Raises `schedulers.errors.PolicyError` and changes nothing when the fact contradicts what went
        before.
        """
        ...

    def check_invariants(self) -> None:
        """Recompute every counter from first principles; raises AssertionError on a difference."""
        ...


class PolicyFactory(Protocol):
    """A policy class, as the registry returns it."""

    name: ClassVar[str]
    needs: ClassVar[frozenset[Capability]]
    observes: ClassVar[frozenset[type[Any]]]
    manages_sandboxes: ClassVar[bool]

    def __call__(self, config: Any, rng: Random) -> Policy:
        """Build the policy; `config` is an instance of the class's `Config`."""
        ...

"""What every replica and the agents hold at one instant."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.rows import SampleRow
from harness.virtual.agents import Agents
from harness.virtual.engine import Engine
from harness.virtual.sandbox import SandboxPool


def sample(
    now: float, engines: Mapping[str, Engine], agents: Agents, sandboxes: SandboxPool
) -> Iterator[SampleRow]:
    """One row per replica; the engines' counters are brought up to `now`."""
    for replica, engine in engines.items():
        load, c = engine.load(now), engine.counters
        yield SampleRow(
            time_s=now,
            replica=replica,
            running=load.running,
            waiting=load.waiting,
            held=agents.held,
            used_tokens=load.used_tokens,
            idle_cached_tokens=load.cached_tokens,
            capacity_tokens=load.capacity_tokens,
            queries_total=c.queries,
            hits_total=c.hits,
            preemptions_total=c.preemptions,
            evicted_blocks_total=c.evicted_blocks,
            stp_decode_total=c.stp_decode,
            stp_prefill_total=c.stp_prefill,
            stp_recompute_total=c.stp_recompute,
            stp_unused_total=c.stp_unused,
            stp_caching_total=c.stp_caching,
            programs_live=len(agents.live),
            sandboxes=sandboxes.count,
            sandbox_writable_bytes=sandboxes.writable_bytes,
            sandbox_image_bytes=sandboxes.image_bytes,
        )

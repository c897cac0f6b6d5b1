"""A row of samples from what a real server says of itself. What it does not say is null."""

from __future__ import annotations

from harness.live.ports import ReplicaMetrics
from harness.rows import SampleRow
from harness.virtual.sandbox import SandboxPool


def server_sample(
    now: float,
    replica: str,
    metrics: ReplicaMetrics,
    *,
    held: int | None,
    programs_live: int,
    sandboxes: SandboxPool | None = None,
) -> SampleRow:
    """The row of one replica at one instant; totals are the server's, from whenever it counts."""
    return SampleRow(
        time_s=now,
        replica=replica,
        running=metrics.running,
        waiting=metrics.waiting,
        held=held,
        used_tokens=metrics.kv_used_tokens,
        idle_cached_tokens=None,
        capacity_tokens=metrics.kv_tokens,
        queries_total=metrics.queries_total,
        hits_total=metrics.hits_total,
        preemptions_total=metrics.preemptions_total,
        evicted_blocks_total=None,
        stp_decode_total=None,
        stp_prefill_total=None,
        stp_recompute_total=None,
        stp_unused_total=None,
        stp_caching_total=None,
        programs_live=programs_live,
        sandboxes=0 if sandboxes is None else sandboxes.count,
        sandbox_writable_bytes=0 if sandboxes is None else sandboxes.writable_bytes,
        sandbox_image_bytes=0 if sandboxes is None else sandboxes.image_bytes,
    )

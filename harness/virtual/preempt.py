"""The step in which memory runs out: vLLM's loop over the running requests, one by one.

`fast.py` treats decoding requests as one batch. When the blocks a step needs are not there, order
matters: each running request in turn takes its block, and while there is none, the last of the running
(with priorities: the least urgent, wherever it stands, even one already scheduled in this step) is
preempted. A request that has to preempt itself ends the loop, and those after it sit the step out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.virtual.fast import FastEngine, Live


def run_with_preemption(engine: FastEngine) -> tuple[int, int, int]:
    """Schedule the running requests with preemption; returns new tokens, pairs, tokens read."""
    running = list(engine.running.values())
    decoding = [live for live in running if live.last_step >= 0]
    for live in decoding:
        engine.part(live)
        engine.enter(live, live.computed)
    scheduled = _schedule(engine, running)
    new = pairs = read = 0
    for live, (n, c) in scheduled.items():
        new += n
        pairs += n * c + n * (n + 1) // 2
        read += c + n
    stay = [live for live in decoding if live.order in engine.running]
    for live in stay:
        if live in scheduled:
            engine.join(live)
    engine.next_step()
    for live in stay:
        if live not in scheduled:
            engine.join(live)
    return new, pairs, read


def _schedule(engine: FastEngine, running: list[Live]) -> dict[Live, tuple[int, int]]:
    """Which requests the step takes: tokens scheduled and tokens computed before, in running order."""
    scheduled: dict[Live, tuple[int, int]] = {}
    budget = engine.options.max_num_batched_tokens
    i = 0
    while i < len(running) and budget:
        live = running[i]
        n = min(live.length - live.computed, budget)
        need = -(-(live.computed + n) // engine.options.block_size) - live.blocks
        while need > engine.pool.free:
            victim = running[-1]
            if engine.by_priority:
                victim = max(running, key=lambda v: (v.request.priority, v.request.arrived_s))
            at = running.index(victim)
            del running[at]
            i -= at < i
            budget += scheduled.pop(victim, (0, 0))[0]
            engine.preempt(victim)
            if victim is live:
                return scheduled
        scheduled[live] = (n, live.computed)
        if live is engine.partial:
            engine.advance(live, n)
        else:
            engine.pool.allocate(need)
            live.blocks += need
            engine.enter(live, live.computed + n)
        budget -= n
        i += 1
    return scheduled

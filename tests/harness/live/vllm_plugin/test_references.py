"""No reference to a block is ever lost, and none is given back twice, whatever is ordered and whenever.

The scheduler runs as it does under asynchronous scheduling: a step is planned before the outputs of the one
before it have come back.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from harness.live import hook_messages as say
from harness.virtual import vllm_setup
from tests.harness.live.hooked import HookedEngine, call, engine, hooked_vllm

pytestmark = pytest.mark.vllm
OPERATIONS = 1500
DRAINING = 5000  # steps
PROGRAMS = "abcdef"


@pytest.fixture(autouse=True)
def _hooked() -> Iterator[None]:
    with hooked_vllm():
        yield


class Pipeline:
    """A hooked scheduler with up to two steps under way, on twenty blocks of four tokens."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.engine: HookedEngine = engine("priority", kv_tokens=80)
        self.scheduler, self.hooks, self.pool = self.engine.scheduler, self.engine.hooks, self.engine.pool
        self.steps: deque[tuple[Any, dict[str, list[int]]]] = deque()
        self.now = 0.0
        self.hooks.clock = lambda: self.now
        self.names = iter(range(1 << 20))
        self.did: Counter[str] = Counter()

    def submit(self) -> None:
        program = self.random.choice(PROGRAMS)
        shared = (self.random.choice("st"), 4 * self.random.randrange(1, 5))
        one = call(
            f"{program}.{next(self.names)}",
            shared,
            (program, self.random.randrange(1, 30)),
            output=self.random.randrange(1, 12),
            priority=self.random.randrange(3),
        )
        self.engine.segments[one.call_id] = f"system_prompt:{shared[1]},task:9"
        self.scheduler.add_request(self.engine._request(one, one.prompt))

    def plan(self) -> None:
        output = self.scheduler.schedule()
        requests = self.scheduler.requests
        sampled = {
            name: [] if requests[name].is_prefill_chunk else [self.random.randrange(1000)]
            for name in output.num_scheduled_tokens
        }
        self.steps.append((output, sampled))

    def take(self) -> None:
        output, sampled = self.steps.popleft()
        names = list(sampled)
        self.scheduler.update_from_output(
            output,
            vllm_setup.load_vllm().ModelRunnerOutput(
                req_ids=names,
                req_id_to_index={name: index for index, name in enumerate(names)},
                sampled_token_ids=[sampled[name] for name in names],
            ),
        )

    def step(self) -> None:
        self.now += self.random.random()
        self.plan()
        if len(self.steps) > self.random.randrange(3):
            self.take()

    def abort(self) -> None:
        from vllm.v1.request import RequestStatus  # noqa: PLC0415 - see hooked.py

        if self.scheduler.requests:
            name = self.random.choice(list(self.scheduler.requests))
            self.scheduler.finish_requests(name, RequestStatus.FINISHED_ABORTED)

    def order(self) -> None:
        program, random = self.random.choice(PROGRAMS), self.random
        command: say.Command = random.choice(
            [
                say.Pin(program, random.choice([0.0, 1.0, 5.0, 1e9]), yields=random.random() < 0.5),
                say.Pin(program, 3.0, yields=False),
                say.Unpin(program),
                say.Evict(program, random.choice([None, 0, 5, 40])),
                say.Retain(program, random.choice(["system_prompt", "task", "thought"]), 1, 4.0),
                say.Order(program, random.randrange(3)),
            ]
        )
        self.hooks.order(command)

    def reset(self) -> None:
        """Once in a while, with what runs thrown out or not; a step under way keeps its blocks."""
        while self.steps:
            self.take()
        forced = self.random.random() < 0.5
        self.did["reset"] += bool(self.scheduler.reset_prefix_cache(reset_running_requests=forced))

    def drain(self) -> None:
        """To the end of every request, which comes within a bounded number of steps."""
        for _ in range(DRAINING):
            if self.scheduler.requests:
                self.plan()
            elif not self.steps:
                return
            self.take()
        pytest.fail(f"stuck: {self.scheduler.requests}")

    def holders(self) -> dict[int, int]:
        """Of every block but the null block: requests and pins that hold it."""
        blocks = self.scheduler.kv_cache_manager.coordinator.single_type_managers[0].req_to_blocks
        held = Counter(block.block_id for mine in blocks.values() for block in mine)
        held.update(block.block_id for kept in self.hooks.pins._kept.values() for block in kept.blocks)
        held.update(block.block_id for _, late in self.scheduler.deferred_frees for block in late)
        return {block.block_id: held[block.block_id] for block in self.pool.blocks if not block.is_null}


@pytest.mark.parametrize("seed", range(4))
def test_references_are_those_of_requests_and_pins_at_any_time_and_none_at_the_end(seed: int) -> None:
    one = Pipeline(seed)
    for _ in range(OPERATIONS):
        kind = one.random.choices(
            [one.submit, one.step, one.abort, one.order, one.reset], [4, 12, 1, 6, 0.3]
        )[0]
        kind()
        held = one.holders()
        assert {block.block_id: block.ref_cnt for block in one.pool.blocks if not block.is_null} == held
        assert one.pool.get_num_free_blocks() == sum(not count for count in held.values())
        one.did["pinned"] += len(one.hooks.pins) > 0
    one.drain()
    one.hooks.pins.drop_all()
    assert one.pool.get_num_free_blocks() == len(one.pool.blocks) - 1
    assert one.scheduler.reset_prefix_cache()
    rows = one.hooks.programs.rows(None, {})
    assert sum(row["preemptions"] for row in rows.values()) > 10
    assert min(one.hooks.pins.gave_way, one.hooks.pins.expired) > 10
    assert one.did["reset"] > 0
    assert one.did["pinned"] > 100

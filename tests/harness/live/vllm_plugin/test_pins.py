"""The book of kept blocks: every reference taken is given back once, and who gives way is in order."""

from __future__ import annotations

from collections import Counter
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from harness.live.vllm_plugin.pins import BlockPins
from tests.harness.live.vllm_plugin.pool import Pool

OWNERS = st.tuples(st.sampled_from("abc"), st.sampled_from(["", "task", "thought"]))
SPANS = st.tuples(st.integers(0, 7), st.integers(1, 4))


class Books(RuleBasedStateMachine):
    """Pins against what they must be: a plain record of who keeps which blocks until when."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = Pool(12)
        self.pins = BlockPins(self.pool)
        self.kept: dict[tuple[str, str], tuple[float, float, int, list[int], bool]] = {}
        self.number = 0
        self.now = 0.0

    @rule(owner=OWNERS, span=SPANS, for_s=st.integers(0, 3), yields=st.booleans(), rank=st.integers(0, 2))
    def keep(self, owner, span, for_s, yields, rank):
        program, kind = owner
        assert self.pins.drop(program, kind) == (self.kept.pop(owner, None) is not None)
        blocks = self.pool.blocks[span[0] : span[0] + span[1]]
        until_s, rank, yields = self.now + for_s, rank if kind else inf, yields or bool(kind)
        self.pins.keep(program, blocks, until_s, yields=yields, rank=rank, kind=kind)
        self.number += 1
        self.kept[owner] = -rank, until_s, self.number, [block.block_id for block in blocks], yields

    @rule(owner=OWNERS)
    def drop(self, owner):
        assert self.pins.drop(*owner) == (self.kept.pop(owner, None) is not None)

    @rule(yielding_only=st.booleans())
    def give_up(self, yielding_only):
        likely = {owner: kept for owner, kept in self.kept.items() if kept[4] or not yielding_only}
        assert self.pins.give_up(yielding_only=yielding_only) == bool(likely)
        if likely:
            del self.kept[max(likely, key=likely.__getitem__)]

    @rule(passed_s=st.integers(0, 2), waiting=st.sets(st.sampled_from("abc")))
    def expire(self, passed_s, waiting):
        self.now += passed_s
        self.pins.expire(self.now, waiting.__contains__)
        over = [o for o, kept in self.kept.items() if kept[1] <= self.now and o[0] not in waiting]
        for owner in over:
            del self.kept[owner]

    @rule(program=st.sampled_from("abc"), doomed=st.sets(st.integers(0, 11), max_size=5))
    def let_go(self, program, doomed):
        self.pins.let_go(program, doomed)
        for owner, kept in list(self.kept.items()):
            if owner[0] == program:
                left = [k for k in kept[3] if k not in doomed]
                self.kept[owner] = (*kept[:3], left, kept[4])
                if not left:
                    del self.kept[owner]

    @precondition(lambda self: self.kept)
    @rule()
    def drop_all(self):
        self.pins.drop_all()
        self.kept.clear()

    @invariant()
    def agrees(self):
        held = Counter(k for kept in self.kept.values() for k in kept[3])
        assert [block.ref_cnt for block in self.pool.blocks] == [held[k] for k in range(12)]
        assert len(self.pins) == len(self.kept)
        by_program: dict[str, set[int]] = {}
        for (program, _), kept in self.kept.items():
            by_program.setdefault(program, set()).update(kept[3])
        assert self.pins.blocks_of == {program: len(blocks) for program, blocks in by_program.items()}


TestBooks = Books.TestCase


@given(st.integers(1, 6))
def test_the_last_block_of_a_context_is_let_go_first(count: int) -> None:
    pool = Pool(count)
    pins = BlockPins(pool)
    pins.keep("a", pool.blocks, 1.0, yields=False)
    pins.drop("a")
    assert pool.freed == list(range(count))[::-1]

"""Sizes fit the server, and the plan says exactly what will be sent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.calibrate.plan import STRETCH, Plan, Room, Size, describe, make_plan
from harness.errors import SetupError

ROOM = Room(32768, 500_000, 8192, 64, 32768, 32768)


@given(
    st.integers(600, 200_000),
    st.one_of(st.none(), st.integers(8_000, 5_000_000)),
    st.integers(16, 65536),
    st.integers(4, 1024),
    st.integers(512, 200_000),
)
def test_nothing_is_planned_that_the_server_cannot_take(
    length: int, kv_tokens: int | None, budget: int, batch: int, prompt: int
) -> None:
    plan = make_plan(Room(length, kv_tokens, budget, batch, prompt, prompt), repeats=2, seed=0)
    for size in plan.sizes:
        assert size.prompt >= 1
        assert size.prompt + size.output <= length
        assert size.prompt <= prompt
        assert size.batch <= batch
        assert kv_tokens is None or max(size.batch, 1) * (size.prompt + size.output) <= kv_tokens
        if size.batch:
            assert size.output >= STRETCH + size.batch
    assert len(set(plan.sizes)) == len(plan.sizes)


def test_the_grid_is_geometric_up_to_what_is_allowed() -> None:
    plan = make_plan(ROOM, repeats=3, seed=0)
    prefills = [size.prompt for size in plan.sizes if not size.batch]
    assert prefills == [32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32767]
    assert {size.batch for size in plan.sizes} == {0, 1, 2, 4, 8, 16, 32, 64}
    assert Size(64, 1024, STRETCH + 8 + 8 + 128) in plan.sizes


def test_every_round_has_every_size_once_in_an_order_of_its_own() -> None:
    plan = make_plan(ROOM, repeats=3, seed=1)
    every, count = list(plan.rounds()), len(plan.sizes)
    rounds = [every[at : at + count] for at in range(0, len(every), count)]
    assert [sorted(each) for each in rounds] == [sorted(plan.sizes)] * 3
    assert rounds[0] != rounds[1] != rounds[2]
    assert list(make_plan(ROOM, repeats=3, seed=1).rounds()) == every
    assert list(make_plan(ROOM, repeats=3, seed=2).rounds()) != every


def test_what_is_sent_is_counted() -> None:
    plan = Plan((Size(0, 100, 1), Size(3, 10, 50)), 2, 0)
    assert plan.warmup() == (Size(0, 100, 1), Size(3, 10, 50))
    assert (plan.requests, plan.prompt_tokens, plan.output_tokens) == (15, 3 * 230, 3 * 152)
    assert describe(plan) == (
        "prefills: prompts of 100 tokens, each new and then cached",
        "decodes: 1 of batches 3 and contexts 10, as far as they fit",
        "2 rounds after a warm-up: at most 15 requests with 690 prompt and 456 output tokens",
    )


@pytest.mark.parametrize(
    "room",
    [
        ROOM._replace(max_model_len=100),
        ROOM._replace(kv_tokens=200),
        ROOM._replace(max_prompt=64),
        ROOM._replace(max_context=100),
        ROOM._replace(max_batch=1, max_context=1024),
    ],
)
def test_a_server_with_hardly_any_room_is_refused(room: Room) -> None:
    with pytest.raises(SetupError, match="room for at least 4 prompts and 4 batches"):
        make_plan(room, repeats=1, seed=0)

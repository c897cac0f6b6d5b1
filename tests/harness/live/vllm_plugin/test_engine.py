"""Orders and answers on vLLM's own scheduler, in virtual time: what is kept, gives way, is told."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf

import pytest

from harness.live import hook_messages as say
from tests.harness.live.hooked import cached, call, engine, hooked_vllm, order, traffic
from tests.harness.virtual.test_vllm_pins import finish

pytestmark = pytest.mark.vllm


@pytest.fixture(autouse=True)
def _hooked() -> Iterator[None]:
    with hooked_vllm():
        yield


# ------------------------------------------------------------------ pins


def test_a_pinned_context_outlives_what_would_evict_it() -> None:
    found = []
    for pinned in (True, False):
        one = engine()
        end = finish(one, 0.0, call("a.0", 12))
        if pinned:
            one.hooks.order(say.Pin("a", 100.0, yields=False))
        traffic(one, end)
        found.append(cached(one, ("a.0", 12)))
    assert found == [12, 0]


def test_a_pin_ends_at_its_deadline_unless_a_request_of_its_program_waits() -> None:
    """The ten blocks: two of c and three pinned ones of a leave five, too few for the next call of a."""
    one = engine(kv_tokens=40)
    now = 0.0
    one.hooks.clock = lambda: now
    finish(one, 0.0, call("a.0", 12))
    order(one, say.Pin("a", 5.0, yields=False))
    now = 5.0
    order(one)
    assert (len(one.hooks.pins), one.hooks.pins.expired) == (0, 1)

    finish(one, 0.0, call("a.1", 12))
    order(one, say.Pin("a", 5.0, yields=False))
    one.submit(call("a.2", 12), 0.0)
    now = 20.0
    order(one)
    assert len(one.hooks.pins) == 1  # a.2 waits
    one.begin(0.0)  # it is scheduled, and holds the blocks itself
    order(one)
    assert (len(one.hooks.pins), one.hooks.pins.expired) == (0, 2)


def test_the_latest_deadline_gives_way_first_and_what_is_retained_before_it() -> None:
    """Each keeps three of ten blocks; a call of seven blocks needs one more, one of eight two more..."""
    one = engine()
    for name in "abc":
        finish(one, 0.0, call(f"{name}.0", 12))
    order(
        one,
        say.Pin("a", 100.0, yields=False),
        say.Pin("b", 90.0, yields=False),
        say.Retain("c", "thought", 7, 50.0),
    )
    assert one.hooks.pins.blocks_of == {"a": 3, "b": 3, "c": 3}
    finish(one, 0.0, call("d", 16))
    assert one.hooks.pins.blocks_of == {"a": 3, "b": 3}
    finish(one, 0.0, call("e", 24))
    assert one.hooks.pins.blocks_of == {"b": 3}
    assert one.hooks.pins.gave_way == 2


def test_of_what_is_retained_the_lowest_priority_gives_way_first() -> None:
    one = engine()
    one.segments["a.0"] = "system_prompt:4,task:8"
    finish(one, 0.0, call("a.0", 12, output=5))
    order(
        one,
        say.Retain("a", "system_prompt", 3, 10.0),
        say.Retain("a", "task", 2, 90.0),
        say.Retain("a", "thought", 1, 5.0),
    )
    assert one.hooks.pins.blocks_of == {"a": 4}
    kept = []
    while one.hooks.pins.give_up(yielding_only=True):
        kept.append(dict(one.hooks.pins.blocks_of))
    assert kept == [{"a": 3}, {"a": 1}, {}]


def test_retaining_again_takes_the_place_of_what_was_retained_of_that_kind() -> None:
    one = engine()
    one.segments["a.0"] = "task:8"
    finish(one, 0.0, call("a.0", 8))
    order(
        one,
        say.Retain("a", "task", 1, 9.0),
        say.Retain("a", "task", 1, 9.0),
        say.Pin("a", 9.0, yields=True),
    )
    order(one, say.Pin("a", 9.0, yields=True), say.Unpin("a"))
    assert len(one.hooks.pins) == 1
    assert [block.ref_cnt for block in one.hooks.cached(one.hooks.programs.context("a"))] == [1, 1]


def test_an_order_about_a_program_that_is_unknown_changes_nothing() -> None:
    one = engine("priority")
    free = one.pool.get_num_free_blocks()
    order(
        one,
        say.Pin("x", 9.0, yields=True),
        say.Unpin("x"),
        say.Evict("x", None),
        say.Retain("x", "task", 1, 9.0),
        say.Order("x", 1),
    )
    assert (one.pool.get_num_free_blocks(), len(one.hooks.pins)) == (free, 0)


def test_a_reset_of_the_prefix_cache_ends_all_pins_those_on_their_way_too() -> None:
    one = engine()
    finish(one, 0.0, call("a.0", 12), call("b.0", 12))
    order(one, say.Pin("a", 9.0, yields=False))
    one.hooks.order(say.Pin("b", 9.0, yields=False))
    assert one.scheduler.reset_prefix_cache()
    assert (len(one.hooks.pins), cached(one, ("a.0", 12)), cached(one, ("b.0", 12))) == (0, 0, 0)
    order(one, say.Pin("a", 9.0, yields=False))
    assert len(one.hooks.pins) == 0


def test_a_flood_of_orders_does_not_hold_up_the_engine() -> None:
    """With a clock that goes on by 15 ms each time, two orders are followed between steps, in order."""
    one = engine()
    ticks = iter(range(1 << 20))
    one.hooks.clock = lambda: next(ticks) * 0.015
    finish(one, 0.0, call("a.0", 12))
    for for_s in (1.0, 2.0, 3.0):
        one.hooks.order(say.Pin("a", for_s, yields=False))
    waiting = []
    while not waiting or waiting[-1]:
        one.hooks.follow()
        waiting.append(len(one.hooks._orders))
    assert waiting == [1, 0]
    assert one.hooks.pins.blocks_of == {"a": 3}


# ------------------------------------------------------------------ eviction


@pytest.mark.parametrize(("tail", "left"), [(None, 0), (0, 12), (3, 12), (4, 8), (11, 4), (1 << 52, 0)])
def test_a_tail_is_evicted_by_whole_blocks_and_its_blocks_are_used_next(
    tail: int | None, left: int
) -> None:
    one = engine()
    finish(one, 0.0, call("a.0", 12), call("b.0", 12))
    doomed = one.hooks.cached(one.hooks.programs.context("a"))[left // 4 :]
    order(one, say.Pin("a", 9.0, yields=False), say.Evict("a", tail))
    assert (cached(one, ("a.0", 12)), cached(one, ("b.0", 12))) == (left, 12)
    assert one.hooks.pins.blocks_of == ({"a": left // 4} if left else {})
    assert one.pool.free_block_queue.get_all_free_blocks()[: len(doomed)] == doomed[::-1]


def test_what_another_program_shares_or_a_request_holds_is_not_evicted() -> None:
    one = engine()
    finish(one, 0.0, call("a.0", ("s", 8), 4), call("b.0", ("s", 8), 4))
    order(one, say.Evict("a", None))
    assert (cached(one, ("s", 8), ("a.0", 4)), cached(one, ("s", 8), ("b.0", 4))) == (8, 12)

    finish(one, 20.0, call("c.0", 12))
    one.submit(call("d.0", ("c.0", 12), 2, output=3), 40.0)
    one.begin(40.0)
    order(one, say.Evict("c", None))
    assert cached(one, ("c.0", 12)) == 12


# ------------------------------------------------------------------ order


def test_a_waiting_request_moves_up_when_its_program_is_ordered_to() -> None:
    """Ten blocks; a takes eight, so b and c wait, and only one of them runs after it at a time."""
    ends = []
    for hurried in (False, True):
        one = engine("priority")
        calls = [call("a.0", 27), call("b.0", 27, priority=1), call("c.0", 27, priority=2)]
        for each in calls:
            one.submit(each, 0.0)
        one.begin(0.0)
        if hurried:
            one.hooks.order(say.Order("c", 0))
        now = one.next_boundary
        while now < inf:
            one.complete(now)
            one.begin(now)
            now = one.next_boundary
        ends.append([each.finished_s for each in calls])
    assert ends == [[1.0, 2.0, 3.0], [1.0, 3.0, 2.0]]


def test_orders_for_a_queue_without_priorities_are_refused() -> None:
    one = engine("fcfs")
    with pytest.raises(say.BadMessage, match="--scheduling-policy priority"):
        one.hooks.answer(say.Order("a", 1))


# ------------------------------------------------------------------ what is told


def test_hello_says_what_this_engine_is_and_can() -> None:
    hello = engine("priority").hooks.answer(say.Hello())
    assert hello == {
        "hello": {
            "plugin": "thunderbench-hooks",
            "protocol": 1,
            "version": say.PLUGIN_VERSION,
            "vllm": "0.32.0",
            "tested_vllm": ["0.32.0"],
            "scheduling_policy": "priority",
            "block_size": 4,
            "gpu_blocks": 10,
            "capabilities": ["evict", "pin", "priority", "retain"],
            "lacks": "",
        }
    }


def test_counts_by_program() -> None:
    one = engine()
    first = call("a.0", 12, output=2)
    finish(one, 0.0, first)
    finish(one, 10.0, call("a.1", ("a.0", 12), ("a.0/out", 2), 3), call("b.0", ("a.0", 12)))
    order(one, say.Pin("a", 9.0, yields=False))
    row = {"requests": 2, "prompt_tokens": 29, "cached_tokens": 12, "preemptions": 0, "pinned_tokens": 16}
    assert one.hooks.answer(say.Stats("a")) == {
        "stats": {
            "programs": {"a": row},
            "pins": 1,
            "pins_expired": 0,
            "pins_given_up": 0,
            "orders_waiting": 0,
            "orders_followed": 1,
        }
    }
    everybody = one.hooks.answer(say.Stats())
    assert everybody is not None
    assert {name: row["cached_tokens"] for name, row in everybody["stats"]["programs"].items()} == {
        "a": 12,
        "b": 8,
    }


def test_preemptions_are_counted_and_a_lookup_only_once() -> None:
    """Five blocks, two calls of 7 + 6 tokens: the second is preempted (see test_vllm_core)."""
    one = engine(kv_tokens=20)
    finish(one, 0.0, call("a.0", 7, output=6), call("b.0", 7, output=6))
    answer = one.hooks.answer(say.Stats("b"))
    assert answer is not None
    assert answer["stats"]["programs"]["b"] == {
        "requests": 1,
        "prompt_tokens": 7,
        "cached_tokens": 0,
        "preemptions": 1,
        "pinned_tokens": 0,
    }


def test_requests_without_a_program_are_nobodys() -> None:
    one = engine()
    one.submit(call("a.0", 12), 0.0)
    one.scheduler.requests["a.0"].sampling_params.extra_args = None
    one.begin(0.0)
    one.complete(one.next_boundary)
    order(one, say.Pin("a", 9.0, yields=False))
    assert len(one.hooks.pins) == 0

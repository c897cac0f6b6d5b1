"""The fast engine on small cases worked out by hand. Every step takes a second.

That it agrees with vLLM in general is what `test_differential.py` shows; these need no vLLM and say
which rule is which.
"""

from math import inf

import pytest

from harness.errors import SetupError
from harness.virtual.engine import EngineOptions, EngineRequest, Piece
from harness.virtual.fast import FastEngine
from tests.harness.virtual.bag import ONE_SECOND_STEPS


def engine(blocks=100, **options):
    options = {"max_num_seqs": 8, "max_num_batched_tokens": 64, **options}
    return FastEngine(EngineOptions(blocks * 4, 4, **options), ONE_SECOND_STEPS)


def request(name, prompt, output, **more):
    pieces = prompt if isinstance(prompt, tuple) else (Piece(name, prompt),)
    return EngineRequest(name, pieces, Piece(f"{name}/out", output), **more)


def run(engine, *arrivals):
    """Submit (time, request) as the clock gets there; returns the names in order of completion."""
    arrivals = sorted(arrivals, key=lambda pair: pair[0])
    finished = []
    while arrivals or engine.next_boundary != inf:
        now = min(arrivals[0][0] if arrivals else inf, engine.next_boundary)
        begin = engine.next_boundary in (now, inf)
        if engine.next_boundary == now:
            finished += [done.call_id for done in engine.complete(now).finished]
        while arrivals and arrivals[0][0] == now:
            engine.submit(arrivals.pop(0)[1], now)
        if begin:
            engine.begin(now)
    return finished


def test_the_last_token_is_computed_even_when_all_is_cached():
    """16 tokens are 4 blocks, but only 3 may be hits: the model has to see a token to go on."""
    one = engine()
    first, again = request("a", 16, 1), request("b", (Piece("a", 16),), 1)
    run(one, (0.0, first), (5.0, again))
    assert (first.cached_tokens, again.cached_tokens) == (0, 12)
    assert (one.counters.queries, one.counters.hits) == (32, 12)


def test_what_is_generated_is_cached_up_to_its_last_token():
    """8 + 5 tokens: 12 have KV, three blocks; the next prompt finds them."""
    one = engine()
    first = request("a", 8, 5)
    follow = request("b", (*first.prompt, first.output, Piece("obs", 7)), 1, extends=first)
    run(one, (0.0, first), (9.0, follow))
    assert follow.prompt_tokens == 20
    assert follow.cached_tokens == 12
    assert follow.extends is None


def test_a_prompt_longer_than_the_budget_takes_several_steps_and_the_rest_waits():
    one = engine(max_num_batched_tokens=8)
    long, short = request("long", 20, 2), request("short", 4, 1)
    assert run(one, (0.0, long), (0.0, short)) == ["short", "long"]
    assert (long.first_token_s, short.scheduled_s) == (3.0, 2.0)
    assert (short.finished_s, long.finished_s) == (3.0, 4.0)


def test_running_requests_take_their_token_before_a_prompt_takes_the_rest():
    one = engine(max_num_batched_tokens=8)
    a, b = request("a", 4, 6), request("b", 14, 1)
    run(one, (0.0, a), (0.5, b))
    assert (b.scheduled_s, b.first_token_s) == (1.0, 3.0)  # 7 tokens a step beside a's one


def test_no_more_run_at_once_than_max_num_seqs():
    one = engine(max_num_seqs=2)
    names = run(one, *[(0.0, request(name, 4, 3)) for name in "abc"])
    assert names == ["a", "b", "c"]
    assert one.counters.steps == 6


def test_a_prompt_that_does_not_fit_beside_what_runs_waits_for_it():
    one = engine(blocks=6)
    a, b = request("a", 16, 3), request("b", 12, 1)
    run(one, (0.0, a), (0.0, b))
    assert b.scheduled_s == a.finished_s == 3.0


def test_the_last_of_the_running_is_preempted_and_keeps_what_is_not_overwritten():
    """Two requests of 8 tokens fill 4 of 5 blocks; both need a fifth at once, and only one gets it."""
    one = engine(blocks=5)
    a, b = request("a", 8, 6), request("b", 8, 6)
    assert run(one, (0.0, a), (0.0, b)) == ["a", "b"]
    assert (a.preemptions, b.preemptions) == (0, 1)
    assert one.counters.preemptions == 1
    assert b.first_token_s == 1.0
    assert b.scheduled_s == 0.0


def test_with_priorities_the_least_urgent_goes_first_into_the_queue_and_last_out():
    one = engine(blocks=5, scheduling_policy="priority")
    a, b = request("a", 8, 6, priority=5), request("b", 8, 6, priority=1)
    assert run(one, (0.0, a), (0.0, b)) == ["b", "a"]
    assert (a.preemptions, b.preemptions) == (1, 0)


def test_two_that_generate_the_same_content_both_keep_their_blocks():
    one = engine(blocks=20)
    same = [EngineRequest(name, (Piece("p", 8),), Piece("o", 9)) for name in "ab"]
    run(one, (0.0, same[0]), (0.0, same[1]))
    load = one.load(20.0)
    # both hold 4 blocks in the end: b shares the first, the rest was computed twice
    assert (load.used_tokens, load.cached_tokens) == (0, 28)


def test_a_call_cuts_a_stretch_of_steps_at_the_end_of_the_step_in_progress():
    one = engine()
    a, b = request("a", 4, 30), request("b", 4, 1)
    run(one, (0.0, a), (7.25, b))
    assert (b.arrived_s, b.scheduled_s, b.finished_s, a.finished_s) == (7.25, 8.0, 9.0, 30.0)


def test_load_looks_into_a_stretch_without_ending_it():
    one = engine()
    a = request("a", 4, 30)
    one.submit(a, 0.0)
    one.begin(0.0)
    one.complete(1.0)
    one.begin(1.0)
    boundary = one.next_boundary
    assert boundary == 30.0
    assert [one.load(t).used_tokens for t in (1.5, 5.5, 5.0, 9.5)][::3] == [8, 16]
    assert one.next_boundary == boundary


def test_five_costs_of_one_request():
    """A second of prefill with 2 blocks, then 4 of decoding that end with 3: on average 2.5."""
    one = engine(blocks=10)
    run(one, (0.0, request("a", 5, 5)))
    c = one.counters
    assert c.stp_prefill == 8.0
    assert c.stp_decode == 4 * 4 * 2.5
    assert c.stp_recompute == c.stp_caching == 0.0
    assert c.stp_prefill + c.stp_decode + c.stp_unused == pytest.approx(5 * 40)


def test_known_tokens_that_are_computed_again_are_recompute():
    one = engine(blocks=10)
    run(one, (0.0, request("a", 8, 1, known_tokens=6)))
    assert one.counters.stp_recompute == pytest.approx(8 * 6 / 8)
    assert one.counters.stp_prefill == pytest.approx(8 * 2 / 8)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EngineOptions(3, 4), "at least one block"),
        (EngineOptions(64, 4, max_num_seqs=8, max_num_batched_tokens=4), "at least max_num_seqs"),
    ],
)
def test_options_that_vllm_refuses_are_refused(options, words):
    with pytest.raises(SetupError, match=words):
        FastEngine(options, ONE_SECOND_STEPS)


def test_a_call_that_can_never_fit_is_refused_and_changes_nothing():
    one = engine(blocks=4)
    with pytest.raises(SetupError, match="needs 17 tokens of KV cache"):
        one.submit(request("a", 12, 5), 0.0)
    one.begin(0.0)
    assert one.next_boundary == inf
    assert one.load(1.0).waiting == 0

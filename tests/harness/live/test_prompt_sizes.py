"""Estimates of prompt lengths: exact where they can be, never negative, bounded in memory."""

import json

from hypothesis import given
from hypothesis import strategies as st

from harness.live.ports import Usage
from harness.live.prompt_sizes import PromptSizes
from harness.live.wire import look

USAGES = st.builds(Usage, st.integers(0, 10**7), st.integers(0, 10**6), st.none() | st.integers(0, 10**6))


def asked(size, model="m"):
    """A request whose prompt has `size` bytes (2 or more)."""
    raw = json.dumps({"model": model, "prompt": "x" * (size - 2)}).encode()
    looked = look("/v1/completions", raw)
    assert looked.prompt_bytes == size
    return looked


def counted(tokens):
    return Usage(tokens, 7, None)


def test_token_ids_are_counted_whatever_was_learned():
    sizes = PromptSizes()
    sizes.learn("p", asked(400), counted(1))
    assert sizes.estimate("p", look("/v1/completions", b'{"prompt":[1,2,3]}')) == 3


def test_token_ids_teach_nothing_about_text():
    sizes = PromptSizes()
    sizes.learn("p", look("/v1/completions", b'{"model":"m","prompt":[11111,22222,33333]}'), counted(3))
    assert sizes.estimate("p", asked(400)) == 100


def test_an_unknown_program_is_estimated_from_bytes():
    assert PromptSizes().estimate("p", asked(401)) == 101
    assert PromptSizes().estimate(None, look("/v1/completions", b"{}")) == 0


def test_a_known_program_has_its_last_prompt_and_what_was_added():
    sizes = PromptSizes()
    sizes.learn("p", asked(400), counted(200))  # 2 bytes a token: the mean becomes 3.6
    assert sizes.estimate("p", asked(760)) == 200 + 100
    assert sizes.estimate("other", asked(360)) == 100


def test_a_shorter_context_has_its_share():
    sizes = PromptSizes()
    sizes.learn("p", asked(400), counted(200))
    assert sizes.estimate("p", asked(100)) == 50


def test_the_ratio_is_a_weighted_mean_for_each_model():
    sizes = PromptSizes()
    for _ in range(2):
        sizes.learn(None, asked(900, "a"), counted(100))
    assert sizes.estimate(None, asked(1000, "a")) == -(-1000 // 5.8)  # 4 -> 5 -> 5.8
    assert sizes.estimate(None, asked(1000, "b")) == 250


def test_a_program_that_is_over_is_forgotten():
    sizes = PromptSizes()
    sizes.learn("p", asked(400), counted(100))
    assert sizes.estimate("p", asked(400)) == 100
    sizes.learn("p", asked(400), counted(399))
    sizes.forget("p")
    sizes.forget("never seen")
    assert sizes.estimate("p", asked(400)) < 200


def test_usage_without_a_prompt_teaches_nothing():
    sizes = PromptSizes()
    sizes.learn("p", asked(400), counted(0))
    sizes.learn("p", look("/v1/completions", b"{}"), counted(5))
    assert sizes.estimate("p", asked(400)) == 100


def test_memory_is_bounded_and_keeps_what_was_used_last():
    sizes = PromptSizes(programs_kept=2, models_kept=1)
    sizes.learn("a", asked(400), counted(7))
    sizes.learn("b", asked(400), counted(8))
    assert sizes.estimate("a", asked(400)) == 7
    sizes.learn("c", asked(400, "other"), counted(9))
    assert [sizes.estimate(name, asked(400)) for name in "abc"] == [7, 100, 9]
    assert (len(sizes._last), len(sizes._ratios)) == (2, 1)


@given(
    st.lists(st.tuples(st.sampled_from(["p", "q", None]), st.integers(2, 500), USAGES), max_size=20),
    st.integers(2, 500),
)
def test_estimates_are_never_negative_and_never_zero_for_a_prompt(calls, size):
    """Whatever servers say, an estimate is a whole number of at least one token."""
    sizes = PromptSizes()
    for program_id, before, usage in calls:
        sizes.learn(program_id, asked(before), usage)
    for program_id in ("p", "q", None, "unknown"):
        found = sizes.estimate(program_id, asked(size))
        assert type(found) is int
        assert found >= 1


@given(st.integers(2, 500), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_prompt_that_did_not_change_is_exact(size, tokens, before):
    sizes = PromptSizes()
    sizes.learn("p", asked(40), counted(before))
    sizes.learn("p", asked(size), counted(tokens))
    assert sizes.estimate("p", asked(size)) == tokens


@given(st.integers(2, 200), st.integers(0, 200), st.integers(1, 1000))
def test_a_longer_prompt_never_has_fewer_tokens(size, more, tokens):
    sizes = PromptSizes()
    sizes.learn("p", asked(100), counted(tokens))
    assert sizes.estimate("p", asked(size)) <= sizes.estimate("p", asked(size + more))

"""Contexts: prefix-exact, made once, and holding what was really generated."""

import json
from array import array

from hypothesis import given
from hypothesis import strategies as st

from harness.live.replay import prompts
from harness.live.replay.prompts import DEFAULT_VOCABULARY, FIRST_ID, Conversation, Heard, TokenPrompts
from tests.harness.virtual.bag import chain, segment
from workloads.model import Call


def ids_of(context):
    return json.loads(context.json())


def heard(*ids):
    return Heard(array("I", ids))


@given(st.lists(st.tuples(st.integers(1, 40), st.lists(st.integers(0, 10**6), min_size=1, max_size=9))))
def test_every_prompt_begins_with_the_one_before_and_what_was_generated(steps):
    conversation, before = Conversation(TokenPrompts()), []
    for k, (tokens, generated) in enumerate(steps):
        call = Call(
            f"p/{k}", f"p/{k - 1}" if k else None, (segment(f"new{k}", tokens),), segment(f"o{k}", 9)
        )
        context = conversation.prompt(call)
        ids = ids_of(context)
        assert ids[: len(before)] == before
        assert len(ids) == len(before) + tokens
        assert conversation.answered(call, context, heard(*generated))
        before = [*ids, *generated]


def test_ids_stay_inside_the_vocabulary_and_clear_of_its_markers():
    ids = ids_of(
        Conversation(TokenPrompts()).prompt(Call("c", None, (segment("k", 5000),), segment("o", 1)))
    )
    assert (min(ids), max(ids)) == (FIRST_ID, DEFAULT_VOCABULARY - 1)


def test_programs_share_what_they_share_by_key_and_the_shorter_is_a_prefix():
    dialect = TokenPrompts()
    first, second = (
        ids_of(Conversation(dialect).prompt(Call(name, None, new, segment(name, 1))))
        for name, new in (("a", (segment("system", 40),)), ("b", (segment("system", 25), segment("b", 9))))
    )
    assert second[:25] == first[:25]
    assert second[25:34] != first[25:34]


def test_branches_of_one_context_and_quotes_of_their_outputs():
    """Two calls extend one; a join extends the root and quotes both, one of them in part, one beyond."""
    conversation = Conversation(TokenPrompts())
    root = Call("r", None, (segment("task", 3),), segment("o", 2))
    context = conversation.prompt(root)
    conversation.answered(root, context, heard(11, 12))
    base = [*ids_of(context), 11, 12]
    for name, made in (("x", (21, 22, 23)), ("y", (31,))):
        call = Call(name, "r", (segment(name, 2),), segment(f"o{name}", 3))
        branch = conversation.prompt(call)
        assert ids_of(branch)[:5] == base
        conversation.answered(call, branch, heard(*made))
    join = Call("j", "r", (segment("ox", 2), segment("oy", 3)), segment("oj", 1))
    ids = ids_of(conversation.prompt(join))
    assert ids[:8] == [*base, 21, 22, 31]
    assert len(ids) == 10


def test_a_server_without_ids_gets_those_of_the_outputs_key_and_it_is_said():
    program = chain("p", 2, output=3, observation=4)
    conversation = Conversation(TokenPrompts())
    context = conversation.prompt(program.calls[0])
    assert conversation.answered(program.calls[0], context, heard()) is False
    again = Conversation(TokenPrompts())
    assert again.answered(program.calls[0], again.prompt(program.calls[0]), heard()) is False
    second = ids_of(conversation.prompt(program.calls[1]))
    assert second == ids_of(again.prompt(program.calls[1]))
    assert len(second) == 8 + 3 + 4


def test_beginnings_are_made_once_and_forgotten_when_they_grow_too_many(monkeypatch):
    made = []
    real = prompts.token_ids
    monkeypatch.setattr(prompts, "token_ids", lambda key, *rest: made.append(key) or real(key, *rest))
    monkeypatch.setattr(prompts, "_ROOTS_BYTES", 200)
    dialect = TokenPrompts()
    for key in ("a", "a", "b", "a", "c", "b"):  # some 30 ids of 4 bytes each: one fits beside another not
        Conversation(dialect).prompt(Call("c", None, (segment(key, 30),), segment("o", 1)))
    assert made == ["a", "b", "a", "c", "b"]


def test_many_pieces_of_text_are_kept_as_one():
    conversation = Conversation(TokenPrompts())
    call = Call("c", None, (segment("k", 2),), segment("o", 3))
    conversation.answered(call, conversation.prompt(call), Heard(array("I", [1]), ["a", "b", "c"]))
    assert conversation._heard == {"o": Heard(array("I", [1]), ["abc"])}

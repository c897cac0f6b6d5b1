"""Chat prompts: roles, text that is shared as content is, lengths by calibration."""

import json

import pytest

from harness.errors import SetupError
from harness.live.replay.chat import WORDS, Calibration, ChatPrompts, calibrated, probes, words
from harness.live.replay.prompts import Conversation, Heard
from tests.harness.virtual.bag import segment
from workloads.model import Call, Segment, SegmentKind


def messages_of(context):
    return json.loads(context.json())


def test_words_are_of_one_length_and_each_there_once():
    assert {len(word) for word in WORDS} == {4}
    assert len(set(WORDS)) == len(WORDS)


def test_roles_follow_kinds_and_neighbours_of_one_role_are_one_message():
    conversation = Conversation(ChatPrompts(Calibration()))
    system = Segment("s", SegmentKind.SYSTEM_PROMPT, 3)
    call = Call("c", None, (system, segment("tools", 2), segment("task", 2)), segment("o", 4))
    context = conversation.prompt(call)
    said = [
        {"role": "system", "content": words("s", 3)},
        {"role": "user", "content": words("tools", 2) + "\n" + words("task", 2)},
    ]
    assert messages_of(context) == said
    assert conversation.answered(call, context, Heard(text=["Hé", "llo"])) is True
    follower = Call("d", "c", (Segment("late", SegmentKind.SYSTEM_PROMPT, 1),), segment("p", 1))
    assert messages_of(conversation.prompt(follower)) == [
        *said,
        {"role": "assistant", "content": "Héllo"},
        {"role": "user", "content": words("late", 1)},
    ]


def test_an_output_that_is_quoted_is_its_real_text():
    conversation = Conversation(ChatPrompts(Calibration()))
    call = Call("c", None, (segment("task", 2),), segment("o", 4))
    conversation.answered(call, conversation.prompt(call), Heard(text=["real"]))
    quoting = Call("d", None, (segment("o", 4),), segment("p", 1))
    assert messages_of(conversation.prompt(quoting)) == [{"role": "user", "content": "real"}]


def test_an_answer_without_text_is_words_of_its_key_and_it_is_said():
    conversation = Conversation(ChatPrompts(Calibration(per_word=2.0)))
    call = Call("c", None, (segment("task", 2),), segment("o", 8))
    assert conversation.answered(call, conversation.prompt(call), Heard()) is False
    follower = Call("d", "c", (), segment("p", 1))
    assert messages_of(conversation.prompt(follower))[-1] == {"role": "assistant", "content": words("o", 4)}


def test_the_shorter_of_two_contents_is_a_prefix_of_the_longer():
    assert words("k", 90).startswith(words("k", 30) + " ")


def byte_tokens(messages):
    """A tokenizer of bytes whose template adds seven tokens to a message, and three to all."""
    return 3 + sum(7 + len(message["content"]) for message in messages)


def test_calibrated_lengths_come_near_the_plan():
    calibration = calibrated([byte_tokens(messages) for messages in probes()])
    assert calibration == Calibration(per_word=5.0, per_message=6.0)  # no space after a last word
    call = Call("c", None, (segment("a", 1000), segment("b", 500)), segment("o", 4))
    messages = messages_of(Conversation(ChatPrompts(calibration)).prompt(call))
    assert abs(byte_tokens(messages) - 1500) <= 5


def test_a_server_that_counts_no_prompt_tokens_is_refused():
    with pytest.raises(SetupError, match="counts 0 tokens in 50 words and 0 in 450"):
        calibrated([0, 0, 0])

"""Streams are read whatever their pieces are, and refused when they are none."""

from array import array
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live.ports import Usage
from harness.live.replay import events
from harness.live.replay.events import AnswerReader, BadStream, ServerError
from tests.harness.live.replay.scripted import DONE, event, tokens, usage

STREAM = (
    b": a comment\r\n"
    + event(choices=[{"text": "h\u00e9", "token_ids": [5], "prompt_token_ids": [1, 2, 3]}])
    + event(choices=[{"delta": {"role": "assistant", "content": "llo \U0001f600"}, "token_ids": [6, 7]}])
    + b"event: other\n\n"
    + usage(12, 3, 8)
    + DONE
)


@given(st.lists(st.integers(1, len(STREAM) - 1)))
def test_pieces_may_be_cut_anywhere(cuts):
    reader, edges = AnswerReader(), sorted({0, len(STREAM), *cuts})
    for start, end in pairwise(edges):
        reader.feed(STREAM[start:end])
    assert reader.end() == Usage(12, 3, 8)
    assert reader.heard.ids == array("I", [5, 6, 7])
    assert "".join(reader.heard.text) == "h\u00e9llo \U0001f600"


def test_output_begins_with_the_first_event_that_has_some():
    reader = AnswerReader()
    reader.feed(event(choices=[{"delta": {"role": "assistant", "content": ""}}]))
    assert not reader.spoke
    reader.feed(event(choices=[{"text": "", "token_ids": [0]}]))
    assert reader.spoke


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (tokens([1]) + usage(3, 1), "the stream ended in the middle"),
        (tokens([1], finish_reason="length"), "no usage in the stream"),
        (b"", "the stream ended in the middle"),
        (b'data: {"choices": [\n', "an event that is none"),
        (b'data: {"choices": [{"token_ids": ["a"]}]}\n', "an event that is none"),
        (b'data: {"choices": [{"text": "\xff"}]}\n', "an event that is n"),
    ],
)
def test_what_is_no_whole_stream_is_refused(stream, why):
    reader = AnswerReader()
    with pytest.raises(BadStream, match=why):  # noqa: PT012 - either may notice
        reader.feed(stream)
        reader.end()


def test_a_line_without_end_is_refused(monkeypatch):
    monkeypatch.setattr(events, "MAX_EVENT_BYTES", 100)
    reader = AnswerReader()
    reader.feed(b"x" * 60)
    with pytest.raises(BadStream, match="a line of more than 100 bytes"):
        reader.feed(b"x" * 60)


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ({"message": "too\nlong", "code": 400}, 400, "too long"),
        ({"message": "boom", "code": "x"}, 500, "boom"),
        ("died", 500, "died"),
    ],
)
def test_errors_told_in_the_stream_are_raised(error, status, words):
    with pytest.raises(ServerError, match=words) as raised:
        AnswerReader().feed(event(error=error))
    assert raised.value.status == status

"""Usage, tool calls and errors of whole answers, in every dialect."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live.ports import Usage
from harness.live.said import MOST_TOKENS, Read, one_line, read_body, usage_of


def answer(**fields):
    return json.dumps(fields).encode()


NAMED = {"function": {"name": "bash", "arguments": "{}"}}
CHAT = answer(
    choices=[
        {"message": {"content": "x", "tool_calls": None}, "logprobs": {"content": [1]}},
        {"message": {"content": None, "tool_calls": [NAMED, {"function": {"name": "edit"}}]}},
    ],
    usage={"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}},
)
RESPONSE = answer(
    error=None,
    output=[{"type": "message"}, {"type": "function_call", "name": "bash"}],
    usage={"input_tokens": 9, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 8}},
)
MESSAGE = answer(
    type="message",
    content=[{"type": "text", "text": "x"}, {"type": "tool_use", "name": "bash"}],
    usage={
        "input_tokens": 1,
        "output_tokens": 3,
        "cache_read_input_tokens": 6,
        "cache_creation_input_tokens": 2,
    },
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (CHAT, Read(Usage(9, 3, 8), ["bash", "edit"], None)),
        (RESPONSE, Read(Usage(9, 3, 8), ["bash"], None)),
        (MESSAGE, Read(Usage(9, 3, 6), ["bash"], None)),
        (answer(data=[], usage={"prompt_tokens": 4, "total_tokens": 4}), Read(Usage(4, 0, None), [], None)),
        (answer(choices=[], detail="x"), Read(None, [], None)),
        (
            answer(choices=3, usage={"prompt_tokens": 1, "completion_tokens": 2}),
            Read(Usage(1, 2, None), [], None),
        ),
        (answer(error={"message": "too long"}), Read(None, [], "too long")),
        (answer(object="error", message="too long"), Read(None, [], "too long")),
        (answer(message="fine"), Read(None, [], None)),
        (answer(detail=[{"loc": ["body"], "msg": "field required"}]), Read(None, [], "field required")),
        (answer(detail="Not Found"), Read(None, [], "Not Found")),
        (b"{}", Read(None, [], None)),
        (b"[]", Read(None, [], None)),
        (b"", Read(None, [], None)),
        (b'{"usage":', Read(None, [], None)),
        (b'{"output":' + b"[" * 100_000 + b"]" * 100_000 + b"}", Read(None, [], None)),
    ],
)
def test_answers_are_read(body, expected):
    assert read_body(body) == expected


def test_packed_answers_are_read_and_unknown_encodings_say_nothing():
    assert read_body(gzip.compress(CHAT), "gzip") == read_body(CHAT)
    assert read_body(CHAT, "br") == Read(None, [], None)
    assert read_body(CHAT, "gzip") == Read(None, [], None)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (None, None),
        ([], None),
        ({"prompt_tokens": 1}, None),
        ({"completion_tokens": 1}, None),
        ({"prompt_tokens": True, "completion_tokens": 1}, None),
        ({"prompt_tokens": -1, "completion_tokens": 1}, None),
        ({"prompt_tokens": 1.0, "completion_tokens": 1}, None),
        ({"prompt_tokens": 3, "total_tokens": 2}, None),
        ({"prompt_tokens": 3, "completion_tokens": None, "total_tokens": 5}, Usage(3, 2, None)),
        ({"prompt_tokens": 0, "completion_tokens": 0}, Usage(0, 0, None)),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 0}},
            Usage(1, 1, 0),
        ),
        (
            {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": None}},
            Usage(1, 1, None),
        ),
        ({"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": 3}, Usage(1, 1, None)),
        ({"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": None}, Usage(1, 1, None)),
    ],
)
def test_counts_that_are_none_are_absent_never_zero(told, expected):
    assert usage_of(told) == expected


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    ["usage", "error", "message", "choices", "content", "type", "name", "detail"]
                ),
                inner,
            )
        ),
        max_leaves=15,
    )
)
def test_any_answer_is_read_without_raising(value):
    read = read_body(json.dumps(value).encode())
    assert read.error is None or (read.error == " ".join(read.error.split()) and 0 < len(read.error) <= 300)
    assert all(isinstance(name, str) for name in read.tools)


def test_an_error_without_words_is_said_so():
    assert [one_line(error) for error in ({}, [], [[]], "", {"message": {}}, 7)] == [
        *["no reason given"] * 5,
        "7",
    ]


def test_counts_that_cannot_be_believed_count_as_absent():
    def told(count):
        return read_body(answer(usage={"prompt_tokens": count, "completion_tokens": 1})).usage

    assert told(MOST_TOKENS) == Usage(MOST_TOKENS, 1, None)
    assert [told(count) for count in (MOST_TOKENS + 1, 10**30, -1, 1.5, True)] == [None] * 5

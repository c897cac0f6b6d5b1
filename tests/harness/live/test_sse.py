"""What a client gets of a stream is what the server sent, and what it says is found, however it is cut."""

import gzip
import zlib
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from harness.live import sse
from harness.live.ports import Usage
from harness.live.sse import StreamWatcher, read_body
from tests.harness.live.streams import ALL, CHAT, COMPLETION, DONE, USAGE, chat, event, tool_call


class Found(NamedTuple):
    """All that a watcher knows at the end."""

    tokens_seen: int
    usage: Usage | None
    tools: list[str]
    done: bool
    error: str | None


def watched(chunks, *, hide_usage=False, encoding=""):
    """The pieces that the client gets, and what was found."""
    watcher = StreamWatcher(hide_usage, encoding)
    out = [watcher.feed(chunk) for chunk in chunks]
    out.append(watcher.end())
    return out, Found(watcher.tokens_seen, watcher.usage, watcher.tools, watcher.done, watcher.error)


def found(stream, **options):
    return watched([stream], **options)[1]


def cut(stream, places):
    """The stream in pieces, some of them empty."""
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


FULL = Usage(9, 3, 8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat", Found(5, FULL, ["bash", "edit"], True, None)),  # noqa: FBT003
        ("completion", Found(2, Usage(9, 3, None), [], True, None)),  # noqa: FBT003
        ("responses", Found(3, FULL, ["bash"], True, None)),  # noqa: FBT003
        ("anthropic", Found(2, FULL, ["bash"], True, None)),  # noqa: FBT003
    ],
)
def test_each_dialect_is_read(name, expected):
    assert found(ALL[name]) == expected


def test_chunks_are_handed_on_themselves_and_at_once():
    for stream in ALL.values():
        chunks = cut(stream, range(0, 4000, 7))
        out, _ = watched(chunks)
        assert all(a is b for a, b in zip(out, chunks, strict=False))
        assert out[-1] == b""


def test_only_the_usage_event_is_hidden():
    assert watched([CHAT], hide_usage=True)[0] == [CHAT.replace(chat(usage=USAGE), b""), b""]
    continuous = COMPLETION.split(b"\n\n")
    del continuous[3]
    assert watched([COMPLETION], hide_usage=True)[0] == [b"\n\n".join(continuous), b""]
    for name in ("responses", "anthropic"):
        assert watched([ALL[name]], hide_usage=True)[0] == [ALL[name], b""]


def test_what_is_no_usage_event_is_not_hidden():
    for stream in (
        event(choices=[], usage=None),
        event(choices=[]),
        event(usage=USAGE),
        event(choices=None, usage=USAGE),
        event(choices=[{"index": 0}], usage=USAGE),
        b'data: {"choices":[],"usage":{},}\n\n',
        b": " + chat(usage=USAGE)[6:],
    ):
        assert watched([stream], hide_usage=True)[0] == [stream, b""]


def test_an_incomplete_event_waits_only_while_usage_is_hidden():
    half = chat("a")[:20]
    assert watched([chat("b") + half], hide_usage=True)[0] == [chat("b"), half]
    assert watched([chat("b") + half])[0] == [chat("b") + half, b""]


def test_a_stream_that_ends_without_a_blank_line_is_read_to_its_end():
    usage = chat(usage=USAGE)[:-2]
    for rest in (usage, usage + b"\n", usage + b"\r"):
        out, known = watched([chat("a"), rest], hide_usage=True)
        assert (b"".join(out), known.usage) == (chat("a"), FULL)
    assert found(DONE.strip()).done


STREAMS = st.sampled_from([*ALL.values()])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
PLACES = st.lists(st.integers(0, 4000), max_size=30)


@given(STREAMS, ENDS, PLACES, st.booleans())
@example(CHAT, b"\r\n", range(2000), True)  # noqa: FBT003
@example(CHAT, b"\r", range(2000), True)  # noqa: FBT003
def test_cuts_change_nothing(stream, end, places, hide_usage):
    stream = stream.replace(b"\n", end)
    out, known = watched(cut(stream, places), hide_usage=hide_usage)
    whole_out, whole = watched([stream], hide_usage=hide_usage)
    assert (b"".join(out), known) == (b"".join(whole_out), whole)
    assert whole == found(stream.replace(end, b"\n"))


LINES = st.sampled_from(
    [
        *(
            b"\n",
            b"\r",
            b"\r\n",
            b"\n\n",
            b"data:",
            b"data: ",
            b"data: [DONE]",
            b": comment",
            b"\xef\xbb\xbf",
            b"\xff",
        ),
        *(chat("x"), chat(usage=USAGE), chat("x")[:-2], chat(usage=USAGE)[:-2], b'data: {"choices":[],'),
        *(
            b'data: "usage":{"prompt_tokens":1,',
            b'data:"completion_tokens":2}}',
            b'{"error":"e"}',
            b"id: 3",
        ),
    ]
)


@given(st.lists(LINES | st.binary(max_size=5), max_size=14).map(b"".join), PLACES, st.booleans())
def test_cuts_change_nothing_in_odd_streams(stream, places, hide_usage):
    out, known = watched(cut(stream, places), hide_usage=hide_usage)
    whole_out, whole = watched([stream], hide_usage=hide_usage)
    assert (b"".join(out), known) == (b"".join(whole_out), whole)
    assert hide_usage or b"".join(out) == stream


@given(
    st.binary(max_size=300), PLACES, st.booleans(), st.sampled_from(["", "gzip", "deflate", "br", "\u00e4"])
)
def test_garbage_passes_unchanged(stream, places, hide_usage, encoding):
    out, known = watched(cut(stream, places), hide_usage=hide_usage, encoding=encoding)
    assert b"".join(out) == stream
    assert known == Found(0, None, [], done=False, error=None)


# ------------------------------------------------------------------ lines


def test_data_may_span_lines_and_stand_among_others():
    stream = (
        b": keep-alive\n\n"
        b"id: 7\nevent: x\n"
        b'data: {"choices":[{"index":0,\n'
        b": in between\n"
        b'data:"delta":{"content":"a"}}],\n'
        b'data:  "usage":{"prompt_tokens":1,"completion_tokens":2}}\n\n'
        b"data\n\n"
        b'other: {"error":"no"}\n\n'
    )
    assert found(stream) == Found(1, Usage(1, 2, None), [], done=False, error=None)


def test_a_byte_order_mark_before_the_first_line_is_none_of_it():
    assert found(b"\xef\xbb\xbf" + chat("x")).tokens_seen == 1
    assert found(chat("x") + b"\xef" + chat("x")).tokens_seen == 1


def test_a_carriage_return_ends_a_line_also_in_the_middle_of_an_event():
    stream = chat("x").replace(b": [", b":\r [")
    assert found(stream) == Found(0, None, [], done=False, error=None)
    assert found(stream.replace(b"\r", b"\rdata:")).tokens_seen == 1


def test_invalid_utf8_passes_and_does_not_hide_usage_from_us():
    usage = b'{"prompt_tokens":1,"completion_tokens":2}'
    stream = b'data: {"choices":[{"delta":{"content":"\xff"}}],"usage":%b}\n\n' % usage
    out, known = watched([stream], hide_usage=True)
    assert (out, known.usage) == ([stream, b""], Usage(1, 2, None))


# ------------------------------------------------------------------ bounds


@given(st.integers(190, 210), PLACES, st.booleans(), ENDS)
def test_beyond_an_event_too_long_everything_passes_unread(size, places, hide_usage, end):
    """The longest event that is read has 200 bytes, cut or whole."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sse, "LONGEST_EVENT_BYTES", 200)
        read_around_the_longest(size, places, hide_usage, end)


def test_an_event_too_long_is_not_read_when_it_is_a_chunk_of_its_own(monkeypatch):
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 200)
    long = chat("x" * (201 - len(chat(""))))
    assert watched([long, chat("y")], hide_usage=True) == ([long, chat("y"), b""], found(b""))
    assert found(long.replace(b"x", b"", 1)).tokens_seen == 1


def read_around_the_longest(size, places, hide_usage, end):
    event = chat("x").replace(b"\n", end)
    long = event.replace(b'"x"', b'"%b"' % (b"x" * (size - len(event) + 1)))
    assert len(long) == size
    stream = event + long + chat(usage=USAGE)
    out, known = watched(cut(stream, places), hide_usage=hide_usage)
    if size > 200:
        assert (b"".join(out), known.tokens_seen, known.usage) == (stream, 1, None)
    else:
        expected = event + long if hide_usage else stream
        assert (b"".join(out), known.tokens_seen, known.usage) == (expected, 2, FULL)


def test_a_line_of_many_pieces_is_read():
    """Of an event in 20,000 pieces each is looked at once; it would not end otherwise."""
    long = chat("x" * 1_000_000)
    assert found(long) == watched(cut(long, range(0, len(long), 50)))[1]
    assert found(long).tokens_seen == 1


def test_after_the_end_bytes_pass():
    watcher = StreamWatcher(hide_usage=True)
    watcher.end()
    assert watcher.feed(chat(usage=USAGE)) == chat(usage=USAGE)
    assert (watcher.usage, watcher.end()) == (None, b"")


# ------------------------------------------------------------------ output, tools, errors


@pytest.mark.parametrize(
    ("stream", "tokens"),
    [
        (chat("", role="assistant"), 0),
        (chat("x"), 1),
        (chat(reasoning="x"), 1),
        (chat(reasoning_content="x"), 1),
        (chat(refusal="x"), 1),
        (chat(tool_calls=[]), 0),
        (event(choices=[{"delta": {"content": ""}}, {"delta": {"content": "x"}}]), 1),
        (event(choices=[{"index": 0, "delta": None, "text": "x"}]), 1),
        (event(choices=[{"index": 0, "delta": "x"}]), 0),
        (event(choices=3), 0),
        (event(type="response.output_text.delta", delta=""), 0),
        (event(type="content_block_delta", delta="x"), 0),
        (event(type=3, delta="x"), 0),
        (b"data: 7\n\n", 0),
        (b'data: "x"\n\n', 0),
    ],
)
def test_events_with_output_are_counted(stream, tokens):
    assert found(stream) == Found(tokens, None, [], done=False, error=None)


def test_a_tool_call_begins_once_for_each_index_and_choice():
    stream = tool_call(0, "a") + tool_call(0, "a") + tool_call(0, "b", choice=1) + tool_call(1, "c")
    assert found(stream).tools == ["a", "b", "c"]
    without = event(choices=[{"delta": {"tool_calls": [{"function": {"name": "a"}}, {"function": None}]}}])
    assert found(without * 2).tools == ["a", "a"]


@pytest.mark.parametrize(
    ("stream", "error", "done"),
    [
        (event(error={"message": "out\nof  memory", "code": 500}), "out of memory", False),
        (event(error="plain") + event(error="second"), "plain", False),
        (event(error={"type": "overloaded"}), "overloaded", False),
        (event(error={"message": "", "code": 503}), "503", False),
        (event(error={}), "no reason given", False),
        (event(name="error", type="error", error={"type": "api_error", "message": "bad"}), "bad", False),
        (event(type="error", code="x", message="bad"), "bad", False),
        (event(type="response.failed", response={"error": {"message": "bad"}}), "bad", True),
        (event(type="response.incomplete", response={"error": None}), None, True),
        (event(choices=3, error="odd"), "odd", False),
        (event(error=None), None, False),
        (event(error={"message": "x" * 400}), "x" * 300, False),
    ],
)
def test_errors_become_one_line(stream, error, done):
    assert found(stream) == Found(0, None, [], done, error)


def test_usage_comes_in_parts_and_null_says_nothing():
    told = event(
        usage={"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}
    )
    assert found(told + event(usage=None) + event(usage={"completion_tokens": 2})).usage == Usage(5, 2, 4)
    assert found(event(usage={"prompt_tokens": 5})).usage is None
    assert found(event(choices=3, usage={"prompt_tokens": 5, "completion_tokens": 1})).usage == Usage(
        5, 1, None
    )


# ------------------------------------------------------------------ packed


def packed(data, wbits):
    pack = zlib.compressobj(wbits=wbits)
    return pack.compress(data) + pack.flush()


PACKED = {
    "gzip": gzip.compress(CHAT),
    "X-GZIP": gzip.compress(CHAT[:300]) + gzip.compress(CHAT[300:]),
    "deflate": packed(CHAT, zlib.MAX_WBITS),
    " deflate": packed(CHAT, -zlib.MAX_WBITS),
}


@given(st.sampled_from([*PACKED]), PLACES)
def test_packed_streams_are_read_and_pass_packed(encoding, places):
    chunks = cut(PACKED[encoding], places)
    out, known = watched(chunks, hide_usage=True, encoding=encoding)
    assert out == [*chunks, b""]
    assert known == found(CHAT)


def test_of_an_unknown_encoding_nothing_is_read():
    assert found(CHAT, encoding="br") == Found(0, None, [], done=False, error=None)
    assert found(CHAT, encoding="identity") == found(CHAT)


def test_a_stream_that_unpacks_to_too_much_is_read_no_further(monkeypatch):
    monkeypatch.setattr(sse, "LONGEST_EVENT_BYTES", 200)
    bomb = gzip.compress(b"x" * 100_000)
    watcher = StreamWatcher(hide_usage=False, encoding="gzip")
    assert watcher.feed(gzip.compress(chat("a"))) == gzip.compress(chat("a"))
    assert watcher.feed(bomb) == bomb
    assert watcher.feed(gzip.compress(chat("b"))) == gzip.compress(chat("b"))
    assert watcher.tokens_seen == 1


def test_the_reader_of_whole_answers_is_at_hand():
    assert read_body(b'{"error":"x"}').error == "x"

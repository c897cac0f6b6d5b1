"""Answers are read as RFC 9112 says, however the bytes were cut; what is no answer is refused."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live.http1 import (
    MAX_CHUNK_LINE_BYTES,
    MAX_HEAD_BYTES,
    MAX_INTERIM,
    AnswerParser,
    BadAnswer,
    Head,
)

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=8)
cuts = st.lists(st.integers(0, 600), max_size=12)


def pieces(data, at):
    places = sorted({0, len(data), *(place for place in at if place < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


def read(data, method="POST", at=()):
    parser = AnswerParser(method)
    body = b"".join(parser.feed(piece) for piece in pieces(data, at))
    return parser, body


@given(bodies, cuts, st.sampled_from([b"", b";a=b", b" ", b";x"]))
def test_a_chunked_body_is_its_chunks_wherever_the_bytes_were_cut(chunks, at, extension):
    framed = b"".join(b"%X%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks)
    parser, body = read(CHUNKED + framed + b"0\r\nX-Trailer: 1\r\n\r\n", at=at)
    assert (body, parser.complete) == (b"".join(chunks), True)
    assert parser.head == Head(200, [], keeps=True)


@given(st.binary(max_size=300), cuts)
def test_a_counted_body_is_its_bytes_wherever_they_were_cut(content, at):
    head = b"HTTP/1.1 201 Created\r\nContent-Type: a/b\r\ncontent-length:  %d \r\nX: \xe9\r\n\r\n" % len(
        content
    )
    parser, body = read(head + content, at=at)
    assert (body, parser.complete) == (content, True)
    fields = [("Content-Type", "a/b"), ("content-length", str(len(content))), ("X", "é")]
    assert parser.head == Head(201, fields, keeps=True)


@given(st.binary(max_size=300), cuts)
def test_a_body_without_bounds_ends_with_the_connection_which_is_not_kept(content, at):
    parser, body = read(b"HTTP/1.1 200 \r\nA: b\r\n\r\n" + content, at=at)
    assert (body, parser.complete) == (content, False)
    parser.end()
    assert (parser.complete, parser.head) == (True, Head(200, [("A", "b")], keeps=False))


@given(st.binary(max_size=200), cuts)
def test_garbage_is_refused_or_waited_for_and_nothing_else(data, at):
    parser = AnswerParser("POST")
    try:
        for piece in pieces(data, at):
            parser.feed(piece)
    except BadAnswer:
        return
    assert not parser.complete
    assert b"HTTP/1.".startswith(data[:7])


def test_headers_of_the_connection_stay_behind():
    head = (
        b"HTTP/1.1 200 OK\r\nConnection: Keep-Alive, X-Hop\r\nKeep-Alive: timeout=5\r\nX-Hop: 1\r\n"
        b"Upgrade: h2c\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n"
    )
    parser, _ = read(head)
    kept = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Content-Length", "0")]
    assert parser.head == Head(200, kept, keeps=True)


@pytest.mark.parametrize(
    ("line", "fields", "keeps"),
    [
        (b"HTTP/1.1 200 OK", b"", True),
        (b"HTTP/1.1 200 OK", b"Connection: close\r\n", False),
        (b"HTTP/1.0 200 OK", b"", False),
        (b"HTTP/1.0 200 OK", b"Connection: keep-alive\r\n", True),
    ],
)
def test_whether_a_connection_may_carry_another_request(line, fields, keeps):
    parser, _ = read(line + b"\r\n" + fields + b"Content-Length: 0\r\n\r\n")
    assert parser.complete
    assert parser.head == Head(200, [("Content-Length", "0")], keeps=keeps)


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304), ("POST", 204)])
def test_answers_without_a_body_end_with_their_head_and_keep_the_length_they_tell(method, status):
    parser, body = read(b"HTTP/1.1 %d x\r\nContent-Length: 12\r\n\r\n" % status, method)
    assert (body, parser.complete) == (b"", True)
    assert parser.head == Head(status, [("Content-Length", "12")], keeps=True)


def test_interim_answers_are_passed_over():
    parser, body = read(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        at=[5, 30, 60],
    )
    assert (body, parser.head) == (b"hi", Head(200, [("Content-Length", "2")], keeps=True))
    parser, body = read(b"HTTP/1.1 100 x\r\n\r\n" * MAX_INTERIM + b"HTTP/1.1 204 x\r\n\r\n")
    assert (body, parser.head) == (b"", Head(204, [], keeps=True))


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 099 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA b: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA\x0b: c\r\n\r\n",
        b"HTTP/1.1 100 x\r\n\r\n" * (MAX_INTERIM + 1),
        b"HTTP/1.1 204 x\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\n folded: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: \xb2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        CHUNKED + b"x\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"\r\n",
        CHUNKED + b"2\r\nabc\r\n",
        CHUNKED + b"2\r\nab\rx",
        CHUNKED + b"1" * 16 + b"\r\n",
        CHUNKED + b"0\r\n\r\nHTTP/1.1 200 OK",
        CHUNKED + b"0\r\nno trailer\r\n\r\n",
        CHUNKED + b"1" * (MAX_CHUNK_LINE_BYTES + 1),
        b"HTTP/1.1 200 OK\r\nA: " + b"b" * MAX_HEAD_BYTES,
    ],
)
def test_what_is_no_answer_is_refused_whole_and_byte_by_byte(answer):
    with pytest.raises(BadAnswer):
        read(answer)
    with pytest.raises(BadAnswer):
        read(answer, at=range(len(answer)))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTT",
        b"HTTP/1.1 200 OK\r\nA: b\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        CHUNKED,
        CHUNKED + b"2\r\nab\r\n",
        CHUNKED + b"2\r\na",
        CHUNKED + b"0\r\n",
    ],
)
def test_a_connection_that_ends_too_early_is_no_answer(answer):
    parser, _ = read(answer)
    with pytest.raises(BadAnswer, match="the connection was closed"):
        parser.end()


def test_a_length_beside_chunks_is_not_passed_on():
    parser, body = read(CHUNKED[:-2] + b"Content-Length: 99\r\n\r\n1\r\na\r\n0\r\n\r\n")
    assert (body, parser.complete, parser.head) == (b"a", True, Head(200, [], keeps=True))

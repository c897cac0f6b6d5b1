"""The gateway over real sockets: bytes pass unchanged, calls end once, and nobody comes in who may not."""

import asyncio
import gzip
import json
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.live.scripted_server import (
    BODY,
    ENDLESS,
    STREAM,
    TEXT,
    Cut,
    ScriptedServer,
    ask,
    chat,
    chunk,
    event,
    gateway,
    head,
    saying,
    through,
    until,
)

# ------------------------------------------------------------------ bytes

noise = st.binary(max_size=60)
lines = st.sampled_from(
    [b"data: ", b"\n", b"\n\n", b"\r\n", b": x\n", b"data: [DONE]\n\n", b"\xf0\x9f", *TEXT]
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.one_of(noise, lines), max_size=12), st.booleans())
def test_a_stream_arrives_as_the_server_sent_it_whatever_it_holds(parts, chunked):
    parts = [part for part in parts if part]
    content = b"".join(parts)
    if chunked:
        pieces = [head(200, "text/event-stream", chunked=True), *map(chunk, parts), b"0\r\n\r\n"]
    else:
        pieces = [head(200, "text/event-stream", length=len(content)), *parts]
    asked = chat(stream=True, stream_options={"include_usage": True})
    got, _, front = through(asked, saying(*pieces))
    assert (got.status, got.body, got.whole) == (200, content, True)
    assert sum(front.driver.ends.values()) == len(front.ended) == 1


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([200, 201, 400, 429, 500, 599]), st.booleans())
def test_a_body_arrives_as_the_server_sent_it_with_its_status(content, status, chunked):
    if chunked:
        cut = len(content) // 2
        parts = [chunk(part) for part in (content[:cut], content[cut:]) if part]
        pieces = [head(status, "application/json", "X-Any: \xe9", chunked=True), *parts, b"0\r\n\r\n"]
    else:
        pieces = [head(status, "application/json", "X-Any: \xe9", length=len(content)), content]
    got, _, front = through(chat(), saying(*pieces))
    assert (got.status, got.body, got.whole) == (status, content, True)
    assert (got.headers["x-any"], got.headers["content-type"]) == ("\xe9", "application/json")
    assert front.driver.ends["failed"] == (status >= 400)
    assert [call.status for call in front.ended] == [status]


@settings(max_examples=40, deadline=None)
@given(
    st.binary(min_size=1, max_size=300), st.sampled_from(["/v1/embeddings?a=%20b", "/tokenize", "/v1/x"])
)
def test_what_is_no_call_passes_both_ways_unchanged(content, path):
    pieces = [head(200, "a/b", length=len(content)), content]
    got, asked, front = through(content, saying(*pieces), path, ("X-Mine: \u00fc", "Content-Type: c/d"))
    assert (got.status, got.body, got.headers["x-thunderbench-replica"]) == (200, content, "r0")
    assert (asked[0].method, asked[0].path, asked[0].body) == ("POST", path, content)
    assert (asked[0].headers["x-mine"], asked[0].headers["content-type"]) == ("\u00fc", "c/d")
    assert front.ended == []


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text(max_size=5), st.one_of(st.floats(), st.text(), st.integers()), max_size=4))
def test_a_request_arrives_at_the_server_byte_for_byte(fields):
    body = json.dumps({**fields, "model": "m", "stream": False}, indent=1).encode()
    _, asked, _ = through(body)
    assert asked[0].body == body


def test_a_very_long_line_and_utf8_cut_in_the_middle_pass():
    text = "\U0001f642" * 100_000
    long = event({"choices": [{"index": 0, "delta": {"content": text}}]}).replace(b"\\u", b"\\u")
    raw = b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}, ensure_ascii=False).encode()
    content = long + raw + b"\n\n" + STREAM[-1]
    pieces = [chunk(content[at : at + 65_537]) for at in range(0, len(content), 65_537)]
    got, _, front = through(
        chat(stream=True), saying(head(200, "text/event-stream", chunked=True), *pieces, b"0\r\n\r\n")
    )
    assert (got.body, got.whole) == (content, True)
    assert front.ended[0].call.usage.output_tokens == 2


def test_a_compressed_answer_stays_compressed_and_is_read_all_the_same():
    packed = gzip.compress(BODY)
    answer = head(200, "application/json", "Content-Encoding: gzip", length=len(packed)) + packed
    got, asked, front = through(chat(), saying(answer), fields=("Accept-Encoding: gzip, br",))
    assert (got.body, got.headers["content-encoding"]) == (packed, "gzip")
    assert asked[0].headers["accept-encoding"] == "identity"
    assert front.ended[0].call.usage == (12, 3, 8)


def test_usage_is_asked_for_and_hidden_from_a_client_that_did_not_ask():
    got, asked, front = through(chat(stream=True))
    assert asked[0].json["stream_options"] == {"include_usage": True}
    assert got.body == b"".join([*TEXT, STREAM[-1]])
    assert front.ended[0].call.usage == (12, 3, 8)
    got, _, _ = through(chat(stream=True, stream_options={"include_usage": True}))
    assert got.body == b"".join(STREAM)


def test_without_usage_events_are_counted_and_the_prompt_is_estimated():
    async def silent(_):
        yield head(200, "text/event-stream", chunked=True)
        for part in (*TEXT, STREAM[-1]):
            yield chunk(part)
        yield b"0\r\n\r\n"

    _, _, front = through(chat(stream=True), silent)
    call = front.ended[0].call
    assert call.usage == (call.prompt_tokens, 3, None)
    assert call.prompt_tokens > 0


def test_headers_of_a_connection_are_not_sent_on_and_the_callers_own_are_told():
    fields = ("X-Request-ID: 7", "Connection: X-Hop", "Keep-Alive: 9", "Authorization: Bearer theirs")
    fields += ("X-Twice: a", "X-Twice: b", "X-Hop: 1", "Cookie: c=1", "Cookie: d=2")
    got, asked, _ = through(chat(), fields=fields)
    sent = asked[0].headers
    assert (sent["x-request-id"], sent["authorization"]) == ("7", "Bearer theirs")
    assert (sent["x-twice"], sent["cookie"]) == ("a, b", "c=1; d=2")
    assert not {"connection", "keep-alive", "transfer-encoding", "x-hop"} & set(sent)
    assert [
        n for n, _ in asked[0].fields if n.lower() in {"host", "content-length", "accept-encoding"}
    ] == [
        "Host",
        "Accept-Encoding",
        "Content-Length",
    ]
    assert got.headers["x-thunderbench-call"] == "p/0"
    assert got.headers["x-thunderbench-replica"] == "r0"
    assert 0 <= float(got.headers["x-thunderbench-hold-s"]) < 10


def test_a_program_with_a_name_beyond_a_headers_alphabet_is_told_its_call_in_ascii():
    got, _, front = through(chat("p\u00e4 x"))
    assert front.ended[0].call.call_id == "p\u00e4 x/0"
    assert got.headers["x-thunderbench-call"] == "p%C3%A4%20x/0"


# ------------------------------------------------------------------ servers that fail


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        (saying(head(429, "a/b", length=2) + b"no"), 429, "HTTP 429"),
        (saying(head(500, "a/b", length=2) + b"no"), 500, "HTTP 500"),
        (saying(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"), 502, "no valid answer: no HTTP: 'SSH-2.0-OpenSSH_9.2'"),
        (saying(head(200, "a/b", length=9) + b"half"), None, None),
    ],
)
def test_a_server_that_fails_ends_its_call_as_failed(script, status, reason):
    async def cutting(request):
        async for piece in script(request):
            yield piece
        raise Cut

    got, _, front = through(chat(), cutting)
    assert front.driver.ends == {"finished": 0, "failed": 1, "cancelled": 0}
    assert got.whole
    if status is None:
        assert got.status == 502
        assert json.loads(got.body)["error"]["type"] == "bad_gateway"
    else:
        assert (got.status, front.ended[0].call.reason) == (status, reason)


def test_a_stream_that_breaks_off_is_cut_for_the_client_too_after_all_its_bytes():
    async def half(_):
        yield ENDLESS + b"ff\r\ndata: {"
        raise Cut

    got, _, front = through(chat(stream=True, stream_options={"include_usage": True}), half)
    assert (got.status, got.body, got.whole) == (200, TEXT[0] + b"data: {", False)
    assert front.driver.ends["failed"] == 1


def test_a_stream_that_ends_before_its_end_passes_and_has_failed():
    early = saying(ENDLESS, b"0\r\n\r\n")
    got, _, front = through(chat(stream=True), early)
    assert (got.body, got.whole) == (TEXT[0], True)
    assert front.ended[0].call.reason == "the stream stopped before its end"


def test_an_error_in_a_stream_passes_and_has_failed():
    text = event({"error": {"message": "out of memory", "code": 500}})
    pieces = (ENDLESS, chunk(text), b"0\r\n\r\n")
    got, _, front = through(chat(stream=True), saying(*pieces))
    assert (got.body, got.whole) == (TEXT[0] + text, True)
    assert (front.ended[0].call.end, front.ended[0].call.reason) == ("failed", "out of memory")


def test_a_server_that_is_not_there_is_502_and_the_monitor_hears_of_it():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def run():
            async with gateway(url) as front:
                return [await ask(front.url, body=chat()), await ask(front.url, "GET", "/v1/models")], front

        got, front = asyncio.run(run())
    assert [answer.status for answer in got] == [502, 502]
    assert [replica for replica, _ in front.unreached] == ["r0", "r0"]
    assert front.driver.ends["failed"] == 1


def test_a_server_that_says_nothing_for_too_long_is_504():
    async def silent(_):
        await asyncio.Event().wait()
        yield b""

    got, _, front = through(chat(), silent, idle_s=0.05)
    assert (got.status, front.ended[0].call.reason) == (504, "no byte for 0.05 s")


def test_a_replica_that_is_lost_cuts_its_streams_and_answers_503_where_nothing_was_sent():
    async def run():
        async def script(request):
            if request.json["stream"]:
                yield ENDLESS
            await asyncio.Event().wait()

        async with ScriptedServer(script) as server, gateway(server.url) as front:
            bodies = chat("a", stream=True), chat("b")
            asking = [asyncio.ensure_future(ask(front.url, body=body)) for body in bodies]
            await until(lambda: len(server.requests) == 2 and front.driver.calls["a/0"].first_token_s)
            front.driver.replica_down("r0", "no answer")
            got = await asyncio.gather(*asking)
            await asyncio.wait_for(server.cut.wait(), 20)
            return got, front

    (stream, plain), front = asyncio.run(run())
    assert (stream.status, stream.body, stream.whole) == (200, TEXT[0], False)
    assert (plain.status, plain.headers["retry-after"]) == (503, "5")
    assert front.driver.ends == {"finished": 0, "failed": 2, "cancelled": 0}
    assert {call.call.reason for call in front.ended} == {"replica r0 is gone: no answer"}


@pytest.mark.parametrize("kind", ["text/plain", "text/event-stream"])
def test_a_redirect_passes_and_has_failed_since_nothing_was_generated(kind):
    answer = head(307, kind, "Location: http://elsewhere/", length=0)
    got, _, front = through(chat(stream=True), saying(answer))
    assert (got.status, got.headers["location"]) == (307, "http://elsewhere/")
    assert front.driver.ends == {"finished": 0, "failed": 1, "cancelled": 0}
    assert front.ended[0].call.reason == "HTTP 307"


def test_a_gateway_behind_this_one_does_not_speak_in_its_name():
    answer = head(200, "application/json", "X-Thunderbench-Call: other/9", "X-Any: 1", length=len(BODY))
    got, _, _ = through(chat(), saying(answer + BODY))
    assert (got.headers["x-thunderbench-call"], got.headers["x-any"]) == ("p/0", "1")
    assert "X-Thunderbench-Call" not in got.headers

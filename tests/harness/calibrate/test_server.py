"""A server over HTTP: what it says of itself, and what becomes of its answers, good and bad."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest
from aiohttp import web

from harness.calibrate.measure import Ask, Mark, Reply
from harness.calibrate.server import About, HttpServer, base_url, read_reply
from harness.errors import EngineFailed, SetupError
from tests.harness.calibrate.fake_server import PAGE, FakeServer

Result = TypeVar("Result")
ASK = Ask((40, 41, 42), 3)


def against(fake: FakeServer, act: Callable[[HttpServer], Awaitable[Result]]) -> Result:
    """Start the fake, do something with a client of it, stop both."""

    async def main() -> Result:
        async with fake, HttpServer(fake.url, "secret") as server:
            return await act(server)

    return asyncio.run(main())


async def asked(server: HttpServer) -> Reply:
    await server.about()
    return await server.send(ASK)


def event(**data: Any) -> bytes:
    return b"data: " + json.dumps(data).encode() + b"\n\n"


def token(count: int | None = None) -> bytes:
    usage = {} if count is None else {"usage": {"prompt_tokens": 3, "completion_tokens": count}}
    return event(choices=[{"index": 0, "text": "a"}], **usage)


LAST = event(
    choices=[],
    usage={"prompt_tokens": 3, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}},
)


def test_it_says_what_it_is() -> None:
    fake = FakeServer()
    about = against(fake, lambda server: server.about())
    assert about == About(fake.url, "tiny", 4096, "0.32.0", 65536, 128, "auto")
    assert all(headers["Authorization"] == "Bearer secret" for headers in fake.headers)


def test_a_server_of_another_make_says_less() -> None:
    fake = FakeServer(version=None, page=None, max_model_len=None)
    assert against(fake, lambda server: server.about()) == About(
        fake.url, "tiny", None, None, None, None, None
    )
    assert PAGE


def test_a_request_asks_for_exactly_so_many_tokens_of_token_ids() -> None:
    fake = FakeServer()
    reply = against(fake, asked)
    (body,) = fake.bodies
    assert body == {
        "model": "tiny",
        "prompt": [40, 41, 42],
        "max_tokens": 3,
        "min_tokens": 3,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
    }
    assert (reply.prompt, reply.cached, [mark.tokens for mark in reply.marks]) == (3, None, [1, 2, 3])
    assert sorted(mark.at_s for mark in reply.marks) == [mark.at_s for mark in reply.marks]
    assert reply.sent_s < reply.marks[0].at_s


def test_a_token_has_the_time_of_the_chunk_that_completes_its_line() -> None:
    first, second, third = token(1), token(2), token(3)
    chunks = [(1.0, first[:9]), (2.0, first[9:] + second), (3.0, third + LAST[:20]), (4.0, LAST[20:])]
    assert read_reply("u", ASK, 0.5, chunks) == Reply(0.5, (Mark(2.0, 1), Mark(2.0, 2), Mark(3.0, 3)), 3, 2)


def test_where_usage_comes_last_only_events_are_counted() -> None:
    chunks = [(1.0, token()), (2.0, token() + token()), (3.0, LAST + b"data: [DONE]\n\n")]
    assert [mark.tokens for mark in read_reply("u", ASK, 0.0, chunks).marks] == [1, 2, 3]


def test_tokens_that_came_together_are_counted_as_the_server_does() -> None:
    chunks = [(1.0, token(1)), (2.0, token(3)), (3.0, LAST)]
    assert read_reply("u", ASK, 0.0, chunks).marks == (Mark(1.0, 1), Mark(2.0, 3))


@pytest.mark.parametrize(
    ("chunks", "words"),
    [
        ([], "streams no tokens with their usage"),
        ([token()], "streams no tokens with their usage"),
        ([b"\xff\xfe garbage \n\n"], "streams no tokens with their usage"),
        (
            [token(), event(choices=[], usage={"prompt_tokens": 3, "completion_tokens": 1})],
            "generated 1 tokens",
        ),
        ([token(), event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": 3})], "a prompt of 1"),
    ],
)
def test_an_answer_that_says_too_little_or_differs_is_the_set_up(chunks: list[bytes], words: str) -> None:
    with pytest.raises(SetupError, match=words):
        read_reply("u", ASK, 0.0, [(1.0, chunk) for chunk in chunks])


def test_an_error_inside_the_stream_is_the_servers() -> None:
    with pytest.raises(EngineFailed, match="out of memory"):
        read_reply("u", ASK, 0.0, [(1.0, token(1) + event(error={"message": "out of memory"}))])


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (400, SetupError, "refuses a completion of token ids: 400 no ids here"),
        (500, EngineFailed, "failed while it was measured: 500 no ids here"),
        (429, EngineFailed, "failed while it was measured: 429"),
    ],
)
def test_a_refusal_is_told_with_what_the_server_said(
    status: int, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        against(FakeServer(completions=lambda _: web.Response(status=status, text="no ids\n here")), asked)


def test_a_server_that_breaks_off_has_stopped_answering() -> None:
    with pytest.raises(EngineFailed, match="stopped answering while it was measured"):
        against(FakeServer(breaks_after=0), asked)


def test_no_server_is_one_line_with_the_mend() -> None:
    async def main() -> None:
        async with FakeServer() as fake:
            pass
        async with HttpServer(fake.url) as server:
            await server.about()

    with pytest.raises(SetupError) as caught:
        asyncio.run(main())
    assert "Connection refused" in str(caught.value)
    assert "vllm serve MODEL" in str(caught.value)


def test_a_page_that_is_no_api_is_refused() -> None:
    with pytest.raises(SetupError, match="names no model"):
        against(FakeServer(models="<html>"), lambda server: server.about())


@pytest.mark.parametrize("url", ["http://h:1", "http://h:1/", "http://h:1/v1", " http://h:1/v1/ "])
def test_a_url_is_taken_with_or_without_its_end(url: str) -> None:
    assert base_url(url) == "http://h:1"


@pytest.mark.parametrize("url", ["", "h:1", "ftp://h", "http://", "http://h?x=1", "http://h h"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(SetupError, match="expected a server's URL"):
        base_url(url)

"""One call over HTTP: what is written down, what is tried again and when, what is final."""

import asyncio
from array import array

import pytest

from harness.live.clock import LoopClock
from harness.live.ports import UpstreamFailed
from harness.live.replay.client import CallLost, HttpCaller, retry_after_s
from harness.live.replay.health import Health
from harness.live.virtual_loop import VirtualLoop
from harness.virtual.programs import LiveProgram
from tests.harness.live.replay.scripted import DONE, Say, Scripted, event, good, tokens, usage
from tests.harness.virtual.bag import chain


class Even:
    """Pauses without spread."""

    def random(self):
        return 0.0


def call(server, *, due_s=0.0, sent_s=0.0, retries=3, timeout_s=60.0, program_id="p"):
    """Play the first call of a program that was due at `due_s` and is sent at `sent_s`."""

    async def main():
        clock = LoopClock()
        health = Health(clock, cpu_s=lambda: 0.0)
        caller = HttpCaller(
            server, "server", clock, health, retries=retries, timeout_s=timeout_s, rng=Even()
        )
        live = LiveProgram(chain(program_id, 1, output=3), 0, due_s).start(0, due_s)
        await asyncio.sleep(sent_s)
        try:
            heard = await caller.call(live, "/v1/completions", b"{}")
        except CallLost as lost:
            heard = str(lost)
        return live, heard, health.summary()

    with VirtualLoop() as loop:
        return loop.run_until_complete(main())


def test_times_counts_and_headers_of_a_call_that_ends_well():
    """Due at 1 s, sent at 1.5 s, held for 0.25 s, first token at 2.5 s, ended at 4.5 s."""
    told = [("X-Thunderbench-Hold-S", "0.25"), ("x-thunderbench-replica", "r1")]
    server = Scripted(good([7, 8, 9], prompt=8, cached=4, headers=told))
    live, heard, health = call(server, due_s=1.0, sent_s=1.5)
    assert heard.ids == array("I", [7, 8, 9])
    row = live.row(4.5)
    assert (row.replica, row.arrived_s, row.dispatched_s, row.scheduled_s) == ("r1", 1.0, 1.75, None)
    assert (row.first_token_s, row.finished_s, row.late_s, row.retries) == (2.5, 4.5, 0.5, 0)
    assert (row.prompt_tokens, row.cached_tokens, row.output_tokens, row.preemptions) == (8, 4, 3, None)
    assert (row.hold_s, row.queue_s, row.prefill_s, row.decode_s) == (0.75, None, 0.75, 2.0)
    assert (health["lateness_max_s"], health["retries"], health["odd_lengths"]) == (0.5, 0, 0)
    assert server.said[0].closed


def test_who_calls_stands_in_every_header_and_can_be_any_text():
    server = Scripted(good([1, 2, 3]))
    call(server, program_id="caf\u00e9 1\n")
    headers = server.asked[0][1].headers
    names = ("X-Program-Id", "X-Session-Id", "X-Correlation-ID", "x-dynamo-session-id")
    assert {headers[name] for name in names} == {"caf%C3%A9%201%0A"}
    assert headers["X-Request-ID"] == "caf%C3%A9%201%0A/0"


@pytest.mark.parametrize(
    "failure",
    [
        UpstreamFailed("no connection: refused"),
        Say([b"busy"], status=503),
        Say([b"slow down"], status=429),
        Say([0.0, tokens([1]), UpstreamFailed("the connection broke")]),
        Say([tokens([1])]),
        Say([b"data: garbage\n\n"]),
        Say([event(error={"message": "boom", "code": 500})]),
    ],
)
def test_what_may_pass_is_tried_again_after_pauses_that_double(failure):
    again = failure if isinstance(failure, UpstreamFailed) else Say(failure.parts, failure.status)
    server = Scripted(failure, again, good([1, 2, 3], cached=0))
    live, _, health = call(server)
    assert server.times == [0.0, 0.5, 1.5]
    row = live.row(4.5)
    assert (row.arrived_s, row.first_token_s, row.finished_s, row.retries) == (0.0, 2.5, 4.5, 2)
    assert row.late_s == 0.0
    assert (health["retries"], health["failed_calls"], health["calls_sent"]) == (2, 0, 1)
    assert [request.headers["X-Request-ID"] for _, request in server.asked] == ["p/0", "p/0~1", "p/0~2"]
    assert all(answer.closed for answer in server.said)


def test_a_server_says_when_to_come_back():
    busy = Say([b"busy"], status=429, headers=[("Retry-After", "7.5")])
    server = Scripted(busy, good([1, 2, 3]))
    call(server)
    assert server.times == [0.0, 7.5]


def test_silence_is_tried_again():
    server = Scripted(Say([tokens([1]), 1e6]), good([1, 2, 3]))
    live, _, _ = call(server, timeout_s=60.0)
    assert server.times == [0.0, 60.5]
    assert live.request.first_token_s == 61.5


def test_after_so_many_attempts_the_call_is_lost_and_says_why():
    server = Scripted(otherwise=lambda _: Say([b'{"error": "no\nroom"}'], status=503))
    live, heard, health = call(server, retries=2)
    assert heard == 'HTTP 503: {"error": "no room"} (tried 3 times)'
    assert (health["retries"], health["failed_calls"], live.request.first_token_s) == (2, 1, -1.0)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Say([b"too long"], status=400), "HTTP 400: too long"),
        (Say([event(error={"message": "too long", "code": 400})]), "the server says 400: too long"),
    ],
)
def test_other_errors_of_the_server_are_final(answer, why):
    server = Scripted(answer)
    _, heard, health = call(server)
    assert (heard, health["retries"], health["failed_calls"]) == (why, 0, 1)


def test_an_output_of_another_length_is_counted_as_the_server_counts_it():
    server = Scripted(Say([tokens([1, 2], finish_reason="stop"), usage(8, 2), DONE]))
    live, _, health = call(server)
    assert (live.row(0.0).output_tokens, live.row(0.0).cached_tokens, health["odd_lengths"]) == (2, None, 1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("3", 3.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 60.0), ("soon", None), ("-1", None), ("inf", None)],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert retry_after_s(value, 1445412420.0) == seconds


def test_a_date_that_has_passed_means_now():
    assert retry_after_s("Wed, 21 Oct 2015 07:28:00 GMT", 1e10) == 0.0

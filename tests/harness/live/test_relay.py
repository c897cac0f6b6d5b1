"""The relay without ports: every way a call can end, each once (see also test_faults)."""

import asyncio
import json

import pytest

from harness.live.answers import Incoming
from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.memory_engine import MemoryAnswer
from harness.live.ports import UpstreamFailed, UpstreamTimedOut
from harness.live.relay import Relay
from harness.live.virtual_loop import VirtualLoop
from schedulers import registry
from schedulers.contract import CallArrived, Dispatch, ProgramArrived, ReplicaUp

USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 4}}


class Says:
    """A server: one body, or an error."""

    def __init__(self, *parts, kind="application/json", error=None):
        self.parts, self.kind, self.error = parts, kind, error
        self.asked, self.answers = [], []

    async def send(self, replica, request):
        self.asked.append((replica, request))
        if self.error is not None:
            raise self.error
        self.answers.append(MemoryAnswer(200, self._parts(), self.kind))
        return self.answers[-1]

    async def _parts(self):
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                yield part


WELL = Says(json.dumps({"choices": [], "usage": USAGE}).encode())


def incoming(**body):
    return Incoming("POST", "/v1/completions", {}, json.dumps({"prompt": "a b c", **body}).encode())


def run(upstream, *requests, scheduler="vllm", up=True, policy=None, then=None, **options):
    """What clients got, and the relay; `then` happens after a virtual second."""

    async def one(relay, request):
        answer = await relay.call(request)
        try:
            return answer.status, b"".join([part async for part in answer.chunks()])
        except UpstreamFailed as error:
            return answer.status, error.reason
        finally:
            await answer.close()

    async def all_of_them():
        ended = []
        driver = LiveDriver(policy or registry.build(scheduler, {}, 0), LoopClock())
        if up:
            driver.replica_up("r0", 1000, 16)
        relay = Relay(driver, upstream, on_end=ended.append, **options)
        tasks = [asyncio.ensure_future(one(relay, request)) for request in requests]
        await asyncio.sleep(1)
        if then is not None:
            then(relay)
        got = await asyncio.gather(*tasks)
        if driver.fault is None:
            driver.check_invariants()
        assert driver.calls == {}
        assert len(ended) == sum(driver.ends.values())
        return got, relay, ended

    with VirtualLoop() as loop:
        return loop.run_until_complete(all_of_them())


def test_a_call_that_ends_well_is_told_its_usage_and_the_program_stays():
    got, relay, ended = run(WELL, incoming(program_id="p"))
    assert got == [(200, WELL.parts[0])]
    assert (ended[0].call.usage, ended[0].status) == ((9, 1, 4), 200)
    assert list(relay.driver.programs) == ["p"]


@pytest.mark.parametrize(
    ("error", "status"), [(UpstreamFailed("refused"), 502), (UpstreamTimedOut("silent"), 504)]
)
def test_a_server_that_cannot_be_reached_is_told_on(error, status):
    told = []
    got, relay, _ = run(Says(error=error), incoming(), on_unreachable=lambda *which: told.append(which))
    assert (got[0][0], told) == (status, [("r0", error.reason)])
    assert relay.driver.ends["failed"] == 1


def test_a_body_that_breaks_off_is_502_and_its_answer_closed():
    server = Says(b"{", UpstreamFailed("cut"))
    got, relay, ended = run(server, incoming())
    assert (got[0][0], ended[0].call.reason, server.answers[0].closed) == (502, "cut", True)
    assert relay.driver.ends["failed"] == 1


def test_a_stream_is_told_done_before_its_last_bytes_are_handed_on():
    seen = []

    async def reading():
        driver = LiveDriver(registry.build("vllm", {}, 0), LoopClock())
        driver.replica_up("r0", 1000, 16)
        server = Says(
            b'data: {"choices": [{"text": "x"}]}\n\n', b"data: [DONE]\n\n", kind="text/event-stream"
        )
        answer = await Relay(driver, server).call(incoming(stream=True, program_id="p"))
        seen.extend([dict(driver.ends) async for _ in answer.chunks()])
        await answer.close()
        return driver.ends

    with VirtualLoop() as loop:
        ends = loop.run_until_complete(reading())
    assert [each["finished"] for each in seen] == [0, 1]
    assert ends == {"finished": 1, "failed": 0, "cancelled": 0}


def test_a_stream_that_showed_nothing_had_its_first_token_at_its_end():
    usage = b'data: {"choices": [], "usage": %b}\n\n' % json.dumps(USAGE).encode()
    server = Says(
        b'data: {"choices": [{"text": ""}]}\n\n', usage, b"data: [DONE]\n\n", kind="text/event-stream"
    )
    _, _, ended = run(server, incoming(stream=True))
    call = ended[0].call
    assert (call.usage, call.first_token_s) == ((9, 1, 4), call.ended_s)


def test_draining_sends_held_calls_away_and_takes_no_more():
    got, relay, _ = run(WELL, incoming(), incoming(), up=False, then=lambda relay: relay.drain())
    assert [status for status, _ in got] == [503, 503]
    assert relay.driver.ends == {"finished": 0, "failed": 2, "cancelled": 0}


def test_a_replica_that_is_lost_while_its_server_is_silent_is_503():
    def lose(relay):
        relay.driver.replica_down("r0", "gone")

    got, relay, _ = run(Says(1e6), incoming(), then=lose)
    assert (got[0][0], relay.driver.ends["failed"]) == (503, 1)


def test_a_replica_that_is_lost_in_the_middle_of_a_stream_cuts_it():
    def lose(relay):
        relay.driver.replica_down("r0", "gone")

    server = Says(b'data: {"choices": [{"text": "x"}]}\n\n', 1e6, kind="text/event-stream")
    got, relay, _ = run(server, incoming(stream=True), then=lose)
    assert got == [(200, "replica r0 is gone: gone")]
    assert (relay.driver.ends["failed"], server.answers[0].closed) == (1, True)


class Broken:
    """A policy that takes calls, and then cannot go on."""

    name, needs, observes, manages_sandboxes = "broken", frozenset(), frozenset(), False

    def handle(self, event, now):
        if isinstance(event, (ProgramArrived, ReplicaUp)):
            return []
        if isinstance(event, CallArrived) and now == 0:
            return [Dispatch(event.call_id, "r0")]
        assert not isinstance(event, CallArrived), "no more"
        return []


def test_when_the_policy_fails_everybody_is_told_503():
    async def second(relay):
        return (await relay.call(incoming())).status, (await relay.call(incoming())).status

    later = []

    def then(relay):
        later.append(asyncio.ensure_future(second(relay)))

    got, relay, _ = run(Says(1e6), incoming(), policy=Broken(), then=then)
    assert got[0][0] == 503
    assert later[0].result() == (503, 503)
    assert "no more" in str(relay.driver.fault)


def test_what_the_engine_needs_to_know_is_spliced_in_and_the_gateways_headers_left_out():
    server = Says(WELL.parts[0])
    headers = {"Authorization": "k", "X-Mine": "1", "TE": "trailers", "Accept-Encoding": "br"}
    request = Incoming("POST", "/v1/completions", headers, b'{"prompt": "a", "program_id": "p"}')
    run(server, request, tell_engine=True, own_headers=frozenset({"authorization"}))
    replica, sent = server.asked[0]
    assert (replica, sent.headers) == ("r0", {"X-Mine": "1", "Accept-Encoding": "identity"})
    assert json.loads(sent.body)["vllm_xargs"] == {"program_id": "p"}


def test_declared_tools_are_told_where_the_answer_names_none():
    got, _, ended = run(WELL, incoming(thunderbench={"tools": ["bash"]}))
    assert (got[0][0], ended[0].call.tools) == (200, ["bash"])


def test_names_of_programs_of_their_own_avoid_those_of_clients():
    _, relay, ended = run(WELL, incoming(program_id="anonymous-0"), incoming())
    assert sorted(each.call.program_id for each in ended) == ["anonymous-0", "anonymous-1"]
    assert list(relay.driver.programs) == ["anonymous-0"]


def test_requests_that_are_no_calls_take_turns_and_are_503_without_a_server():
    async def passing():
        driver = LiveDriver(registry.build("vllm", {}, 0), LoopClock())
        server = Says(b"x")
        relay = Relay(driver, server)
        nobody = (await relay.pass_on(Incoming("GET", "/v1/models", {}, b""))).status
        for name in ("r0", "r1"):
            driver.replica_up(name, 1000, 16)
        for _ in range(3):
            answer = await relay.pass_on(Incoming("GET", "/v1/models", {}, b""))
            await answer.close()
        relay.drain()
        return nobody, [replica for replica, _ in server.asked], (await relay.pass_on(incoming())).status

    with VirtualLoop() as loop:
        assert loop.run_until_complete(passing()) == (503, ["r0", "r1", "r0"], 503)

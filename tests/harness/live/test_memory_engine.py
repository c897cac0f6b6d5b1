"""Replicas in memory answer as servers do, with the prefix cache of the simulated engine."""

import asyncio
import json

import pytest

from harness.live.clock import LoopClock
from harness.live.memory_engine import MemoryReplica, MemoryUpstream
from harness.live.ports import Outgoing, UpstreamFailed
from harness.live.virtual_loop import VirtualLoop
from harness.virtual.content import ContentTree
from harness.virtual.engine import EngineOptions
from harness.virtual.fast import FastEngine
from harness.virtual.steptime import StepTime

STEP = StepTime(
    compute_s_per_token=1e-3,
    dense_weights_s=0.0,
    expert_weights_s=0.0,
    experts=0,
    experts_per_token=0,
    attention_s_per_pair=0.0,
    kv_read_s_per_token=0.0,
    overhead_s=0.01,
)


def replica(clock, kv_tokens=1024):
    return MemoryReplica(clock, lambda: FastEngine(EngineOptions(kv_tokens), STEP, ContentTree()))


def play(act, kv_tokens=1024):
    async def main():
        clock = LoopClock()
        upstream = MemoryUpstream({"r0": replica(clock, kv_tokens)})
        return await act(upstream, clock)

    with VirtualLoop() as loop:
        return loop.run_until_complete(main())


def request(ids, tokens, **fields):
    body = {"prompt": ids, "max_tokens": tokens, **fields}
    return Outgoing("POST", "/v1/completions", {}, json.dumps(body).encode())


def cached(body):
    return json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"]


async def answered(upstream, ids, tokens, **fields):
    answer = await upstream.send("r0", request(ids, tokens, **fields))
    return answer.status, b"".join([chunk async for chunk in answer.chunks()])


def test_a_body_has_the_output_and_its_usage():
    async def act(upstream, clock):
        status, body = await answered(upstream, list(range(100)), 3)
        return status, json.loads(body), clock.now

    status, body, now = play(act)
    assert status == 200
    assert len(body["choices"][0]["token_ids"]) == 3
    assert body["usage"] == {
        "prompt_tokens": 100,
        "completion_tokens": 3,
        "total_tokens": 103,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert now == pytest.approx(0.11 + 2 * 0.011)


def test_a_stream_brings_the_first_token_when_it_is_there():
    async def act(upstream, clock):
        answer = await upstream.send("r0", request(list(range(100)), 3, stream=True))
        return [(round(clock.now, 3), chunk) async for chunk in answer.chunks()]

    events = play(act)
    assert [when for when, _ in events] == [0.11, 0.132, 0.132, 0.132]
    assert events[-1][1] == b"data: [DONE]\n\n"
    assert json.loads(events[2][1][6:])["usage"]["completion_tokens"] == 3


def test_the_next_turn_finds_prompt_and_output_of_the_last():
    async def act(upstream, _):
        ids = list(range(100))
        _, first = await answered(upstream, ids, 30)
        output = json.loads(first)["choices"][0]["token_ids"]
        _, second = await answered(upstream, [*ids, *output, *range(500, 520)], 2)
        _, other = await answered(upstream, [*ids, *range(900, 950)], 2)
        return [
            json.loads(body)["usage"]["prompt_tokens_details"]["cached_tokens"] for body in (second, other)
        ]

    # whole blocks of 16: of 129 tokens computed 8, of the 100 shared ones 6
    assert play(act) == [128, 96]


def test_an_arrival_in_the_middle_of_a_decode_is_served():
    async def act(upstream, clock):
        long = asyncio.ensure_future(answered(upstream, [1, 2, 3], 500))
        await asyncio.sleep(1)
        await answered(upstream, [4, 5, 6], 2)
        between = clock.now
        await long
        return between, clock.now

    between, end = play(act)
    assert 1.0 < between < 1.1
    assert end > 5.0


def test_what_is_too_long_is_a_bad_request():
    async def act(upstream, _):
        return await answered(upstream, list(range(2000)), 2)

    status, body = play(act)
    assert status == 400
    assert "2002 tokens" in json.loads(body)["error"]["message"]


def test_a_killed_replica_breaks_off_and_comes_back_cold():
    async def act(upstream, _):
        ids = list(range(64))
        await answered(upstream, ids, 2)
        under_way = asyncio.ensure_future(answered(upstream, ids, 400))
        await asyncio.sleep(1)
        upstream.replicas["r0"].kill()
        with pytest.raises(UpstreamFailed, match="broke off"):
            await under_way
        with pytest.raises(UpstreamFailed, match="refused"):
            await upstream.send("r0", request(ids, 2))
        with pytest.raises(UpstreamFailed):
            upstream.replicas["r0"].metrics()
        upstream.replicas["r0"].start()
        _, body = await answered(upstream, ids, 2)
        return cached(body)

    assert play(act) == 0


def test_metrics_are_those_of_the_engine():
    async def act(upstream, _):
        await answered(upstream, list(range(64)), 2)
        await answered(upstream, list(range(64)), 2)
        return upstream.replicas["r0"].metrics()

    metrics = play(act)
    assert (metrics.running, metrics.kv_tokens, metrics.queries_total, metrics.hits_total) == (
        0,
        1024,
        128,
        48,
    )

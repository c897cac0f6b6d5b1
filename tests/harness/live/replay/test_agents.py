"""Programs are played as the plan says, with what was really generated, whoever answers."""

import asyncio
import json
from itertools import pairwise

import pytest

from harness.live.ports import UpstreamFailed
from harness.live.replay.chat import Calibration, ChatPrompts, words
from harness.live.replay.prompts import TokenPrompts
from tests.harness.live.replay.scripted import DONE, Say, Scripted, event, good, usage
from tests.harness.live.scenes import play_live, scripted
from tests.harness.virtual.bag import chain, need, segment
from workloads.arrivals import ClosedLoop, GivenTimes
from workloads.model import Call, Program, ToolRun


def answering(body, **more):
    """An answer to anything, one second to the first token and one to the last."""
    if "program_id" in body and "prompt" not in body and "messages" not in body:
        return Say([b"{}"])
    number = sum(body["prompt"]) % 400
    ids = [number + i for i in range(body["max_tokens"])]
    return good(ids, prompt=len(body["prompt"]), cached=0, first_s=1.0, rest_s=1.0, **more)


def calls_of(server):
    return [body for body in server.bodies if "max_tokens" in body]


def test_a_call_asks_for_exactly_the_plan():
    server = Scripted(otherwise=answering)
    bag, _ = play_live(scripted(server), [chain("p", 1, prompt=8, output=3)])
    (body,) = calls_of(server)
    assert len(body.pop("prompt")) == 8
    assert body == {
        "model": "tiny",
        "program_id": "p",
        "max_tokens": 3,
        "min_tokens": 3,
        "ignore_eos": True,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
        "return_token_ids": True,
    }
    assert bag.left == set()


def test_a_context_is_the_prompt_before_what_was_generated_and_what_is_new():
    server = Scripted(otherwise=answering)
    play_live(scripted(server), [chain("p", 4, prompt=8, output=3, observation=4)])
    prompts = [body["prompt"] for body in calls_of(server)]
    assert [len(prompt) for prompt in prompts] == [8, 15, 22, 29]
    for before, after in pairwise(prompts):
        generated = [sum(before) % 400 + i for i in range(3)]
        assert after[: len(before) + 3] == before + generated


def test_tools_take_their_time_and_the_next_call_is_due_when_they_end():
    server = Scripted(otherwise=answering)
    bag, run = play_live(scripted(server), [chain("p", 2, tool_s=3.0)])
    assert [(row.arrived_s, row.finished_s, row.ended_s) for row in bag.calls] == [(0, 2, 5), (5, 7, 10)]
    assert [(row.asked_s, row.started_s, row.finished_s) for row in bag.tools] == [(2, 2, 5), (7, 7, 10)]
    assert (bag.programs[0].finished_s, run.end_s) == (10.0, 10.0)
    assert bag.programs[0].worst_wait_s == 1.0


class Slow(TokenPrompts):
    """Takes half a second to make any prompt but the first, in which the loop stands still."""

    def ask(self, new, heard, *, begins):
        if heard:
            asyncio.get_running_loop()._virtual_s += 0.5
        return super().ask(new, heard, begins=begins)


def test_latency_counts_from_when_a_step_was_due_not_from_when_it_was_sent():
    """The loop is held up for half a second when the tool ends: the next call is due at 5 s as before."""
    server = Scripted(otherwise=answering)
    bag, run = play_live(scripted(server, dialect=Slow()), [chain("p", 2, tool_s=3.0)])
    second = bag.calls[1]
    assert (second.arrived_s, second.first_token_s, second.late_s) == (5.0, 6.5, 0.5)
    assert second.prefill_s == 1.5
    assert run.client["lateness_max_s"] == 0.5


def test_branches_run_side_by_side_and_a_join_waits_for_the_slowest():
    root = Call("t/0", None, (segment("task", 8),), segment("o0", 2))
    branches = tuple(
        Call(f"t/{i}", "t/0", (segment(f"b{i}", 4),), segment(f"o{i}", 2), ("t/0",), (ToolRun("a", i, 1),))
        for i in (1, 2, 3)
    )
    join = Call("t/4", "t/0", (segment("o1", 2), segment("o3", 2)), segment("o4", 2), ("t/1", "t/2", "t/3"))
    server = Scripted(otherwise=answering)
    bag, _ = play_live(scripted(server), [Program("t", (root, *branches, join))])
    assert {row.call_id: row.arrived_s for row in bag.calls} == {
        "t/0": 0.0,
        "t/1": 2.0,
        "t/2": 2.0,
        "t/3": 2.0,
        "t/4": 7.0,
    }
    prompts = [body["prompt"] for body in calls_of(server)]
    made = [[sum(prompt) % 400 + i for i in range(2)] for prompt in prompts]
    assert prompts[4] == prompts[0] + made[0] + made[1] + made[3]


def test_a_slot_is_handed_over_when_its_program_ends_without_draining():
    """Two slots, starts spread over 4 s; each program takes 5 s."""
    server = Scripted(otherwise=answering)
    bag, _ = play_live(
        scripted(server),
        [chain(f"p{i}", 1) for i in range(5)],
        arrivals=ClosedLoop(2),
        start_spread_s=4.0,
    )
    assert [row.arrived_s for row in sorted(bag.programs, key=lambda row: row.position)] == [0, 2, 5, 7, 10]


def test_an_open_loop_does_not_wait():
    server = Scripted(otherwise=answering)
    bag, run = play_live(
        scripted(server), [chain(f"p{i}", 1) for i in range(3)], arrivals=GivenTimes((0.0, 0.5, 9.0))
    )
    assert [row.arrived_s for row in bag.programs] == [0.0, 0.5, 9.0]
    assert run.end_s == 14.0


def test_a_call_that_fails_for_good_ends_its_program_and_the_run_goes_on():
    def answer(body):
        return Say([b"no"], status=400) if body["program_id"] == "bad" else answering(body)

    server = Scripted(otherwise=answer)
    bag, run = play_live(scripted(server), [chain("bad", 3), chain("good", 1)])
    assert {row.program_id: row.ended_at for row in bag.programs} == {
        "bad": "failed: HTTP 400: no",
        "good": "finished",
    }
    assert [row.call_id for row in bag.calls] == ["good/0"]
    assert run.client["failed_calls"] == 1


def test_retries_are_in_the_rows():
    server = Scripted(UpstreamFailed("gone"), otherwise=answering)
    bag, run = play_live(scripted(server), [chain("p", 1)], seed=1)
    assert [row.retries for row in bag.calls] == [1]
    assert run.client["retries"] == 1
    row = bag.calls[0]
    assert row.prefill_s == row.first_token_s - row.arrived_s > 1.0  # the pause is in the first known part


@pytest.mark.parametrize(("status", "releases"), [(200, 2), (404, 1)])
def test_programs_are_released_until_the_server_shows_that_it_knows_no_such_thing(status, releases):
    def answer(body):
        return answering(body) if "prompt" in body else Say([b"{}"], status=status)

    server = Scripted(otherwise=answer)
    play_live(scripted(server), [chain("p", 1), chain("q", 1)], arrivals=ClosedLoop(1))
    asked = [json.loads(r.body) for _, r in server.asked if r.path == "/programs/release"]
    assert asked == [{"program_id": "p"}, {"program_id": "q"}][:releases]


def test_clients_that_do_not_release_send_nothing_at_the_end():
    server = Scripted(otherwise=answering)
    play_live(scripted(server), [chain("p", 1)], clients_release=False)
    assert {request.path for _, request in server.asked} == {"/v1/completions"}


def test_sandboxes_are_timed_waits():
    server = Scripted(otherwise=answering)
    bag, _ = play_live(scripted(server), [chain("p", 1, sandbox=need(prepare_s=10.0))])
    assert [row.arrived_s for row in bag.calls] == [10.0]
    assert [(box.ready_s, box.exposed_s, box.leaked) for box in bag.sandboxes] == [(10.0, 10.0, True)]


def test_chat_sends_messages_and_carries_the_text_that_was_generated():
    def answer(body):
        if "messages" not in body:
            return Say([b"{}"])
        said = event(choices=[{"delta": {"role": "assistant", "content": ""}}])
        text = event(
            choices=[{"delta": {"content": f"answer {len(body['messages'])}"}, "finish_reason": "stop"}]
        )
        return Say([1.0, said, 1.0, text, usage(40, body["max_tokens"]), DONE])

    server = Scripted(otherwise=answer)
    dialect = ChatPrompts(Calibration())
    bag, run = play_live(
        scripted(server, dialect=dialect), [chain("p", 2, prompt=3, output=2, observation=1)]
    )
    assert {r.path for _, r in server.asked} == {"/v1/chat/completions", "/programs/release"}
    first, second = calls_of(server)
    assert first["messages"] == [{"role": "user", "content": words("p/task", 3)}]
    assert second["messages"] == [
        *first["messages"],
        {"role": "assistant", "content": "answer 1"},
        {"role": "user", "content": words("p/obs1", 1)},
    ]
    assert [row.first_token_s for row in bag.calls] == [2.0, 7.0]
    assert [row.prompt_tokens for row in bag.calls] == [40, 40]
    assert run.client["outputs_carried"] is True


def test_a_server_without_ids_is_told_of():
    def answer(body):
        text = event(choices=[{"text": "ab", "finish_reason": "length"}])
        return Say([text, usage(8, 2), DONE]) if "prompt" in body else Say([b"{}"])

    _, run = play_live(scripted(Scripted(otherwise=answer)), [chain("p", 2)])
    assert run.client["outputs_carried"] is False

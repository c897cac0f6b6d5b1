"""A live run end to end, in virtual time: the same policies, the gateway, engines in memory."""

import asyncio
import os
import signal

import pytest

from harness.errors import EngineFailed, PolicyFailed, SetupError
from harness.virtual import agents as agents_module
from schedulers import registry
from schedulers.contract import (
    Pause,
    PrepareSandbox,
    ProgramArrived,
    ProgramFinished,
    ReclaimSandbox,
)
from tests.harness.live.gateways import gateway
from tests.harness.live.replay.scripted import Say, Scripted
from tests.harness.live.replay.test_agents import answering
from tests.harness.live.scenes import play_live, run_of, scripted
from tests.harness.virtual.bag import Bag, Through, chain, need
from workloads.arrivals import ClosedLoop


@pytest.mark.parametrize("name", ["thunder", "vllm"])
def test_policies_of_ours_play_programs_to_their_end_and_their_decisions_replay(name):
    bag, found = Bag(), {}
    scene = gateway(registry.build(name, {}, 0), kv_tokens=2048, decide=bag.decide, found=found)
    programs = [chain(f"p{i}", 5, prompt=200, output=20, observation=40, tool_s=0.5) for i in range(12)]
    bag, run = play_live(scene, programs, bag=bag, own_sandboxes=name == "vllm")
    assert [row.ended_at for row in bag.programs] == ["finished"] * 12
    assert len(bag.calls) == 60
    assert found["driver"].ends == {"finished": 60, "failed": 0, "cancelled": 0}
    assert found["driver"].programs == {}
    found["driver"].check_invariants()
    fresh = registry.build(name, {}, 0)
    assert [fresh.handle(event, now) for now, event, _ in bag.decisions] == [a for _, _, a in bag.decisions]
    assert run.client["outputs_carried"] is True
    assert run.client["odd_lengths"] == 0
    for row in bag.calls:
        assert row.replica in {"r0", "r1"}
        assert row.hold_s + row.prefill_s + row.decode_s + row.sandbox_s + row.tool_s == pytest.approx(
            row.ended_s - row.arrived_s
        )
    assert sum(row.cached_tokens for row in bag.calls) > 0
    last = {row.replica: row.hits_total for row in bag.samples}
    assert sum(last.values()) == sum(row.cached_tokens for row in bag.calls)


def test_a_policy_that_manages_sandboxes_has_its_orders_carried_out():
    policy = Through(
        {
            ProgramArrived: lambda e, _now: [PrepareSandbox(e.program_id)],
            ProgramFinished: lambda e, _now: [ReclaimSandbox(e.program_id)],
        }
    )
    bag, run = play_live(gateway(policy), [chain("p", 1, sandbox=need(prepare_s=2.0))], own_sandboxes=False)
    (box,), (call,) = bag.sandboxes, bag.calls
    assert (call.arrived_s, box.requested_s, box.ready_s) == (0.0, 0.0, 2.0)
    assert (box.leaked, box.reclaimed_s) == (False, run.end_s)


def test_pauses_of_the_policy_are_in_the_rows():
    policy = Through()
    policy.answer = {
        ProgramArrived: lambda e, _now: [Pause(e.program_id)],
    }
    bag, _ = play_live(gateway(policy), [chain("p", 1)])
    assert [row.pauses for row in bag.programs] == [1]


def test_at_the_end_of_the_window_what_is_open_is_cut_and_written_down():
    """Programs of 5 s on two slots for 12 s: two pairs end, the third pair does not."""
    server = Scripted(otherwise=answering)
    bag, run = play_live(
        scripted(server),
        [chain(f"p{i}", 1) for i in range(9)],
        arrivals=ClosedLoop(2),
        warmup_s=4.0,
        duration_s=8.0,
        start_spread_s=1.0,
    )
    assert [row.ended_at for row in bag.programs] == ["finished"] * 4 + ["unfinished"] * 2
    assert run.end_s == 12.0
    assert bag.left == set()
    assert [row.worst_wait_s for row in bag.programs] == [1.0] * 6


def test_progress_is_reported():
    seen = []
    play_live(scripted(Scripted(otherwise=answering)), [chain("p", 2)], on_progress=seen.append)
    assert (seen[-1].programs_done, seen[-1].steps_done, seen[-1].end_s) == (0, 1, None)
    assert seen[-1].hit_rate == 0.0
    assert seen[0].hit_rate is None


def test_a_policy_that_fails_ends_the_run_and_leaves_nothing():
    bag, failing = Bag(), Through({ProgramFinished: lambda _e, _now: {}["bug"]})
    with pytest.raises(PolicyFailed, match="bug"):
        play_live(gateway(failing), [chain("p", 1), chain("q", 9)], bag=bag)
    assert bag.left == set()


def test_a_workload_that_cannot_be_played_ends_the_run():
    bag = Bag()
    with pytest.raises(SetupError, match="two programs called 'p'"):
        play_live(scripted(Scripted(otherwise=answering)), [chain("p", 1), chain("p", 1)], bag=bag)
    assert bag.left == set()


def test_a_server_that_refuses_everything_ends_the_run(monkeypatch):
    monkeypatch.setattr(agents_module, "HOPELESS_FAILURES", 5)
    server = Scripted(otherwise=lambda _: Say([b"no"], status=400))
    with pytest.raises(EngineFailed, match="5 calls failed in a row, the last one because HTTP 400: no"):
        play_live(scripted(server), [chain(f"p{i}", 1) for i in range(9)], arrivals=ClosedLoop(1))


def test_a_scene_that_cannot_be_opened_says_why():
    def opened(_stage):
        raise SetupError("a", "b")

    with pytest.raises(SetupError, match="a; expected b"):
        play_live(opened, [chain("p", 1)])


def test_sigterm_ends_a_run_at_once():
    """On a real loop, without waiting: no answer ever comes, and the signal comes with the first call."""
    left = []

    class Never:
        async def send(self, _replica, _request):
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                left.append("cut")

    before = signal.getsignal(signal.SIGTERM)
    run = run_of(scripted(Never()), [chain("p", 1)], Bag())
    with pytest.raises(SystemExit) as ended:
        run.run()
    assert (ended.value.code, left) == (143, ["cut"])
    assert signal.getsignal(signal.SIGTERM) == before

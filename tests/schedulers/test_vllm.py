import pytest

from schedulers.contract import (
    CallArrived,
    CallDispatched,
    CallFailed,
    Dispatch,
    FirstToken,
    Hold,
    ProgramArrived,
    ProgramFinished,
    ReplicaDown,
    ReplicaUp,
    SandboxReady,
    Tick,
    ToolFinished,
    ToolStarted,
)
from schedulers.errors import BadConfig, PolicyError
from schedulers.registry import build
from tests.schedulers.helpers import feed, finish, make, start


def test_every_call_is_passed_on_at_once():
    policy = make("vllm", {"r0": 10})
    assert start(policy, 0.0, "a", 5_000) == [Dispatch("a/0", "r0")]
    told = feed(
        policy,
        1.0,
        CallDispatched("a", "a/0", "r0"),
        FirstToken("a", "a/0"),
        finish("a", 0, 5_000, 10),
        ToolStarted("a", "a/0", "bash"),
        ToolFinished("a", "a/0", "bash", 0.5, 7),
        SandboxReady("a"),
    )
    assert told == []
    assert feed(policy, 2.0, CallArrived("a", "a/1", 5_017)) == [Dispatch("a/1", "r0")]
    assert feed(policy, 2.0, ProgramFinished("a")) == []


def test_least_loaded_counts_calls_in_flight():
    policy = make("vllm", {"r0": 10, "r1": 10})
    started = [start(policy, 0.0, p, 5) for p in "abc"]
    assert started == [[Dispatch("a/0", "r0")], [Dispatch("b/0", "r1")], [Dispatch("c/0", "r0")]]
    feed(policy, 1.0, finish("a", 0, 5), CallFailed("c", "c/0", "aborted"))
    assert feed(policy, 1.0, CallArrived("b", "b/1", 9)) == [Dispatch("b/1", "r0")]


def test_session_affinity_keeps_a_program_on_its_first_replica():
    policy = make("vllm", {"r0": 10, "r1": 10}, router="session")
    start(policy, 0.0, "a", 5)
    assert start(policy, 0.0, "b", 5) == [Dispatch("b/0", "r1")]
    feed(policy, 1.0, finish("b", 0, 5))
    assert start(policy, 1.0, "c", 5) == [Dispatch("c/0", "r1")]
    assert feed(policy, 1.0, CallArrived("b", "b/1", 9)) == [Dispatch("b/1", "r1")]
    feed(policy, 2.0, ReplicaDown("r1"), CallFailed("b", "b/1", "replica down"))
    assert feed(policy, 2.0, CallArrived("b", "b/2", 9)) == [Dispatch("b/2", "r0")]


def test_round_robin_takes_turns():
    policy = make("vllm", {"r0": 10, "r1": 10}, router="round-robin")
    start(policy, 0.0, "a", 5)
    calls = [feed(policy, 0.0, CallArrived("a", f"x{i}", 5)) for i in range(3)]
    assert calls == [[Dispatch("x0", "r1")], [Dispatch("x1", "r0")], [Dispatch("x2", "r1")]]


def test_calls_are_held_while_no_replica_is_up_and_go_out_in_order_when_one_comes():
    policy = make("vllm", {})
    assert start(policy, 0.0, "a", 5) == [Hold("a/0")]
    assert start(policy, 0.0, "b", 5) == [Hold("b/0")]
    assert start(policy, 0.0, "gone", 5) == [Hold("gone/0")]
    feed(policy, 1.0, ProgramFinished("gone"))
    up = feed(policy, 2.0, ReplicaUp("r0", 100, 16))
    assert up == [Dispatch("a/0", "r0"), Dispatch("b/0", "r0")]


def test_what_contradicts_is_refused():
    policy = make("vllm", {"r0": 10})
    for wrong in (Tick(), CallArrived("x", "x/0", 1), object()):
        with pytest.raises(PolicyError):
            policy.handle(wrong, 0.0)
    feed(policy, 5.0, ProgramArrived("a", needs_sandbox=False))
    with pytest.raises(PolicyError, match="time went back"):
        policy.handle(ProgramArrived("b", needs_sandbox=False), 4.0)


def test_an_unknown_router_is_refused_by_name():
    with pytest.raises(
        BadConfig, match=r"vllm.router = 'nearest'; expected one of least-loaded, round-robin"
    ):
        build("vllm", {"router": "nearest"}, seed=1)

import pytest

from schedulers.contract import (
    CallArrived,
    Decoded,
    KvChanged,
    ProgramArrived,
    ReplicaSampled,
    SandboxReady,
    ToolCallParsed,
    ToolProgressed,
    ToolStarted,
)
from schedulers.errors import PolicyError
from tests.schedulers.helpers import feed, make, start

BOTH = pytest.mark.parametrize("name", ["vllm", "thunder"])


@BOTH
def test_frequent_facts_nobody_asked_for_are_ignored(name):
    policy = make(name, {"r0": 1000})
    start(policy, 0.0, "a", 10)
    told = feed(
        policy,
        1.0,
        Decoded("a", "a/0", 5),
        ToolCallParsed("a", "a/0", "bash"),
        ToolProgressed("a", "a/0", "bash", 0.5),
        ReplicaSampled("r0", 1, 0, 10),
        KvChanged("r0", "a", -10),
    )
    assert told == []


@BOTH
def test_time_never_goes_back_and_a_refused_fact_does_not_move_it(name):
    policy = make(name, {"r0": 1000})
    start(policy, 5.0, "a", 10)
    with pytest.raises(PolicyError, match=r"time went back to 4\.0 s; the clock is at 5\.0 s"):
        policy.handle(ProgramArrived("b", needs_sandbox=False), 4.0)
    with pytest.raises(PolicyError):
        policy.handle(CallArrived("nobody", "x", 1), 9.0)
    assert start(policy, 6.0, "b", 10)[-1].call_id == "b/0"
    with pytest.raises(PolicyError):
        policy.handle(ProgramArrived("c", needs_sandbox=False), float("nan"))


@BOTH
def test_facts_about_strangers_and_unknown_kinds_are_refused(name):
    policy = make(name, {"r0": 1000})
    for wrong in (SandboxReady("nobody"), ToolStarted("nobody", "x", "bash"), "no event"):
        with pytest.raises(PolicyError):
            policy.handle(wrong, 0.0)


@BOTH
def test_check_invariants_looks_into_the_ledger(name):
    policy = make(name, {"r0": 1000})
    start(policy, 0.0, "a", 10)
    policy.ledger.replicas["r0"].calls += 1
    with pytest.raises(AssertionError, match="calls in flight on r0: the ledger has 2, recomputed 1"):
        policy.check_invariants()

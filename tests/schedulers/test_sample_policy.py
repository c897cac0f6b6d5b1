import random

from schedulers.contract import CallArrived, Dispatch, Hold, ProgramArrived, ReplicaUp
from tests.schedulers.helpers import finish
from tests.schedulers.sample_policy import MAKE, LimitConfig, drive


def test_the_sample_policy_limits_calls_in_flight():
    policy = MAKE(LimitConfig(), random.Random(1))
    assert drive(policy, ReplicaUp("r0", 100, 16)) == []
    assert drive(policy, ProgramArrived("a", needs_sandbox=False)) == []
    assert drive(policy, CallArrived("a", "a/0", 5)) == [Dispatch("a/0", "r0")]
    assert drive(policy, CallArrived("a", "a/1", 5)) == [Hold("a/1")]
    assert drive(policy, finish("a", 0, 5)) == [Dispatch("a/1", "r0")]

import pytest

from schedulers.contract import (
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Dispatch,
    FirstToken,
    Hold,
    Pause,
    PrepareSandbox,
    ProgramArrived,
    ProgramFinished,
    ReplicaDown,
    ReplicaUp,
    Resume,
    SandboxReady,
    Tick,
    ToolFinished,
    ToolStarted,
    WakeAt,
)
from schedulers.registry import build
from schedulers.testing import BadOrder, ScriptedCall, ScriptedDriver, ScriptedProgram, chain


def play(programs, replicas=None, **options):
    return ScriptedDriver(build("vllm", {}, 1), replicas or {"r0": 100}, programs, **options).run()


def test_a_program_is_played_call_by_call_and_tool_by_tool():
    program = ScriptedProgram("p", ((ScriptedCall(10, 2, 0.5), ScriptedCall(17, 3, None)),))
    played = play((program,))
    assert [(now, event) for now, event, _ in played.log] == [
        (0.0, ReplicaUp("r0", 100, 16)),
        (0.0, ProgramArrived("p", needs_sandbox=False)),
        (0.0, CallArrived("p", "p/0.0", 10)),
        (0.0, CallDispatched("p", "p/0.0", "r0")),
        (0.5, FirstToken("p", "p/0.0")),
        (1.0, CallFinished("p", "p/0.0", 10, 2, None)),
        (1.0, ToolStarted("p", "p/0.0", "bash")),
        (1.5, ToolFinished("p", "p/0.0", "bash", 0.5, 5)),
        (1.5, CallArrived("p", "p/0.1", 17)),
        (1.5, CallDispatched("p", "p/0.1", "r0")),
        (2.0, FirstToken("p", "p/0.1")),
        (2.5, CallFinished("p", "p/0.1", 17, 3, None)),
        (2.5, ProgramFinished("p")),
    ]
    assert (played.held, played.finished) == ([], ["p"])


def test_a_failing_call_and_a_lost_replica_are_told_as_failures():
    flaky = ScriptedProgram("f", ((ScriptedCall(10, fails=True),),))
    played = play((flaky,))
    assert [e for _, e, _ in played.log][-2:] == [
        CallFailed("f", "f/0.0", "scripted"),
        ProgramFinished("f"),
    ]
    played = play((chain("p", 10, 5, 1),), outages={"r0": (0.7, 3.0)})
    told = [event for now, event, _ in played.log if now > 0.5]
    assert told == [
        ReplicaDown("r0"),
        CallFailed("p", "p/0.0", "replica down"),
        ProgramFinished("p"),
        ReplicaUp("r0", 100, 16),
    ]


def test_lanes_run_side_by_side_and_the_program_ends_with_the_last():
    lanes = ((ScriptedCall(10, 1, 3.0),), (ScriptedCall(20, 1, None),))
    played = play((ScriptedProgram("p", lanes),))
    assert [now for now, event, _ in played.log if isinstance(event, ProgramFinished)] == [4.0]


def test_what_is_still_held_at_the_end_is_told():
    driver = ScriptedDriver(build("thunder", {}, 1), {}, (chain("p", 10, 5, 1),))
    assert driver.run(until=50.0).held == ["p/0.0"]


class Scripted:
    """A policy that answers each event type with given orders, once."""

    def __init__(self, answers):
        self.answers = answers

    def handle(self, event, now):  # noqa: ARG002 (Policy)
        return self.answers.pop(type(event), [])

    def check_invariants(self):
        pass


@pytest.mark.parametrize(
    ("answers", "says"),
    [
        ({CallArrived: [Dispatch("x", "r0")]}, "no such call"),
        ({CallArrived: [Dispatch("p/0.0", "r9")]}, "no such replica"),
        ({CallArrived: [Dispatch("p/0.0", "r0"), Dispatch("p/0.0", "r0")]}, "before"),
        ({CallArrived: [Hold("x")]}, "Hold"),
        ({CallArrived: [Dispatch("p/0.0", "r0"), Hold("p/0.0")]}, "Hold"),
        ({CallArrived: [Resume("p", "r9")]}, "Resume"),
        ({CallArrived: [Pause("x")]}, "Pause"),
        ({CallArrived: [WakeAt(-1.0)]}, "WakeAt"),
    ],
)
def test_orders_that_make_no_sense_are_refused(answers, says):
    driver = ScriptedDriver(Scripted(answers), {"r0": 100}, (chain("p", 10, 5, 1),))
    with pytest.raises(BadOrder, match=says):
        driver.run()


def test_ticks_and_sandboxes_come_when_they_were_asked_for():
    answers = {CallArrived: [PrepareSandbox("p"), WakeAt(7.0)]}
    driver = ScriptedDriver(Scripted(answers), {"r0": 100}, (chain("p", 10, 5, 1),), sandbox_s=3.0)
    assert [(now, e) for now, e, _ in driver.run().log][-2:] == [(3.0, SandboxReady("p")), (7.0, Tick())]

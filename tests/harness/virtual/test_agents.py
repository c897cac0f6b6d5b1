"""The agents' side: graphs, tools side by side, sandboxes, and rows whose parts add up."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.virtual.agents import Agents
from harness.virtual.clock import Clock
from harness.virtual.engine import EngineOptions
from harness.virtual.programs import LiveProgram
from harness.virtual.sandbox import SandboxPool
from harness.virtual.steptime import StepTime
from schedulers.contract import (
    CallArrived,
    Dispatch,
    PrepareSandbox,
    ProgramArrived,
    ProgramFinished,
    ReclaimSandbox,
    Tick,
    ToolFinished,
    WakeAt,
)
from tests.harness.virtual.bag import Bag, Through, chain, need, play, segment
from workloads.arrivals import ClosedLoop
from workloads.model import Call, Program, ToolRun


class Managing(Through):
    """Prepares sandboxes on arrival while the model already works, and reclaims them."""

    manages_sandboxes = True

    def __init__(self):
        super().__init__(
            {
                ProgramArrived: lambda e, _now: [PrepareSandbox(e.program_id)],
                ProgramFinished: lambda e, _now: [ReclaimSandbox(e.program_id)],
            }
        )


def test_agents_with_their_own_sandbox_prepare_first_and_reclaim_nothing():
    bag = play([chain("p", 1, sandbox=need())])
    (call,), (box,), (program,) = bag.calls, bag.sandboxes, bag.programs
    assert (program.arrived_s, program.first_call_s, call.arrived_s) == (0.0, 10.0, 10.0)
    assert (box.hidden_s, box.exposed_s, box.leaked, box.reclaimed_s) == (0.0, 10.0, True, None)


def test_a_prepared_sandbox_hides_behind_the_model():
    bag = play([chain("p", 1, output=8, sandbox=need())], policy=Managing())
    (call,), (box,) = bag.calls, bag.sandboxes
    assert (call.arrived_s, call.finished_s, call.sandbox_s) == (0.0, 8.0, 2.0)
    assert (box.hidden_s, box.exposed_s, box.leaked) == (8.0, 2.0, False)
    assert box.reclaimed_s == bag.programs[0].finished_s == 13.0


def test_a_sandbox_nobody_prepared_is_prepared_by_its_first_tool():
    policy = Managing()
    del policy.answer[ProgramArrived]
    bag = play([chain("p", 2, sandbox=need())], policy=policy)
    assert [row.sandbox_s for row in bag.calls] == [10.0, 0.0]


def test_tools_whose_sandbox_is_reclaimed_while_it_is_prepared_wait_for_a_new_one():
    """The call ends at 2 s and its tool waits; at 5 s the policy takes the sandbox away."""
    policy = Managing()
    policy.answer[CallArrived] = lambda e, _now: [Dispatch(e.call_id, "r0"), WakeAt(5.0)]
    policy.answer[Tick] = lambda _e, _now: [ReclaimSandbox("p")]
    bag = play([chain("p", 1, sandbox=need())], policy=policy)
    assert [row.sandbox_s for row in bag.calls] == [13.0]
    assert [(box.ready_s, box.reclaimed_s) for box in bag.sandboxes] == [(None, 5.0), (15.0, 18.0)]
    assert bag.sandboxes[1].exposed_s == 10.0


def test_agents_whose_own_sandbox_is_reclaimed_go_on_where_they_were():
    """Before the first call the agent waits for a new one; later only its next tool does."""
    policy = Through({ToolFinished: lambda e, _now: [ReclaimSandbox(e.program_id)]})
    bag = play([chain("p", 3, sandbox=need())], policy=policy)
    assert [row.call_id for row in bag.calls] == ["p/0", "p/1", "p/2"]
    assert [row.sandbox_s for row in bag.calls] == [0.0, 10.0, 10.0]
    policy = Through(
        {
            ProgramArrived: lambda _e, _now: [WakeAt(4.0)],
            Tick: lambda _e, _now: [ReclaimSandbox("p")],
        }
    )
    bag = play([chain("p", 1, sandbox=need())], policy=policy)
    assert [row.arrived_s for row in bag.calls] == [14.0]


def test_what_another_call_has_yet_to_compute_is_not_known():
    """Three calls at once with one prompt, then one that begins with it: only that one repeats work."""
    at_once = tuple(Call(f"p/{i}", None, (segment("task", 8),), segment(f"o{i}", 2)) for i in range(3))
    again = Call(
        "p/3", None, (segment("task", 8), segment("more", 4)), segment("o3", 2), ("p/0", "p/1", "p/2")
    )
    bag = play([Program("p", (*at_once, again))])
    assert [row.known_tokens for row in bag.calls] == [0, 0, 0, 8]


def test_ids_that_come_twice_are_refused():
    with pytest.raises(SetupError, match="two programs called 'p'"):
        play([chain("p", 1), chain("p", 1)])
    with pytest.raises(SetupError, match="two calls called 'p/0'"):
        play([chain("p", 1), Program("q", chain("p", 1).calls)])


def test_disk_is_in_the_samples():
    boxed = [chain(f"p{i}", 1, sandbox=need()) for i in range(3)]
    last = play(boxed, arrivals=ClosedLoop(1)).samples[-1]
    assert (last.sandboxes, last.sandbox_writable_bytes, last.sandbox_image_bytes) == (3, 30, 1000)
    last = play(boxed, arrivals=ClosedLoop(1), policy=Managing()).samples[-1]
    assert (last.sandboxes, last.sandbox_writable_bytes, last.sandbox_image_bytes) == (0, 0, 0)


def test_tools_run_side_by_side_and_a_join_waits_for_all():
    """Three branches extend one call; the join extends the root and quotes the branches' outputs."""
    root = Call("t/0", None, (segment("task", 8),), segment("o0", 2))
    branches = tuple(
        Call(
            f"t/{i}",
            "t/0",
            (segment(f"try{i}", 4),),
            segment(f"o{i}", 2),
            ("t/0",),
            (ToolRun("a", 1.0 * i, 1), ToolRun("b", 2.0 * i, 1)),
        )
        for i in (1, 2, 3)
    )
    join = Call(
        "t/4",
        "t/0",
        tuple(segment(f"o{i}", 2) for i in (1, 2, 3)),
        segment("o4", 2),
        ("t/1", "t/2", "t/3"),
    )
    bag = play([Program("t", (root, *branches, join))])
    rows = {row.call_id: row for row in bag.calls}
    assert [row.call_id for row in bag.calls] == ["t/0", "t/1", "t/2", "t/3", "t/4"]
    assert rows["t/4"].arrived_s == rows["t/3"].ended_s == 2.0 + 2.0 + 6.0
    assert rows["t/4"].prompt_tokens == 16
    assert [row.cached_tokens for row in bag.calls] == [0, 8, 8, 8, 8]
    assert [row.known_tokens for row in bag.calls] == [0, 9, 9, 9, 9]
    assert len(bag.tools) == 6


def test_a_rebuilt_prompt_knows_what_it_has_in_common_with_the_last():
    calls = (
        Call("r/0", None, (segment("system", 8), segment("v0", 8)), segment("o0", 2)),
        Call("r/1", None, (segment("system", 8), segment("v1", 8)), segment("o1", 2), ("r/0",)),
    )
    bag = play([Program("r", calls)])
    assert [(row.known_tokens, row.cached_tokens) for row in bag.calls] == [(0, 0), (8, 8)]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 6),
    st.integers(40, 200),
    st.booleans(),
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 20), st.floats(0, 5)), min_size=1, max_size=6),
)
def test_parts_add_up(concurrency, blocks, managing, shapes):
    """Six parts make the step, five costs make capacity x time, and nobody is lost."""
    programs = [
        chain(f"p{i}", steps, output=output, tool_s=tool_s, sandbox=need())
        for i, (steps, output, tool_s) in enumerate(shapes)
    ]
    options = EngineOptions(blocks * 4, 4, 8, 64)
    bag = play(
        programs,
        arrivals=ClosedLoop(concurrency),
        policy=Managing() if managing else Through(),
        options=options,
        step=StepTime(1e-3, 5e-3, 1e-2, 8, 2, 1e-7, 1e-6, 4e-3),
        sample_every_s=0.7,
    )
    assert [p.ended_at for p in bag.programs] == ["finished"] * len(programs)
    assert sum(p.steps_done for p in bag.programs) == len(bag.calls) == sum(s[0] for s in shapes)
    for row in bag.calls:
        parts = row[-8:-2]
        assert min(parts) >= 0.0
        assert sum(parts) == pytest.approx(row.ended_s - row.arrived_s)
        assert 0 <= row.cached_tokens < row.prompt_tokens
    for sample in bag.samples:
        costs = [getattr(sample, field) for field in sample._fields if field.startswith("stp_")]
        assert min(costs) >= 0.0
        assert sum(costs) == pytest.approx(blocks * 4 * sample.time_s)


def test_several_replicas_are_told_apart():
    def spread(event, _now):
        return [Dispatch(event.call_id, f"r{event.call_id[1]}")]

    bag = play([chain("p0", 2), chain("p1", 2)], policy=Through({CallArrived: spread}), replicas=2)
    assert {(row.program_id, row.replica) for row in bag.calls} == {("p0", "r0"), ("p1", "r1")}
    assert {row.replica for row in bag.samples} == {"r0", "r1"}


def test_the_first_programs_of_a_closed_loop_start_spread_and_a_slot_is_handed_over_at_once():
    """Four slots over eight seconds; what ends at 3 s makes room for the third at once, not at 4 s."""
    arrived = {}
    clock = Clock()
    agents = Agents(
        clock,
        lambda event: arrived.setdefault((type(event), event.program_id), clock.now),
        programs=lambda i: chain(f"p{i}", 1, sandbox=need(prepare_s=3.0)),
        size=5,
        arrivals=ClosedLoop(4),
        sandboxes=SandboxPool(),
        own_sandboxes=True,
        recorder=Bag(),
        start_spread_s=8.0,
    )
    agents.start()
    for _ in range(8):
        clock.now = clock.next
        clock.run_due()
        for call_id in [name for name in agents.calls if name != "p1/0"]:
            agents.call_failed(agents.calls[call_id], "refused")
            clock.run_due()
    times = [arrived[ProgramArrived, f"p{i}"] for i in range(5)]
    assert times == [0.0, 2.0, 3.0, 4.0, 6.0]


def test_tools_that_somebody_runs_take_what_they_take():
    """Recorded with 3 s, this tool takes 7: the policy hears so, and the step ends so much later."""
    told, clock, bag = [], Clock(), Bag()

    def run_tool(live, tool, ended):
        clock.at(clock.now + 7.0, ended, live, tool)

    agents = Agents(
        clock,
        told.append,
        programs=lambda i: chain(f"p{i}", 1),
        size=1,
        arrivals=ClosedLoop(1),
        sandboxes=SandboxPool(),
        own_sandboxes=True,
        recorder=bag,
        run_tool=run_tool,
    )
    agents.start()
    clock.run_due()
    clock.now = 2.0
    agents.calls["p0/0"].request.finished_s = 2.0
    agents.call_finished("p0/0")
    clock.now = clock.next
    clock.run_due()
    assert ToolFinished("p0", "p0/0", "bash", 7.0, 4) in told
    assert [(row.started_s, row.finished_s) for row in bag.tools] == [(2.0, 9.0)]
    assert [(row.tool_s, row.ended_s) for row in bag.calls] == [(7.0, 9.0)]


def test_what_a_server_does_not_tell_is_null_and_in_the_next_known_part():
    """Hold known, scheduling not: prefill counts from dispatch. Neither known: from arrival."""
    program = LiveProgram(chain("p", 2, output=3), 0, 10.0)
    (first,) = program.roots()
    live = program.start(first, 10.0)
    assert live.waited_s(11.0) == 1.0
    request = live.request
    request.first_token_s, request.finished_s, request.preemptions = 14.0, 17.0, -1
    assert live.waited_s(20.0) == 4.0
    row = live.row(20.0)
    assert (row.replica, row.dispatched_s, row.scheduled_s, row.cached_tokens) == (None, None, None, None)
    assert (row.recomputed_tokens, row.preemptions) == (None, None)
    assert row[-8:] == (None, None, 4.0, 3.0, 0.0, 3.0, 0, 0.0)
    live.dispatched_s, live.replica, live.retries, live.late_s = 11.5, "r1", 2, 0.25
    row = live.row(20.0)
    assert (row.replica, row.dispatched_s) == ("r1", 11.5)
    assert row[-8:] == (1.5, None, 2.5, 3.0, 0.0, 3.0, 2, 0.25)
    program.end(live, 20.0)
    sums = program.row(20.0, ended=True)
    assert (sums.cached_tokens, sums.recomputed_tokens, sums.output_tokens) == (None, None, 3)
    assert sums.worst_wait_s == 4.0

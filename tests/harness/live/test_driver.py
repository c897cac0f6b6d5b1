"""The live driver: facts in, exactly these events to the policy, exactly these orders carried out."""

import asyncio
from random import Random

import pytest

from harness.errors import PolicyFailed, SetupError, ThunderbenchError
from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver, refuse_unmet_needs
from harness.live.ports import Placement, ReplicaMetrics, Usage
from harness.live.virtual_loop import VirtualLoop
from schedulers.contract import (
    CallArrived,
    CallDispatched,
    CallFailed,
    CallFinished,
    Capability,
    Decoded,
    Dispatch,
    Evict,
    FirstToken,
    Hold,
    Offload,
    Pause,
    Pin,
    PrepareSandbox,
    ProgramArrived,
    ProgramFinished,
    PromptSeen,
    ReclaimSandbox,
    ReplicaDown,
    ReplicaSampled,
    ReplicaUp,
    Retain,
    Tick,
    ToolCallParsed,
    ToolFinished,
    ToolStarted,
    Unpin,
    WakeAt,
)
from schedulers.thunder import Thunder

USAGE = Usage(100, 20, 64)


class Hasty(LoopClock):
    """A clock that goes on while it is read, as that of a machine does: 0.1 ms each time."""

    seen, reads = 0.0, 0

    @property
    def now(self):
        seen = super().now
        self.reads = self.reads + 1 if seen == self.seen else 0
        self.seen = seen
        return seen + self.reads * 1e-4


class Script:
    """A policy that answers by class of event and remembers what it was told."""

    name = "script"
    needs = frozenset()
    manages_sandboxes = False

    def __init__(self, observes=(), **answers):
        self.observes = frozenset(observes)
        self.answers, self.told = answers, []

    def handle(self, event, now):
        self.told.append((now, event))
        answer = self.answers.get(type(event).__name__, lambda _: [])
        return answer(event)

    def check_invariants(self):
        pass

    @property
    def events(self):
        return [event for _, event in self.told]


def test_a_time_that_comes_while_a_tick_is_told_is_in_that_tick():
    """What the policy took for over at the time it was told must not be told once more."""

    async def main():
        script = Script(ProgramArrived=lambda _: list(map(WakeAt, times)))
        driver = LiveDriver(script, Hasty())
        driver.arrive("p")
        await asyncio.sleep(102)
        return script.told[1:]

    times = [time for k in range(100) for time in (1.0 + k, 1.0 + k + k * 2e-5)]

    with VirtualLoop() as loop:
        left = times
        for now, event in loop.run_until_complete(main()):
            assert event == Tick()
            assert any(time <= now for time in left), f"a tick at {now} for nothing"
            left = [time for time in left if time > now]
        assert left == []


class Hooks:
    capabilities = frozenset({Capability.PIN})

    def __init__(self):
        self.sent = []

    def pin(self, *args, **options):
        self.sent.append(("pin", *args, options))

    def unpin(self, *args):
        self.sent.append(("unpin", *args))

    def evict(self, *args):
        self.sent.append(("evict", *args))

    def retain(self, *args):
        self.sent.append(("retain", *args))


class Boxes:
    def __init__(self):
        self.sent = []

    def prepare(self, program_id):
        self.sent.append(("prepare", program_id))

    def reclaim(self, program_id):
        self.sent.append(("reclaim", program_id))


def at_once(event):
    return [Dispatch(event.call_id, "r0", 3)]


def play(script, act, **seams):
    """Run `act(driver)` on a virtual loop with one replica up; the driver afterwards."""

    async def main():
        driver = LiveDriver(script, LoopClock(), **seams)
        driver.replica_up("r0", 1000, 16)
        await act(driver)
        driver.check_invariants()
        return driver

    with VirtualLoop() as loop:
        return loop.run_until_complete(main())


def test_a_call_from_its_arrival_to_its_end():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 100) as call:
            assert await call.placed() == Placement("r0", 3)
            await asyncio.sleep(2)
            call.first_token()
            call.first_token()
            await asyncio.sleep(1)
            call.finished(USAGE)
        assert (call.arrived_s, call.placed_s, call.first_token_s, call.ended_s) == (0.0, 0.0, 2.0, 3.0)
        driver.release("p")

    driver = play(script, act)
    assert script.told == [
        (0.0, ReplicaUp("r0", 1000, 16)),
        (0.0, ProgramArrived("p", needs_sandbox=False)),
        (0.0, CallArrived("p", "p/0", 100)),
        (0.0, CallDispatched("p", "p/0", "r0")),
        (2.0, FirstToken("p", "p/0")),
        (3.0, CallFinished("p", "p/0", 100, 20, 64)),
        (3.0, ProgramFinished("p")),
    ]
    assert driver.ends == {"finished": 1, "failed": 0, "cancelled": 0}
    assert (driver.programs, driver.calls) == ({}, {})


def test_every_decision_is_recorded_with_its_time_and_answer():
    log = []
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 7):
            pass

    play(script, act, decide=lambda *decision: log.append(decision))
    assert [(now, event) for now, event, _ in log] == script.told
    assert [actions for *_, actions in log] == [[], [], [Dispatch("p/0", "r0", 3)], [], []]


def test_a_held_call_waits_until_it_is_dispatched():
    script = Script(
        CallArrived=lambda event: [Hold(event.call_id), WakeAt(5.0)],
        Tick=lambda _: [Dispatch("p/0", "r0")],
    )

    async def act(driver):
        with driver.open("p", 7) as call:
            assert driver.held == 1
            assert await call.placed() == Placement("r0", 0)
            assert driver.now == 5.0
            call.finished(USAGE)

    play(script, act)
    assert script.told[3] == (5.0, Tick())


def test_one_tick_for_one_time_however_often_it_is_asked_for():
    script = Script(ProgramArrived=lambda _: [WakeAt(1.0), WakeAt(1.0)], Tick=lambda _: [])

    async def act(driver):
        driver.arrive("p")
        driver.arrive("p")
        driver.arrive("q")
        await asyncio.sleep(3)

    play(script, act)
    assert script.events.count(Tick()) == 1
    assert script.events.count(ProgramArrived("p", needs_sandbox=False)) == 1


def test_times_that_have_come_together_are_one_tick():
    """On the wall clock a timer is late now and then, and the next one has come as well by then."""
    script = Script(ProgramArrived=lambda _: [WakeAt(1.0), WakeAt(1.5), WakeAt(4.0)])

    async def act(driver):
        await asyncio.sleep(2)
        driver.arrive("p")
        await asyncio.sleep(5)

    play(script, act)
    assert script.told[-2:] == [(2.0, Tick()), (4.0, Tick())]


def test_a_time_to_wake_that_has_passed_is_now():
    script = Script(ProgramArrived=lambda _: [WakeAt(-1.0)])

    async def act(driver):
        await asyncio.sleep(2)
        driver.arrive("p")
        await asyncio.sleep(1)

    play(script, act)
    assert script.told[-1] == (2.0, Tick())


def test_a_call_that_is_left_without_an_end_was_cancelled():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 7) as call:
            await call.placed()
        with pytest.raises(ZeroDivisionError), driver.open("p", 7) as broken:
            1 / 0  # noqa: B018 - any error will do
        assert [(c.end, c.reason) for c in (call, broken)] == [("cancelled", "cancelled")] * 2

    driver = play(script, act)
    assert script.events[-1] == CallFailed("p", "p/1", "cancelled")
    assert driver.ends == {"finished": 0, "failed": 0, "cancelled": 2}


def test_what_is_said_after_the_end_is_ignored():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 7) as call:
            await call.placed()
            call.failed("HTTP 500")
            call.finished(USAGE)
            call.first_token()
            call.cancelled()
        assert (call.end, call.usage, call.first_token_s) == ("failed", None, None)

    driver = play(script, act)
    assert script.events[-1] == CallFailed("p", "p/0", "HTTP 500")
    assert driver.ends == {"finished": 0, "failed": 1, "cancelled": 0}


def test_a_held_call_that_ends_lets_its_waiter_go():
    async def act(driver):
        call = driver.open("p", 7)
        waiter = asyncio.ensure_future(call.placed())
        await asyncio.sleep(1)
        call.failed("time-out")
        assert await waiter is None

    play(Script(), act)


def test_a_cancelled_waiter_cancels_its_call():
    async def serve(driver):
        with driver.open("p", 7) as call:
            await call.placed()

    async def act(driver):
        task = asyncio.ensure_future(serve(driver))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert driver.calls == {}

    script = Script()
    play(script, act)
    assert script.told[-1] == (1.0, CallFailed("p", "p/0", "cancelled"))


def test_a_program_is_over_when_it_is_released_and_its_calls_have_ended():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 7) as first, driver.open("p", 8) as second:
            assert driver.release("p")
            first.finished(USAGE)
            assert "p" in driver.programs
            second.finished(USAGE)
        assert not driver.release("p")

    play(script, act)
    assert script.events[-1] == ProgramFinished("p")
    assert sum(isinstance(event, ProgramFinished) for event in script.events) == 1


def test_a_program_that_calls_again_after_its_release_lives_on():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("p", 7) as first:
            driver.release("p")
            with driver.open("p", 9):
                first.finished(USAGE)
        assert "p" in driver.programs

    play(script, act)
    assert ProgramFinished("p") not in script.events


def test_quiet_programs_are_released_and_busy_ones_are_not():
    script = Script(CallArrived=at_once)

    async def act(driver):
        with driver.open("busy", 7):
            with driver.open("quiet", 7) as call:
                call.finished(USAGE)
            with driver.open("acting", 7) as call:
                call.finished(USAGE)
            await asyncio.sleep(100)
            driver.told(ToolStarted("acting", "acting/2", "bash"))
            await asyncio.sleep(20)
            assert driver.release_quiet(60.0) == ["quiet"]

    play(script, act)
    assert [e for e in script.events if isinstance(e, ProgramFinished)] == [ProgramFinished("quiet")]


def test_calls_of_a_replica_that_goes_down_are_lost_and_the_rest_stays():
    script = Script(CallArrived=lambda e: [Dispatch(e.call_id, "r0" if e.program_id == "p" else "r1")])
    lost = []

    async def act(driver):
        driver.replica_up("r1", 1000, 16)
        with driver.open("p", 7) as call, driver.open("q", 7) as other:
            call.on_lost = lost.append
            driver.replica_down("r0", "no answer")
            driver.replica_down("r0", "no answer")
            assert (call.end, other.end) == ("failed", None)
            other.finished(USAGE)

    play(script, act)
    reason = "replica r0 is gone: no answer"
    assert lost == [reason]
    assert script.events[-3:] == [
        ReplicaDown("r0"),
        CallFailed("p", "p/0", reason),
        CallFinished("q", "q/1", *USAGE),
    ]


def test_optional_facts_are_told_to_those_who_observe_them():
    optional = (Decoded, PromptSeen, ReplicaSampled, ToolCallParsed)
    load = ReplicaMetrics(running=2, waiting=1, kv_usage_share=0.5, kv_tokens=1000)

    async def act(driver):
        driver.sampled("r0", load)
        driver.sampled("r0", ReplicaMetrics(running=2))
        driver.sampled("nobody", load)
        with driver.open("p", 7, content="7 abc") as call:
            call.decoded_tokens = 4
            await asyncio.sleep(2)
            call.tools.append("bash")
            call.finished(USAGE)

    answers = {"CallArrived": lambda e: [*at_once(e), WakeAt(1.0)]}
    blind, seeing = Script(**answers), Script(optional, **answers)
    play(blind, act)
    play(seeing, act)
    assert [e for e in seeing.events if isinstance(e, optional)] == [
        ReplicaSampled("r0", 2, 1, 500),
        PromptSeen("p", "p/0", None, "7 abc", "p/0 output"),
        Decoded("p", "p/0", 4),
        ToolCallParsed("p", "p/0", "bash"),
    ]
    assert not [e for e in blind.events if isinstance(e, optional)]


def test_facts_of_agents_reach_the_policy_while_the_program_is_here():
    script = Script()

    async def act(driver):
        driver.arrive("p", needs_sandbox=True)
        driver.told(ToolStarted("p", "c", "bash"))
        driver.told(ToolFinished("stranger", "c", "bash", 1.0, 5))

    play(script, act)
    assert script.events[1:] == [ProgramArrived("p", needs_sandbox=True), ToolStarted("p", "c", "bash")]


def test_orders_to_the_engine_go_where_the_program_last_ran():
    orders = [Pin("p", 4.5, yields=True), Retain("p", "task", 2, 9.0), Evict("p", 100), Unpin("p")]
    script = Script(CallArrived=at_once, CallFinished=lambda _: orders, ProgramArrived=lambda _: orders)
    hooks = Hooks()

    async def act(driver):
        with driver.open("p", 7) as call:
            await asyncio.sleep(1)
            call.finished(USAGE)

    play(script, act, hooks=hooks)
    assert hooks.sent == [
        ("pin", "r0", "p", 3.5, {"yields": True}),
        ("retain", "r0", "p", "task", 2, 9.0),
        ("evict", "r0", "p", 100),
        ("unpin", "r0", "p"),
    ]


def test_sandboxes_are_prepared_and_reclaimed_where_somebody_has_them():
    orders = [PrepareSandbox("p"), ReclaimSandbox("p")]
    boxes = Boxes()

    async def act(driver):
        driver.arrive("p")

    play(Script(ProgramArrived=lambda _: orders), act, sandboxes=boxes)
    play(Script(ProgramArrived=lambda _: orders), act)
    assert boxes.sent == [("prepare", "p"), ("reclaim", "p")]


def test_pauses_are_counted():
    async def act(driver):
        driver.arrive("p")
        assert driver.programs["p"].pauses == 1

    play(Script(ProgramArrived=lambda _: [Pause("p"), Pause("stranger")]), act)


BAD = {
    "raises": (lambda _: 1 / 0, PolicyFailed, "raised ZeroDivisionError"),
    "gives no list": (lambda _: None, PolicyFailed, "gave None, not a list of actions"),
    "sends a call nowhere": (lambda e: [Dispatch(e.call_id, "r9")], SetupError, "r9"),
    "sends a call twice": (lambda e: at_once(e) + at_once(e), SetupError, "once"),
    "pins without hooks": (lambda _: [Pin("p", 1.0)], SetupError, "ordered Pin"),
    "offloads": (lambda _: [Offload("p", "cpu")], SetupError, "ordered Offload"),
}


@pytest.mark.parametrize("what", BAD)
def test_a_policy_that_fails_fails_all_calls_and_decides_nothing_more(what):
    answer, kind, text = BAD[what]
    script = Script(CallArrived=lambda e: answer(e) if e.program_id == "q" else [])
    faults = []

    async def act(driver):
        held = driver.open("p", 7)
        call = driver.open("q", 7)
        assert [held.end, call.end] == ["failed", "failed"]
        assert faults == [driver.fault]
        assert isinstance(driver.fault, kind)
        assert text in str(driver.fault)
        told = len(script.told)
        driver.arrive("r")
        with pytest.raises(kind):
            driver.open("p", 7)
        assert len(script.told) == told

    play(script, act, on_fault=faults.append)


def test_a_real_policy_keeps_its_books_over_all_of_it():
    async def act(driver):
        calls = [driver.open(f"p{i}", 400) for i in range(4)]
        driver.check_invariants()
        await asyncio.sleep(6)
        driver.replica_down("r0", "gone")
        driver.check_invariants()
        driver.replica_up("r0", 1000, 16)
        await asyncio.sleep(6)
        for call in calls:
            call.cancelled()
            driver.check_invariants()
        assert driver.release_quiet(-1.0) == ["p0", "p1", "p2", "p3"]

    driver = play(Thunder(Thunder.Config(), Random(0)), act)
    assert driver.fault is None
    assert driver.programs == {}


def test_unmet_needs_are_refused_with_the_mend():
    policy = Script()
    policy.needs = frozenset({Capability.PIN, Capability.PRIORITY})
    refuse_unmet_needs(policy, policy.needs, "")
    with pytest.raises(SetupError) as refused:
        refuse_unmet_needs(policy, frozenset({Capability.PRIORITY}), "Start it with --this")
    assert str(refused.value) == (
        "scheduler 'script' needs `pin`; expected servers that offer it. Start it with --this"
    )


def test_events_that_no_server_tells_are_refused():
    from schedulers.contract import KvChanged  # noqa: PLC0415 - one use

    with pytest.raises(SetupError, match="observes KvChanged, which no live server tells"):
        refuse_unmet_needs(Script([KvChanged]), frozenset(), "")


def test_a_bug_of_ours_is_shown_at_once_and_nothing_waits_for_ever():
    def full(now, event, actions):  # noqa: ARG001 - a decide's signature
        if isinstance(event, CallArrived):
            raise OverflowError("a number that no file can hold")

    async def run():
        faults = []
        driver = LiveDriver(Script(), LoopClock(), decide=full, on_fault=faults.append)
        driver.replica_up("r0", 1000, 16)
        with pytest.raises(OverflowError):
            driver.open("p", 10)
        assert driver.calls == {}
        assert [str(fault) for fault in faults] == [
            "a bug of ours: OverflowError: a number that no file can hold"
        ]
        with pytest.raises(ThunderbenchError, match="a bug of ours"):
            driver.open("q", 10)

    with VirtualLoop() as loop:
        loop.run_until_complete(run())

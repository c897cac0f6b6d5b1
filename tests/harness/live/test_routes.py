"""What the gateway answers itself: ThunderAgent's clients, facts of agents, health."""

import json

from harness.errors import PolicyFailed
from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.routes import Control, Standing, standing
from schedulers import registry
from schedulers.contract import ProgramArrived, SandboxReady, ToolFinished, ToolStarted


class StandingClock(LoopClock):
    """A clock that stands where it is put, and wakes nobody."""

    now = 0.0

    def __init__(self):
        self.lateness_s = 0.0

    def at(self, when, happen, *args):
        pass


def made(scheduler="thunder", *, up=True):
    log = []
    clock = StandingClock()
    driver = LiveDriver(
        registry.build(scheduler, {}, 0), clock, decide=lambda _, event, __: log.append(event)
    )
    if up:
        driver.replica_up("r0", 1000, 16)
    state = {"draining": False}
    control = Control(
        driver,
        scheduler=scheduler,
        replicas=("r0", "r1"),
        metrics=lambda: b"m 1\n",
        draining=lambda: state["draining"],
    )
    return driver, control, log, state, clock


def test_programs_are_told_with_the_keys_of_thunderagents_clients_and_more():
    driver, control, _, _, clock = made()
    driver.open("p", 100)
    clock.now = 2.0
    driver.open("q", 5000)
    clock.now = 3.0
    told = json.loads(control.programs().whole)
    assert told["p"] == {
        "backend": "r0",
        "context_len": 100,
        "total_tokens": 100,
        "step_count": 1,
        "status": "reasoning",
        "state": "active",
        "calls_open": 1,
        "calls_held": 0,
        "pauses": 0,
        "age_s": 3.0,
        "quiet_s": 0.0,
    }
    assert (told["q"]["state"], told["q"]["backend"], told["q"]["calls_held"]) == ("paused", None, 1)


def test_a_program_that_acts_says_since_when_and_a_policy_without_a_ledger_says_less():
    driver, control, _, _, clock = made("vllm")
    call = driver.open("p", 100)
    call.cancelled()
    clock.now = 4.0
    told = json.loads(control.programs().whole)["p"]
    assert (told["status"], told["quiet_s"], told["calls_open"]) == ("acting", 4.0, 0)
    driver.policy = object()
    assert standing(driver, "p") == Standing(None, None, None, None)
    assert json.loads(control.programs().whole)["p"]["status"] == "acting"


def test_release_says_whether_the_program_was_here():
    driver, control, _, _, _ = made()
    driver.arrive("p")
    assert [json.loads(control.release(b'{"program_id": "p"}').whole) for _ in range(2)] == [
        {"program_id": "p", "released": True},
        {"program_id": "p", "released": False},
    ]
    driver.arrive("7")
    assert json.loads(control.release(b'{"program_id": 7, "more": 1}').whole)["released"] is True


def test_facts_become_events_and_wrong_ones_400():
    driver, control, log, _, _ = made()
    del log[:]
    facts = [
        {"event": "arrived"},
        {"event": "tool_started", "tool": "bash", "call_id": "p/0"},
        {"event": "tool_progressed", "tool": "bash", "share": 0.5},
        {"event": "tool_finished", "tool": "bash", "duration_s": 1.5, "observation_tokens": 9},
        {"event": "sandbox_ready"},
    ]
    answers = [control.event(json.dumps({"program_id": "p", **fact}).encode()) for fact in facts]
    assert [(answer.status, json.loads(answer.whole)["known"]) for answer in answers] == [(200, True)] * 5
    assert log == [
        ProgramArrived("p", needs_sandbox=False),
        ToolStarted("p", "p/0", "bash"),
        ToolFinished("p", "", "bash", 1.5, 9),
        SandboxReady("p"),
    ]
    unknown = control.event(b'{"program_id": "z", "event": "sandbox_ready"}')
    assert json.loads(unknown.whole) == {"program_id": "z", "known": False}
    bad = [
        b"",
        b"[]",
        b'{"program_id": "p"}',
        b'{"program_id": "p", "event": "danced"}',
        b"\xff",
        b'{"event": 1}',
    ]
    assert [control.event(body).status for body in bad] == [400] * 6
    assert [control.release(body).status for body in (b"", b"{}", b'{"program_id": null}', b"\xff")] == [
        400
    ] * 4
    driver.check_invariants()


def test_health_is_503_when_calls_are_not_served():
    driver, control, _, state, _ = made()
    driver.open("p", 10)
    assert json.loads(control.health(brief=True).whole) == {"status": "ok"}
    full = control.health(brief=False)
    assert (full.status, json.loads(full.whole)) == (
        200,
        {
            "status": "ok",
            "scheduler": "thunder",
            "backends": ["r0", "r1"],
            "replicas": {"r0": "up", "r1": "down"},
            "programs_count": 1,
            "reasoning_count": 1,
            "acting_count": 0,
            "paused_count": 0,
            "calls_open": 1,
            "calls_held": 0,
            "fault": None,
        },
    )
    state["draining"] = True
    assert (control.health(brief=True).status, control.health(brief=True).whole) == (
        503,
        b'{"status": "draining"}',
    )
    driver.fault = PolicyFailed("it raised")
    assert json.loads(control.health(brief=False).whole)["fault"] == "it raised"
    _, control, _, _, _ = made(up=False)
    assert control.health(brief=True).whole == b'{"status": "no server is up"}'


def test_metrics_are_prometheus_text():
    _, control, _, _, _ = made()
    answer = control.metrics()
    kind = "text/plain; version=0.0.4; charset=utf-8"
    assert (answer.whole, answer.headers) == (b"m 1\n", [("Content-Type", kind)])


def test_facts_that_no_table_can_hold_and_names_that_no_call_can_have_are_refused():
    driver, control, log, _, _ = made()
    driver.arrive("p")
    del log[:]
    wrong = [
        {"event": "tool_finished", "observation_tokens": 10**30},
        {"event": "tool_finished", "observation_tokens": -1},
        {"event": "tool_finished", "duration_s": -1},
        {"event": "tool_finished", "duration_s": 1e300},
        {"event": "tool_progressed", "share": 1.5},
        {"event": "arrived", "program_id": " "},
        {"event": "arrived", "program_id": "x" * 257},
        {"event": "arrived", "program_id": "a\nb"},
    ]
    bodies = [json.dumps({"program_id": "p", **fact}).encode() for fact in wrong]
    assert [control.event(body).status for body in bodies] == [400] * len(wrong)
    assert control.release(b'{"program_id": ""}').status == 400
    assert (log, list(driver.programs)) == ([], ["p"])
    assert json.loads(control.release(b'{"program_id": " p "}').whole)["released"] is True

"""Servers that are away are told of, and a run with none left is given up."""

from harness.live.clock import LoopClock
from harness.live.outages import GIVE_UP_AFTER_S, Outages
from harness.live.virtual_loop import VirtualLoop
from schedulers.contract import ReplicaDown, ReplicaUp


def play(*facts, until_s):
    """Tell `facts` (time, event); the summary at `until_s`, and what the run was given up for, and when."""
    given_up, decided = [], []
    with VirtualLoop() as loop:
        clock = LoopClock(loop)
        outages = Outages(
            clock,
            lambda now, event, actions: decided.append((now, event, actions)),
            why=lambda name: f"http://{name}: no answer",
            give_up=lambda error: given_up.append((clock.now, str(error))),
        )
        for when, event in facts:
            clock.at(when, outages.decide, when, event, [])
        loop.call_later(until_s, loop.stop)
        loop.run_forever()
        assert decided == [(when, event, []) for when, event in facts]
        return outages.summary(), given_up


BOTH = ((0.0, ReplicaUp("r0", 100, 10)), (0.0, ReplicaUp("r1", 100, 10)))


def test_servers_that_stay_are_not_told_of():
    assert play(*BOTH, until_s=500.0) == ({}, [])


def test_each_time_away_counts_also_the_one_under_way():
    facts = (
        *BOTH,
        (10.0, ReplicaDown("r0")),
        (15.0, ReplicaUp("r0", 100, 10)),
        (20.0, ReplicaDown("r0")),
        (30.0, ReplicaDown("r1")),
        (50.0, ReplicaUp("r1", 100, 10)),
    )
    away = {"r0": {"times": 2, "away_s": 5.0 + 480.0}, "r1": {"times": 1, "away_s": 20.0}}
    assert play(*facts, until_s=500.0) == (away, [])


def test_a_run_without_servers_is_given_up():
    _, given_up = play(*BOTH, (10.0, ReplicaDown("r0")), (30.0, ReplicaDown("r1")), until_s=500.0)
    why = "no server is left, for 60 s (http://r0: no answer; http://r1: no answer)"
    assert given_up == [(30.0 + GIVE_UP_AFTER_S, why)]


def test_one_that_comes_back_in_time_saves_the_run_until_it_goes_again():
    facts = (
        *BOTH,
        (10.0, ReplicaDown("r0")),
        (10.0, ReplicaDown("r1")),
        (60.0, ReplicaUp("r1", 100, 10)),
        (65.0, ReplicaDown("r1")),
    )
    _, given_up = play(*facts, until_s=500.0)
    assert [when for when, _ in given_up] == [65.0 + GIVE_UP_AFTER_S]

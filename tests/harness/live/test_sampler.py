"""Samples: fresh at each instant, counted from the run's beginning, null where nobody answers."""

import pytest

from harness.live.ports import ReplicaMetrics, UpstreamFailed
from tests.harness.live.replay.scripted import Scripted
from tests.harness.live.replay.test_agents import answering
from tests.harness.live.scenes import play_live, scripted
from tests.harness.virtual.bag import chain


class Probe:
    """Answers from a list, then nothing."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def metrics(self, replica):
        assert replica == "r0"
        answer = self.answers.pop(0) if self.answers else ReplicaMetrics()
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_totals_count_from_the_beginning_and_what_is_not_told_is_null():
    probe = Probe(
        ReplicaMetrics(queries_total=1000, hits_total=100, running=0, waiting=0),  # before the run
        ReplicaMetrics(
            running=2, waiting=1, kv_usage_share=0.5, kv_tokens=1600, queries_total=1500, hits_total=350
        ),
        UpstreamFailed("busy"),
        ReplicaMetrics(queries_total=10, hits_total=5),  # started anew
    )
    server = Scripted(otherwise=answering)
    bag, _ = play_live(
        scripted(server, probe=probe, replicas=("r0",)),
        [chain("p", 2)],
        duration_s=9.0,
        warmup_s=2.5,
        sample_every_s=4.0,
    )
    rows = [
        (r.time_s, r.running, r.waiting, r.used_tokens, r.capacity_tokens, r.queries_total, r.hits_total)
        for r in bag.samples
    ]
    assert rows == [
        (0.0, 0, 0, None, None, 0, 0),
        (2.5, 2, 1, 800, 1600, 500, 250),
        (4.0, None, None, None, None, None, None),
        (8.0, None, None, None, None, None, None),
        (11.5, None, None, None, None, None, None),
    ]
    assert [r.programs_live for r in bag.samples] == [1, 1, 1, 1, 0]
    assert {r.held for r in bag.samples} == {None}


def test_a_probe_that_raises_something_else_is_a_bug():
    probe = Probe(ReplicaMetrics(), ValueError("bug"))
    scene = scripted(Scripted(otherwise=answering), probe=probe, replicas=("r0",))
    with pytest.raises(ValueError, match="bug"):
        play_live(scene, [chain("p", 1)], sample_every_s=1.0)

from __future__ import annotations

import asyncio
from random import Random

from prometheus_client.parser import text_string_to_metric_families

from harness.live.clock import LoopClock
from harness.live.driver import LiveDriver
from harness.live.gateway_metrics import LAG_EVERY_S, TABLE, GatewayMetrics, Tally
from harness.live.monitor import Monitor, ReplicaHealth
from harness.live.ports import ReplicaMetrics, Usage
from harness.live.virtual_loop import VirtualLoop
from schedulers.contract import Hold, Pause, Tick
from schedulers.thunder import Thunder

SAYS = ReplicaMetrics(
    running=3, waiting=1, kv_usage_share=0.5, kv_tokens=10_000, queries_total=9, hits_total=4
)


class Never:
    """A probe that is never asked: the monitor is not started."""

    async def health(self, replica: str) -> None:
        raise NotImplementedError

    async def metrics(self, replica: str) -> ReplicaMetrics | None:
        raise NotImplementedError


class Gateway:
    """`thunder` in front of a replica `a` that is up and a replica `b` that is down, and its metrics."""

    def __init__(self, loop, **options):
        self.tally = Tally()
        policy = Thunder(Thunder.Config(), Random(0))
        self.driver = LiveDriver(policy, LoopClock(loop), decide=self.tally)
        self.monitor = Monitor(self.driver, {"a": "", "b": ""}, probe=Never())
        self.monitor.health = {"a": ReplicaHealth("up", metrics=SAYS), "b": ReplicaHealth("down")}
        self.metrics = GatewayMetrics(self.driver, self.monitor, **options)
        self.driver.replica_up("a", 10_000, 16)

    def samples(self, *, buckets=False):
        """Name with labels -> value of everything on the page, without histograms' buckets."""
        found = {}
        for family in text_string_to_metric_families(self.metrics.render().decode()):
            for sample in family.samples:
                if buckets or not sample.name.endswith("_bucket"):
                    labels = ",".join(sample.labels.values())
                    assert sample.name.startswith("thunderbench:")
                    found[" ".join(filter(None, (sample.name.partition(":")[2], labels)))] = sample.value
        return found


def on_loop(main):
    with VirtualLoop() as loop:
        loop.run_until_complete(main(loop))


async def call(gateway, hold_s=0.0, first_s=None, rest_s=0.0, end=lambda call: call.cancelled()):
    """One call: its time until the first token, and from then to its end."""
    open_call = gateway.driver.open("p", 100)
    await asyncio.sleep(hold_s)
    if first_s is not None:
        await asyncio.sleep(first_s)
        open_call.first_token()
    await asyncio.sleep(rest_s)
    end(open_call)
    gateway.metrics.call_ended(open_call)


PER_CALL = {
    f"{name}_{part} thunder": 0.0
    for name in ("hold_seconds", "ttft_seconds", "tpot_seconds")
    for part in ("count", "sum")
}
IDLE = PER_CALL | {
    "calls_total finished,thunder": 0.0,
    "calls_total failed,thunder": 0.0,
    "calls_total cancelled,thunder": 0.0,
    "prompt_tokens_total thunder": 0.0,
    "output_tokens_total thunder": 0.0,
    "event_loop_lag_seconds_count": 0.0,
    "event_loop_lag_seconds_sum": 0.0,
    "held": 0.0,
    "in_flight": 0.0,
    "programs": 0.0,
    "replica_up a": 1.0,
    "replica_up b": 0.0,
    "replica_in_flight a": 0.0,
    "replica_in_flight b": 0.0,
    "replica_kv_tokens a": 10_000.0,
    "replica_running a": 3.0,
    "replica_waiting a": 1.0,
    "replica_kv_usage_share a": 0.5,
    "replica_prefix_cache_queries_total a": 9.0,
    "replica_prefix_cache_hits_total a": 4.0,
}


def test_an_idle_gateway_says_what_it_knows_and_leaves_out_the_rest() -> None:
    """No cached tokens before a server reported some; of a replica that is down only that it is."""

    async def main(loop):
        assert Gateway(loop).samples() == IDLE

    on_loop(main)


def test_finished_calls_are_counted_with_their_times_and_tokens() -> None:
    async def main(loop):
        gateway = Gateway(loop)
        await call(gateway, 0.0, 0.5, 2.0, lambda call: call.finished(Usage(100, 5, 64)))
        await call(gateway, 0.0, None, 1.0, lambda call: call.finished(Usage(50, 7, None)))
        changed = {
            "calls_total finished,thunder": 2.0,
            "prompt_tokens_total thunder": 150.0,
            "output_tokens_total thunder": 12.0,
            "cached_tokens_total thunder": 64.0,
            "hold_seconds_count thunder": 2.0,
            "ttft_seconds_count thunder": 1.0,
            "ttft_seconds_sum thunder": 0.5,
            "tpot_seconds_count thunder": 1.0,
            "tpot_seconds_sum thunder": 0.5,  # four tokens after the first in 2 s
            "programs": 1.0,
        }
        assert gateway.samples() == IDLE | changed

    on_loop(main)


def test_calls_that_did_not_finish_are_counted_by_their_end_and_have_no_tokens() -> None:
    async def main(loop):
        gateway = Gateway(loop)
        await call(gateway, 0.0, 0.5, 2.0, lambda call: call.failed("500"))
        await call(gateway)
        gateway.driver.replica_down("a", "test")
        await call(gateway, 3.0)  # never placed
        found = gateway.samples()
        assert (found["calls_total failed,thunder"], found["calls_total cancelled,thunder"]) == (1.0, 2.0)
        assert (found["hold_seconds_count thunder"], found["ttft_seconds_count thunder"]) == (2.0, 1.0)
        assert found["tpot_seconds_count thunder"] == found["prompt_tokens_total thunder"] == 0.0
        assert "replica_kv_tokens a" not in found

    on_loop(main)


def test_open_calls_are_held_or_at_a_replica() -> None:
    async def main(loop):
        gateway = Gateway(loop)
        gateway.driver.open("p", 100)
        gateway.driver.open("q", 50_000)  # more than the replica holds
        found = gateway.samples()
        names = ("programs", "held", "in_flight", "replica_in_flight a", "replica_in_flight b")
        placed = [c.placement is not None for c in gateway.driver.calls.values()]
        assert [found[name] for name in names] == [2.0, 2 - sum(placed), sum(placed), sum(placed), 0.0]
        assert sum(placed) >= 1

    on_loop(main)


def test_decisions_pauses_and_lost_messages_are_told_where_they_are_known() -> None:
    passed = []
    tally = Tally(lambda *decision: passed.append(decision))
    tally(1.0, Tick(), [Pause("p"), Hold("c"), Pause("q")])
    tally(2.0, Tick(), [])
    assert (tally.decisions, tally.pauses) == (2, 2)
    assert passed == [(1.0, Tick(), [Pause("p"), Hold("c"), Pause("q")]), (2.0, Tick(), [])]

    async def main(loop):
        found = Gateway(loop, tally=tally, hook_messages_lost=lambda: 3).samples()
        names = ("decisions_total", "pauses_total", "hook_messages_lost_total")
        assert [found[name] for name in names] == [2.0, 2.0, 3.0]

    on_loop(main)


def test_the_label_is_the_name_it_was_started_with() -> None:
    async def main(loop):
        assert "calls_total finished,mine:Own" in Gateway(loop, scheduler="mine:Own").samples()

    on_loop(main)


def test_the_loops_lag_is_how_late_its_timer_was() -> None:
    """One look is 0.3 s late: the loop was busy; two are in time."""

    async def main(loop):
        gateway = Gateway(loop)
        gateway.metrics.start()
        await asyncio.sleep(LAG_EVERY_S * 1.5)
        loop._virtual_s += 0.35  # as if something had computed for so long
        await asyncio.sleep(LAG_EVERY_S * 1.2)
        gateway.metrics.stop()
        await asyncio.sleep(10)
        found = gateway.samples(buckets=True)
        assert found["event_loop_lag_seconds_count"] == 3.0
        assert round(found["event_loop_lag_seconds_sum"], 6) == 0.3
        assert found["event_loop_lag_seconds_bucket 0.2"] == 2.0

    on_loop(main)


def test_every_name_of_the_table_can_be_on_the_page_and_no_other() -> None:
    async def main(loop):
        gateway = Gateway(loop, tally=Tally(), hook_messages_lost=lambda: 0)
        await call(gateway, 0.0, 0.5, 2.0, lambda call: call.finished(Usage(100, 5, 64)))
        families = list(text_string_to_metric_families(gateway.metrics.render().decode()))
        found = {one.name: (one.type, one.documentation) for one in families}
        assert found == {f"thunderbench:{name}": tuple(one) for name, one in TABLE.items()}

    on_loop(main)

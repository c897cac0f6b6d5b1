"""What the gateway says of itself and of its replicas, for Prometheus.

Everything that can be looked up is looked up when somebody asks (`render`); what passes is counted when it
passes: calls at their end, decisions as they are taken, the event loop's lag by a timer. `TABLE` has every
name. Replicas are told apart by `replica`. What a server does not say is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from harness.live.calls import OpenCall
from harness.live.driver import Decide, LiveDriver
from harness.live.monitor import Monitor, ReplicaHealth
from schedulers.contract import Action, Event, Pause

LAG_EVERY_S = 0.1


class Described(NamedTuple):
    """One metric. Counters get `_total` at the end of their names."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str


# name after `thunderbench:` -> what it is
TABLE: dict[str, Described] = {
    "calls": Described("counter", "Calls that ended, by scheduler and end (finished, failed, cancelled)."),
    "prompt_tokens": Described("counter", "Prompt tokens of finished calls, as the servers counted them."),
    "output_tokens": Described("counter", "Output tokens of finished calls, as the servers counted them."),
    "cached_tokens": Described("counter", "Prompt tokens that servers reported as cached, where they do."),
    "hold_seconds": Described("histogram", "From a call's arrival until it was sent to a replica."),
    "ttft_seconds": Described("histogram", "From a call's arrival until its first output token."),
    "tpot_seconds": Described("histogram", "Per output token of a call after its first."),
    "held": Described("gauge", "Calls that wait at the gateway."),
    "in_flight": Described("gauge", "Calls at a replica."),
    "programs": Described("gauge", "Programs that are not over."),
    "decisions": Described("counter", "Events that the scheduler decided about."),
    "pauses": Described("counter", "Programs that the scheduler paused."),
    "hook_messages_lost": Described("counter", "Messages to engine plug-ins that did not arrive."),
    "event_loop_lag_seconds": Described("histogram", f"How late a timer of every {LAG_EVERY_S} s was."),
    "replica_up": Described("gauge", "1 when the replica is up, else 0."),
    "replica_in_flight": Described("gauge", "Calls of ours at the replica."),
    "replica_running": Described("gauge", "Requests that the engine runs."),
    "replica_waiting": Described("gauge", "Requests in the engine's queue."),
    "replica_kv_usage_share": Described("gauge", "Share of its KV cache that requests hold, 0 to 1."),
    "replica_kv_tokens": Described("gauge", "Capacity of its KV cache in tokens."),
    "replica_prefix_cache_queries": Described(
        "counter", "Prompt tokens that it looked up, since its start."
    ),
    "replica_prefix_cache_hits": Described("counter", "Of these, found in its KV cache."),
}

HOLDS_S = (0.001, 0.01, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)  # nothing to half an hour
TTFTS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800)
TPOTS_S = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1)
LAGS_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1)


class Tally:
    """A `decide` for the driver that counts and passes on to another."""

    def __init__(self, decide: Decide | None = None) -> None:
        self.decisions = self.pauses = 0
        self._decide = decide

    def __call__(self, now: float, event: Event, actions: list[Action]) -> None:
        """One decision."""
        self.decisions += 1
        for action in actions:
            if type(action) is Pause:
                self.pauses += 1
        if self._decide is not None:
            self._decide(now, event, actions)


class GatewayMetrics:
    """The metrics of one gateway, in a registry of their own.

    `scheduler` is the name it was started with (null: the policy's own). `tally` is the driver's `decide`;
    `hook_messages_lost` is asked for their number. What is not given is left out.
    """

    def __init__(
        self,
        driver: LiveDriver,
        monitor: Monitor,
        *,
        scheduler: str | None = None,
        tally: Tally | None = None,
        hook_messages_lost: Callable[[], int] | None = None,
    ) -> None:
        self._registry = CollectorRegistry()
        self._name = name = driver.policy.name if scheduler is None else scheduler
        calls = self._counter("calls", "scheduler", "end")
        self._calls = {end: calls.labels(name, end) for end in driver.ends}
        self._prompt_tokens = self._counter("prompt_tokens", "scheduler").labels(name)
        self._output_tokens = self._counter("output_tokens", "scheduler").labels(name)
        self._cached_tokens = self._counter("cached_tokens", "scheduler")  # labelled by the first report
        self._hold = self._histogram("hold_seconds", HOLDS_S, "scheduler").labels(name)
        self._ttft = self._histogram("ttft_seconds", TTFTS_S, "scheduler").labels(name)
        self._tpot = self._histogram("tpot_seconds", TPOTS_S, "scheduler").labels(name)
        self._lag = self._histogram("event_loop_lag_seconds", LAGS_S)
        self._registry.register(_Lazy(driver, monitor, tally, hook_messages_lost))
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch the running loop's lag."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LAG_EVERY_S
        self._timer = loop.call_at(due, self._look_at_lag, loop, due)

    def stop(self) -> None:
        """Watch it no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def call_ended(self, call: OpenCall) -> None:
        """Count a call that has ended."""
        assert call.end is not None, "a call that has not ended"
        self._calls[call.end].inc()
        arrived, first = call.arrived_s, call.first_token_s
        if call.placed_s is not None:
            self._hold.observe(call.placed_s - arrived)
        if first is not None:
            self._ttft.observe(first - arrived)
        usage = call.usage
        if usage is None:
            return
        self._prompt_tokens.inc(usage.prompt_tokens)
        self._output_tokens.inc(usage.output_tokens)
        if usage.cached_tokens is not None:
            self._cached_tokens.labels(self._name).inc(usage.cached_tokens)
        if first is not None and call.ended_s is not None and usage.output_tokens > 1:
            self._tpot.observe((call.ended_s - first) / (usage.output_tokens - 1))

    def render(self) -> bytes:
        """The page, in Prometheus' text format."""
        return generate_latest(_WithoutCreated(self._registry))

    def _look_at_lag(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._lag.observe(max(loop.time() - due, 0.0))  # a timer may ring early by the clock's resolution
        self.start()

    def _counter(self, name: str, *labels: str) -> Counter:
        return Counter(f"thunderbench:{name}", TABLE[name].help, labels, registry=self._registry)

    def _histogram(self, name: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        text = TABLE[name].help
        return Histogram(f"thunderbench:{name}", text, labels, registry=self._registry, buckets=buckets)


class _WithoutCreated(CollectorRegistry):
    """A registry without the times at which its series began: they double a page and nobody asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._of = registry

    def collect(self) -> Iterator[Metric]:
        for family in self._of.collect():
            family.samples = [one for one in family.samples if not one.name.endswith("_created")]
            yield family


class _Lazy(Collector):
    """What is looked up when asked for."""

    def __init__(
        self,
        driver: LiveDriver,
        monitor: Monitor,
        tally: Tally | None,
        hook_messages_lost: Callable[[], int] | None,
    ) -> None:
        self._driver, self._monitor = driver, monitor
        self._tally, self._lost = tally, hook_messages_lost

    def describe(self) -> Iterable[Metric]:
        """Nothing, so that registering it looks nothing up."""
        return ()

    def collect(self) -> Iterator[Metric]:
        held = self._driver.held
        yield _family("held", {"": held})
        yield _family("in_flight", {"": len(self._driver.calls) - held})
        yield _family("programs", {"": len(self._driver.programs)})
        if self._tally is not None:
            yield _family("decisions", {"": self._tally.decisions})
            yield _family("pauses", {"": self._tally.pauses})
        if self._lost is not None:
            yield _family("hook_messages_lost", {"": self._lost()})
        yield from self._of_replicas()

    def _of_replicas(self) -> Iterator[Metric]:
        health = self._monitor.health
        in_flight = dict.fromkeys(health, 0)
        for call in self._driver.calls.values():
            if call.placement is not None:
                in_flight[call.placement.replica] += 1
        yield _family("replica_up", {name: int(one.state == "up") for name, one in health.items()})
        yield _family("replica_in_flight", in_flight)
        up = self._driver.replicas
        yield _family("replica_kv_tokens", {name: one.kv_tokens for name, one in up.items()})
        for name, quantity in (
            ("replica_running", "running"),
            ("replica_waiting", "waiting"),
            ("replica_kv_usage_share", "kv_usage_share"),
            ("replica_prefix_cache_queries", "queries_total"),
            ("replica_prefix_cache_hits", "hits_total"),
        ):
            yield _family(name, _said(health, quantity))


def _said(health: Mapping[str, ReplicaHealth], quantity: str) -> dict[str, float]:
    """What replicas say of a quantity, those left out that do not."""
    said = {name: getattr(one.metrics, quantity, None) for name, one in health.items()}
    return {name: value for name, value in said.items() if value is not None}


def _family(name: str, values: Mapping[str, float]) -> Metric:
    """Values by replica; one under the empty name has no label."""
    described = TABLE[name]
    kind = CounterMetricFamily if described.kind == "counter" else GaugeMetricFamily
    labels = [] if "" in values else ["replica"]
    family = kind(f"thunderbench:{name}", described.help, labels=labels)
    for replica, value in values.items():
        family.add_metric([replica] if labels else [], value)
    return family

"""What the engines' samples say about a window: caches, queues, space-time and disk.

Counters are totals since the start of the run; what they gained over a window is the difference between
its two edges. A replica's totals at an edge are those of its last sample at or before it, or of its first
sample where it joined later. The virtual driver samples exactly at both edges.

Real servers do not tell everything, and not every time. A total is that of samples that tell it; what one
of the replicas never tells is not known of all of them together.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from harness.columns import Floats, Metrics, Window, floats, known, mean, ratio, texts, whole

COSTS = ("decode", "prefill", "recompute", "unused", "caching")


class Samples:
    """The samples of a run, `harness.rows.SampleRow`."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self._times = floats(table, "time_s")
        replicas = texts(table, "replica")
        self._replicas = [np.flatnonzero(replicas == name) for name in dict.fromkeys(replicas.tolist())]
        self._columns: dict[str, Floats] = {}

    def gained(self, column: str, window: Window) -> float | None:
        """What a total grew by over the window, all replicas together.

        Null without samples, where a replica never tells, and where a count fell: its server began anew.
        """
        edges = self._edges(window, column)
        if not edges:
            return None
        values = self._column(column)
        if pa.types.is_integer(self._table.schema.field(column).type) and self._fell(values, edges):
            return None
        return float(sum(values[last] - values[first] for first, last in edges))

    def hit_rate(self, window: Window) -> float | None:
        """Hits / queries (tokens; vllm:prefix_cache_hits, vllm:prefix_cache_queries)."""
        return ratio(self.gained("hits_total", window), self.gained("queries_total", window))

    def kv(self, window: Window) -> Metrics:
        """The cache as the engines saw it.

        `hit_rate_share`: see `hit_rate`. `used_mean_share`: KV held by running requests / capacity, mean
        over sampling instants and replicas. `imbalance_*_share`: largest minus smallest such share among
        the replicas at one instant at which all told it; null with one replica. `running_mean`,
        `waiting_mean`, `held_mean`: requests in the batch, in the engines' queues and at the gateway, all
        replicas together.
        """
        part = self._inside(window)
        used = self._column("used_tokens")[part] / self._column("capacity_tokens")[part]
        spread = self._spread(self._times[part], used)
        return {
            "hit_rate_share": self.hit_rate(window),
            "queried_tokens": whole(self.gained("queries_total", window)),
            "hit_tokens": whole(self.gained("hits_total", window)),
            "preemptions": whole(self.gained("preemptions_total", window)),
            "evicted_blocks": whole(self.gained("evicted_blocks_total", window)),
            "used_mean_share": mean(used),
            "imbalance_mean_share": mean(spread),
            "imbalance_max_share": float(spread.max()) if len(spread) else None,
            "running_mean": self._mean_of_sums("running", part),
            "waiting_mean": self._mean_of_sums("waiting", part),
            "held_mean": mean(self._column("held")[part]),
        }

    def _spread(self, times: Floats, used: Floats) -> Floats:
        """Largest minus smallest used share at each instant at which all replicas told it."""
        if len(self._replicas) < 2:
            return np.empty(0)
        told = ~np.isnan(used)
        instants, instant, count = np.unique(times[told], return_inverse=True, return_counts=True)
        high, low = np.full(len(instants), -np.inf), np.full(len(instants), np.inf)
        np.maximum.at(high, instant, used[told])
        np.minimum.at(low, instant, used[told])
        spread: Floats = (high - low)[count == len(self._replicas)]
        return spread

    def space_time(self, window: Window) -> Metrics:
        """KV capacity x time, token-seconds, split in the five costs of the ThunderAgent paper.

        `decode` and `prefill` are held by requests at work, `recompute` by prefill of what had been
        computed before, `caching` by nobody but reusable, `unused` is blank. The five sum to
        `capacity_tokens_s`; `sum_minus_capacity_share` is what is left of that check. Real servers do not
        tell the costs: then they are null.
        """
        costs = {name: self.gained(f"stp_{name}_total", window) for name in COSTS}
        told = [cost for cost in costs.values() if cost is not None]
        total_cost = sum(told) if len(told) == len(costs) else None
        edges = self._edges(window, "capacity_tokens")
        size = self._column("capacity_tokens")
        capacity = float(
            sum(size[last] * (self._times[last] - self._times[first]) for first, last in edges)
        )
        return {
            **{f"{name}_tokens_s": cost for name, cost in costs.items()},
            **{f"{name}_share": ratio(cost, total_cost) for name, cost in costs.items()},
            "capacity_tokens_s": capacity if edges else None,
            "sum_minus_capacity_share": None
            if total_cost is None
            else ratio(total_cost - capacity, capacity),
        }

    def disk(self, window: Window) -> Metrics:
        """Bytes held by sandboxes: their own (`writable`) layers and the images, each image once.

        `peak` and `end` over the sampling instants of the window; `byte_seconds` is the integral over the
        window and `mean_bytes` its mean, both with straight lines between the instants.
        """
        part = self._inside(window)
        times, rows = np.unique(self._times[part], return_index=True)
        if not len(times):
            return {"peak_bytes": None}
        held = {name: self._column(f"sandbox_{name}_bytes")[part][rows] for name in ("writable", "image")}
        found: Metrics = {"peak_bytes": int(sum(held.values(), np.zeros(len(times))).max())}
        for name, values in held.items():
            integral = float((np.diff(times) * (values[1:] + values[:-1]) / 2).sum())
            found |= {
                f"{name}_peak_bytes": int(values.max()),
                f"{name}_end_bytes": int(values[-1]),
                f"{name}_mean_bytes": ratio(integral, float(times[-1] - times[0])),
                f"{name}_byte_seconds": integral,
            }
        return found

    def _column(self, name: str) -> Floats:
        if name not in self._columns:
            self._columns[name] = floats(self._table, name)
        return self._columns[name]

    def _inside(self, window: Window) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Rows in [start, end]."""
        return np.flatnonzero((self._times >= window[0]) & (self._times <= window[1]))

    def _edges(self, window: Window, column: str) -> list[tuple[int, int]]:
        """Of each replica, the rows that stand for the two edges.

        None at all if a replica never tells the column, or not once between the edges where it should have.
        """
        found = []
        values = self._column(column)
        for every in self._replicas:
            own = every[~np.isnan(values[every])]
            if not len(own):
                return []
            first, last = np.maximum(np.searchsorted(self._times[own], window, "right") - 1, 0)
            if first == last and len(own) < len(every):
                return []
            found.append((int(own[first]), int(own[last])))
        return found

    def _fell(self, values: Floats, edges: list[tuple[int, int]]) -> bool:
        """Whether a replica's total fell between its edges."""
        for own, (first, last) in zip(self._replicas, edges, strict=True):
            between = known(values[own[(own >= first) & (own <= last)]])
            if (np.diff(between) < 0).any():
                return True
        return False

    def _mean_of_sums(self, column: str, part: np.ndarray[tuple[int], np.dtype[np.intp]]) -> float | None:
        """Mean per row that tells, times the replicas: every instant has a row of each."""
        values = self._column(column)
        if any(np.isnan(values[own]).all() for own in self._replicas):
            return None
        each = mean(values[part])
        return None if each is None else each * len(self._replicas)

"""Cache, space-time and disk from samples that can be checked by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rows import SampleRow
from harness.samples import COSTS, Samples
from tests.harness.results import as_table, sample


def samples(*rows):
    return Samples(as_table(SampleRow, rows))


def test_hit_rate_is_what_the_counters_gained_between_the_edges():
    found = samples(
        sample(0.0),
        sample(10.0, queries_total=1000, hits_total=0),  # warm-up: all cold
        sample(20.0, queries_total=1400, hits_total=300),
        sample(30.0, queries_total=9999, hits_total=9999),  # after the end
    )
    assert found.hit_rate((10.0, 20.0)) == 300 / 400
    assert found.kv((10.0, 20.0))["queried_tokens"] == 400
    assert found.kv((10.0, 20.0))["hit_tokens"] == 300


def test_counters_of_replicas_add_up():
    found = samples(
        sample(0.0, "r0"),
        sample(0.0, "r1"),
        sample(10.0, "r0", queries_total=100, hits_total=100, preemptions_total=2, evicted_blocks_total=5),
        sample(10.0, "r1", queries_total=300, hits_total=100, preemptions_total=1, evicted_blocks_total=7),
    ).kv((0.0, 10.0))
    assert found["hit_rate_share"] == 0.5
    assert found["preemptions"] == 3
    assert found["evicted_blocks"] == 12


def test_an_edge_between_samples_takes_the_one_before_and_a_doubled_one_the_last():
    found = samples(
        sample(0.0),
        sample(9.0, queries_total=100),
        sample(10.0, queries_total=200),
        sample(10.0, queries_total=200),
        sample(18.0, queries_total=500),
    )
    assert found.gained("queries_total", (9.5, 19.0)) == 400
    assert found.gained("queries_total", (10.0, 19.0)) == 300


def test_a_replica_that_joins_later_counts_from_its_first_sample():
    found = samples(
        sample(0.0, "r0"),
        sample(20.0, "r0"),
        sample(15.0, "r1", queries_total=7),
        sample(20.0, "r1", queries_total=9),
    )
    assert found.gained("queries_total", (10.0, 20.0)) == 2
    assert found.space_time((10.0, 20.0))["capacity_tokens_s"] == 100 * 20 + 100 * 5


def test_imbalance_is_the_spread_of_kv_use_among_replicas():
    found = samples(
        *[sample(t, "r0", used_tokens=used) for t, used in ((0, 10), (5, 50), (10, 90))],
        *[sample(t, "r1", used_tokens=used) for t, used in ((0, 10), (5, 30), (10, 20))],
    ).kv((0.0, 10.0))
    assert found["imbalance_max_share"] == pytest.approx(0.7)
    assert found["imbalance_mean_share"] == pytest.approx(0.3)
    assert found["used_mean_share"] == pytest.approx((0.1 + 0.5 + 0.9 + 0.1 + 0.3 + 0.2) / 6)


def test_one_replica_has_no_imbalance():
    found = samples(sample(0.0), sample(1.0)).kv((0.0, 1.0))
    assert found["imbalance_mean_share"] is None
    assert found["imbalance_max_share"] is None


def test_queues_add_up_over_replicas_and_the_gateway_is_one():
    rows = [
        sample(t, replica, running=10, waiting=2, held=5) for t in (0.0, 1.0) for replica in ("r0", "r1")
    ]
    found = samples(*rows).kv((0.0, 1.0))
    assert (found["running_mean"], found["waiting_mean"], found["held_mean"]) == (20, 4, 5)


def test_the_five_costs_are_the_capacity_over_the_window():
    costs = {"decode": 300, "prefill": 100, "recompute": 50, "unused": 350, "caching": 200}
    before = dict.fromkeys(costs, 200)
    rows = [
        sample(0.0),
        *(
            sample(t, **{f"stp_{name}_total": before[name] + extra * costs[name] for name in costs})
            for t, extra in ((10.0, 0), (20.0, 1))
        ),
    ]
    found = samples(*rows).space_time((10.0, 20.0))
    assert found["capacity_tokens_s"] == 1000
    assert found["sum_minus_capacity_share"] == 0
    assert found["decode_tokens_s"] == 300
    assert found["caching_share"] == 0.2


@given(st.lists(st.lists(st.floats(0.01, 1e6), min_size=5, max_size=5), min_size=1, max_size=4))
def test_shares_of_the_costs_sum_to_one(gains):
    rows = [sample(0.0, f"r{i}") for i in range(len(gains))]
    rows += [
        sample(1.0, f"r{i}", **{f"stp_{name}_total": g for name, g in zip(COSTS, gain, strict=True)})
        for i, gain in enumerate(gains)
    ]
    found = samples(*rows).space_time((0.0, 1.0))
    assert sum(found[f"{name}_share"] for name in COSTS) == pytest.approx(1)


def test_costs_that_do_not_fill_the_capacity_show():
    found = samples(sample(0.0), sample(10.0, stp_decode_total=500)).space_time((0.0, 10.0))
    assert found["sum_minus_capacity_share"] == -0.5


def test_disk_is_counted_once_however_many_replicas():
    held = {0.0: (0, 0), 10.0: (40, 100), 20.0: (20, 100)}
    found = samples(
        *[
            sample(t, replica, sandbox_writable_bytes=own, sandbox_image_bytes=images)
            for t, (own, images) in held.items()
            for replica in ("r0", "r1")
        ]
    ).disk((0.0, 20.0))
    assert found == {
        "peak_bytes": 140,
        "writable_peak_bytes": 40,
        "writable_end_bytes": 20,
        "writable_mean_bytes": 25.0,
        "writable_byte_seconds": 500.0,
        "image_peak_bytes": 100,
        "image_end_bytes": 100,
        "image_mean_bytes": 75.0,
        "image_byte_seconds": 1500.0,
    }


def test_without_samples_everything_is_null():
    found = samples()
    everything = [
        *found.kv((0.0, 1.0)).values(),
        *found.space_time((0.0, 1.0)).values(),
        *found.disk((0.0, 1.0)).values(),
    ]
    assert set(everything) == {None}

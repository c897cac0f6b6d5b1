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


def test_what_servers_did_not_tell_every_time_is_of_the_samples_that_told_it():
    found = samples(
        sample(0.0, queries_total=10, hits_total=0, running=4, used_tokens=50),
        sample(5.0, queries_total=None, hits_total=None, running=None, used_tokens=None),
        sample(10.0, queries_total=110, hits_total=50, running=2, used_tokens=100),
        sample(15.0, queries_total=None, hits_total=None, running=None, capacity_tokens=None),
    ).kv((0.0, 15.0))
    assert (found["queried_tokens"], found["hit_tokens"], found["hit_rate_share"]) == (100, 50, 0.5)
    assert (found["running_mean"], found["used_mean_share"]) == (3.0, 0.75)


UNTOLD = dict.fromkeys(
    [
        "running",
        "waiting",
        "held",
        "used_tokens",
        "idle_cached_tokens",
        "capacity_tokens",
        "queries_total",
        "hits_total",
        "preemptions_total",
        "evicted_blocks_total",
        *(f"stp_{name}_total" for name in COSTS),
    ]
)


def test_what_no_sample_tells_is_null_never_0():
    found = samples(sample(0.0, **UNTOLD), sample(10.0, **UNTOLD))
    assert set(found.kv((0.0, 10.0)).values()) == {None}
    assert set(found.space_time((0.0, 10.0)).values()) == {None}
    assert found.disk((0.0, 10.0))["peak_bytes"] == 0


def test_a_sum_over_replicas_of_which_one_never_tells_is_not_known():
    found = samples(
        sample(0.0, "r0", queries_total=0, running=3),
        sample(0.0, "r1", queries_total=None, running=None),
        sample(10.0, "r0", queries_total=50, running=3),
        sample(10.0, "r1", queries_total=None, running=None),
    ).kv((0.0, 10.0))
    assert (found["queried_tokens"], found["running_mean"]) == (None, None)


def test_imbalance_is_of_the_instants_at_which_all_replicas_told_it():
    found = samples(
        sample(0.0, "r0", used_tokens=90),
        sample(0.0, "r1", used_tokens=None),
        sample(5.0, "r0", used_tokens=80),
        sample(5.0, "r1", used_tokens=20),
    ).kv((0.0, 5.0))
    assert (found["imbalance_mean_share"], found["imbalance_max_share"]) == (
        pytest.approx(0.6),
        pytest.approx(0.6),
    )


def test_a_count_that_fell_is_of_a_server_that_began_anew_and_its_gain_is_not_known():
    found = samples(
        sample(0.0, queries_total=100),
        sample(5.0, queries_total=300),
        sample(10.0, queries_total=20),
        sample(15.0, queries_total=500),
    )
    assert found.gained("queries_total", (0.0, 15.0)) is None
    assert found.gained("queries_total", (0.0, 5.0)) == 200
    assert found.gained("queries_total", (10.0, 15.0)) == 480


def test_costs_are_shares_of_all_five_or_of_nothing():
    one = dict.fromkeys([f"stp_{name}_total" for name in COSTS], 20.0)
    told = samples(sample(0.0), sample(1.0, **one)).space_time((0.0, 1.0))
    assert (told["decode_share"], told["sum_minus_capacity_share"]) == (0.2, 0.0)
    part = samples(sample(0.0), sample(1.0, **one | {"stp_unused_total": None}))
    found = part.space_time((0.0, 1.0))
    assert (found["decode_tokens_s"], found["capacity_tokens_s"]) == (20.0, 100.0)
    assert (found["decode_share"], found["sum_minus_capacity_share"]) == (None, None)

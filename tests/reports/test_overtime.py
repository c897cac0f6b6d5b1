"""Series over time are the same however the tables are cut into parts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.rows import SampleRow, SandboxRow
from reports.overtime import BINS, SLIVER, Grid, SeriesMaker, grid_upto
from tests.harness.results import as_table, sample, sandbox


def series(grid, samples=(), steps=(), sandboxes=(), part=1000):
    maker = SeriesMaker(grid)
    maker.steps(np.array(steps, dtype=float))
    for row_type, rows, take, columns in (
        (SampleRow, samples, maker.samples, maker.SAMPLE_COLUMNS),
        (SandboxRow, sandboxes, maker.sandboxes, maker.SANDBOX_COLUMNS),
    ):
        for batch in as_table(row_type, rows).select(columns).to_batches(max_chunksize=part):
            take(batch)
    return maker.finish()


@pytest.mark.parametrize(
    ("end", "least", "grid"),
    [
        (4200.0, 5.0, Grid(50.0, 84)),
        (1200.0, 5.0, Grid(20.0, 60)),
        (60.0, 5.0, Grid(5.0, 12)),
        (0.5, 0.01, Grid(0.01, 50)),
        (3.0, 5.0, Grid(5.0, 1)),
    ],
)
def test_bins_have_a_round_width(end, least, grid):
    assert grid_upto(end, least) == pytest.approx(grid)


@given(st.floats(min_value=0.01, max_value=1e9), st.floats(min_value=0.01, max_value=1e6))
def test_bins_are_few_and_reach_the_end(end, least):
    width, bins = grid_upto(end, least)
    assert 1 <= bins <= BINS
    assert width >= least * (1 - 1e-6)
    assert width * (bins + SLIVER) >= end * (1 - 1e-6)


def test_a_time_on_an_edge_belongs_to_the_bin_before():
    assert Grid(10.0, 3).of(np.array([0.0, 10.0, 10.1, 30.0, 99.0])).tolist() == [0, 0, 1, 2, 2]


def test_rates_and_shares_of_each_bin():
    samples = [
        sample(0.0),
        sample(10.0, used_tokens=20, queries_total=100, hits_total=50, sandbox_writable_bytes=5),
        sample(15.0, used_tokens=40, queries_total=300, hits_total=50, sandbox_image_bytes=9),
        sample(20.0, used_tokens=60, queries_total=500, hits_total=350, sandbox_image_bytes=7),
    ]
    found = series(Grid(10.0, 3), samples, steps=[1.0, 10.0, 11.0])
    np.testing.assert_allclose(found.steps_per_min, [12.0, 6.0, np.nan])  # no sample tells of the third bin
    np.testing.assert_allclose(found.hit_rate_share, [0.5, 300 / 400, np.nan])
    np.testing.assert_allclose(found.used_share, [0.1, 0.5, np.nan])
    np.testing.assert_allclose(found.disk_bytes, [5, 9, np.nan])
    assert np.isnan(found.imbalance_share).all()  # one replica


def test_a_last_bin_that_is_there_in_part_is_no_slower_and_a_sliver_is_no_bin():
    """On the wall clock a run goes on a little beyond its end; a bin of that would be a fall to nothing."""
    part = series(Grid(10.0, 2), [sample(0.0), sample(12.5)], steps=[1.0, 2.0, 11.0])
    np.testing.assert_allclose(part.steps_per_min, [12.0, 24.0])
    assert grid_upto(60.04, 5.0) == Grid(5.0, 12)
    over = series(Grid(5.0, 12), [sample(0.0), sample(60.04)], steps=[59.0, 60.03])
    assert over.steps_per_min[-1] == pytest.approx(120.0 / 5.04)


def test_imbalance_is_the_mean_over_instants_of_the_largest_minus_the_smallest_share():
    samples = [
        sample(time, name, used_tokens=used)
        for time, a, b in ((5.0, 10, 30), (10.0, 50, 10), (15.0, 0, 0))
        for name, used in (("r0", a), ("r1", b))
    ]
    found = series(Grid(10.0, 2), samples)
    np.testing.assert_allclose(found.imbalance_share, [0.3, 0.0])
    np.testing.assert_allclose(found.replica_used_share["r0"], [0.3, 0.0])
    np.testing.assert_allclose(found.replica_used_share["r1"], [0.2, 0.0])


def test_sandboxes_are_unreclaimed_from_their_release_until_their_disk_is_freed():
    sandboxes = [
        sandbox(released_s=1.0, reclaimed_s=1.0),
        sandbox(released_s=2.0, reclaimed_s=15.0),
        sandbox(released_s=12.0, leaked=True),
        sandbox(),
    ]
    found = series(Grid(10.0, 3), [sample(30.0)], sandboxes=sandboxes)
    assert found.unreclaimed.tolist() == [1.0, 1.0, 1.0]


@given(
    st.lists(st.integers(0, 100), min_size=1, max_size=12),
    st.integers(1, 3),
    st.integers(1, 7),
)
def test_parts_may_be_cut_anywhere(used, replicas, part):
    samples = [
        sample(2.0 * i, f"r{r}", used_tokens=value * (r + 1) % 101, queries_total=9 * i, hits_total=i)
        for i, value in enumerate(used)
        for r in range(replicas)
    ]
    grid = Grid(5.0, 5)
    whole, cut = series(grid, samples), series(grid, samples, part=part)
    for name in ("hit_rate_share", "used_share", "imbalance_share", "disk_bytes"):
        np.testing.assert_allclose(getattr(cut, name), getattr(whole, name))


def test_without_samples_nothing_is_known():
    found = series(Grid(10.0, 2))
    assert np.isnan(found.hit_rate_share).all()
    assert np.isnan(found.disk_bytes).all()
    assert found.replica_used_share == {}


def test_samples_that_tell_nothing_count_for_nothing():
    """Of what is told the last of a bin stays; where nothing is told a share is unknown, not 0."""
    silent = {"used_tokens": None, "queries_total": None, "hits_total": None}
    samples = [
        sample(0.0),
        sample(5.0, used_tokens=40, queries_total=100, hits_total=50),
        sample(10.0, **silent),
        sample(20.0, **silent),
        sample(30.0, used_tokens=60, queries_total=200, hits_total=50),
    ]
    found = series(Grid(10.0, 3), samples)
    np.testing.assert_allclose(found.hit_rate_share, [0.5, np.nan, 0.0])
    np.testing.assert_allclose(found.used_share, [0.2, np.nan, 0.6])


def test_a_server_counts_from_its_own_start_and_one_that_began_anew_says_nothing_of_that_time():
    samples = [
        sample(0.0, queries_total=1000, hits_total=900),
        sample(10.0, queries_total=1100, hits_total=950),
        sample(20.0, queries_total=50, hits_total=10),
        sample(30.0, queries_total=150, hits_total=90),
    ]
    np.testing.assert_allclose(series(Grid(10.0, 3), samples).hit_rate_share, [0.5, np.nan, 0.8])


def test_imbalance_is_unknown_where_a_replica_did_not_tell():
    samples = [
        sample(5.0, "r0", used_tokens=90),
        sample(5.0, "r1", used_tokens=None),
        sample(15.0, "r0", used_tokens=90),
        sample(25.0, "r0", used_tokens=90),
        sample(25.0, "r1", used_tokens=30),
    ]
    np.testing.assert_allclose(series(Grid(10.0, 3), samples).imbalance_share, [np.nan, np.nan, 0.6])

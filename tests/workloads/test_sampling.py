import math
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.sampling import Table, data_file, data_table, exp, ln, normal, stream


def test_streams_are_fixed_by_seed_and_names():
    assert stream(0, "a", 1).random() == 0.5709313757584156
    assert stream(0, "a", 1).random() == stream(0, "a", 1).random()
    different = {
        stream(*names).random() for names in [(0, "a"), (1, "a"), (0, "b"), (0, "a", 1), (0, "a1")]
    }
    assert len(different) == 5


@settings(deadline=None)
@given(st.floats(0.001, 1e6))
def test_logarithm_and_exponential_agree_with_the_library(x):
    assert ln(x) == pytest.approx(math.log(x), rel=1e-14, abs=1e-14)
    assert exp(math.log(x)) == pytest.approx(x, rel=1e-12)


@settings(deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=10).map(sorted), st.floats(0, 1), st.floats(0, 1)
)
def test_a_table_never_falls_and_stays_within_its_ends(values, u, v):
    table = Table([100 * i / (len(values) - 1) for i in range(len(values))], values)
    low, high = table.at(min(u, v)), table.at(max(u, v))
    slack = 1e-6 * (1 + abs(values[0]) + abs(values[-1]))
    assert values[0] - slack <= low <= high + slack <= values[-1] + 2 * slack


def test_a_table_hits_its_points_and_its_mean():
    table = Table([0, 50, 100], [0, 10, 40])
    assert [table.at(u) for u in (0, 0.25, 0.5, 0.75, 1)] == [0, 5, 10, 25, 40]
    assert table.mean() == 15
    assert [table.mapped(2, 1).at(u) for u in (0, 0.5, 1)] == [1, 21, 81]


@pytest.mark.parametrize(
    ("percentiles", "values"),
    [([0, 100], [2, 1]), ([0, 50], [1, 2]), ([0, 60, 50, 100], [1, 2, 3, 4]), ([0, 100], [1]), ([], [])],
)
def test_a_table_that_is_no_distribution_is_refused(percentiles, values):
    with pytest.raises(WorkloadError):
        Table(percentiles, values)


def test_the_normal_table_is_the_normal_distribution():
    exact = statistics.NormalDist()
    for u in (0.001, 0.05, 0.2, 0.5, 0.77, 0.9, 0.999):
        assert normal(u) == pytest.approx(exact.inv_cdf(u), abs=0.02)


@pytest.mark.parametrize("name", ["normal", "swe_lite"])
def test_every_table_of_the_package_says_where_it_comes_from(name):
    for column, table in data_file(name)["tables"].items():
        assert table["source"]
        assert table["unit"]
        assert data_table(name, column).mean() is not None

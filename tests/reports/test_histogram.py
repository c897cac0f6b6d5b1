"""A histogram of fixed size knows any distribution within the width of its bins."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.histogram import EDGES, HIGHEST, LOWEST, Histogram, Point

BIN = 10 ** (1 / 40)
seconds = st.floats(min_value=10.0**LOWEST * 1.01, max_value=10.0**HIGHEST)


def histogram(values):
    found = Histogram()
    found.add(np.array(values, dtype=float))
    return found


def test_values_are_counted_up_to_the_edge_above_them():
    assert histogram([1.0, 10.0, 10.0, 1000.0]).cumulative() == [
        Point(EDGES[159], 0.0),
        Point(1.0, 0.25),
        Point(10.0, 0.75),
        Point(1000.0, 1.0),
    ]


def test_zero_is_a_value_and_not_a_number_is_none():
    found = histogram([0.0, float("nan"), 0.0])
    assert (found.total, found.cumulative()) == (2, [Point(1e-4, 1.0)])


def test_what_is_larger_than_the_last_edge_is_shown_at_it():
    assert histogram([1e20]).cumulative()[-1] == Point(10.0**HIGHEST, 1.0)


def test_nothing_has_no_distribution():
    empty = Histogram()
    assert (empty.cumulative(), empty.quantile(0.5), empty.at(EDGES[:2])) == ([], None, None)


@given(st.lists(seconds, min_size=1, max_size=50), st.floats(min_value=0.01, max_value=1.0))
def test_a_quantile_is_within_a_bin_of_the_exact_one(values, share):
    exact = float(np.quantile(values, share, method="inverted_cdf"))
    assert exact * (1 - 1e-9) <= histogram(values).quantile(share) <= exact * BIN * (1 + 1e-9)


@given(st.lists(seconds, max_size=20), st.lists(seconds, max_size=20))
def test_histograms_of_parts_add_up_to_that_of_the_whole(one, other):
    assert histogram(one) + histogram(other) == histogram(one + other)


def test_shares_at_edges_of_another_histogram():
    edges = np.array([point.upto for point in histogram([1.0, 100.0]).cumulative()])
    assert histogram([10.0, 100.0]).at(edges) == pytest.approx([0.0, 0.0, 1.0])

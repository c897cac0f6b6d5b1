"""Names of numbers, and where they stand."""

from harness import metrics
from reports.measures import PARTS, pick


def test_the_parts_of_a_step_are_those_that_the_harness_measures():
    assert PARTS == metrics.PARTS


def test_numbers_are_found_by_path_or_are_null():
    assert pick({"a": {"b": 2}}, ("a", "b")) == 2.0
    assert pick({"a": {}}, ("a", "b", "c")) is None
    assert pick({"a": None}, ("a", "b")) is None

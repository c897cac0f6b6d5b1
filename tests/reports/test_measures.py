"""Names of numbers, and where they stand."""

from harness import metrics
from harness.rows import TABLES
from reports.measures import HEADLINES, MEASURES, PARTS, label, pick
from tests.harness.results import as_table


def test_the_parts_of_a_step_are_those_that_the_harness_measures():
    assert PARTS == metrics.PARTS


def test_numbers_are_found_by_path_or_are_null():
    assert pick({"a": {"b": 2}}, ("a", "b")) == 2.0
    assert pick({"a": {}}, ("a", "b", "c")) is None
    assert pick({"a": None}, ("a", "b")) is None


def test_loads_in_words():
    assert label("concurrency", 96) == "96 programs at a time"
    assert label("request_rate", 0.5) == "0.5 programs/s"
    assert label("arrival_times", 3) == "3 programs at given times"


def test_every_measure_is_a_number_that_the_harness_writes():
    summary = metrics.summarise(Nothing(), (0.0, 60.0))
    missing = [name for name, measure in MEASURES.items() if not _has(summary, measure.path)]
    assert missing == []
    assert set(HEADLINES) <= set(MEASURES)


def _has(summary, path):
    *outer, last = path
    for name in outer:
        summary = summary[name]
    return last in summary


class Nothing:
    """A run in which nothing happened."""

    def table(self, name):
        return as_table(TABLES[name], [])

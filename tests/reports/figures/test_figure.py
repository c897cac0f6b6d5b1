"""Numbers are rounded to what a chart can show, and specs carry their data."""

import altair as alt
import pytest

from reports.figures.figure import Figure, Table, finish, for_file, rounded


@pytest.mark.parametrize(
    ("value", "short"),
    [
        (1.23456, 1.235),
        (123456.0, 123500),
        (2.0, 2),
        (0.0, 0),
        (-0.00012345, -0.0001234),
        (None, None),
        (float("nan"), None),
    ],
)
def test_four_digits(value, short):
    assert rounded(value) == short
    assert isinstance(rounded(value), type(short))


def test_a_spec_has_its_data_and_no_theme():
    chart = alt.Chart(alt.NamedData("rows")).mark_point().encode(x="x:Q")
    spec = finish(chart, {"rows": [{"x": 1}]}, height=10)
    assert spec["datasets"] == {"rows": [{"x": 1}]}
    assert (spec["width"], spec["height"], spec["background"]) == ("container", 10, None)
    assert "config" not in spec


def test_a_file_stands_alone():
    figure = Figure("a", "Why?", "A title", "", {"mark": "point", "width": "container"}, Table((), ()))
    spec = for_file(figure)
    assert (spec["background"], spec["title"]["text"]) == ("white", "A title")
    assert figure.spec == {"mark": "point", "width": "container"}

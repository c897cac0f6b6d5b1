"""Numbers as they are read, and names that mean harm."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports.text import NAME_WIDTH, number, shown, tails

HOSTILE = (
    "<script>alert(1)</script>",
    "'; DROP TABLE runs; --\"",
    "x" * 10_000,
    "\N{PILE OF POO}\N{ZERO WIDTH JOINER}\N{FIRE}" * 20,
    "\N{RIGHT-TO-LEFT OVERRIDE}redluohcs",
    "\u05e9\u05dc\u05d5\u05dd",
    "[red]a[/red]",
    "[/]",
    "a[link=http://example.org]b",
    "\x1b[31mred\x1b]0;title\x07",
    "two\nlines\tand\rmore",
    "",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_one_short_line_of_visible_characters(name):
    found = shown(name)
    assert 0 < len(found) <= NAME_WIDTH
    assert not any(unicodedata.category(c).startswith("C") for c in found)


@given(st.text(), st.integers(3, 50))
def test_a_name_is_never_longer_than_asked_and_settles(name, width):
    found = shown(name, width)
    assert 0 < len(found) <= width
    assert shown(found, width) == found


def test_a_long_name_keeps_its_two_ends():
    assert shown("beginning-and-a-long-middle-and-end", 13) == "beginn…nd-end"
    assert shown("fits") == "fits"


def test_paths_are_told_apart_by_as_little_as_possible():
    assert tails([Path("/a/x"), Path("/b/y")]) == ["x", "y"]
    assert tails([Path("/r/a/x"), Path("/r/b/x"), Path("/r/b/y")]) == ["a/x", "b/x", "b/y"]
    assert tails([Path("/a/x"), Path("/a/x")]) == ["x", "x"]
    assert tails([]) == []


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("steps_per_min", 377.46, "377.5"),
        ("steps_per_min", 12345.6, "12,346"),
        ("ttft_p95_s", 62.5, "62.5"),
        ("worst_wait_s", 4028.4, "4,028"),
        ("hit_rate_share", 0.31, "31.0%"),
        ("disk_peak_bytes", 3.3e12, "3.3 TB"),
        ("disk_peak_bytes", 999, "999 B"),
        ("recomputed_tokens", 111_000_000, "111M"),
        ("leaked", 50.0, "50"),
        ("output_tokens_per_s", 821.3, "821.3"),
        ("steps_per_min", None, "-"),
    ],
)
def test_numbers_are_written_as_their_unit_asks(name, value, text):
    assert number(name, value) == text

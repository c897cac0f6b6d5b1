from __future__ import annotations

import pytest

from reports.wording import clipped, counted, listed, slug


@pytest.mark.parametrize(
    ("words", "text"), [([], ""), (["a"], "a"), (["a", "b"], "a and b"), (["a", "b", "c"], "a, b and c")]
)
def test_words_are_listed(words: list[str], text: str) -> None:
    assert listed(words) == text


def test_counts_agree_with_their_noun() -> None:
    assert [counted(n, "run") for n in (0, 1, 2)] == ["0 runs", "1 run", "2 runs"]


def test_a_text_is_cut_to_its_length() -> None:
    assert clipped("abcdef", 6) == "abcdef"
    assert clipped("abcdefg", 6) == "abcde\u2026"


@pytest.mark.parametrize(
    ("text", "link"),
    [
        ("How much work gets done?", "how-much-work-gets-done"),
        ("<script>", "script"),
        ("\u05d0\u05d1", "section"),
    ],
)
def test_links_hold_letters_and_digits_only(text: str, link: str) -> None:
    assert slug(text) == link
    assert len(slug(text * 100)) <= 60

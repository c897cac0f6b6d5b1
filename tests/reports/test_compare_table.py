"""What a comparison looks like in a terminal."""

import unicodedata
from io import StringIO

import pytest
from rich.console import Console

from reports.compare import compare_paths
from reports.compare_table import QUESTIONS, changed, render
from reports.measures import MEASURES
from reports.statistics import effect
from tests.reports.test_compare import AFTER, BEFORE, repeats, saved, summary_of
from tests.reports.test_text import HOSTILE


def printed(paths, width=80, **options):
    out = StringIO()
    render(compare_paths(paths, **options), Console(file=out, width=width))
    return out.getvalue()


def rows(text, first):
    """The cells of the rows that begin so."""
    return [line.split() for line in text.splitlines() if line.strip().startswith(first)]


def flat(text):
    return " ".join(text.split())


def test_there_is_a_table_per_question_with_the_load_and_the_words(tmp_path):
    runs = [*repeats("thunder", *AFTER, wait=900.0), *repeats("vllm", *BEFORE, wait=100.0)]
    text = printed([saved(tmp_path, "s", *runs)])
    assert [question for question, _ in QUESTIONS if f"{question} (simulated)\n" in text] == [
        question for question, _ in QUESTIONS
    ]
    assert rows(text, "96 ") == [
        ["96", "steps/min", "100.3", "201.0", "2.00x", "1.92..2.09", "5.9%", "improved"],
        ["96", "KV", "hit", "rate", "90.0%", "90.0%", "+0.0pp", "+0.0..+0.0", "0.0pp", "equivalent"],
        ["96", "step", "mean", "s", "10.0", "10.0", "1.000x", "1.000..1.000", "0.0%", "equivalent"],
        ["96", "worst", "wait", "s", "100", "900", "9.00x", "9.00..9.00", "0.0%", "regressed"],
        ["96", "disk", "peak", "3.3", "TB", "3.3", "TB", "1.000x", "1.000..1.000", "0.0%"],
    ]
    assert "vllm is the baseline" in text
    assert "the smallest change found in 80% of such studies" in flat(text)


def test_programs_and_the_worst_wait_stand_beside_steps():
    (names,) = [names for _, names in QUESTIONS if "steps_per_min" in names]
    assert {"steady steps_per_min", "programs_per_h", "worst_wait_s"} <= set(names)


@pytest.mark.parametrize("width", [80, 120])
def test_two_arms_fit_the_terminal_without_cutting_anything(tmp_path, width):
    runs = [*repeats("thunder", *AFTER, wait=3900.0), *repeats("vllm", *BEFORE, wait=60.0)]
    text = printed([saved(tmp_path, "s", *runs)], width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text


def test_several_candidates_are_named_in_their_rows(tmp_path):
    runs = [*repeats("a", *AFTER), *repeats("b", *BEFORE), *repeats("vllm", *BEFORE)]
    text = printed([saved(tmp_path, "s", *runs)], 100)
    assert [row[:3] for row in rows(text, "96 ")][:2] == [
        ["96", "a", "steps/min"],
        ["96", "b", "steps/min"],
    ]


def test_before_and_after_name_the_scheduler_under_the_load(tmp_path):
    before = saved(tmp_path, "before", *repeats("thunder", *BEFORE))
    after = saved(tmp_path, "after", *repeats("thunder", *AFTER))
    text = printed([before, after])
    assert rows(text, "thunder")[0][:2] == ["thunder", "steady"]
    assert "before is the baseline" in text


def test_what_has_to_be_known_is_said(tmp_path):
    bad = summary_of("thunder", 3, invalid=("too few steps", "client too slow"))
    runs = [
        *repeats("thunder", 200.0, spec={"model": "Qwen3-8B"}),
        *repeats("vllm", 100.0),
        summary_of("vllm", value=24),
        bad,
    ]
    text = flat(printed([saved(tmp_path, "s", *runs)], force=True))
    assert "At 24 programs at a time: only vllm, nothing to compare." in text
    assert "1 repeat, so the noise is unknown and there is no interval; use --repeats 5." in text
    assert "FORCED: model: Qwen3-8B in s/thunder-c96-s0; none in s/" in text
    assert "INVALID: s/thunder-c96-s3: too few steps; client too slow" in text
    assert rows(text, "96") == [] or "improved" not in text


@pytest.mark.parametrize("name", HOSTILE[:-1])
@pytest.mark.parametrize("width", [80, 120])
def test_hostile_names_are_harmless(tmp_path, name, width):
    bad = summary_of(name, 9, invalid=(name,))
    study = saved(tmp_path, "s", *repeats(name, *AFTER), *repeats("vllm", *BEFORE), bad)
    text = printed([study], width)
    assert not any(unicodedata.category(c).startswith("C") for c in text if c != "\n")
    assert max(map(len, text.splitlines())) <= width
    assert "improved" in text


@pytest.mark.parametrize(
    ("name", "pairs", "cells"),
    [
        ("steps_per_min", [(287.0, 100.0)], ("2.87x", "-", "-")),
        ("steps_per_min", [(1.004, 1.0), (1.003, 1.0), (1.005, 1.0)], ("1.004x", "1.002..1.006", "0.3%")),
        (
            "ttft_p50_s",
            [(0.0021, 1.0), (0.0021, 1.0), (0.0021, 1.0)],
            ("0.0021x", "0.0021..0.0021", "0.0%"),
        ),
        ("hit_rate_share", [(0.9, 0.5), (0.8, 0.5), (0.7, 0.5)], ("+30.0pp", "+5.2..+54.8", "32.6pp")),
        ("leaked", [(0.0, 50.0), (0.0, 48.0), (0.0, 52.0)], ("-50.0", "-55.0..-45.0", "6.5")),
        ("steps_per_min", [(0.0, 1.0)], ("-", "-", "-")),
    ],
)
def test_changes_are_written_by_kind(name, pairs, cells):
    measure = MEASURES[name]
    found = effect(pairs, metric=name, more_is_better=measure.more_is_better, kind=measure.kind)
    assert changed(found.json()) == cells

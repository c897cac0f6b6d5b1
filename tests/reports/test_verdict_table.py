"""What a verdict looks like in a terminal."""

import unicodedata
from io import StringIO

import pytest
from rich.console import Console

from reports.verdict import compare_all
from reports.verdict_table import render
from tests.reports.test_text import HOSTILE
from tests.reports.test_verdict import run


def printed(runs, width=80):
    out = StringIO()
    render(compare_all(runs), Console(file=out, width=width))
    return out.getvalue()


def test_a_load_is_a_table_a_split_and_sentences():
    text = printed([run("thunder", steps=377.5, prefill=1.0), run("vllm", steps=141.8, hits=0.31)])
    assert [line.split() for line in text.splitlines() if line.startswith((" thunder", " vllm"))] == [
        ["thunder", "378", "50.0", "90.0%", "1k", "5%", "1.0", "-", "5.0", "3.3", "TB", "0"],
        ["vllm", "142", "50.0", "31.0%", "1k", "5%", "1.0", "-", "5.0", "3.3", "TB", "0"],
        ["thunder", "10.0", "0.0", "0.0", "1.0", "8.0", "0.0", "0.0"],
        ["vllm", "10.0", "0.0", "0.0", "2.0", "8.0", "0.0", "0.0"],
    ]
    assert "96 programs at a time, simulated" in text
    assert "thunder leads vllm by 2.66x" in text


def test_a_measured_run_is_not_called_simulated():
    text = printed([run("vllm") | {"simulated": False}])
    assert "simulated" not in text
    assert "96 programs at a time, measured on real servers" in text


def test_what_was_not_measured_is_a_dash():
    empty = dict.fromkeys(("hits", "recomputed", "step", "prefill", "decode", "wait", "steps", "programs"))
    text = printed([run("vllm", **empty)])
    (row, _) = [line for line in text.splitlines() if line.startswith(" vllm")]
    assert row.split()[1:4] == ["-", "-", "-"]


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal_without_cutting_anything(width):
    wide = run("thunder", steps=377.5, wait=4028.0)
    wide["metrics"]["latency"]["ttft_s"] = {"p50": 38.6, "p95": 162.4}
    wide["metrics"]["kv"]["recomputed_tokens"] = 111_000_000
    text = printed([wide, run("vllm", steps=141.8)], width)
    assert " 39 162 " in text  # seconds without tenths from ten on
    assert "111M 5%" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_harmless(name, width):
    text = printed([run(name), run("vllm")], width)
    assert not any(unicodedata.category(c).startswith("C") for c in text if c != "\n")
    assert max(map(len, text.splitlines())) <= width
    assert "96 programs at a time" in text


def test_names_that_look_like_markup_are_printed_as_they_are():
    assert "a[b]c[/red]" in printed([run("a[b]c[/red]"), run("vllm")], 120)


def test_what_is_invalid_is_called_so():
    text = printed([run("vllm"), run("thunder") | {"invalid": ("too few steps",)}], 120)
    assert "thunder INVALID" in text


@pytest.mark.parametrize("width", [80, 120])
def test_the_share_of_the_bound_stands_beside_the_steps_and_is_explained(width):
    from_reference = run("unlimited", steps=500.0) | {"reference": True}
    wide = run("thunder", steps=377.5, wait=4028.0)
    wide["metrics"]["latency"]["ttft_s"] = {"p50": 38.5, "p95": 62.5}
    text = printed([wide, run("vllm", steps=141.8), from_reference], width)
    rows = [line.split()[:3] for line in text.splitlines() if line.startswith((" thunder", " vllm"))]
    assert rows[:2] == [["thunder", "378", "76%"], ["vllm", "142", "28%"]]
    assert "of bound: share of the steps/min with endless KV memory" in " ".join(text.split())
    assert "(unlimited, 500.0 steps/min)" in " ".join(text.split())
    assert "\n unlimited" not in text
    assert max(map(len, text.splitlines())) <= width


def test_without_a_reference_arm_there_is_no_bound():
    assert "bound" not in printed([run("vllm")])


def test_groups_are_told_in_a_line_where_there_are_any():
    grouped = run("thunder")
    grouped["metrics"]["groups"] = {
        "finished": 12,
        "completion_s": {"mean": 1234.5, "p50": 1200.0, "p90": None, "max": 3000.0},
        "straggler_share": 0.25,
    }
    clause = "thunder 12, mean 1,234 s to the slowest member, 25.0% of it waiting for stragglers"
    assert f"groups finished: {clause}." in " ".join(printed([grouped, run("vllm")]).split())
    assert "groups" not in printed([run("vllm")])


@pytest.mark.parametrize(
    ("size", "written"),
    [(38.7e9, "39 GB"), (101.4e9, "101 GB"), (3.26e12, "3.3 TB"), (0, "0 B"), (None, "-")],
)
def test_disk_is_written_in_few_letters(size, written):
    one = run("vllm")
    one["metrics"]["disk"]["peak_bytes"] = size
    (row, _) = [line for line in printed([one]).splitlines() if line.startswith(" vllm")]
    assert row.endswith(f"{written}       0 ")

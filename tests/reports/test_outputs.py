"""A gate's verdict as files: valid, true to the verdict, and harmless whatever the names are."""

import json
import unicodedata
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import SetupError
from reports import outputs
from reports.gate import gate
from reports.thresholds import parse_all
from tests.reports.test_gate import BEFORE, run, runs

HOSTILE = [
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "x" * 10_000,
    "🦙🏳️‍🌈",
    "\u202egnp.exe",
    "a\x00b\x01\x1b[31mred\x7f\x9b",
    "[click](https://example.org) ![](x) <https://example.org> https://example.org www.example.org",
    "a | b \\| c",
    "line\nbreak\r\n\n# heading\n---\n```",
    "`code` **bold** _it_ ~~no~~ @somebody #1 $x$ :tada:",
    "]]><!--&amp;&#60;",
    "\ufffe\uffff\ud800",
    "",
]
LIMITS = ["throughput<-5%", "kv_hit_rate<-0.02", "ttft_p95>+10%", "leaked>0"]


def verdict(name="vllm", after=(90, 99, 80, 95, 85)):
    """A regression, a pass, one without numbers and one of zeros."""
    ours = [replace(each, scheduler=name, name=name) for each in runs(*after)]
    theirs = [replace(each, scheduler=name, name=name) for each in BEFORE]
    return gate(ours, theirs, parse_all(LIMITS))


def parsed(xml):
    return ET.fromstring(xml)  # noqa: S314 - our own output


def test_every_file_is_written(tmp_path):
    paths = outputs.write(verdict(), tmp_path / "a" / "gate", strict=True)
    assert sorted(path.name for path in paths) == [
        "benchmark-bigger-is-better.json",
        "benchmark-smaller-is-better.json",
        "junit.xml",
        "summary.md",
        "verdict.json",
    ]
    written = json.loads((tmp_path / "a" / "gate" / "verdict.json").read_text())
    assert (written["outcome"], written["exit_code"], len(written["checks"])) == ("regression", 6, 4)
    parsed((tmp_path / "a" / "gate" / "junit.xml").read_bytes())


def test_the_same_verdict_gives_the_same_files(tmp_path):
    one, other = (outputs.write(verdict(), tmp_path / name, strict=False) for name in "ab")
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in other]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SetupError, match="cannot write the gate's files"):
        outputs.write(verdict(), tmp_path / "file" / "gate", strict=False)


def test_the_text_for_a_terminal():
    assert outputs.text(verdict()).splitlines() == [
        "simulated",
        "",
        "vllm, 2 programs at a time, 5 pairs",
        "  REGRESSION    throughput<-5%       100.0 -> 89.8        -10.2% [-11.0%, -9.5%]",
        "                beyond throughput<-5% and significant (p = 1.1e-05)",
        "  pass          kv_hit_rate<-0.02    50.0% -> 50.0%       +0.000 [+0.000, +0.000]",
        "  inconclusive  ttft_p95>+10%        - -> -",
        "                a run has no value here",
        "  pass          leaked>+0            0 -> 0               +0 [+0, +0]",
        "",
        "gate: REGRESSION (1 regression, 1 inconclusive, 2 pass)",
    ]


def test_one_reason_for_everything_is_said_once():
    lines = outputs.text(gate(BEFORE[:1], BEFORE[:1], parse_all(LIMITS[:2])))
    assert lines.count("the noise is unknown") == 1


def test_what_was_forced_and_left_out_is_said():
    longer = [replace(each, spec=each.spec | {"duration_s": 90.0}) for each in BEFORE]
    found = gate([*longer, run(seed=9, programs=4)], BEFORE, parse_all(LIMITS), force=True)
    for text in (outputs.text(found), outputs.markdown(found)):
        assert "--force although they differ in duration" in text
        assert "4 programs at a time" in text


@pytest.mark.parametrize(
    ("strict", "failures", "skipped"), [(False, ["throughput<-5%"], ["ttft_p95>+10%"]), (True, [], [])]
)
def test_junit_has_one_case_per_check(strict, failures, skipped):
    suites = parsed(outputs.junit(verdict(), strict=strict))
    assert suites.get("name") == "thunderbench gate (simulated)"
    cases = suites.findall("testsuite/testcase")
    assert [case.get("name") for case in cases] == [
        "throughput<-5%",
        "kv_hit_rate<-0.02",
        *LIMITS[2:3],
        "leaked>+0",
    ]
    found = [case.get("name") for case in cases if case.find("failure") is not None]
    assert found == (failures or ["throughput<-5%", "ttft_p95>+10%"])
    assert [case.get("name") for case in cases if case.find("skipped") is not None] == skipped
    assert (suites.get("tests"), suites.get("failures"), suites.get("skipped"), suites.get("errors")) == (
        "4",
        str(len(found)),
        str(len(skipped)),
        "0",
    )


def test_benchmark_files_hold_the_means_that_were_measured():
    (bigger, hits), (leaks,) = (outputs.benchmark(verdict(), more_is_better=more) for more in (True, False))
    assert bigger["name"] == "vllm, 2 programs at a time: steps_per_min"
    assert (bigger["unit"], bigger["value"]) == ("steps/min", pytest.approx(89.8))
    assert (hits["unit"], leaks["unit"], leaks["value"]) == ("share", "leaked sandboxes", 0.0)
    assert bigger["extra"].startswith("simulated; regression: beyond throughput<-5%")


def test_markdown_is_a_table_that_says_why():
    lines = outputs.markdown(verdict()).splitlines()
    assert lines[0] == "### thunderbench gate: REGRESSION (1 regression, 1 inconclusive, 2 pass)"
    assert lines[4].startswith(
        "| **REGRESSION** | vllm, 2 programs at a time | `throughput<-5%` | 100.0 | 89.8 |"
    )


# ------------------------------------------------------------------ hostile names


def harmless(text):
    """No control characters but line breaks, none that turn the direction, no line of any length."""
    assert not [c for c in text if unicodedata.category(c).startswith("C") and c != "\n"]
    assert max(map(len, text.splitlines())) < 3_000


def check_all(name):
    found = verdict(name)
    harmless(outputs.text(found))
    assert len(outputs.text(found).splitlines()) == 11

    markdown = outputs.markdown(found)
    harmless(markdown)
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(rows) == 6
    assert {line.count("|") for line in rows} == {8}
    arm = rows[2].split("|")[2]
    assert not set(arm) & set("<>\"'`*_[]()!@$:\\~")
    assert "www." not in arm

    xml = outputs.junit(found, strict=True)
    harmless(xml)
    assert len(parsed(xml).findall("testsuite/testcase")) == 4

    assert json.loads(outputs.dumped(found.json()))["checks"][0]["scheduler"] == name
    for more in (True, False):
        harmless("".join(entry["name"] for entry in outputs.benchmark(found, more_is_better=more)))


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_names_do_no_harm(name, tmp_path):
    check_all(name)
    outputs.write(verdict(name), tmp_path, strict=False)


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=40))
def test_no_name_does_any_harm(name):
    check_all(name)


def test_escaped_text_reads_as_it_was():
    text = "a | <b> [c](d) www.e.f @g"
    assert unescape(outputs.escaped(text)) == text

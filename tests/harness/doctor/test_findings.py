"""Every judge, with facts handed in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.doctor import findings
from harness.doctor.findings import GIB, Finding, Gpu, Vllm

TESTED = ("0.32.0",)
H200 = Gpu("NVIDIA H200", 143_771, 0, "570.1")


@pytest.mark.parametrize(
    ("version", "least", "expected"),
    [
        ("3.11", "3.11", True),
        ("3.9", "3.11", False),
        ("2", "2.0", True),
        ("2.0", "2.0.1", False),
        ("1.26.4rc1", "1.26.4", True),
        ("24.0", "3.7", True),
        ("anything", "", True),
    ],
)
def test_versions_are_compared_by_their_numbers(version, least, expected) -> None:
    assert findings.reaches(version, least) is expected


@given(
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
    st.lists(st.integers(0, 99), min_size=1, max_size=4),
)
def test_of_two_versions_one_reaches_the_other(one: list[int], other: list[int]) -> None:
    """Both do exactly when they are the same up to zeros at their ends."""
    first, second = (".".join(map(str, numbers)) for numbers in (one, other))
    both = findings.reaches(first, second), findings.reaches(second, first)
    stripped = [tuple(numbers) + (0,) * (4 - len(numbers)) for numbers in (one, other)]
    assert both == (stripped[0] >= stripped[1], stripped[1] >= stripped[0])


def test_the_lower_bounds_are_those_of_what_is_needed_without_an_extra() -> None:
    required = ["click>=8.1", "ruff<0.18,>=0.17", 'uvloop>=0.21; sys_platform != "win32"', "plain"]
    optional = ['vllm>=0.32; extra == "vllm"']
    assert findings.lower_bounds(required + optional) == {
        "click": "8.1",
        "ruff": "0.17",
        "uvloop": "0.21",
        "plain": "",
    }


def test_packages_that_are_missing_or_too_old_are_named_with_the_command() -> None:
    bounds = {"click": "8.1", "rich": "13.7", "plain": ""}
    judge = findings.dependencies
    expected = "3 packages, none below its least version"
    good = {"click": "8.1", "rich": "14.0", "plain": "1"}
    assert judge(bounds, good) == Finding("dependencies", "ok", "3 packages", expected)
    assert judge(bounds, {"click": None, "rich": "13.6.9", "plain": None}) == Finding(
        "dependencies",
        "problem",
        "click is missing, rich 13.6.9 is below 13.7, plain is missing",
        expected,
        "pip install --upgrade 'click>=8.1' 'rich>=13.7' plain",
    )
    assert judge({}, {}).found == "thunderbench is not installed"


# judge -> its arguments, the level, and what was found
JUDGED = [
    (findings.python, ("3.11.7", ">=3.11"), "ok", "3.11.7"),
    (findings.python, ("3.10.1", ">=3.11"), "problem", "3.10.1"),
    (findings.gpus, (None, ""), "note", "none"),
    (findings.gpus, ([], ""), "note", "none"),
    (findings.gpus, (None, "NVIDIA-SMI has failed"), "problem", "NVIDIA-SMI has failed"),
    (findings.gpus, ([H200], ""), "ok", "NVIDIA H200 140 GiB; driver 570.1"),
    (
        findings.gpus,
        ([H200, H200._replace(used_mib=90_000)], ""),
        "note",
        "NVIDIA H200 140 GiB, NVIDIA H200 140 GiB; driver 570.1; in use: 1",
    ),
    (findings.vllm, (None, TESTED), "note", "not installed"),
    (findings.vllm, (Vllm("0.32.0", "", ""), TESTED), "ok", "0.32.0"),
    (findings.vllm, (Vllm("0.32.0+cpu", "", ""), TESTED), "ok", "0.32.0+cpu"),
    (findings.vllm, (Vllm("0.19.1", "", ""), TESTED), "note", "0.19.1"),
    (
        findings.vllm,
        (Vllm("", "ImportError: libcudart", ""), TESTED),
        "problem",
        "cannot be imported: ImportError: libcudart",
    ),
    (findings.plugin, (None, TESTED), "note", "no vLLM to load into"),
    (findings.plugin, (Vllm("", "ImportError", ""), TESTED), "note", "no vLLM to load into"),
    (findings.plugin, (Vllm("0.32.0", "", ""), TESTED), "ok", "load"),
    (findings.plugin, (Vllm("0.19.1", "", "lacks X"), TESTED), "problem", "lacks X"),
    (findings.containers, ("Docker 29 at unix:///x", ["unix:///x"]), "ok", "Docker 29 at unix:///x"),
    (findings.containers, ("", ["unix:///x", "unix:///y"]), "note", "none at unix:///x, unix:///y"),
    (findings.disk, ("/data", 20 * GIB), "ok", "20.0 GiB free at /data"),
    (findings.disk, ("/data", GIB // 2), "problem", "0.5 GiB free at /data"),
    (findings.open_files, (-1, -1), "ok", "no limit"),
    (findings.open_files, (8193, 8193), "ok", "8,193"),
    (findings.open_files, (1024, 20_000), "ok", "1,024, at most 20,000"),
    (findings.open_files, (1024, -1), "ok", "1,024, at most no limit"),
    (findings.open_files, (8192, 8192), "problem", "at most 8,192"),
    (findings.open_files, (1024, 4096), "problem", "at most 4,096"),
    (findings.loopback, ("",), "ok", "can be listened on"),
    (findings.loopback, ("Cannot assign requested address",), "problem", "Cannot assign requested address"),
    (findings.port, (8300, ""), "ok", "8300 is free"),
    (findings.port, (8300, "Address already in use"), "problem", "8300: Address already in use"),
    (findings.memory, (20 * GIB, 24 * GIB), "ok", "20.0 of 24.0 GiB available"),
    (findings.memory, (2 * GIB, 24 * GIB), "note", "2.0 of 24.0 GiB available"),
    (findings.memory, (GIB // 2, 24 * GIB), "problem", "0.5 of 24.0 GiB available"),
    (findings.shared_memory, (8 * GIB,), "ok", "8.0 GiB"),
    (findings.shared_memory, (64 << 20,), "note", "0.06 GiB"),
    (findings.shared_memory, (None,), "note", "no /dev/shm"),
    (findings.clock, ("tsc",), "ok", "tsc"),
    (findings.clock, ("hpet",), "note", "hpet"),
    (findings.clock, (None,), "note", "unknown"),
    (findings.cpu, (16, 1.0), "ok", "16 cores, load 1.0"),
    (findings.cpu, (16, 9.0), "note", "16 cores, load 9.0"),
    (findings.cpu, (1, 0.0), "note", "1 cores, load 0.0"),
    (findings.browser, ("/b", "/d"), "ok", "/b, /d"),
    (findings.browser, (None, "/d"), "note", "no Chromium"),
    (findings.browser, (None, None), "note", "no Chromium and no chromedriver"),
]


@pytest.mark.parametrize(("judge", "facts", "level", "found"), JUDGED)
def test_each_judge_says_what_it_found_and_how_to_mend_it_unless_all_is_well(
    judge, facts, level, found
) -> None:
    said = judge(*facts)
    assert (said.level, said.found) == (level, found)
    assert (said.mend == "") is (level == "ok")
    assert said.expected


def test_every_judge_is_tested() -> None:
    """A judge is a function of this module that returns a finding."""
    judges = {
        thing
        for thing in vars(findings).values()
        if getattr(thing, "__annotations__", {}).get("return") == "Finding"
    }
    assert judges == {judge for judge, *_ in JUDGED} | {findings.dependencies}

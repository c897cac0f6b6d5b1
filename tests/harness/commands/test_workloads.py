from __future__ import annotations

import json

import pytest

from tests.harness.commands.conftest import Invoke


def test_all_workloads_are_listed(invoke: Invoke) -> None:
    assert "swe-lite" in invoke("workloads").stdout
    assert {row["name"] for row in json.loads(invoke("workloads", "--json").stdout)} >= {
        "swe-lite",
        "trace:FILE",
    }


def test_show_prints_what_there_is_to_know_before_a_run(invoke: Invoke) -> None:
    text = invoke("workloads", "show", "swe-lite", "--concurrency", "24,96").stdout
    for words in (
        "steps per program",
        "prefix shared by all programs",
        "hit rate of an infinite cache",
        "GLM-4.6-FP8, fp8 KV, 1 x 8xH100",
        "24 programs at a time want",
        "96 programs at a time want",
        "Sources and assumptions",
    ):
        assert words in text


def test_show_sets_the_wanted_kv_against_the_cache(invoke: Invoke) -> None:
    flags = ("--concurrency", "10,20", "--kv-tokens", "100000", "--set", "replicas=2", "--json")
    found = json.loads(invoke("workloads", "show", "swe-lite", *flags).stdout)
    ten, twenty = found["kv"]["loads"]
    assert found["kv"]["capacity_tokens"] == 200_000
    assert ten["wanted_tokens"] == pytest.approx(10 * found["live_context_tokens"])
    assert twenty["wanted_share"] == pytest.approx(20 * found["live_context_tokens"] / 200_000)
    assert found["notes"]
    assert found["params"]["tasks"] == 300


def test_show_takes_parameters(invoke: Invoke) -> None:
    found = json.loads(
        invoke("workloads", "show", "swe-lite", "--set", "workload.tasks=5", "--json").stdout
    )
    assert found["programs"] == 5

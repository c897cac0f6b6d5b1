"""Tests marked `vllm` need vLLM: skipped with a reason where it is absent, failed where it is required."""

from __future__ import annotations

import importlib.util
import os

import pytest

REQUIRED = os.environ.get("THUNDERBENCH_REQUIRE_VLLM") == "1"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("vllm") is None or importlib.util.find_spec("vllm") is not None:
        return
    if REQUIRED:
        pytest.fail("vLLM is not installed, but THUNDERBENCH_REQUIRE_VLLM=1", pytrace=False)
    pytest.skip("vLLM is not installed (./run.sh test --vllm installs it)")

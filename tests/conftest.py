"""Tests marked `vllm` or `browser` need what is large: skipped with a reason where it is absent, failed
where it is required.
"""

from __future__ import annotations

import importlib.util
import os
import shutil

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def _has_vllm() -> bool:
    return importlib.util.find_spec("vllm") is not None


def _has_browser() -> bool:
    return shutil.which("chromedriver") is not None and any(map(shutil.which, BROWSERS))


# marker -> what it needs, and whether that is there
NEEDS = {"vllm": ("vLLM", _has_vllm), "browser": ("Chromium with chromedriver", _has_browser)}


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker, (what, is_there) in NEEDS.items():
        if item.get_closest_marker(marker) is None or is_there():
            continue
        required = f"THUNDERBENCH_REQUIRE_{marker.upper()}"
        if os.environ.get(required) == "1":
            pytest.fail(f"{what} is not installed, but {required}=1", pytrace=False)
        pytest.skip(f"{what} is not installed (./run.sh test --{marker} installs it)")

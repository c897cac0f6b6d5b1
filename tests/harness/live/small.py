"""A workload of a few short programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.harness.virtual.bag import chain, need
from workloads.model import Program


class Small:
    """Six programs of three calls whose tools and sandboxes take no time."""

    def __init__(self, *, seed: int, overrides: Mapping[str, str]) -> None:
        self.seed, self.overrides = seed, overrides
        self.name = "small"
        self.params: Mapping[str, Any] = {}
        self.size = 6
        self.notes: tuple[str, ...] = ()

    def program(self, index: int) -> Program:
        sandbox = need("i", 0.0)
        return chain(f"p{index}", 3, prompt=40, output=6, observation=20, tool_s=0.0, sandbox=sandbox)

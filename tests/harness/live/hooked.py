"""The hooked scheduler in virtual time: vLLM's own code, no model, no server, no socket beyond a file.

`HookedEngine` is `VllmCoreEngine` whose scheduler is the plug-in's and whose pins are its orders, so that
whatever plays on the one plays on the other.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from harness.live import hook_messages as say
from harness.virtual import vllm_setup
from harness.virtual.engine import EngineOptions, EngineRequest, Piece
from harness.virtual.steptime import StepTime
from harness.virtual.vllm_core import VllmCoreEngine
from tests.harness.virtual.bag import ONE_SECOND_STEPS
from tests.harness.virtual.test_vllm_pins import finish


@contextmanager
def hooked_vllm() -> Iterator[None]:
    """Have `VllmCoreEngine` built with the plug-in's scheduler."""
    from harness.live.vllm_hooks import HookedScheduler  # noqa: PLC0415 - imports vLLM

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_setup.load_vllm(), "Scheduler", HookedScheduler)
        yield


class _OrderedPins:
    """What `VllmCoreEngine` asks of its pins, by way of orders. `until_s` only sorts them here."""

    def __init__(self, scheduler: Any) -> None:
        self._scheduler, self._hooks = scheduler, scheduler.hooks
        self._hooks.clock = lambda: 0.0  # pins end by `unpin`

    def find(self, request: Any) -> list[Any]:
        return list(self._scheduler.kv_cache_manager.get_computed_blocks(request)[0].blocks[0])

    def add(self, owner: str, until_s: float, _: Any, *, yields: bool = False) -> None:
        self._hooks.order(say.Pin(owner, until_s, yields))
        self._hooks.follow()  # which the next `schedule` would do; the engine's load is asked before

    def drop(self, owner: str) -> None:
        self._hooks.order(say.Unpin(owner))
        self._hooks.follow()

    def kept(self) -> int:
        holders: dict[int, int] = {}
        for kept in self._hooks.pins._kept.values():
            for block in kept.blocks:
                holders[block.block_id] = holders.get(block.block_id, 0) + 1
        pool = self._scheduler.kv_cache_manager.block_pool
        return sum(pool.blocks[block_id].ref_cnt == pins for block_id, pins in holders.items())


class HookedEngine(VllmCoreEngine):
    """Build it within `hooked_vllm`. A call `a.1` is program `a`'s; `segments` tell of its prompt."""

    def __init__(self, options: EngineOptions, step_time: StepTime) -> None:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv(say.ADDRESS_VARIABLE, f"unix:{Path(folder) / 'hooks'}")
            super().__init__(options, step_time)
            self._scheduler.hook_server.close()
        self.hooks = self._scheduler.hooks
        self.scheduler = self._scheduler
        self.pool = self._pool
        self.segments: dict[str, str] = {}
        self._pins = _OrderedPins(self._scheduler)  # type: ignore[assignment]

    def _request(self, request: EngineRequest, prompt: Any) -> Any:
        made = super()._request(request, prompt)
        made.sampling_params.extra_args = {"program_id": request.call_id.partition(".")[0]}
        if request.call_id in self.segments:
            made.sampling_params.extra_args["segments"] = self.segments[request.call_id]
        return made


def engine(policy: str = "fcfs", kv_tokens: int = 40) -> HookedEngine:
    """Blocks of 4 tokens; steps of a second."""
    return HookedEngine(EngineOptions(kv_tokens, 4, 8, 64, policy), ONE_SECOND_STEPS)


def call(name: str, *prompt: int | tuple[str, int], output: int = 1, priority: int = 0) -> EngineRequest:
    """A call `name` of the program before its dot; a bare number of tokens is content of its own."""
    pieces = [Piece(name, p) if isinstance(p, int) else Piece(*p) for p in prompt]
    return EngineRequest(name, tuple(pieces), Piece(f"{name}/out", output), priority=priority)


def order(one: HookedEngine, *commands: say.Command) -> None:
    for command in commands:
        one.hooks.order(command)
    one.hooks.follow()


def cached(one: HookedEngine, *prompt: tuple[str, int]) -> int:
    """Leading tokens that a prompt would find; one more is asked for, as the last never counts."""
    return one.cached(call("probe", *prompt, ("beyond", 1)), 0.0)


def traffic(one: HookedEngine, now: float, count: int = 2) -> float:
    """Calls that use up all of the ten blocks; returns when they are over."""
    for k in range(count):
        now = finish(one, now, call(f"t{now}{k}", 27))
    return now

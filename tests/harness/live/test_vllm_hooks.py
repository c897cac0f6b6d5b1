"""vLLM's scheduler with the hooks: it pins as the virtual engine does, and starts only where it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from harness.errors import SetupError
from harness.live import hook_messages as say
from harness.virtual.engine import EngineOptions
from harness.virtual.vllm_core import VllmCoreEngine
from tests.harness.live.hooked import HookedEngine, engine, hooked_vllm
from tests.harness.virtual.scenario import Scenario, differences, play
from tests.harness.virtual.strategies import scenarios

pytestmark = pytest.mark.vllm


@pytest.fixture(autouse=True)
def _hooked() -> Iterator[None]:
    with hooked_vllm():
        yield


def test_agreement_with_the_pins_of_the_virtual_engine_on_random_scenarios() -> None:
    """Cached tokens, preemptions, evictions, order and load are those of `vllm_pins.CorePins`."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=150,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(scenarios())
    def agree(scenario: Scenario) -> None:
        hooked: list[HookedEngine] = []

        def watched(*args: Any) -> HookedEngine:
            hooked.append(HookedEngine(*args))
            return hooked[-1]

        ours = play(scenario, watched)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.virtual.vllm_core.build_scheduler", plain_scheduler)
            theirs = play(scenario, VllmCoreEngine)
        assert differences(theirs, ours) == []
        seen["pinned"] += any(turn.keep_s for program in scenario.programs for turn in program.turns)
        seen["gave way"] += any(one.hooks.pins.gave_way for one in hooked)
        seen["preempted"] += any(counters.preemptions for counters in ours.counters)

    agree()
    assert min(seen["pinned"], seen["preempted"]) > 30
    assert seen["gave way"] > 10


def plain_scheduler(options: EngineOptions) -> Any:
    from vllm.v1.core.sched.scheduler import Scheduler  # noqa: PLC0415 - see hooked.py

    from harness.virtual import vllm_setup  # noqa: PLC0415

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_setup.load_vllm(), "Scheduler", Scheduler)
        return vllm_setup.build_scheduler(options)


# ------------------------------------------------------------------ which vLLM, which server


def test_an_address_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.live.vllm_hooks import HookedScheduler  # noqa: PLC0415 - see hooked.py

    monkeypatch.delenv(say.ADDRESS_VARIABLE, raising=False)
    with pytest.raises(SetupError, match="THUNDERBENCH_HOOKS is not set; expected an address"):
        HookedScheduler()


def test_nothing_is_missing_here_and_what_is_missing_is_named() -> None:
    from harness.live import vllm_hooks  # noqa: PLC0415 - see hooked.py

    one = engine()
    assert vllm_hooks.missing_names(one.scheduler) == []
    bare = SimpleNamespace(
        running=[], kv_cache_manager=SimpleNamespace(block_pool=SimpleNamespace(touch=1))
    )
    missing = vllm_hooks.missing_names(bare)
    assert {"schedule", "kv_cache_manager.block_pool.evict_blocks"} < set(missing)
    assert not {"running", "kv_cache_manager.block_pool.touch"} & set(missing)


def test_a_vllm_that_lacks_something_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.live import vllm_hooks  # noqa: PLC0415 - see hooked.py

    monkeypatch.setattr(vllm_hooks, "_ALWAYS", (*vllm_hooks._ALWAYS, "kv_cache_manager.gone"))
    monkeypatch.setattr("vllm.__version__", "9.9.9")
    with pytest.raises(SetupError, match=r"9\.9\.9.*kv_cache_manager\.gone.*0\.32\.0"):
        engine()


def test_an_untested_version_that_has_everything_starts_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from harness.live import vllm_hooks  # noqa: PLC0415 - see hooked.py

    warnings: list[str] = []
    monkeypatch.setattr("vllm.__version__", "9.9.9")
    monkeypatch.setattr(vllm_hooks._LOG, "warning", lambda text, *parts: warnings.append(text % parts))
    answer = engine().hooks.answer(say.Hello())
    assert answer is not None
    assert (answer["hello"]["vllm"], answer["hello"]["tested_vllm"]) == ("9.9.9", ["0.32.0"])
    assert warnings == ["engine hooks were tested with vLLM 0.32.0; this is 9.9.9"]


@pytest.mark.parametrize("case", ["caching off", "two groups", "not full attention", "other blocks"])
def test_a_server_on_which_nothing_can_be_kept_says_why_and_refuses_orders(case: str) -> None:
    from harness.live import vllm_hooks  # noqa: PLC0415 - see hooked.py

    one = engine()
    scheduler = one.scheduler
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    if case == "caching off":
        scheduler.cache_config.enable_prefix_caching = False
        why = "prefix caching is off (--enable-prefix-caching)"
    elif case == "two groups":
        scheduler.kv_cache_manager.coordinator.single_type_managers = (*managers, *managers)
        why = "the model has 2 groups of KV cache, and only one can be handled"
    elif case == "not full attention":
        scheduler.kv_cache_manager.coordinator.single_type_managers = (SimpleNamespace(block_size=4),)
        why = "the model's KV cache is kept by SimpleNamespace, not by full attention"
    else:
        scheduler.kv_cache_manager.block_pool.hash_block_size = 2
        why = "blocks of 4 tokens are hashed by 2"
    assert vllm_hooks.why_nothing_can_be_kept(scheduler) == why
    hooks = vllm_hooks.EngineHooks(scheduler, "0.32.0", why)
    hello = hooks.answer(say.Hello())
    assert hello is not None
    assert (hello["hello"]["capabilities"], hello["hello"]["lacks"]) == ([], why)
    with pytest.raises(say.BadMessage, match="nothing can be kept here"):
        hooks.answer(say.Pin("a", 1.0, yields=False))

"""Engine hooks for vLLM: a scheduler class that keeps, drops and orders as it is told.

    export THUNDERBENCH_HOOKS=unix:/path.sock
    vllm serve MODEL --scheduler-cls harness.live.vllm_hooks.HookedScheduler

This file is imported by vLLM, in the process of its engine, and imports vLLM. `hook_messages.py` says what
can be said to it, `hooks.py` is the other side. A request belongs to a program by its body:
`"vllm_xargs": {"program_id": "p1", "segments": "system_prompt:1200,task:300"}`, of which `segments` may be
absent.

vLLM promises nothing about its scheduler's inside. Everything used here is looked up when the engine
starts; where something is missing, the engine does not start and the message names it.
"""

# Without vLLM its classes are of no known type where this is checked.
# mypy: allow-subclassing-any

from __future__ import annotations

import logging
import os
from operator import attrgetter
from typing import Any

from harness.errors import SetupError
from harness.live.hook_messages import ADDRESS_VARIABLE, TESTED_VLLM, parse_address
from harness.live.vllm_plugin.engine import EngineHooks
from harness.live.vllm_plugin.server import HookServer

_TESTED = " or ".join(TESTED_VLLM)
_LOG = logging.getLogger("vllm.thunderbench")  # below vLLM's own, so that it stands in the server's log


def _other_vllm(version: str, missing: str) -> SetupError:
    return SetupError(
        f"vLLM {version} lacks {missing}",
        f"vLLM {_TESTED}, with which these engine hooks were tested",
        f"pip install 'vllm=={TESTED_VLLM[-1]}', or start the server without --scheduler-cls.",
    )


def _version() -> str:
    import vllm  # noqa: PLC0415 - says which one it is even where its scheduler is elsewhere

    return str(getattr(vllm, "__version__", "of unknown version"))


try:
    from vllm.v1.core.sched.async_scheduler import AsyncScheduler
    from vllm.v1.core.sched.output import NewRequestData
    from vllm.v1.core.single_type_kv_cache_manager import FullAttentionManager
    from vllm.v1.request import Request, RequestStatus
except ImportError as _error:
    raise _other_vllm(_version(), str(_error)) from _error

# What is used of a scheduler, as paths from it; those in the second group only where blocks can be kept.
_ALWAYS = (
    "schedule",
    "add_request",
    "_free_blocks",
    "_preempt_request",
    "reset_prefix_cache",
    "shutdown",
    "running",
    "requests",
    "block_size",
    "scheduler_config.policy",
    "waiting.remove_requests",
    "waiting.add_request",
    "kv_cache_config.kv_cache_groups",
    "cache_config.enable_prefix_caching",
    "kv_cache_manager.allocate_slots",
    "kv_cache_manager.coordinator.single_type_managers",
    "kv_cache_manager.block_pool.num_gpu_blocks",
)
_TO_KEEP = (
    "kv_cache_manager.block_pool.hash_block_size",
    "kv_cache_manager.block_pool.get_cached_block",
    "kv_cache_manager.block_pool.touch",
    "kv_cache_manager.block_pool.free_blocks",
    "kv_cache_manager.block_pool.evict_blocks",
    "kv_cache_manager.block_pool.free_block_queue.remove",
    "kv_cache_manager.block_pool.free_block_queue.prepend_n",
    "kv_cache_manager.block_pool.null_block.ref_cnt",
    "kv_cache_manager.block_pool.null_block.block_id",
)
_OF_A_REQUEST = (
    "block_hashes",
    "num_prompt_tokens",
    "num_tokens",
    "priority",
    "request_id",
    "sampling_params",
    "status",
)


def missing_names(scheduler: Any) -> list[str]:
    """What the plug-in uses and this vLLM does not have."""
    missing = [path for path in (*_ALWAYS, *_TO_KEEP) if not _has(scheduler, path)]
    # A request sets its attributes when it is made, so the code that makes it names them.
    of_requests = {*dir(Request), *Request.__init__.__code__.co_names}
    missing += [f"Request.{name}" for name in (*_OF_A_REQUEST, "is_finished") if name not in of_requests]
    fields = getattr(NewRequestData, "__dataclass_fields__", {})
    missing += [f"NewRequestData.{n}" for n in ("req_id", "num_computed_tokens") if n not in fields]
    return missing + ([] if _has(RequestStatus, "RUNNING") else ["RequestStatus.RUNNING"])


def _has(owner: Any, path: str) -> bool:
    try:
        attrgetter(path)(owner)
    except AttributeError:
        return False
    return True


def why_nothing_can_be_kept(scheduler: Any) -> str:
    """Why there are no pins on this server; empty when there are."""
    if not scheduler.cache_config.enable_prefix_caching:
        return "prefix caching is off (--enable-prefix-caching)"
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    if len(managers) != 1:
        return f"the model has {len(managers)} groups of KV cache, and only one can be handled"
    if not isinstance(managers[0], FullAttentionManager):
        return f"the model's KV cache is kept by {type(managers[0]).__name__}, not by full attention"
    pool, size = scheduler.kv_cache_manager.block_pool, scheduler.block_size
    if not pool.hash_block_size == managers[0].block_size == size:
        return f"blocks of {managers[0].block_size} tokens are hashed by {pool.hash_block_size}"
    return ""


class HookedScheduler(AsyncScheduler):
    """vLLM's scheduler with the hooks; the class that `--scheduler-cls` names.

    Raises `SetupError` without an address in the environment, and on a vLLM that lacks something.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        address = os.environ.get(ADDRESS_VARIABLE)
        if not address:
            raise SetupError(
                f"{ADDRESS_VARIABLE} is not set",
                "an address where this engine's hooks listen",
                f"Start the server with {ADDRESS_VARIABLE}=unix:/path.sock in its environment.",
            )
        where = parse_address(address)
        super().__init__(*args, **options)
        version = _version()
        missing = missing_names(self)
        if missing:
            raise _other_vllm(version, ", ".join(missing))
        if version.partition("+")[0] not in TESTED_VLLM:
            _LOG.warning("engine hooks were tested with vLLM %s; this is %s", _TESTED, version)
        self.hooks = EngineHooks(self, version, why_nothing_can_be_kept(self))
        self.hook_server = HookServer(where, self.hooks.answer)
        self.hook_server.start()
        _LOG.info("engine hooks listen at %s", self.hook_server.address)

    def schedule(self, *args: Any, **options: Any) -> Any:
        """Follow what was ordered, then schedule."""
        self.hooks.follow()
        output = super().schedule(*args, **options)
        self.hooks.programs.scheduled(output.scheduled_new_reqs)
        return output

    def add_request(self, request: Any) -> None:
        """A request arrived, or more input for one that is here."""
        super().add_request(request)
        if self.requests.get(request.request_id) is request:
            self.hooks.programs.opened(request, self.hooks.pins.blocks_of)

    def reset_prefix_cache(self, *args: Any, **options: Any) -> Any:
        """Pins end: vLLM resets nothing while somebody holds a block. Orders that wait find no cache."""
        self.hooks.pins.drop_all()
        return super().reset_prefix_cache(*args, **options)

    def shutdown(self) -> None:
        """Close the socket as well."""
        self.hook_server.close()
        super().shutdown()

    def _preempt_request(self, request: Any, *args: Any, **options: Any) -> Any:
        self.hooks.programs.preempted(request)
        return super()._preempt_request(request, *args, **options)

    def _free_blocks(self, request: Any) -> Any:
        self.hooks.programs.ended(request)
        return super()._free_blocks(request)

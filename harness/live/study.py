"""The servers of a live study: attached ones, or servers started for it and ended with it.

Servers are started once per study and serve all of its arms, one after the other, each from a cold cache:
so they are started with whatever any of the schedulers needs (a priority queue, engine hooks), and all
arms find the same server. A scheduler that gives no priority finds first come first served there, and
hooks that nobody uses change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import EngineFailed
from harness.live.server_command import ServerOptions
from harness.live.servers import Servers
from harness.resolve import build_policy
from harness.spec import RunSpec
from schedulers.contract import Capability

SERVED_MODEL = "thunderbench"  # not the folder: names stand in every request
_HOOKED = {Capability.PIN, Capability.EVICT, Capability.RETAIN}


class Reached(NamedTuple):
    """A spec with the addresses of its servers. `failure` says why those that were started have ended."""

    spec: RunSpec
    failure: Callable[[], EngineFailed | None] = lambda: None


@contextmanager
def reachable(spec: RunSpec, logs: Path, say: Callable[[str], None]) -> Iterator[Reached]:
    """The servers of a study, which run until the block is left.

    `spec` is resolved; their logs go into the folder `logs`. Raises `SetupError` when one does not
    start.
    """
    live = spec.live
    if live is None or spec.backend != "vllm":
        yield Reached(spec)
        return
    options = server_options(spec)
    with Servers(options, spec.replicas, logs, say) as servers:
        hooks = [f"#hooks={address}" for address in servers.hook_addresses] or [""] * spec.replicas
        urls = tuple(url + hook for url, hook in zip(servers.urls, hooks, strict=True))
        started = {"urls": urls, "served_model": options.served_model_name}
        yield Reached(spec.model_copy(update={"live": live.model_copy(update=started)}), servers.failure)


def server_options(spec: RunSpec) -> ServerOptions:
    """How the servers of a resolved study with the backend `vllm` are started."""
    live = spec.live
    if live is None or live.model_path is None:
        raise ValueError("servers of a spec that starts none")
    needs = {need for name in spec.own_schedulers for need in build_policy(spec, name, spec.seed).needs}
    said: dict[str, Any] = dict(spec.vllm_options)
    if "kv_dtype" in said:
        said["kv_cache_dtype"] = said.pop("kv_dtype")
    if said.get("scheduling_policy", "auto") == "auto":
        said["scheduling_policy"] = "priority" if Capability.PRIORITY in needs else None
    known = {name: value for name, value in said.items() if name in ServerOptions.model_fields}
    return ServerOptions(
        model=live.model_path,
        served_model_name=live.served_model or SERVED_MODEL,
        tensor_parallel_size=live.tensor_parallel_size,
        gpus=tuple(tuple(map(int, group.split(","))) for group in live.gpus) or None,
        port=live.port or 0,
        load_format=live.load_format,
        num_gpu_blocks_override=live.num_gpu_blocks_override,
        max_model_len=live.max_model_len,
        kv_offloading_size=live.kv_offloading_size,
        hooks=live.hooks == "on" or (live.hooks == "auto" and bool(needs & _HOOKED)),
        extra_args=live.server_args,
        ready_timeout_s=live.ready_timeout_s,
        **known,
    )

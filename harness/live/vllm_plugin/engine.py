"""What the plug-in does inside vLLM's engine: follows orders, answers questions.

Orders come from the server's thread and wait in a queue that the engine's thread empties before it
schedules (`follow`). Only the engine's thread touches vLLM.

When pins give way. vLLM asks its cache manager for blocks; where it gets none, pins are given up one by
one and it asks again. For a request that waits: any pin while at most one request runs, since nothing else
could ever free memory, and otherwise those that yield. For a request that runs: any pin while it runs
alone; otherwise vLLM preempts, as it does without pins.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any, assert_never

from harness.live.hook_messages import (
    PLUGIN,
    PLUGIN_VERSION,
    PROTOCOL,
    TESTED_VLLM,
    BadMessage,
    Command,
    Evict,
    Hello,
    Message,
    Order,
    Pin,
    Retain,
    Stats,
    Unpin,
)
from harness.live.vllm_plugin.pins import BlockPins
from harness.live.vllm_plugin.programs import Context, Programs

MAX_ORDERS = 1 << 16  # waiting for an engine that is idle, or lost
FOLLOWING_S = 0.02  # between two steps: whoever floods the engine with orders waits for it, not the engine
_HASHES_PER_BLOCK = 8  # contexts that share prefixes have more hashes than there are blocks
_KEEPING = ("evict", "pin", "retain")


class EngineHooks:
    """The hooks of one scheduler of vLLM's. `lacks` says why nothing can be kept, if so.

    `clock` gives seconds, never falling.
    """

    def __init__(
        self, scheduler: Any, version: str, lacks: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._scheduler, self._version, self._lacks, self.clock = scheduler, version, lacks, clock
        self._pool = scheduler.kv_cache_manager.block_pool
        self._block_size = scheduler.block_size
        policy = scheduler.scheduler_config.policy
        self._policy = str(getattr(policy, "value", policy))
        self.pins = BlockPins(self._pool)
        self.programs = Programs(self._block_size, _HASHES_PER_BLOCK * self._pool.num_gpu_blocks)
        self._orders: deque[Command] = deque()
        self._followed = 0
        self._give_way()

    # ---------------------------------------------------------------- the server's thread

    def answer(self, message: Message) -> dict[str, Any] | None:
        """Answer a question; queue an order. Raises `BadMessage`."""
        match message:
            case Hello():
                return {"hello": self._hello()}
            case Stats():
                return {"stats": self._stats(message.program)}
            case _:
                self.order(message)
                return None

    def order(self, command: Command) -> None:
        """Queue an order. Raises `BadMessage` when this engine cannot follow it."""
        if isinstance(command, Order) and self._policy != "priority":
            raise BadMessage("`order` needs a server with --scheduling-policy priority")
        if self._lacks and not isinstance(command, Order):
            raise BadMessage(f"nothing can be kept here: {self._lacks}")
        if len(self._orders) >= MAX_ORDERS:
            raise BadMessage(f"{MAX_ORDERS} orders wait for the engine, which does not schedule")
        self._orders.append(command)

    def _hello(self) -> dict[str, Any]:
        can = [*([] if self._lacks else _KEEPING), *(["priority"] if self._policy == "priority" else [])]
        return {
            "plugin": PLUGIN,
            "protocol": PROTOCOL,
            "version": PLUGIN_VERSION,
            "vllm": self._version,
            "tested_vllm": list(TESTED_VLLM),
            "scheduling_policy": self._policy,
            "block_size": self._block_size,
            "gpu_blocks": self._pool.num_gpu_blocks - 1,  # vLLM keeps one as its null block
            "capabilities": sorted(can),
            "lacks": self._lacks,
        }

    def _stats(self, program: str | None) -> dict[str, Any]:
        pins = self.pins
        return {
            "programs": self.programs.rows(program, pins.blocks_of),
            "pins": len(pins),
            "pins_expired": pins.expired,
            "pins_given_up": pins.gave_way,
            "orders_waiting": len(self._orders),
            "orders_followed": self._followed,
        }

    # ---------------------------------------------------------------- the engine's thread

    def follow(self) -> None:
        """Follow the orders that wait, as far as there is time for it; then end pins that are over."""
        now = self.clock()
        while self._orders:
            self._follow(self._orders.popleft(), now)
            self._followed += 1
            if self.clock() - now > FOLLOWING_S:
                break
        self.pins.expire(now, lambda program: bool(self.programs.waiting(program)))

    def cached(self, context: Context) -> list[Any]:
        """The blocks that vLLM would find of a context: the leading ones."""
        blocks = []
        for block_hash in context.hashes:
            block = self._block(block_hash)
            if block is None:
                break
            blocks.append(block)
        return blocks

    def _follow(self, command: Command, now: float) -> None:
        match command:
            case Pin():
                self.pins.drop(command.program)
                blocks = self.cached(self.programs.context(command.program))
                if blocks:
                    self.pins.keep(command.program, blocks, now + command.for_s, yields=command.yields)
            case Unpin():
                self.pins.drop(command.program)
            case Evict():
                self._evict(command)
            case Retain():
                self._retain(command, now)
            case Order():
                self._reorder(command)
            case _:
                assert_never(command)

    def _evict(self, command: Evict) -> None:
        """Blocks that are free, and in no other program's context, are forgotten and used next."""
        context = self.programs.context(command.program)
        found = self.cached(context)
        tail = len(found) if command.tail_tokens is None else command.tail_tokens // self._block_size
        start = self.programs.shared_blocks(command.program, context, max(len(found) - tail, 0))
        doomed = found[start:]
        self.pins.let_go(command.program, {block.block_id for block in doomed})
        queue = self._pool.free_block_queue
        for block_hash in context.hashes[start : len(found)]:
            # The same content may stand in several blocks.
            while (block := self._block(block_hash)) is not None and block.ref_cnt == 0:
                self._pool.evict_blocks({block.block_id})
                queue.remove(block)
                queue.prepend_n([block])

    def _retain(self, command: Retain, now: float) -> None:
        self.pins.drop(command.program, command.kind)
        context = self.programs.context(command.program)
        places = context.blocks_of(command.kind, self._block_size)
        blocks = [block for place in places if (block := self._block(context.hashes[place])) is not None]
        if blocks:
            self.pins.keep(
                command.program,
                blocks,
                now + command.for_s,
                yields=True,
                rank=command.priority,
                kind=command.kind,
            )

    def _reorder(self, command: Order) -> None:
        """Take the program's requests out of vLLM's queue, and put them in again with the new priority."""
        mine = set(self.programs.waiting(command.program))
        for name in ("waiting", "kv_holding_waiting"):
            queue = getattr(self._scheduler, name, None)
            here = [] if queue is None else [request for request in queue if request in mine]
            if queue is not None and here:
                queue.remove_requests(here)
                for request in here:
                    request.priority = command.priority
                    queue.add_request(request)

    def _block(self, block_hash: Any) -> Any:
        found = self._pool.get_cached_block(block_hash, [0])
        return None if found is None else found[0]

    def _give_way(self) -> None:
        """Stand between vLLM and its cache manager where it asks for blocks."""
        manager, allocate = (
            self._scheduler.kv_cache_manager,
            self._scheduler.kv_cache_manager.allocate_slots,
        )

        def patient(*args: Any, **options: Any) -> Any:
            blocks = allocate(*args, **options)
            while blocks is None and len(self.pins):
                running = self._scheduler.running
                crowded = len(running) > 1
                if (crowded and args[0] in running) or not self.pins.give_up(yielding_only=crowded):
                    break
                blocks = allocate(*args, **options)
            return blocks

        manager.allocate_slots = patient

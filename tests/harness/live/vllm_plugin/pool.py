"""A block pool in memory with the few names of vLLM's that the plug-in's own books use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass
class Block:
    block_id: int
    ref_cnt: int = 0


class Pool:
    """Counts references; keeps the order in which blocks became free."""

    def __init__(self, blocks: int) -> None:
        self.blocks = [Block(k) for k in range(blocks)]
        self.freed: list[int] = []

    def touch(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            block.ref_cnt += 1

    def free_blocks(self, blocks: Iterable[Block]) -> None:
        for block in blocks:
            block.ref_cnt -= 1
            assert block.ref_cnt >= 0, "freed more often than taken"
            if not block.ref_cnt:
                self.freed.append(block.block_id)

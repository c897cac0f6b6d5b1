"""Kept blocks of vLLM's block pool: pins and what is retained by kind.

A pin is one more reference to each of its blocks, so that they are neither free nor evicted; nothing in
vLLM can tell it from a request. What is retained is a pin that yields and has a rank of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

PINNED = inf  # the rank of an ordinary pin: above everything that is retained
_CONTEXT = ""  # the part that a pin keeps: the whole context; otherwise a kind of segments


@dataclass(slots=True)
class _Kept:
    rank: float
    until_s: float  # of the engine's clock
    number: int  # in order of pinning
    blocks: list[Any]
    yields: bool


class BlockPins:
    """What is kept on one block pool, by program and part (`kind`; the whole context when empty).

    `pool` is vLLM's `BlockPool`; of it `touch` and `free_blocks` are used.
    """

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._kept: dict[tuple[str, str], _Kept] = {}
        self._numbers = 0
        self._first_end_s = inf  # at most the earliest end
        self.blocks_of: dict[str, int] = {}  # distinct blocks kept, by program
        self.expired = self.gave_way = 0  # pins that ended by time, and for lack of memory

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self,
        program: str,
        blocks: Sequence[Any],
        until_s: float,
        *,
        yields: bool,
        rank: float = PINNED,
        kind: str = _CONTEXT,
    ) -> None:
        """Keep cached blocks, in order of the context. The program must keep nothing of that kind."""
        assert (program, kind) not in self._kept, f"{program} keeps {kind or 'its context'} already"
        self._pool.touch(blocks)
        self._numbers += 1
        self._kept[program, kind] = _Kept(rank, until_s, self._numbers, list(blocks), yields)
        self._first_end_s = min(self._first_end_s, until_s)
        self._count(program)

    def drop(self, program: str, kind: str = _CONTEXT) -> bool:
        """Let go; false when nothing was kept. The last block goes first, as when a request ends."""
        kept = self._kept.pop((program, kind), None)
        if kept is None:
            return False
        self._pool.free_blocks(reversed(kept.blocks))
        self._count(program)
        return True

    def drop_all(self) -> None:
        """Let go of everything."""
        for program, kind in list(self._kept):
            self.drop(program, kind)

    def let_go(self, program: str, doomed: set[int]) -> None:
        """Keep these blocks (by id) no longer for this program."""
        for (owner, kind), kept in list(self._kept.items()):
            if owner == program:
                gone = [block for block in kept.blocks if block.block_id in doomed]
                kept.blocks = [block for block in kept.blocks if block.block_id not in doomed]
                self._pool.free_blocks(reversed(gone))
                if not kept.blocks:
                    del self._kept[owner, kind]
        self._count(program)

    def give_up(self, *, yielding_only: bool) -> bool:
        """Let go of one for lack of memory; false when there is none.

        The lowest rank first; then the one that would end last; of equals the newest.
        """
        likely = (
            (-kept.rank, kept.until_s, kept.number, owner)
            for owner, kept in self._kept.items()
            if kept.yields or not yielding_only
        )
        first = max(likely, default=None)
        if first is None:
            return False
        self.gave_way += 1
        return self.drop(*first[3])

    def expire(self, now: float, waits: Callable[[str], bool]) -> None:
        """Let go of what was to be kept until now, unless a request of its program waits."""
        if now < self._first_end_s:
            return
        for program, kind in [owner for owner, kept in self._kept.items() if kept.until_s <= now]:
            if not waits(program):
                self.expired += 1
                self.drop(program, kind)
        self._first_end_s = min((kept.until_s for kept in self._kept.values()), default=inf)

    def _count(self, program: str) -> None:
        mine = [kept.blocks for (owner, _), kept in self._kept.items() if owner == program]
        if not mine:
            self.blocks_of.pop(program, None)
        elif len(mine) == 1:
            self.blocks_of[program] = len(mine[0])
        else:
            self.blocks_of[program] = len({block.block_id for blocks in mine for block in blocks})

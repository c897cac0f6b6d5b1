"""Which requests are generating on which branch, and when their blocks enter the cache.

vLLM caches a block when the step that fills it is scheduled. Nobody can tell when it happens until
somebody looks, so blocks of a decoding request are entered when its branch is looked at, when another
request caches blocks there, and when it ends. Only if two requests generate the same content does the
order within a step show: then the branch is `contended` and the engine enters blocks step by step.
"""

from __future__ import annotations

from harness.virtual.batch import Batch, Live
from harness.virtual.blocks import BlockPool
from harness.virtual.content import Branch


class Growth:
    """The decoding requests by the branches they generate on."""

    def __init__(self, batch: Batch, pool: BlockPool, block_size: int) -> None:
        self.contended = 0  # branches on which several requests generate
        self._batch, self._pool, self._block = batch, pool, block_size
        self._on: dict[Branch, list[Live]] = {}

    def __contains__(self, branch: Branch | None) -> bool:
        """Whether somebody generates on `branch`."""
        return branch in self._on

    def join(self, live: Live) -> None:
        """`live` begins to decode."""
        for stretch in live.path[live.stretch :]:
            if stretch.b > live.entered:
                self.settle(stretch.branch)
                here = self._on.setdefault(stretch.branch, [])
                here.append(live)
                self.contended += len(here) == 2

    def leave(self, live: Live) -> None:
        """`live` stopped decoding, its `computed` exact; without effect for one that never did."""
        self.enter(live, live.computed)
        for stretch in live.path:
            here = self._on.get(stretch.branch)
            if here is not None and live in here:
                here.remove(live)
                self.contended -= len(here) == 1
                if not here:
                    del self._on[stretch.branch]

    def settle(self, branch: Branch, but: Live | None = None) -> None:
        """Enter what the one request that generates on `branch`, unless it is `but`, has filled.

        With several of them there is nothing to catch up on.
        """
        here = self._on.get(branch)
        if here is not None and len(here) == 1 and here[0] is not but:
            self.enter(here[0], self._batch.computed(here[0]))

    def enter(self, live: Live, computed: int) -> None:
        """Cache the blocks that `live` has filled with `computed` tokens."""
        upto = computed // self._block
        k = live.entered
        while k < upto:
            branch, _, b = live.path[live.stretch]
            if k >= b:
                live.stretch += 1
                continue
            self.settle(branch, live)
            b = min(b, upto)
            self._pool.cache(branch, k, b, live.held)
            k = live.entered = b

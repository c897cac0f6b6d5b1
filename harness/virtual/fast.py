"""The fast engine: vLLM v1's scheduler, at the cost of its events instead of its steps or tokens.

Why it can be fast. Between two events (a call arrives, a call ends, memory runs out) every step decodes
the same batch. Then
- step i takes base + slope * (context + batch * i) seconds, so a stretch of steps is a quadratic: the
  engine *plans* it as one and finds the step in progress at any time by solving for it;
- all decoding requests advance by one token a step, so one counter of steps tells each one's length;
  how many need a new block at step s is a count by residue of s modulo the block size;
- who ends next is the top of a heap keyed by step.
A plan is cut at the end of the step in progress when a call arrives that the next step could take.

What it owes vLLM (0.32, `v1/core/sched/scheduler.py`), and where it stands here:
- running requests before waiting ones, one token budget, at most one half-done prefill, and it is the
  last of the running (it took all that was left of the budget): `_run_running`;
- a waiting request is admitted when its whole prompt fits beside what runs (scheduler_reserve_full_isl),
  only the head of the queue is looked at: `_admit`;
- blocks are cached when the step that fills them is scheduled; those of decoding requests are entered
  lazily, when somebody looks at their branch (`_enter`), except while two requests generate the same
  content: then order matters, and the engine goes step by step (`_contended`);
- without a free block the last of the running is preempted (priority: the least urgent), its blocks
  freed but still cached, and nothing is admitted in that step: `preempt.py`.
"""

from __future__ import annotations

import heapq
from collections import deque
from math import inf, sqrt

from harness.errors import SetupError
from harness.virtual.blocks import BlockPool, Holding, Hit, Stretch, path_of
from harness.virtual.content import Branch, ContentTree
from harness.virtual.engine import (
    EngineCounters,
    EngineLoad,
    EngineOptions,
    EngineOutput,
    EngineRequest,
)
from harness.virtual.steptime import StepTime


class Live:
    """A request inside the engine. `computed` tokens have KV; lengths are in tokens.

    While it decodes, `computed` is the value at step `since` and grows by one a step.
    """

    __slots__ = (
        "again",
        "blocks",
        "computed",
        "entered",
        "held",
        "known",
        "last_step",
        "length",
        "order",
        "path",
        "request",
        "since",
        "stretch",
    )

    def __init__(self, request: EngineRequest) -> None:
        self.request = request
        self.length = request.prompt_tokens  # prompt and the output generated so far
        self.computed = 0
        self.known = request.known_tokens  # leading tokens whose computing would be a repetition
        self.again = 0.0  # share of the present prefill that is repetition
        self.order = 0  # position among the running: rises with every admission
        self.path: list[Stretch] = []
        self.stretch = 0  # index into path of the block `entered`
        self.entered = 0  # full blocks that are cached (and held)
        self.blocks = 0  # blocks allocated; up to date outside decoding
        self.held: list[Holding] = []
        self.since = 0
        self.last_step = -1  # the step counter at which it has generated everything; -1: not decoding


class FastEngine:
    """One replica. Satisfies `harness.virtual.engine.Engine`; see there for the order of calls."""

    def __init__(
        self, options: EngineOptions, step_time: StepTime, tree: ContentTree | None = None
    ) -> None:
        self.options = options
        self.counters = EngineCounters()
        self.next_boundary = inf
        self.pool = BlockPool(options.kv_tokens // options.block_size)
        self._time = step_time
        self._block = options.block_size
        self._tree = tree or ContentTree()
        self.by_priority = options.scheduling_policy == "priority"
        self._queue: deque[Live] = deque()
        self._heap: list[tuple[int, float, str, Live]] = []
        self.running: dict[int, Live] = {}  # by order: admission order is running order
        self._orders = 0
        self.partial: Live | None = None  # the running request that still prefills
        # decoding requests as one batch
        self._step = 0  # steps begun
        self._decoding = 0
        self._context = 0  # sum of computed tokens over decoding requests, before the next step
        self._residues = [0] * self._block  # how many need a block at step s: residues[s % block]
        self._ends: list[tuple[int, int, Live]] = []
        self._growers: dict[Branch, list[Live]] = {}
        self._contended = 0  # branches on which several requests generate
        # the plan: `_planned` steps from `_plan_start`, `_begun` of them begun
        self._plan_start = 0.0
        self._planned = 0
        self._begun = 0
        self._plan_base = self._plan_slope = 0.0
        self._plan_context = 0  # tokens read by the first step of the plan
        self._open = True  # whether a submitted call could change the plan
        self._prefilled: list[Live] = []  # prefills that the present step completes
        # space-time accounts
        self._accounted = 0.0
        self._prefill_blocks = 0
        self._again_blocks = 0.0

    # ---------------------------------------------------------------- the contract

    def submit(self, request: EngineRequest, now: float) -> None:
        """Queue a request; cuts the plan when the next step could take it."""
        earlier, request.extends = request.extends, None
        place = self._tree.known(earlier.place) if earlier is not None else None
        if earlier is not None and place is not None:
            place = self._tree.place(request.prompt[len(earlier.prompt) + 1 :], place)
        else:
            place = self._tree.place(request.prompt)
        request.prompt_tokens = place[2]
        request.arrived_s = now
        total = place[2] + request.output.tokens
        if -(-total // self._block) > self.pool.blocks:
            raise SetupError(
                f"call {request.call_id} needs {total} tokens of KV cache",
                f"at most the {self.pool.blocks * self._block} tokens of one replica",
                "Give more --kv-tokens or hardware, or a smaller model",
            )
        request.place = place = self._tree.place((request.output,), place)
        live = Live(request)
        live.path = path_of(place[1], total, self._block)
        self._sync(now)
        if self._enqueue(live) and self._planned > self._begun:
            self._planned = self._begun
            self.next_boundary = self._plan_start + self._span(self._begun)

    def complete(self, now: float) -> EngineOutput:
        """End the plan's last step; hand out first tokens and finished calls in running order."""
        self._sync(now)
        self._planned = self._begun = 0
        self._open = True
        self.next_boundary = inf
        first: list[EngineRequest] = []
        done: list[Live] = []
        for live in self._prefilled:
            request = live.request
            live.length += 1
            if request.first_token_s < 0.0:
                request.first_token_s = now
                first.append(request)
            if live.length - request.prompt_tokens == request.output.tokens:
                done.append(live)
            else:
                self._start_decoding(live)
        self._prefilled = []
        ends, step = self._ends, self._step
        while ends and ends[0][0] <= step:
            _, order, live = heapq.heappop(ends)
            if live.last_step == step and live.order == order:
                self._stop_decoding(live)
                done.append(live)
        if len(done) > 1:
            done.sort(key=lambda live: live.order)
        for live in done:
            live.request.finished_s = now
            del self.running[live.order]
            self._free(live)
        return EngineOutput(first, [live.request for live in done])

    def begin(self, now: float) -> None:
        """Schedule the next step, or the next stretch of equal steps, at `now`."""
        self._prefill_blocks, self._again_blocks = 0, 0.0
        if not self.running and not self._waiting():
            return
        from_step = self._step
        if not self._run_running():
            from harness.virtual.preempt import run_with_preemption  # noqa: PLC0415 - the rare path

            new, pairs, read = run_with_preemption(self)
            self._open = False
            self._plan(now, new, pairs, read, steps=1)
            return
        batch, read = self._decoding, self._context + self._decoding
        self._context = read
        new, pairs = batch, read
        partial = self.partial
        if partial is not None and (budget := self.options.max_num_batched_tokens - new):
            n = min(partial.length - partial.computed, budget)
            pairs += n * partial.computed + n * (n + 1) // 2
            read += partial.computed + n
            new += n
            self.advance(partial, n)
        blocked, volatile = True, False
        while new < self.options.max_num_batched_tokens and self._waiting():
            if len(self.running) >= self.options.max_num_seqs:
                break
            live = self._head()
            taken, volatile = self._admit(live, self.options.max_num_batched_tokens - new, now)
            if not taken:
                break
            n, c = taken, live.computed - taken
            pairs += n * c + n * (n + 1) // 2
            read += live.computed
            new += n
        else:
            blocked = False
        steps = 1
        self._open = not blocked or volatile
        if new == batch and self.partial is None and not self._contended and not volatile:
            steps = self._stretch(self._ends[0][0] - from_step) if self._ends else 1
        self._plan(now, new, pairs, read, steps)

    def load(self, now: float) -> EngineLoad:
        """What the replica holds at `now`; brings `counters` up to `now` as well."""
        self._sync(now)
        return EngineLoad(
            len(self.running),
            len(self._queue) or len(self._heap),
            (self.pool.blocks - self.pool.free) * self._block,
            self.pool.idle * self._block,
            self.pool.blocks * self._block,
        )

    # ---------------------------------------------------------------- waiting queue

    def _waiting(self) -> bool:
        return bool(self._queue or self._heap)

    def _enqueue(self, live: Live) -> bool:
        """Append to the queue; says whether the step after the present one could take the request."""
        if not self.by_priority:
            self._queue.append(live)
            return self._open
        request = live.request
        first = self._heap[0] if self._heap else None
        heapq.heappush(self._heap, (request.priority, request.arrived_s, request.call_id, live))
        full = len(self.running) >= self.options.max_num_seqs
        return self._open or (not full and first is not None and self._heap[0] is not first)

    def _head(self) -> Live:
        return self._heap[0][3] if self.by_priority else self._queue[0]

    def preempt(self, live: Live) -> None:
        """Take a running request, no longer counted as decoding, back into the queue: its blocks are
        freed (and stay cached), and it stands before all others, or where its priority says."""
        del self.running[live.order]
        self._ungrow(live)
        self._free(live)
        if self.partial is live:
            self.partial = None
        live.known, live.computed = live.computed, 0
        live.entered = live.stretch = live.blocks = 0
        live.request.preemptions += 1
        self.counters.preemptions += 1
        if self.by_priority:
            request = live.request
            heapq.heappush(self._heap, (request.priority, request.arrived_s, request.call_id, live))
        else:
            self._queue.appendleft(live)

    # ---------------------------------------------------------------- one step

    def _run_running(self) -> bool:
        """Allocate what the running requests need; changes nothing and says False when it lacks."""
        need = self._residues[self._step % self._block] if self._decoding else 0
        partial = self.partial
        more = 0
        if partial is not None:
            n = min(
                partial.length - partial.computed,
                self.options.max_num_batched_tokens - self._decoding,
            )
            more = -(-(partial.computed + n) // self._block) - partial.blocks if n else 0
        if need + more > self.pool.free:
            return False
        if need:
            self.pool.allocate(need)
        self._step += 1
        if self._contended:
            for live in self.running.values():
                if live.last_step >= 0:
                    self.enter(live, live.computed + self._step - live.since)
        return True

    def advance(self, live: Live, n: int) -> None:
        """Schedule `n` more prompt tokens of `live`: allocate, cache, and note when it is through."""
        upto = live.computed + n
        blocks = -(-upto // self._block)
        if blocks > live.blocks:
            self.pool.allocate(blocks - live.blocks)
            live.blocks = blocks
        live.computed = upto
        self.enter(live, upto)
        self._prefill_blocks += blocks
        self._again_blocks += blocks * live.again
        if upto == live.length:
            self._prefilled.append(live)
            self.partial = None
        else:
            self.partial = live

    def _admit(self, live: Live, budget: int, now: float) -> tuple[int, bool]:
        """Try to take the head of the queue: tokens scheduled (0: no room), and, when there is no
        room, whether that may change before any running request ends (somebody is just generating
        the block it would need next)."""
        hits, h, frontier = self._find(live)
        need = -(-live.length // self._block) - h
        if need + self.pool.idle_in(hits) > self.pool.free:
            return 0, frontier in self._growers
        if self.by_priority:
            heapq.heappop(self._heap)
        else:
            self._queue.popleft()
        request = live.request
        cached = h * self._block
        if live.request.cached_tokens < 0:
            request.cached_tokens = cached
            request.scheduled_s = now
            self.counters.queries += request.prompt_tokens
            self.counters.hits += cached
        else:
            request.preempted_tokens += max(0, live.known - cached)
        live.again = max(0, live.known - cached) / (live.length - cached)
        live.held = self.pool.take(hits)
        live.entered = live.blocks = h
        live.stretch = 0
        live.computed = cached
        self._orders += 1
        live.order = self._orders
        self.running[live.order] = live
        n = min(live.length - cached, budget)
        self.advance(live, n)
        return n, False

    def _find(self, live: Live) -> tuple[list[Hit], int, Branch | None]:
        """The longest cached prefix, never the last token: hits, their blocks, where they stop."""
        limit = (live.length - 1) // self._block
        hits: list[Hit] = []
        h = 0
        for stretch in live.path:
            if stretch.a >= limit:
                break
            if stretch.branch in self._growers:
                self._settle_branch(stretch.branch, None)
            more, h = self.pool.find(stretch, limit)
            hits += more
            if h < stretch.b:
                return hits, h, stretch.branch if h < limit else None
        return hits, h, None

    def enter(self, live: Live, computed: int) -> None:
        """Cache the blocks that `live` has filled with `computed` tokens."""
        upto = computed // self._block
        k = live.entered
        while k < upto:
            branch, _, b = live.path[live.stretch]
            if k >= b:
                live.stretch += 1
                continue
            if branch in self._growers:
                self._settle_branch(branch, live)
            b = min(b, upto)
            self.pool.cache(branch, k, b, live.held)
            k = live.entered = b

    def _settle_branch(self, branch: Branch, but: Live | None) -> None:
        """Enter what the one request that generates on `branch` has filled. With several of them
        every step enters its blocks as it is scheduled, so there is nothing to catch up on."""
        growers = self._growers[branch]
        if len(growers) == 1 and growers[0] is not but:
            live = growers[0]
            self.enter(live, live.computed + self._step - live.since)

    # ---------------------------------------------------------------- decoding

    def _start_decoding(self, live: Live) -> None:
        self.join(live)
        for stretch in live.path[live.stretch :]:
            if stretch.b > live.entered:
                growers = self._growers.setdefault(stretch.branch, [])
                if len(growers) == 1:
                    self._settle_branch(stretch.branch, None)
                    self._contended += 1
                growers.append(live)

    def join(self, live: Live) -> None:
        """Count `live`, whose `computed` is exact, among the decoding from the next step on."""
        live.since = self._step
        done = live.length - live.request.prompt_tokens
        live.last_step = self._step + live.request.output.tokens - done
        self._decoding += 1
        self._context += live.computed
        self._residues[(live.since - live.computed) % self._block] += 1
        heapq.heappush(self._ends, (live.last_step, live.order, live))

    def part(self, live: Live) -> None:
        """The reverse of `_join`: `live` leaves the batch with exact `computed` and `length`."""
        self._residues[(live.since - live.computed) % self._block] -= 1
        advanced = self._step - live.since
        live.computed += advanced
        live.length += advanced
        live.last_step = -1
        self._decoding -= 1
        self._context -= live.computed
        live.blocks = -(-live.computed // self._block)

    def _stop_decoding(self, live: Live) -> None:
        self.part(live)
        self.enter(live, live.computed)
        self._ungrow(live)

    def _ungrow(self, live: Live) -> None:
        for stretch in live.path:
            growers = self._growers.get(stretch.branch)
            if growers is not None and live in growers:
                growers.remove(live)
                if len(growers) == 1:
                    self._contended -= 1
                elif not growers:
                    del self._growers[stretch.branch]

    def _free(self, live: Live) -> None:
        self.pool.release(live.held, live.blocks - live.entered)
        live.held = []

    # ---------------------------------------------------------------- plans

    def _stretch(self, upto_end: int) -> int:
        """How many equal steps, the one just scheduled included, until one ends or blocks run out."""
        steps = upto_end
        free = self.pool.free
        if self._blocks_for(self._step, steps - 1) <= free:
            return steps
        n = 0
        while (need := self._residues[(self._step + n) % self._block]) <= free:
            free -= need
            n += 1
        return n + 1

    def next_step(self) -> None:
        """Begin a step that all present decoding requests take part in."""
        self._step += 1
        self._context += self._decoding

    def _blocks_for(self, step: int, steps: int) -> int:
        """Blocks that decoding takes in `steps` steps from `step` on."""
        rounds, rest = divmod(steps, self._block)
        at = step % self._block
        need = rounds * self._decoding if rounds else 0
        end = at + rest
        if end <= self._block:
            return need + sum(self._residues[at:end])
        return need + sum(self._residues[at:]) + sum(self._residues[: end - self._block])

    def _plan(self, now: float, new: int, pairs: int, read: int, steps: int) -> None:
        """Note a stretch of `steps` steps whose first has this load; it has begun."""
        self._plan_start = now
        self._planned, self._begun = steps, 1
        self.counters.steps += 1
        if steps == 1:
            self._plan_base, self._plan_slope = self._time.step(new, pairs, read), 0.0
            self.next_boundary = now + self._plan_base
            return
        self._plan_base = self._time.base(new)
        self._plan_slope = self._time.slope
        self._plan_context = read
        self.next_boundary = now + self._span(steps)

    def _span(self, steps: int) -> float:
        """Seconds from the start of the plan to the end of its step number `steps`."""
        if not self._plan_slope:
            return self._plan_base * steps
        tokens = steps * self._plan_context + self._decoding * (steps * (steps - 1) // 2)
        return steps * self._plan_base + self._plan_slope * tokens

    def _sync(self, now: float) -> None:
        """Let the plan advance to `now`: begin the steps that have begun, account for the time."""
        more = self._due(now) - self._begun if self._planned > self._begun else 0
        pool = self.pool
        held, blank = pool.blocks - pool.free, pool.blank
        if more:
            self._begun += more
            self.counters.steps += more
            need = self._blocks_for(self._step, more)
            if need:
                pool.allocate(need)
            self._step += more
            self._context += more * self._decoding
        if now > self._accounted:
            self._account(now, (held + pool.blocks - pool.free) / 2, (blank + pool.blank) / 2)

    def _due(self, now: float) -> int:
        """The step of the plan in progress at `now`; one that ends at `now` still is."""
        elapsed = now - self._plan_start
        if now >= self.next_boundary:
            return self._planned
        a = self._plan_slope * self._decoding / 2
        b = self._plan_base + self._plan_slope * self._plan_context - a
        guess = int((sqrt(b * b + 4 * a * elapsed) - b) / (2 * a)) if a > 0 else int(elapsed / b)
        steps = min(max(guess, 1), self._planned)
        while steps < self._planned and self._plan_start + self._span(steps) < now:
            steps += 1
        while steps > 1 and self._plan_start + self._span(steps - 1) >= now:
            steps -= 1
        return max(steps, self._begun)

    def _account(self, now: float, held: float, blank: float) -> None:
        """Add the token-seconds since the last account, with mean blocks held and blank meanwhile."""
        elapsed = (now - self._accounted) * self._block
        self._accounted = now
        prefill = min(float(self._prefill_blocks), held)
        again = self._again_blocks * (prefill / self._prefill_blocks) if prefill else 0.0
        c = self.counters
        c.stp_decode += (held - prefill) * elapsed
        c.stp_prefill += (prefill - again) * elapsed
        c.stp_recompute += again * elapsed
        c.stp_unused += blank * elapsed
        c.stp_caching += (self.pool.blocks - held - blank) * elapsed

"""vLLM's scheduler behind the engine contract: small cases worked out by hand, and its accounts."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings

from harness.errors import SetupError
from harness.virtual import vllm_setup
from harness.virtual.engine import EngineCounters, EngineOptions, EngineRequest, Piece
from harness.virtual.steptime import StepTime
from harness.virtual.vllm_core import VllmCoreEngine
from tests.harness.virtual.scenario import Play, Scenario, Trace, Turn, play, space_time
from tests.harness.virtual.strategies import scenarios

SECOND = StepTime(0.0, 0.0, 0.0, 0, 0, 0.0, 0.0, 1.0)  # every step takes one second
LOADED = StepTime(0.0, 0.0, 0.0, 0, 0, 1e-3, 1e-6, 0.0)  # milliseconds per pair, microseconds per read


def options(
    blocks: int, block: int = 4, seqs: int = 8, budget: int = 64, policy: str = "fcfs"
) -> EngineOptions:
    return EngineOptions(blocks * block, block, seqs, budget, policy)


def one(name: str, prompt: int, output: int, start_s: float = 0.0, priority: int = 0) -> Play:
    """A program of one call with content of its own."""
    turn = Turn((Piece(name, prompt),), Piece(f"{name}o", output), priority=priority)
    return Play(name, (turn,), start_s)


def run(given_options: EngineOptions, *programs: Play, step_time: StepTime = SECOND) -> Trace:
    return play(Scenario(given_options, step_time, programs), VllmCoreEngine)


# ------------------------------------------------------------------ without vLLM


def test_importing_the_engine_imports_no_vllm() -> None:
    code = (
        "import sys, harness.virtual.vllm_core; print([m for m in ('vllm', 'torch') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_a_missing_vllm_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> None:
        raise ModuleNotFoundError(name="vllm")

    vllm_setup.load_vllm.cache_clear()
    monkeypatch.setattr(vllm_setup, "import_module", missing)
    with pytest.raises(SetupError, match=r"vLLM is not installed.*thunderbench\[vllm\]"):
        VllmCoreEngine(options(4), SECOND)


def test_a_vllm_that_lacks_something_names_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(name: str) -> SimpleNamespace:
        return SimpleNamespace(__version__="9.9.9", __name__=name)

    vllm_setup.load_vllm.cache_clear()
    monkeypatch.setattr(vllm_setup, "import_module", bare)
    with pytest.raises(SetupError, match=r"vLLM 9\.9\.9 .*CacheConfig.*vLLM 0\.32\.0.*pip install"):
        VllmCoreEngine(options(4), SECOND)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (EngineOptions(15, 16), "a KV cache of 15 tokens"),
        (EngineOptions(160, 16, 8, 7), "max_num_batched_tokens 7; expected at least max_num_seqs"),
    ],
)
def test_options_that_cannot_work(bad: EngineOptions, text: str) -> None:
    with pytest.raises(SetupError, match=text):
        VllmCoreEngine(bad, SECOND)


# ------------------------------------------------------------------ hits


@pytest.mark.vllm
def test_a_hit_never_covers_the_last_token() -> None:
    """A prompt of two whole blocks, sent again: the second block is computed again."""
    again = Turn((Piece("p", 8),), Piece("o2", 1), fresh=True)
    trace = run(options(8), Play("a", (Turn((Piece("p", 8),), Piece("o", 1)), again)))
    assert [call.cached_tokens for call in trace.calls.values()] == [0, 4]
    assert (trace.counters[0].queries, trace.counters[0].hits) == (16, 4)


@pytest.mark.vllm
def test_an_output_is_cached_but_for_its_last_token() -> None:
    """6 + 6 tokens are three blocks, of which the last token was never computed; then 6 + 7 tokens."""
    for output, cached in ((6, 8), (7, 12)):
        turns = (Turn((Piece("p", 6),), Piece("o", output)), Turn((Piece("n", 3),), Piece("o2", 1)))
        assert run(options(8), Play("a", turns)).calls["a.1"].cached_tokens == cached


@pytest.mark.vllm
def test_contexts_share_as_far_as_their_pieces_agree() -> None:
    """`s` in 9 and 11 tokens agree for 9; cut differently into pieces they still agree."""
    trace = run(
        options(64),
        Play("a", (Turn((Piece("s", 9), Piece("a", 10)), Piece("ao", 1)),)),
        Play("b", (Turn((Piece("s", 11), Piece("a", 10)), Piece("bo", 1)),), 2.0),
        Play("c", (Turn((Piece("s", 9), Piece("a", 7)), Piece("co", 1)),), 4.0),
    )
    assert [call.cached_tokens for call in trace.calls.values()] == [0, 8, 12]


@pytest.mark.vllm
def test_a_request_hits_what_the_same_step_is_only_computing() -> None:
    """Blocks are cached when scheduled: twins that arrive together share."""
    twin = (Turn((Piece("p", 10),), Piece("o", 2)),)
    trace = run(options(8), Play("a", twin), Play("b", twin))
    assert trace.calls["b.0"].cached_tokens == 8
    assert trace.calls["b.0"].first_token_s == trace.calls["a.0"].first_token_s == 1.0


# ------------------------------------------------------------------ eviction and preemption


@pytest.mark.vllm
def test_the_tail_of_the_least_recently_freed_goes_first() -> None:
    """Four blocks. a leaves two, b takes the two blank ones; c needs one: a's second block goes."""
    trace = run(
        options(4),
        one("a", 8, 1),
        one("b", 8, 1, start_s=2.0),
        one("c", 3, 1, start_s=4.0),
        Play("d", (Turn((Piece("a", 8), Piece("d", 1)), Piece("do", 1)),), 6.0),
    )
    assert trace.calls["d.0"].cached_tokens == 4
    # c's block never became full and is blank again: d takes it for what a lost, and evicts for its own.
    assert trace.counters[0].evicted_blocks == 2


@pytest.mark.vllm
def test_the_last_of_the_running_is_preempted_and_finds_its_full_blocks_again() -> None:
    """Five blocks, two calls of 7 + 6 tokens, 12 of which are computed: three blocks each.

    After two steps each has filled two blocks. In the third a takes the fifth block, b gets none and
    gives up its two. a ends with the sixth step, its third block full. The seventh resumes b with 9
    tokens of context, finds 8, and overwrites a's last block for the rest.
    """
    trace = run(options(5), one("a", 7, 6), one("b", 7, 6))
    a, b = trace.calls["a.0"], trace.calls["b.0"]
    assert (a.preemptions, a.finished_s) == (0, 6.0)
    assert (b.preemptions, b.cached_tokens, b.preempted_tokens) == (1, 0, 0)
    assert (b.scheduled_s, b.first_token_s, b.finished_s) == (0.0, 1.0, 10.0)
    counters = trace.counters[0]
    assert (counters.preemptions, counters.evicted_blocks, counters.steps) == (1, 1, 10)
    assert (counters.queries, counters.hits) == (14, 0)  # a resumed call's lookup does not count


@pytest.mark.vllm
def test_tokens_computed_again_after_a_preemption_are_counted() -> None:
    """Four blocks; a has 7 + 9 tokens, b 5 + 5.

    The third step needs a block for a: b goes, with 6 tokens computed in a full and a half block. a
    takes the half one, in step 7 the full one (evicted). After step 9 a leaves a half and three full
    blocks, of which b, from scratch and with 7 tokens, takes the half one, the third, later the second.
    """
    trace = run(options(4), one("a", 7, 9), one("b", 5, 5))
    a, b = trace.calls["a.0"], trace.calls["b.0"]
    assert (a.preemptions, b.preemptions) == (0, 1)
    assert b.preempted_tokens == 6
    assert (a.finished_s, b.finished_s) == (9.0, 12.0)
    assert trace.counters[0].evicted_blocks == 3


@pytest.mark.vllm
def test_priority_decides_who_waits_and_who_is_preempted() -> None:
    """As the first case above, but it is a that goes, and c, though later, takes a's blocks first."""
    trace = run(
        options(5, policy="priority"),
        one("a", 7, 6, priority=1),
        one("b", 7, 6, priority=0),
        one("c", 7, 1, start_s=0.5, priority=0),
    )
    assert trace.finished == [["c.0", "b.0", "a.0"]]
    assert [call.finished_s for call in trace.calls.values()] == [10.0, 6.0, 4.0]
    assert [call.preemptions for call in trace.calls.values()] == [1, 0, 0]
    assert trace.calls["a.0"].preempted_tokens == 8


# ------------------------------------------------------------------ time


@pytest.mark.vllm
def test_the_load_of_a_step() -> None:
    """A prompt of 6 in chunks of 4 and 2: pairs 10, then 2*4+3; one more token after 6 computed: 7."""
    trace = run(options(4, budget=4, seqs=4), one("a", 6, 2), step_time=LOADED)
    first = 10e-3 + 4e-6 + 11e-3 + 6e-6
    call = trace.calls["a.0"]
    assert call.first_token_s == pytest.approx(first, rel=1e-12)
    assert call.finished_s == pytest.approx(first + 7e-3 + 7e-6, rel=1e-12)


@pytest.mark.vllm
def test_running_before_waiting_under_one_budget() -> None:
    """Budget 5: a's prompt takes a step; then a decodes and b gets 4 tokens a step."""
    trace = run(options(9, budget=5, seqs=3), one("a", 5, 4), one("b", 8, 1))
    assert trace.calls["a.0"].finished_s == 4.0
    assert (trace.calls["b.0"].scheduled_s, trace.calls["b.0"].finished_s) == (1.0, 3.0)


# ------------------------------------------------------------------ accounts


@pytest.mark.vllm
def test_the_five_parts_of_space_time() -> None:
    """Eight blocks of 4: a step of prefill in two of them, one of decode in three, 3 s idle with two
    cached (the third never filled), then a follow-up in four that finds 8 of its 14 tokens."""
    first = Turn((Piece("p", 8),), Piece("o", 2))
    trace = run(options(8), Play("a", (first, Turn((Piece("n", 4),), Piece("o2", 1), think_s=3.0))))
    assert trace.calls["a.1"].known_tokens == 9
    assert trace.calls["a.1"].cached_tokens == 8
    # One of the six uncached tokens had been computed: the first output token, in the decode step.
    expected = EngineCounters(
        queries=22,
        hits=8,
        steps=3,
        stp_decode=12.0,
        stp_prefill=8.0 + 16 * 5 / 6,
        stp_recompute=16 / 6,
        stp_unused=24.0 + 20.0 + 3 * 24.0 + 16.0,
        stp_caching=3 * 8.0,
    )
    assert asdict(trace.counters[0]) == pytest.approx(asdict(expected))


@pytest.mark.vllm
@settings(max_examples=40, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_accounts_add_up_in_any_scenario(scenario: Scenario) -> None:
    """The five parts sum to capacity x time; blank blocks, counted as they come and go, are recounted."""
    engines: list[VllmCoreEngine] = []

    def make(given_options: EngineOptions, step_time: StepTime) -> VllmCoreEngine:
        engines.append(VllmCoreEngine(given_options, step_time))
        return engines[-1]

    trace = play(scenario, make)
    capacity = scenario.options.kv_tokens // scenario.options.block_size * scenario.options.block_size
    for engine in engines:
        assert math.isclose(space_time(engine.counters), capacity * trace.end_s, rel_tol=1e-9)
        pool = engine._pool
        hashless = sum(block.block_hash is None for block in pool.blocks if not block.is_null)
        load = engine.load(trace.end_s)
        assert (load.running, load.waiting, load.used_tokens) == (0, 0, 0)
        assert load.capacity_tokens - load.cached_tokens == hashless * scenario.options.block_size
    for call in trace.calls.values():
        assert call.arrived_s <= call.scheduled_s < call.first_token_s <= call.finished_s
        assert 0 <= call.cached_tokens < call.prompt_tokens


# ------------------------------------------------------------------ the order of calls


@pytest.mark.vllm
def test_a_call_that_can_never_fit_is_refused_and_changes_nothing() -> None:
    engine = VllmCoreEngine(options(4), SECOND)
    too_long = EngineRequest("x", (Piece("p", 15),), Piece("o", 2))
    with pytest.raises(
        SetupError, match=r"call x: 15 prompt \+ 2 output tokens need 5 KV blocks.*at most 4 blocks"
    ):
        engine.submit(too_long, 0.0)
    engine.begin(0.0)
    assert engine.next_boundary == math.inf
    assert engine.load(0.0).waiting == 0


@pytest.mark.vllm
def test_calls_out_of_order_are_refused() -> None:
    engine = VllmCoreEngine(options(4), SECOND)
    with pytest.raises(RuntimeError, match="complete"):
        engine.complete(0.0)
    engine.submit(EngineRequest("x", (Piece("p", 3),), Piece("o", 2)), 0.0)
    engine.begin(0.0)
    assert engine.next_boundary == 1.0
    with pytest.raises(RuntimeError, match="begin"):
        engine.begin(0.5)
    with pytest.raises(RuntimeError, match="complete"):
        engine.complete(0.5)
    first, finished = engine.complete(1.0)
    assert ([call.call_id for call in first], finished) == (["x"], [])

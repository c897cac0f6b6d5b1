import json

import pytest

from workloads.describe import Spread, describe
from workloads.model import Call, Program, SandboxNeed, Segment, SegmentKind, ToolRun
from workloads.swe_lite import SweLite


class Given:
    """A workload of given programs."""

    name, notes = "given", ()

    def __init__(self, *programs, **params):
        self.programs, self.params = programs, params
        self.size = len(programs)

    def program(self, index):
        return self.programs[index]


def seg(key, tokens):
    return Segment(key, SegmentKind.TASK, tokens)


def chain(name, shared=0):
    first = (seg("shared", shared), seg(f"{name}-task", 40)) if shared else (seg(f"{name}-task", 40),)
    box = SandboxNeed("image", 1000, 10, 5.0, 0.5)
    one = Call(f"{name}/0", None, first, seg(f"{name}-o0", 10), (), (ToolRun("t", 60.0, 14),))
    two = Call(f"{name}/1", one.call_id, (seg(f"{name}-n", 14),), seg(f"{name}-o1", 6), (one.call_id,))
    return Program(name, (one, two), box)


def test_spread():
    assert Spread.of([]) is None
    spread = Spread.of(range(101))
    assert (spread.p10, spread.p50, spread.p90, spread.mean, spread.max) == (10, 50, 90, 50, 100)


def test_a_chain_hits_all_but_the_last_generated_token():
    """40 + 10 tokens were asked for or generated, the tenth never entered the cache: 49 of 64 hit."""
    assert describe(Given(chain("a")), 1, block_size=1).hit_rate == 49 / 104
    assert describe(Given(chain("a")), 1, block_size=16).hit_rate == 48 / 104


def test_the_last_token_of_a_prompt_never_hits():
    again = Program("a", tuple(Call(f"a/{k}", None, (seg("x", 32),), seg(f"o{k}", 1)) for k in range(2)))
    assert describe(Given(again), 1, block_size=1).hit_rate == 31 / 64
    assert describe(Given(again), 1, block_size=16).hit_rate == 16 / 64


def test_shared_prefixes_hit_across_programs_only_together():
    summary = describe(Given(chain("a", 16), chain("b", 16)), 2)
    assert summary.shared_prefix_tokens == 16
    assert summary.hit_rate_alone == 2 * 64 / 272
    assert summary.hit_rate == (2 * 64 + 16) / 272


def test_a_shorter_segment_of_one_key_is_a_prefix_of_the_longer():
    programs = [
        Program(str(n), (Call(f"{n}/0", None, (seg("x", n), seg(f"y{n}", 9)), seg(f"o{n}", 1)),))
        for n in (50, 30)
    ]
    summary = describe(Given(*programs), 2, block_size=1)
    assert summary.shared_prefix_tokens == 30
    assert summary.hit_rate == 30 / 98


def test_a_cut_prompt_hits_as_far_as_it_agrees():
    """The second prompt has no parent; it begins with the first prompt and half of its output."""
    one = Call("a/0", None, (seg("t", 20),), seg("o", 10))
    two = Call("a/1", None, (seg("t", 20), seg("o", 5), seg("n", 7)), seg("p", 1), ("a/0",))
    assert describe(Given(Program("a", (one, two))), 1, block_size=1).hit_rate == 25 / 52


def test_counts_of_a_small_workload():
    summary = describe(Given(chain("a"), chain("b"), **{"tool.timeout_s": 60.0}), 2)
    assert (summary.programs, summary.calls, summary.tasks) == (2, 4, 2)
    assert summary.initial_prompt_tokens.p50 == 40
    assert summary.final_context_tokens.max == 70
    assert summary.live_context_tokens == 60
    assert summary.new_tokens.p50 == 14
    assert summary.timeout_share == 1.0
    assert (summary.sandbox_image_bytes, summary.sandbox_writable_bytes) == (1000, 20)
    assert (summary.prepare_alone_s.p50, summary.prepare_s_per_peer) == (5.5, 0.5)


def test_what_is_not_there_is_null():
    bare = Program("a", (Call("a/0", None, (seg("t", 20),), seg("o", 10)),))
    summary = describe(Given(bare), 1)
    assert summary.tool_s is summary.timeout_share is summary.prepare_alone_s is summary.new_tokens is None
    assert summary.hit_rate == 0.0
    assert describe(Given(), 0).steps is None


def test_swe_lite_has_the_hit_rate_its_figures_imply():
    """Mean new tokens per call over mean prompt: some 315 tokens of 28,970."""
    summary = describe(SweLite(), programs=100)
    assert summary.hit_rate_alone == pytest.approx(0.989, abs=0.003)
    assert summary.hit_rate > summary.hit_rate_alone
    assert summary.shared_prefix_tokens == 124
    assert json.loads(json.dumps(summary.to_json()))["steps"]["p50"] == summary.steps.p50

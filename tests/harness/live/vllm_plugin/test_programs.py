"""What is remembered of programs: the context that ended last, what is shared, counts, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.live.hook_messages import Segment
from harness.live.vllm_plugin import programs as module
from harness.live.vllm_plugin.programs import Context, Programs, program_of

BLOCK = 4


class Status(Enum):
    WAITING = auto()
    RUNNING = auto()
    FINISHED = auto()


class Request:
    """As much of vLLM's request as the plug-in reads."""

    def __init__(
        self, program: object, name: str, hashes: Sequence[Any] = (), tokens: int = 0, **extra: Any
    ):
        self.request_id = name
        self.sampling_params = SimpleNamespace(extra_args={"program_id": program, **extra})
        self.block_hashes, self.num_tokens = list(hashes), tokens
        self.num_prompt_tokens = tokens
        self.status = Status.WAITING

    def is_finished(self) -> bool:
        return self.status is Status.FINISHED


def lived(book: Programs, request: Request) -> None:
    book.opened(request, {})
    book.ended(request)


def test_the_context_is_of_the_request_that_ended_last_without_the_block_of_its_last_token() -> None:
    book = Programs(BLOCK, 100)
    early, late = Request("p", "1", "abc", 13), Request("p", "2", "xyz", 12, segments="task:5")
    book.opened(early, {})
    book.opened(late, {})
    book.ended(late)
    assert book.context("p") == Context(["x", "y"], 12, (Segment("task", 5),))
    book.ended(early)
    assert book.context("p") == Context(["a", "b", "c"], 13, ())
    assert book.context("nobody") == Context()


@pytest.mark.parametrize(
    ("kind", "places"),
    [("system_prompt", [0, 1]), ("task", [1, 2]), ("thought", [2, 3, 4]), ("observation", [])],
)
def test_a_segment_has_every_whole_block_that_holds_a_token_of_it(kind: str, places: list[int]) -> None:
    """6 + 5 tokens in blocks of 4, then what the model wrote; 21 tokens are five whole blocks and one."""
    context = Context("abcde", 21, (Segment("system_prompt", 6), Segment("task", 5)))
    assert context.blocks_of(kind, BLOCK) == places


def test_segments_that_claim_more_than_there_is_end_with_the_context() -> None:
    context = Context("ab", 9, (Segment("task", 1 << 52), Segment("observation", 8)))
    assert context.blocks_of("task", BLOCK) == [0, 1]
    assert context.blocks_of("observation", BLOCK) == []


@given(
    st.lists(st.integers(0, 12), min_size=1, max_size=5),
    st.integers(0, 14),
)
def test_shared_blocks_are_those_of_the_longest_common_prefix(shared: list[int], at_least: int) -> None:
    """Others agree with a context of 12 blocks up to some place each, then go their own ways."""
    book = Programs(BLOCK, 10_000)
    mine = [("mine", k) for k in range(12)]
    lived(book, Request("p", "0", mine, 49))
    for k, common in enumerate(shared):
        lived(book, Request(f"o{k}", str(k), [*mine[:common], *((k, j) for j in range(20 - common))], 81))
    found = book.shared_blocks("p", book.context("p"), at_least)
    assert found == max(at_least, *shared)


def test_waiting_are_the_open_requests_that_do_not_run() -> None:
    book = Programs(BLOCK, 100)
    requests = [Request("p", str(k)) for k in range(3)]
    for request in requests:
        book.opened(request, {})
    requests[0].status, requests[1].status = Status.RUNNING, Status.FINISHED
    assert book.waiting("p") == [requests[2]]
    book.ended(requests[2])
    assert book.waiting("p") == book.waiting("nobody") == []


def test_a_lookup_counts_when_a_request_is_first_scheduled() -> None:
    book = Programs(BLOCK, 100)
    request = Request("p", "1", tokens=20)
    book.opened(request, {})
    for cached in (8, 16):
        book.scheduled([SimpleNamespace(req_id="1", num_computed_tokens=cached)])
    book.preempted(request)
    assert book.rows(None, {"p": 3}) == {
        "p": {
            "requests": 1,
            "prompt_tokens": 20,
            "cached_tokens": 8,
            "preemptions": 1,
            "pinned_tokens": 12,
        }
    }
    assert book.rows("nobody", {}) == {}


def test_programs_longest_unseen_are_forgotten_unless_something_of_them_is_open_or_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_PROGRAMS", 3)
    book = Programs(BLOCK, 100)
    book.opened(Request("open", "0"), {})
    lived(book, Request("pinned", "1"))
    for k in range(4):
        request = Request(f"p{k}", f"r{k}")
        book.opened(request, {"pinned": 1})
        book.ended(request)
    assert list(book.rows(None, {})) == ["open", "pinned", "p3"]


def test_contexts_longest_unseen_are_forgotten_when_all_together_are_too_large() -> None:
    book = Programs(BLOCK, 5)
    for name in "abc":
        lived(book, Request(name, name, [name, name], 9))
    assert [len(book.context(name).hashes) for name in "abc"] == [0, 2, 2]
    lived(book, Request("d", "d", "0123456", 29))
    assert [len(book.context(name).hashes) for name in "abcd"] == [0, 0, 0, 7]


@pytest.mark.parametrize("program", [None, "", 7, "x" * 1025, ["p"]])
def test_what_is_no_name_is_no_program(program: object) -> None:
    request = Request(program, "1")
    assert program_of(request) is None
    book = Programs(BLOCK, 5)
    lived(book, request)
    book.preempted(request)
    assert book.rows(None, {}) == {}


def test_requests_that_sample_nothing_are_nobodys() -> None:
    request = Request("p", "1")
    request.sampling_params.extra_args = None
    assert program_of(request) is None
    request.sampling_params = None
    assert program_of(request) is None

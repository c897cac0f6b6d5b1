import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.errors import WorkloadError
from workloads.model import Segment, SegmentKind
from workloads.tokens import context_tokens, token_ids

KEYS = st.text(min_size=1, max_size=20)


def test_golden():
    """These ids are the same on every machine and in every version."""
    assert token_ids("swe-lite/system", 0, 8, 32000) == [22825, 3611, 9263, 27327, 4211, 12583, 188, 22373]


@settings(deadline=None)
@given(key=KEYS, start=st.integers(0, 300), count=st.integers(0, 200), vocab=st.integers(1, 2**32))
def test_a_slice_is_a_slice_of_the_whole(key, start, count, vocab):
    whole = token_ids(key, 0, start + count, vocab)
    assert token_ids(key, start, count, vocab) == whole[start:]
    assert len(whole) == start + count
    assert all(0 <= token < vocab for token in whole)


@settings(deadline=None)
@given(key=KEYS, other=KEYS)
def test_other_keys_give_other_tokens(key, other):
    same = token_ids(key, 0, 32, 2**32) == token_ids(other, 0, 32, 2**32)
    assert same == (key == other)


def test_context_is_its_segments_in_order():
    segments = [Segment("a", SegmentKind.TASK, 20), Segment("b", SegmentKind.THOUGHT, 3)]
    assert context_tokens(segments, 100) == token_ids("a", 0, 20, 100) + token_ids("b", 0, 3, 100)


@pytest.mark.parametrize(("start", "count", "vocab"), [(-1, 1, 10), (0, -1, 10), (0, 1, 0), (0, 1, 2**33)])
def test_absurd_slices_are_refused(start, count, vocab):
    with pytest.raises(WorkloadError):
        token_ids("a", start, count, vocab)

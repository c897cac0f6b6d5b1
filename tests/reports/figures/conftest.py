"""The study that the figures' tests draw."""

import pytest

from tests.reports.studies import plain_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """2 and 4 programs at a time, seeds 0 and 1, a window of a minute.

    In each run two programs make one step each: vllm's take 10 and 11 s, thunder's 5 s; vllm's cache hits
    half, thunder's 90 %.
    """
    return plain_study(tmp_path_factory.mktemp("study"))

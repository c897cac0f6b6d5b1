"""The five accounts always sum to capacity x time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.virtual.accounts import Accounts
from harness.virtual.engine import EngineCounters

steps = st.lists(
    st.tuples(
        st.floats(0, 10),
        st.floats(0, 1),
        st.floats(0, 1),
        st.lists(st.tuples(st.integers(1, 50), st.floats(0, 1)), max_size=3),
    ),
    max_size=10,
)


@given(steps)
def test_the_five_sum_to_capacity_times_time(steps):
    counters, now = EngineCounters(), 0.0
    accounts = Accounts(counters, 100, 16)
    for seconds, held, blank, prefills in steps:
        accounts.new_step()
        for blocks, again in prefills:
            accounts.prefill(blocks, again)
        now += seconds
        accounts.close(now, 100 * held, 100 * (1 - held) * blank)
    c = counters
    costs = [c.stp_decode, c.stp_prefill, c.stp_recompute, c.stp_unused, c.stp_caching]
    assert min(costs) >= -1e-6
    assert sum(costs) == pytest.approx(1600 * now)


def test_time_that_was_accounted_for_is_not_counted_twice():
    counters = EngineCounters()
    accounts = Accounts(counters, 10, 1)
    accounts.close(2.0, 4.0, 6.0)
    accounts.close(2.0, 10.0, 0.0)
    accounts.close(1.0, 10.0, 0.0)
    assert (counters.stp_decode, counters.stp_unused) == (8.0, 12.0)

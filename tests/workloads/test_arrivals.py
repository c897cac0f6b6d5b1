from itertools import islice, pairwise
from statistics import mean, pvariance

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workloads.arrivals import ClosedLoop, Gamma, GivenTimes, Poisson
from workloads.errors import WorkloadError


def gaps(arrivals, count=4000):
    times = [0.0, *islice(arrivals.times(), count)]
    return [b - a for a, b in pairwise(times)]


def test_golden_times():
    """One seed, one list of times, on every machine."""
    assert list(islice(Poisson(2.0, 7).times(), 3)) == [1.074027, 1.377429, 1.443603]
    assert list(islice(Gamma(2.0, 0.5, 7).times(), 3)) == [0.069087, 0.182539, 0.187896]


def test_poisson_has_the_rate_and_the_variance_of_an_exponential():
    seen = gaps(Poisson(4.0, 1))
    assert mean(seen) == pytest.approx(0.25, rel=0.06)
    assert pvariance(seen) == pytest.approx(0.0625, rel=0.12)


@pytest.mark.parametrize("burstiness", [0.3, 1.0, 5.0])
def test_gamma_has_the_rate_and_a_variance_that_falls_with_burstiness(burstiness):
    seen = gaps(Gamma(4.0, burstiness, 1))
    assert mean(seen) == pytest.approx(0.25, rel=0.1)
    assert pvariance(seen) == pytest.approx(0.0625 / burstiness, rel=0.25)


@settings(deadline=None)
@given(rate=st.floats(0.01, 1000), burstiness=st.floats(0.05, 50), seed=st.integers(0, 5))
def test_open_loops_never_go_back_and_keep_to_microseconds(rate, burstiness, seed):
    for arrivals in (Poisson(rate, seed), Gamma(rate, burstiness, seed)):
        times = list(islice(arrivals.times(), 20))
        assert times == sorted(times)
        assert times == [round(time, 6) for time in times]
        assert times == list(islice(arrivals.times(), 20))


def test_given_times_are_given_back():
    assert list(GivenTimes((0.0, 1.0, 1.0, 2.5)).times()) == [0.0, 1.0, 1.0, 2.5]


@pytest.mark.parametrize(
    "build",
    [
        lambda: ClosedLoop(0),
        lambda: Poisson(0.0, 1),
        lambda: Poisson(float("inf"), 1),
        lambda: Gamma(1.0, -1.0, 1),
        lambda: GivenTimes((1.0, 0.5)),
        lambda: GivenTimes((float("nan"),)),
    ],
)
def test_absurd_arrivals_are_refused(build):
    with pytest.raises(WorkloadError):
        build()

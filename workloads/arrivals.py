"""When programs arrive.

Closed loop: a fixed number of programs is always in the system; one that ends makes room for the next.
Open loop: programs arrive at times that do not depend on the system. Times are seconds from the start
of the run, rounded to microseconds, and equal on every machine for one seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite, sqrt
from random import Random
from typing import TypeAlias

from workloads.errors import WorkloadError
from workloads.sampling import exp, ln, stream


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """`concurrency` programs at any time."""

    concurrency: int

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise WorkloadError(f"a concurrency of {self.concurrency}", "at least 1 program")


@dataclass(frozen=True, slots=True)
class Poisson:
    """Independent arrivals, `rate_per_s` of them per second on average."""

    rate_per_s: float
    seed: int

    def __post_init__(self) -> None:
        _positive("an arrival rate", self.rate_per_s, "programs per second")

    def times(self) -> Iterator[float]:
        """Arrival times without end."""
        random = stream(self.seed, "arrivals", "poisson").random
        now = 0.0
        while True:
            now += -ln(1.0 - random()) / self.rate_per_s
            yield round(now, 6)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gaps from a gamma distribution of shape `burstiness` and mean 1/`rate_per_s`.

    `burstiness` as in `vllm bench serve`: 1 is Poisson, below 1 arrivals come in bursts, above 1 they
    are more even.
    """

    rate_per_s: float
    burstiness: float
    seed: int

    def __post_init__(self) -> None:
        _positive("an arrival rate", self.rate_per_s, "programs per second")
        _positive("a burstiness", self.burstiness, "")

    def times(self) -> Iterator[float]:
        """Arrival times without end."""
        rng = stream(self.seed, "arrivals", "gamma")
        scale = 1.0 / (self.rate_per_s * self.burstiness)
        now = 0.0
        while True:
            now += scale * _gamma(rng, self.burstiness)
            yield round(now, 6)


@dataclass(frozen=True, slots=True)
class GivenTimes:
    """Arrivals at `times_s`, which never fall."""

    times_s: tuple[float, ...]

    def __post_init__(self) -> None:
        before = 0.0
        for number, time in enumerate(self.times_s, 1):
            if not (isfinite(time) and time >= before):
                raise WorkloadError(
                    f"arrival {number} at {time} s", f"a time from {before} s on", "Sort the times."
                )
            before = time

    def times(self) -> Iterator[float]:
        """The given times; ends with the last."""
        for time in self.times_s:
            yield round(time, 6)


OpenLoop: TypeAlias = Poisson | Gamma | GivenTimes
Arrivals: TypeAlias = ClosedLoop | OpenLoop


def _positive(what: str, value: float, unit: str) -> None:
    if not (isfinite(value) and value > 0):
        raise WorkloadError(f"{what} of {value}", f"a number above 0 {unit}".rstrip())


def _gamma(rng: Random, shape: float) -> float:
    """A gamma variate of `shape` and scale 1 (Marsaglia and Tsang 2000; below 1 with their boost)."""
    if shape < 1.0:
        power = ln(1.0 - rng.random()) / shape
        return _gamma(rng, shape + 1.0) * exp(power)
    d = shape - 1.0 / 3.0
    c = 1.0 / sqrt(9.0 * d)
    while True:
        x = _gauss(rng)
        v = 1.0 + c * x
        if v <= 0.0:
            continue
        v = v * v * v
        if ln(1.0 - rng.random()) < 0.5 * x * x + d - d * v + d * ln(v):
            return d * v


def _gauss(rng: Random) -> float:
    """A standard normal variate (Marsaglia's polar method; `sqrt` is exact everywhere)."""
    while True:
        x, y = 2.0 * rng.random() - 1.0, 2.0 * rng.random() - 1.0
        square = x * x + y * y
        if 0.0 < square < 1.0:
            return x * sqrt(-2.0 * ln(square) / square)

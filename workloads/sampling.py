"""Seeded sampling that gives the same numbers on every machine.

Three rules make it so. Streams are seeded through SHA-256 of their names, never through Python's
salted `hash()`. Of a stream only `random()` is used, the one method whose sequence Python keeps
between versions. Values come from tables by + - * / alone, which IEEE 754 fixes to the last bit;
where a logarithm or an exponential is unavoidable it is taken in decimal arithmetic, which rounds
correctly, and not from the C library, which differs between machines.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Sequence
from decimal import Context, Decimal
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any

from workloads.errors import WorkloadError

_DECIMAL = Context(prec=20)
_DATA = Path(__file__).parent / "data"


def stream(seed: int, *names: str | int) -> Random:
    """A random stream of its own for `seed` and `names`; use its `random()` only."""
    text = "\x1f".join([str(seed), *map(str, names)])
    return Random(int.from_bytes(sha256(text.encode()).digest(), "big"))


def ln(x: float) -> float:
    """Natural logarithm, equal on every machine."""
    return float(_DECIMAL.ln(Decimal(x)))


def exp(x: float) -> float:
    """Exponential, equal on every machine."""
    return float(_DECIMAL.exp(Decimal(x)))


class Table:
    """An inverse cumulative distribution: values at percentiles, straight lines between them.

    `percentiles` rise from 0 to 100, `values` never fall. Raises WorkloadError otherwise.
    """

    __slots__ = ("_offsets", "_shares", "_slopes", "values")

    def __init__(self, percentiles: Sequence[float], values: Sequence[float]) -> None:
        shares = [p / 100 for p in percentiles]
        rising = all(a < b for a, b in pairwise(shares))
        if not rising or len(shares) < 2 or shares[0] != 0 or shares[-1] != 1:
            raise WorkloadError(f"percentiles {list(percentiles)}", "a rise from 0 to 100")
        if len(values) != len(shares) or any(a > b for a, b in pairwise(values)):
            raise WorkloadError(f"values {list(values)}", f"{len(shares)} numbers that never fall")
        self.values = tuple(float(v) for v in values)
        pairs = list(zip(shares, self.values, strict=True))
        self._slopes = [(d - b) / (c - a) for (a, b), (c, d) in pairwise(pairs)]
        self._offsets = [b - s * a for (a, b), s in zip(pairs, self._slopes, strict=False)]
        self._shares = shares[1:-1]

    def at(self, u: float) -> float:
        """The value below which the share `u` (0..1) lies."""
        i = bisect_right(self._shares, u)
        return self._offsets[i] + self._slopes[i] * u

    def mapped(self, scale: float, offset: float = 0.0) -> Table:
        """The distribution of `scale * x + offset`; `scale` is positive."""
        percentiles = [0.0, *(100 * s for s in self._shares), 100.0]
        return Table(percentiles, [scale * v + offset for v in self.values])

    def mean(self) -> float:
        """Mean of the distribution."""
        shares = [0.0, *self._shares, 1.0]
        parts = zip(shares, shares[1:], self.values, self.values[1:], strict=False)
        return sum((b - a) * (v + w) / 2 for a, b, v, w in parts)


@cache
def data_file(name: str) -> dict[str, Any]:
    """The parsed `workloads/data/NAME.json`; callers do not change it."""
    loaded: dict[str, Any] = json.loads((_DATA / f"{name}.json").read_text(encoding="utf-8"))
    return loaded


@cache
def data_table(name: str, column: str) -> Table:
    """The table `column` of `workloads/data/NAME.json`."""
    table = data_file(name)["tables"][column]
    return Table(table["percentiles"], table["values"])


def normal(u: float) -> float:
    """The standard normal quantile of `u` (0..1), from a table that ends at -3.29 and +3.29."""
    return data_table("normal", "standard_normal").at(u)

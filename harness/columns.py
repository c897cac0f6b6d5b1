"""Columns of tables as numbers, and numbers that may be absent. Null in, null out; never 0 for nothing."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Window: TypeAlias = tuple[float, float]
Metrics: TypeAlias = dict[str, Any]


def inside(table: pa.Table, column: str, window: Window) -> pa.Table:
    """Rows whose time lies in (start, end]; null times lie nowhere."""
    times = table[column]
    return table.filter(pc.and_(pc.greater(times, window[0]), pc.less_equal(times, window[1])))


def floats(table: pa.Table, column: str) -> Floats:
    """A column as float64; null becomes NaN. Whole numbers are exact up to 2^53."""
    values: Floats = table[column].cast(pa.float64()).combine_chunks().to_numpy(zero_copy_only=False)
    return values


def texts(table: pa.Table, column: str) -> NDArray[np.object_]:
    """A column of strings as Python objects."""
    values: NDArray[np.object_] = np.array(table[column].to_pylist(), dtype=object)
    return values


def known(values: Floats) -> Floats:
    """The values without null."""
    there: Floats = values[~np.isnan(values)]
    return there


def mean(values: Floats) -> float | None:
    """Arithmetic mean of what is known; null for none."""
    there = known(values)
    return float(there.mean()) if len(there) else None


def total_known(values: Floats) -> float | None:
    """Sum of what is known; null when nothing is."""
    there = known(values)
    return float(there.sum()) if len(there) else None


def total(table: pa.Table, column: str) -> float:
    """Sum of a column; 0 for no rows."""
    return float(pc.sum(table[column]).as_py() or 0)


def whole(value: float | None) -> int | None:
    """A count that was computed as float64."""
    return None if value is None else int(value)


def ratio(part: float | None, of: float | None) -> float | None:
    """`part / of`; null when either is null or `of` is 0."""
    return None if part is None or not of else part / of

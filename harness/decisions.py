"""The decision log: every event with its exact `now`, and the actions it caused.

`decisions.parquet` has one row per event and one per action, in the order in which they happened. An
action's `cause` is the `seq` of its event. The columns beside `seq`, `now_s`, `kind`, `name` and `cause`
are the fields of all events and actions of `schedulers/contract.py`; a field stands in the column of its
name, or in `Class_field` where that name is taken by the log itself or has another type elsewhere. A
field of a class without it is null, as is a null value; which is which follows from `name`.

Both directions work by columns, class by class: a log has millions of rows, and most cells are null.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Annotated, Any, NamedTuple, get_args, get_type_hints

import numpy as np
import pyarrow as pa

from harness.errors import SetupError
from harness.tables import ParquetFile, column, open_table, reading, row_schema, to_array
from schedulers.contract import Action, Event

CHUNK_EVENTS = 16_384

EVENTS: tuple[type[Any], ...] = get_args(Event)
ACTIONS: tuple[type[Any], ...] = get_args(Action)


class _LogRow(NamedTuple):
    """The log's own columns."""

    seq: Annotated[int, "number of the row, from 0: a total order of all events and actions"]
    now_s: Annotated[float, "time handed to the policy, exact, seconds of the run's clock"]
    kind: Annotated[str, "event or action"]
    name: Annotated[str, "class in schedulers.contract"]
    cause: Annotated[int | None, "seq of the event that caused the action; null for events"]


class Decision(NamedTuple):
    """One event and what the policy answered."""

    seq: int
    now_s: float
    event: Event
    actions: list[Action]


class _Field(NamedTuple):
    """Where a class's field is stored."""

    name: str
    column: str
    get: Callable[[Any], Any]


class Layout(NamedTuple):
    """Fields of every class, and the Arrow type of every column they are stored in."""

    fields: dict[type[Any], tuple[_Field, ...]]
    columns: dict[str, pa.DataType]


@cache
def layout(classes: tuple[type[Any], ...] = EVENTS + ACTIONS) -> Layout:
    """Give every field of `classes` (dataclasses with distinct names) a column."""
    hints = {cls: get_type_hints(cls) for cls in classes}
    types: dict[str, set[pa.DataType]] = {}
    for cls in classes:
        for field in fields(cls):
            types.setdefault(field.name, set()).add(column(hints[cls][field.name]).type)
    taken = set(_LogRow._fields) | {name for name, found in types.items() if len(found) > 1}
    stored: dict[type[Any], tuple[_Field, ...]] = {}
    columns: dict[str, pa.DataType] = {}
    for cls in classes:
        own = []
        for name in (field.name for field in fields(cls)):
            place = f"{cls.__name__}_{name}" if name in taken else name
            columns[place] = column(hints[cls][name]).type
            own.append(_Field(name, place, attrgetter(name)))
        stored[cls] = tuple(own)
    return Layout(stored, columns)


def decision_schema(metadata: dict[str, str] | None = None) -> pa.Schema:
    """The Arrow schema of `decisions.parquet`."""
    own = row_schema(_LogRow)
    where: dict[str, list[str]] = {}
    for cls, stored in layout().fields.items():
        for field in stored:
            where.setdefault(field.column, []).append(f"{cls.__name__}.{field.name}")
    union = [
        pa.field(name, kind, metadata={"description": ", ".join(where[name])})
        for name, kind in layout().columns.items()
    ]
    return pa.schema([*own, *union], metadata=metadata)


class DecisionWriter:
    """Streams decisions into one Parquet file. Taking one costs an append; the work is per chunk."""

    def __init__(self, path: Path, metadata: dict[str, str]) -> None:
        self._file = ParquetFile(path, decision_schema(metadata))
        self._log: list[tuple[float, Event, tuple[Action, ...]]] = []
        self._seq = 0

    def decide(self, now: float, event: Event, actions: list[Action]) -> None:
        """Take an event and the actions it caused; the caller may change the list afterwards."""
        self._log.append((now, event, tuple(actions)))
        if len(self._log) >= CHUNK_EVENTS:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._log:
            self._flush()
        self._file.close()

    def abandon(self) -> None:
        """Give the file handle back; what is still in memory is dropped."""
        self._log.clear()
        self._file.close()

    def _flush(self) -> None:
        rows: list[Any] = []  # events and actions, as they happened
        starts: list[int] = []  # positions of the events among them
        for _, event, actions in self._log:
            starts.append(len(rows))
            rows.append(event)
            rows.extend(actions)
        count = len(rows)
        lengths = np.diff(np.append(starts, count))
        is_action = np.ones(count, dtype=bool)
        is_action[starts] = False
        now_s = np.repeat(np.array([now for now, _, _ in self._log], dtype=np.float64), lengths)
        cause = self._seq + np.repeat(np.array(starts, dtype=np.int64), lengths)
        members = _by_class(rows)
        self._file.write(
            [
                pa.array(np.arange(self._seq, self._seq + count)),
                pa.array(now_s),
                pa.array(["event", "action"]).take(pa.array(is_action.astype(np.int8))),
                _names(members, count),
                pa.array(cause, mask=~is_action),
                *_scatter(members, rows, count),
            ]
        )
        self._seq += count
        self._log.clear()


def _by_class(rows: list[Any]) -> dict[type[Any], list[int]]:
    """Positions of the rows of each class."""
    members: dict[type[Any], list[int]] = {}
    for position, row in enumerate(rows):
        members.setdefault(type(row), []).append(position)
    unknown = [cls.__name__ for cls in members if cls not in layout().fields]
    if unknown:
        raise SetupError(
            f"a policy returned {', '.join(unknown)}", "events and actions of schedulers.contract"
        )
    return members


def _names(members: dict[type[Any], list[int]], count: int) -> pa.Array:
    index = np.empty(count, dtype=np.int16)
    for number, positions in enumerate(members.values()):
        index[positions] = number
    return pa.array([cls.__name__ for cls in members]).take(pa.array(index))


def _scatter(members: dict[type[Any], list[int]], rows: list[Any], count: int) -> list[pa.Array]:
    """The columns of the fields: the values of each class, spread to the positions of its rows."""
    values: dict[str, list[pa.Array]] = {}
    places: dict[str, list[list[int]]] = {}
    for cls, positions in members.items():
        own = [rows[position] for position in positions]
        for field in layout().fields[cls]:
            values.setdefault(field.column, []).append(_array(cls, field, own))
            places.setdefault(field.column, []).append(positions)
    columns = []
    for name, kind in layout().columns.items():
        if name not in values:
            columns.append(pa.nulls(count, kind))
            continue
        index = np.full(count, -1, dtype=np.int64)
        index[np.concatenate(places[name])] = np.arange(sum(map(len, places[name])))
        columns.append(pa.concat_arrays(values[name]).take(pa.array(index, mask=index < 0)))
    return columns


def _array(cls: type[Any], field: _Field, rows: list[Any]) -> pa.Array:
    """One field of many rows. A value that does not fit its declared type is named."""
    kind = layout().columns[field.column]
    values = list(map(field.get, rows))
    try:
        return to_array(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        for value in values:
            try:
                to_array([value], kind)
            except (pa.ArrowException, TypeError, ValueError, OverflowError):
                found = f"{cls.__name__}.{field.name} = {value!r}"
                raise SetupError(found, f"a value of type {kind}") from None
        raise  # unreachable as far as we know: every value alone fits its column


def read_decisions(path: Path) -> Iterator[Decision]:
    """Every decision of a log, in order; one row group is in memory at a time.

    Raises SetupError when the file is missing, corrupt or of another schema version.
    """
    file = open_table(path, decision_schema().names)
    known = {cls.__name__: cls for cls in layout().fields}
    current: Decision | None = None
    for group in range(file.num_row_groups):
        with reading(path):
            table = file.read_row_group(group)
            rows = _objects(table, known)
            log = zip(
                table["seq"].to_pylist(),
                table["now_s"].to_pylist(),
                table["kind"].to_pylist(),
                rows,
                strict=True,
            )
        for seq, now_s, kind, row in log:
            if kind == "event":
                if current is not None:
                    yield current
                current = Decision(seq, now_s, row, [])
            elif current is None:
                raise SetupError(f"unreadable: {path} (an action before any event)", "a log as written")
            else:
                current.actions.append(row)
    if current is not None:
        yield current


def _objects(table: pa.Table, known: dict[str, type[Any]]) -> list[Any]:
    """The events and actions of a table. Raises ValueError for a class that is not in the contract."""
    names = table["name"].combine_chunks().dictionary_encode()
    index = names.indices.to_numpy()
    rows: list[Any] = [None] * table.num_rows
    for number, name in enumerate(names.dictionary.to_pylist()):
        if name not in known:
            raise ValueError(f"no event or action is called {name!r}")
        cls = known[name]
        positions = np.flatnonzero(index == number)
        columns = [table[field.column].take(positions).to_pylist() for field in layout().fields[cls]]
        made = map(cls, *columns) if columns else [cls()] * len(positions)
        for position, row in zip(positions.tolist(), made, strict=True):
            rows[position] = row
    return rows

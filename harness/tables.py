"""Parquet files of a run: the Arrow schema of a row type, streaming writes, guarded reads.

A row type is a NamedTuple whose fields are `Annotated[type, "description"]` (see `rows.py`). Writes are
buffered and go out one row group at a time, so memory stays bounded whatever the length of a run. Every
file carries `schema_version` in its metadata; another version is refused, not coerced.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Generic, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import SetupError

SCHEMA_VERSION = 3
CHUNK_ROWS = 16_384  # rows of one row group: some megabytes of Python objects at most

_ARROW = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}

Row = TypeVar("Row", bound=tuple[Any, ...])


class Column(NamedTuple):
    """An annotation, taken apart."""

    type: pa.DataType
    nullable: bool
    description: str


def column(annotation: Any) -> Column:
    """`int`, `float`, `str`, `bool`, each perhaps `| None` and perhaps `Annotated` with its meaning.

    Raises TypeError for anything else: such a field cannot be stored.
    """
    description = ""
    if get_origin(annotation) is Annotated:
        annotation, description = get_args(annotation)
    nullable = get_origin(annotation) in {UnionType, Union}
    if nullable:
        annotation = next(part for part in get_args(annotation) if part is not NoneType)
    if annotation not in _ARROW:
        raise TypeError(f"no column type for {annotation!r}")
    return Column(_ARROW[annotation], nullable, description)


def row_schema(row: type, metadata: Mapping[str, str] | None = None) -> pa.Schema:
    """The Arrow schema of a row type; descriptions stand in the field metadata."""
    fields = []
    for name, annotation in get_type_hints(row, include_extras=True).items():
        found = column(annotation)
        fields.append(
            pa.field(name, found.type, found.nullable, metadata={"description": found.description})
        )
    return pa.schema(fields, metadata=dict(metadata or {}))


def file_metadata(table: str, provenance: Mapping[str, Any]) -> dict[str, str]:
    """What every file says about itself: the table, the schema version, and provenance's plain values."""
    plain = {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in provenance.items()
        if isinstance(value, (str, bool, int, float))
    }
    return plain | {"table": table, "schema_version": str(SCHEMA_VERSION)}


def to_array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """An Arrow array of plain values; whole numbers may stand in a column of floats.

    Raises ArrowException, TypeError, ValueError or OverflowError when a value does not fit `kind`.
    """
    if not pa.types.is_string(kind):
        plain = np.array(values)  # reads plain numbers several times faster than Arrow does
        if plain.dtype == kind.to_pandas_dtype():
            return pa.array(plain)
        # Told the type, Arrow would cut 0.5 to fit an integer column, so it is asked what it sees.
        seen = pa.array(values).type
        if seen != kind and not pa.types.is_null(seen) and not pa.types.is_floating(kind):
            raise pa.ArrowTypeError(f"values of type {seen} where {kind} was expected")
    return pa.array(values, kind)


class ParquetFile:
    """A Parquet file that is being written: zstd, one row group per `write`."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.schema = schema
        self._path = path
        # Times and counts hardly repeat; a dictionary for them is built and thrown away.
        repeating = [field.name for field in schema if pa.types.is_string(field.type)]
        with writing(path.parent):
            self._file = pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=repeating)

    def write(self, arrays: list[pa.Array]) -> None:
        """One row group; `arrays` in the order of the schema, all equally long and not empty."""
        batch = pa.record_batch(arrays, schema=self.schema)
        with writing(self._path.parent):
            self._file.write_batch(batch, row_group_size=batch.num_rows)

    def close(self) -> None:
        """Write the footer. Without it the file is unreadable."""
        with writing(self._path.parent):
            self._file.close()


class TableWriter(Generic[Row]):
    """Streams rows of one type into one Parquet file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._file = ParquetFile(path, schema)
        self._rows: list[Row] = []

    def append(self, row: Row) -> None:
        """Take a row; every `CHUNK_ROWS` rows a row group goes to disk."""
        self._rows.append(row)
        if len(self._rows) >= CHUNK_ROWS:
            self._flush()

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._rows:
            self._flush()
        self._file.close()

    def abandon(self) -> None:
        """Give the file handle back; the rows still in memory are dropped."""
        self._rows.clear()
        self._file.close()

    def _flush(self) -> None:
        columns = zip(*self._rows, strict=True)
        self._file.write(
            [to_array(values, field.type) for values, field in zip(columns, self._file.schema, strict=True)]
        )
        self._rows.clear()


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turns a refusal of the file system into one line that names the place."""
    try:
        yield
    except OSError as error:
        raise SetupError(
            f"cannot write results to {place}: {error.strerror or error}",
            "a folder on a disk with room, writable by you",
            "Choose one with --output-dir.",
        ) from error


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns a file that is missing, unreadable or not what it should be into one line that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise SetupError(f"missing: {path}", "a complete results folder", "Run it again.") from error
    except (OSError, pa.ArrowException, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SetupError(f"unreadable: {path} ({reason})", "a file as written", "Run it again.") from error


def open_table(path: Path, columns: list[str]) -> pq.ParquetFile:
    """Open a table for reading; SetupError when missing, corrupt, of another version or other columns."""
    with reading(path):
        file = pq.ParquetFile(path)
    version = (file.schema_arrow.metadata or {}).get(b"schema_version", b"none").decode()
    check_version(path, version)
    if file.schema_arrow.names != columns:
        other = sorted(set(file.schema_arrow.names) ^ set(columns)) or ["order"]
        raise SetupError(
            f"{path}: its columns differ in {', '.join(other)}",
            f"the columns of schema version {SCHEMA_VERSION}",
            "Run it again.",
        )
    return file


def check_version(path: Path, version: object) -> None:
    """SetupError unless `version` is this program's."""
    if str(version) != str(SCHEMA_VERSION):
        raise SetupError(
            f"{path} has results schema version {version}",
            f"version {SCHEMA_VERSION}",
            "Read it with the thunderbench that wrote it, or run it again.",
        )

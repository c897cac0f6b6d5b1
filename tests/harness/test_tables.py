"""Schemas from row types, streamed writes, guarded reads."""

from typing import Annotated, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import tables
from harness.errors import SetupError
from harness.rows import TABLES, CallRow, ProgramRow
from harness.tables import TableWriter, column, file_metadata, open_table, row_schema, to_array, writing
from tests.harness.results import call
from tests.harness.strategies import rows

FILES_ON_DISK = settings(max_examples=20, deadline=None)


@pytest.mark.parametrize("row", TABLES.values(), ids=TABLES.keys())
def test_every_column_of_every_table_has_a_type_and_a_description(row):
    schema = row_schema(row)
    assert schema.names == list(row._fields)
    assert all(field.metadata[b"description"] for field in schema)


def test_annotations_decide_type_and_nullability():
    schema = row_schema(ProgramRow)
    assert schema.field("program_id").type == pa.string()
    assert not schema.field("program_id").nullable
    assert schema.field("finished_s").type == pa.float64()
    assert schema.field("finished_s").nullable
    assert row_schema(TABLES["sandboxes"]).field("leaked").type == pa.bool_()


def test_a_type_without_a_column_is_refused():
    class Odd(NamedTuple):
        values: Annotated[list, "no"]

    with pytest.raises(TypeError, match="no column type"):
        column(Odd.__annotations__["values"])


def test_metadata_of_a_file_are_its_table_its_version_and_plain_provenance():
    found = file_metadata(
        "calls", {"simulated": True, "git_commit": None, "n": 2, "policy": {}, "who": "x"}
    )
    assert found == {
        "simulated": "true",
        "n": "2",
        "who": "x",
        "table": "calls",
        "schema_version": str(tables.SCHEMA_VERSION),
    }


@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers_become_arrays_exactly(values):
    assert to_array(values, pa.int64()).to_pylist() == values


@given(st.lists(st.none() | st.floats(allow_nan=False) | st.integers(-1000, 1000)))
def test_numbers_become_float_arrays_exactly(values):
    assert to_array(values, pa.float64()).to_pylist() == values


@pytest.mark.parametrize("values", [[1, 0.5], ["1"], [2**63]])
def test_what_is_no_whole_number_is_not_made_one(values):
    with pytest.raises((pa.ArrowException, OverflowError)):
        to_array(values, pa.int64())


@FILES_ON_DISK
@given(given_rows=st.lists(rows(CallRow), max_size=20))
def test_rows_come_back_whatever_the_size_of_the_row_groups(tmp_path_factory, given_rows):
    path = tmp_path_factory.mktemp("table") / "calls.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CHUNK_ROWS", 7)
        writer = TableWriter(path, row_schema(CallRow, file_metadata("calls", {})))
        for row in given_rows:
            writer.append(row)
        writer.close()
    file = open_table(path, list(CallRow._fields))
    assert file.num_row_groups == -(-len(given_rows) // 7)
    assert [CallRow(**row) for row in file.read().to_pylist()] == given_rows


def test_memory_is_bounded_by_the_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 10)
    writer = TableWriter(tmp_path / "calls.parquet", row_schema(CallRow))
    for _ in range(25):
        writer.append(call())
    assert len(writer._rows) == 5


def test_null_in_a_column_that_has_none_is_our_bug_and_does_not_pass(tmp_path):
    writer = TableWriter(tmp_path / "calls.parquet", row_schema(CallRow))
    writer.append(call()._replace(ended_s=None))
    with pytest.raises(pa.ArrowException):
        writer.close()


def test_other_columns_are_refused_by_name(tmp_path):
    path = tmp_path / "calls.parquet"
    pq.write_table(pa.table({"a": [1]}).replace_schema_metadata({"schema_version": "3"}), path)
    with pytest.raises(SetupError, match="its columns differ in a, b"):
        open_table(path, ["b"])


def test_a_file_that_nobody_versioned_is_refused(tmp_path):
    path = tmp_path / "calls.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(SetupError, match="schema version none; expected version 3"):
        open_table(path, ["a"])


def test_a_refusal_of_the_file_system_names_the_place(tmp_path):
    with (
        pytest.raises(SetupError, match=r"cannot write results to .*place: No space left"),
        writing(tmp_path / "place"),
    ):
        raise OSError(28, "No space left on device")

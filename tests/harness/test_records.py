"""A run's folder is whole or refused, and comes back as it was written."""

import json
import resource
import shutil
from contextlib import contextmanager

import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import records, tables
from harness.errors import SetupError
from harness.records import DONE, PARTIAL, RunWriter, find_arms, find_runs, is_reference, open_run
from harness.rows import TABLES
from schedulers.contract import Hold, Tick
from tests.harness.results import PROVENANCE, SPEC, call, program, sample, write_run
from tests.harness.strategies import rows

FILES_ON_DISK = settings(max_examples=20, deadline=None)

FILES = [f"{name}.parquet" for name in (*TABLES, "decisions")]


@pytest.fixture
def run(tmp_path):
    return write_run(
        tmp_path / "study" / "thunder-c2-s7",
        programs=[program("p0"), program("p1")],
        calls=[call(decode=1.5)],
        decisions=[(0.25, Tick(), [Hold("c")])],
        summary={"steps": 1},
    )


def test_a_run_comes_back_as_it_was_written(run):
    opened = open_run(run)
    assert sorted(path.name for path in run.iterdir()) == sorted(
        [*FILES, "spec.toml", "provenance.json", "summary.json", DONE]
    )
    assert opened.spec == {"concurrency": [2], "seed": 7, "schedulers": ["vllm"]}
    assert opened.provenance == PROVENANCE | {"schema_version": 3}
    assert opened.summary == {"steps": 1}
    assert opened.table("programs").column("program_id").to_pylist() == ["p0", "p1"]
    assert [tuple(decision) for decision in opened.decisions()] == [(0, 0.25, Tick(), [Hold("c")])]


@FILES_ON_DISK
@given(data=st.data())
@pytest.mark.parametrize("name", TABLES)
def test_every_table_round_trips(tmp_path_factory, name, data):
    given_rows = data.draw(st.lists(rows(TABLES[name]), max_size=5))
    folder = write_run(tmp_path_factory.mktemp("study") / "run", **{name: given_rows})
    assert [TABLES[name](**row) for row in open_run(folder).table(name).to_pylist()] == given_rows


def test_pandas_and_any_parquet_reader_open_the_tables_and_their_descriptions(run):
    frame = pd.read_parquet(run / "calls.parquet")
    assert frame["decode_s"].tolist() == [1.5]
    schema = pq.read_schema(run / "calls.parquet")
    assert schema.field("decode_s").metadata[b"description"] == b"part of the step: first token to last"
    assert schema.metadata[b"simulated"] == b"true"
    assert pq.ParquetFile(run / "calls.parquet").metadata.row_group(0).column(0).compression == "ZSTD"


def test_until_it_is_finished_a_run_does_not_bear_its_name(tmp_path):
    folder = tmp_path / "run"
    with RunWriter(folder, spec_toml=SPEC, provenance=PROVENANCE) as writer:
        writer.calls.append(call())
        assert not folder.exists()
        assert not (tmp_path / f"run{PARTIAL}" / DONE).exists()
        writer.finish({})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_tables_can_be_read_back_to_summarise_them_before_finishing(tmp_path):
    with RunWriter(tmp_path / "run", spec_toml=SPEC, provenance=PROVENANCE) as writer:
        writer.samples.append(sample(1.0))
        found = writer.tables().table("samples").num_rows
        writer.finish({"rows": found})
    assert open_run(tmp_path / "run").summary == {"rows": 1}


def _crash_after(folder, rows_written):
    with RunWriter(folder, spec_toml=SPEC, provenance=PROVENANCE) as writer:
        for _ in range(rows_written):
            writer.calls.append(call())
        raise ZeroDivisionError


@pytest.mark.parametrize("rows_written", [0, 3, 50])
def test_a_crash_in_the_middle_leaves_nothing(tmp_path, monkeypatch, rows_written):
    monkeypatch.setattr(tables, "CHUNK_ROWS", 20)
    with pytest.raises(ZeroDivisionError):
        _crash_after(tmp_path / "run", rows_written)
    assert list(tmp_path.iterdir()) == []


def test_a_summary_that_is_no_json_leaves_nothing(tmp_path):
    with (
        pytest.raises(ValueError, match="JSON"),
        RunWriter(tmp_path / "run", spec_toml=SPEC, provenance=PROVENANCE) as writer,
    ):
        writer.finish({"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_leaving_without_finish_is_our_bug(tmp_path):
    with (
        pytest.raises(RuntimeError, match="left without finish"),
        RunWriter(tmp_path / "run", spec_toml=SPEC, provenance=PROVENANCE),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_run_left_is_replaced(tmp_path):
    (tmp_path / f"run{PARTIAL}").mkdir()
    (tmp_path / f"run{PARTIAL}" / "calls.parquet").write_bytes(b"half")
    assert open_run(write_run(tmp_path / "run")).table("calls").num_rows == 0
    assert not (tmp_path / f"run{PARTIAL}").exists()


def test_an_existing_run_is_never_overwritten(run):
    before = (run / "calls.parquet").read_bytes()
    with pytest.raises(SetupError, match=r"exists already; expected a new folder"):
        write_run(run)
    (run / DONE).unlink()
    with pytest.raises(SetupError, match="exists already and is incomplete"):
        write_run(run)
    assert (run / "calls.parquet").read_bytes() == before


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "run"
    with pytest.raises(SetupError, match="cannot write results to") as caught:
        write_run(place)
    assert str(place) in str(caught.value)
    assert "\n" not in str(caught.value)


@contextmanager
def little_room():
    """Files of this process may not grow beyond 20 kB: the nearest thing to a full disk.

    Only around the code under test: pytest's own output may be a file that is longer already.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("chunk", [500, 100_000])
def test_a_disk_that_is_full_is_one_line_and_leaves_nothing(tmp_path, monkeypatch, chunk):
    """Whether it fills up in the middle of the run or only at its end."""
    monkeypatch.setattr(tables, "CHUNK_ROWS", chunk)
    calls = [call(arrived=i * 0.37, decode=i * 0.11, call_id=f"c{i * 7919}") for i in range(5000)]
    with little_room(), pytest.raises(SetupError, match="cannot write results to") as caught:
        write_run(tmp_path / "run", calls=calls)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_done_is_incomplete(run):
    (run / DONE).unlink()
    with pytest.raises(SetupError, match=r"incomplete: .* has no DONE; .* --resume"):
        open_run(run)


def test_no_folder_is_said_so(tmp_path):
    with pytest.raises(SetupError, match="no folder"):
        open_run(tmp_path / "nowhere")


@pytest.mark.parametrize("name", [*FILES, "provenance.json", "spec.toml", "summary.json"])
def test_a_missing_file_is_named(run, name):
    (run / name).unlink()
    with pytest.raises(SetupError, match=f"missing: .*{name}; expected a complete results folder"):
        open_run(run)


@pytest.mark.parametrize("name", [*FILES, "provenance.json", "spec.toml", "summary.json"])
def test_a_truncated_file_is_named(run, name):
    content = (run / name).read_bytes()
    (run / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SetupError, match=f"unreadable: .*{name}") as caught:
        open_run(run)
    assert "\n" not in str(caught.value)


def test_damage_inside_a_table_is_found_when_it_is_read(run):
    content = bytearray((run / "programs.parquet").read_bytes())
    content[4:40] = b"\xff" * 36
    (run / "programs.parquet").write_bytes(content)
    with pytest.raises(SetupError, match=r"unreadable: .*programs.parquet"):
        open_run(run).table("programs")


def test_another_schema_version_is_refused_by_its_number(run, monkeypatch):
    monkeypatch.setattr("harness.tables.SCHEMA_VERSION", 4)
    with pytest.raises(SetupError, match=r"has results schema version 3; expected version 4") as caught:
        open_run(run)
    assert caught.value.exit_code == 2


def test_a_table_of_another_version_in_a_current_run_is_refused(run):
    path = run / "tools.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({"schema_version": "0"}), path)
    with pytest.raises(SetupError, match=r"tools.parquet has results schema version 0"):
        open_run(run)


def test_a_run_without_any_version_is_refused(run):
    (run / "provenance.json").write_text(json.dumps({"simulated": True}))
    with pytest.raises(SetupError, match="schema version none"):
        open_run(run)


def test_runs_are_found_in_a_study_and_at_their_own_folder(run):
    study = run.parent
    other = shutil.copytree(run, study / "vllm-c2-s7")
    (study / "figures").mkdir()
    assert find_runs(study) == [run, other]
    assert find_runs(run) == [run]


def test_incomplete_runs_are_found_too_so_that_they_can_be_refused(run):
    killed = run.rename(run.with_name(run.name + PARTIAL))
    (killed / DONE).unlink()
    assert find_runs(killed.parent) == [killed]
    with pytest.raises(SetupError, match="incomplete"):
        open_run(killed)


def test_a_place_without_runs_is_said_so(tmp_path):
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SetupError, match="no run in"):
            find_runs(place)


def test_a_table_can_be_read_part_by_part(tmp_path, monkeypatch):
    calls = [call(float(i), decode=1.0, call_id=str(i)) for i in range(5)]
    opened = open_run(write_run(tmp_path / "run", calls=calls))
    monkeypatch.setattr(records, "BATCH_ROWS", 2)
    parts = list(opened.batches("calls", ["call_id", "arrived_s"]))
    assert [part.num_rows for part in parts] == [2, 2, 1]
    assert [row for part in parts for row in part.to_pylist()] == [
        {"call_id": str(i), "arrived_s": float(i)} for i in range(5)
    ]
    (opened.folder / "calls.parquet").unlink()
    with pytest.raises(SetupError, match="missing"):
        list(opened.batches("calls", ["call_id"]))


def test_arms_are_the_runs_that_are_not_of_the_reference_arm(tmp_path):
    arm = write_run(tmp_path / "vllm-c2-s0")
    bound = write_run(tmp_path / "unlimited-c2-s0", spec=f"reference = true\n{SPEC}")
    assert [is_reference(open_run(run).spec) for run in (arm, bound)] == [False, True]
    assert find_runs(tmp_path) == [bound, arm]
    assert find_arms(tmp_path) == [arm]
    assert find_arms(bound) == [bound]

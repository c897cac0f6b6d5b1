"""Reports read finished runs and nothing else."""

import pytest

from harness.errors import SetupError
from harness.records import DONE
from reports.load import load
from tests.harness.results import call, write_run


def test_a_study_is_loaded_run_by_run(tmp_path):
    write_run(tmp_path / "vllm-c2-s7", calls=[call(decode=2.0)], summary={"a": 1})
    write_run(tmp_path / "thunder-c2-s7")
    thunder, vllm = load(tmp_path)
    assert (thunder.name, vllm.name) == ("thunder-c2-s7", "vllm-c2-s7")
    assert vllm.summary == {"a": 1}
    assert vllm.spec["seed"] == 7
    assert vllm.provenance["simulated"] is True
    assert vllm.frame("calls")["decode_s"].tolist() == [2.0]
    assert thunder.frame("calls").empty


def test_one_run_is_loaded_from_its_own_folder(tmp_path):
    assert [run.name for run in load(write_run(tmp_path / "run"))] == ["run"]


def test_one_incomplete_run_refuses_the_study(tmp_path):
    write_run(tmp_path / "a")
    (write_run(tmp_path / "b") / DONE).unlink()
    with pytest.raises(SetupError, match=r"incomplete: .*b has no DONE"):
        load(tmp_path)


def test_reading_changes_nothing(tmp_path):
    folder = write_run(tmp_path / "run", calls=[call()])
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    load(folder)[0].frame("calls")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before

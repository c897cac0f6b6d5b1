"""The benchmark of the report measures a run such as a report may get."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from harness.records import open_run
from reports.study import load_study
from reports.validity import validity
from tests.bench.report import PART, PROGRAM_CALLS, PROGRAMS_AT_A_TIME, STEP_S, write_long_run

CALLS = PROGRAMS_AT_A_TIME * PROGRAM_CALLS * 2


def test_the_long_run_is_whole_and_valid(tmp_path: Path) -> None:
    folder = write_long_run(tmp_path / "vllm-c96-s0", CALLS)
    assert validity(open_run(folder)).reasons == ()
    (run,) = load_study([folder]).runs
    assert 0 < run.seen.step_s.total < CALLS
    assert run.seen.step_s.quantile(1.0) == run.seen.step_s.quantile(0.01)
    assert run.seen.program_s.total == run.seen.answer_s.total == 2 * PROGRAMS_AT_A_TIME


def test_parts_join_without_a_gap(tmp_path: Path) -> None:
    folder = write_long_run(tmp_path / "vllm-c96-s0", PART + 10)
    calls = open_run(folder).table("calls")
    assert calls["call_id"].to_pylist()[PART - 1 : PART + 1] == [str(PART - 1), str(PART)]
    gaps = np.diff(calls["ended_s"].to_numpy())
    np.testing.assert_allclose(gaps, STEP_S / PROGRAMS_AT_A_TIME, rtol=1e-6)

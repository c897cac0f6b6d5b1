"""What is gathered from the tables, against numbers worked out by hand."""

import numpy as np
import pytest

from harness import records
from harness.records import open_run
from reports.aggregate import WORST, Asked, Waiter, aggregate
from reports.histogram import Histogram
from reports.overtime import Grid
from tests.harness.results import call, program, sample, sandbox, write_run

ASKED = Asked((10.0, 70.0), Grid(10.0, 7), excerpt=False)


def counted(*values):
    histogram = Histogram()
    histogram.add(np.array(values, dtype=float))
    return histogram


def test_steps_are_of_the_window_in_which_they_ended(tmp_path):
    calls = [
        call(0.0, queue=1.0, prefill=1.0, decode=8.0),  # ends at 10: before
        call(5.0, queue=2.0, prefill=3.0, decode=10.0, tool=5.0),
        call(60.0, prefill=1.0, decode=10.0),  # ends at 71: after
    ]
    found = aggregate(open_run(write_run(tmp_path / "run", calls=calls)), ASKED)
    assert (found.ttft_s, found.step_s) == (counted(5.0), counted(20.0))
    assert np.isnan(found.series.steps_per_min).all()  # no sample, so no time is known to have been seen


def test_programs_that_finished_in_the_window_and_the_first_token_of_their_last_call(tmp_path):
    programs = [
        program("early", arrived_s=0.0, finished_s=10.0, ended_at="finished"),
        program("done", arrived_s=5.0, finished_s=45.0, ended_at="finished"),
        program("failed", arrived_s=5.0, finished_s=45.0, ended_at="failed: no"),
        program("open", arrived_s=5.0),
    ]
    calls = [
        call(6.0, prefill=1.0, decode=1.0, program_id="done"),
        call(7.0, prefill=1.0, decode=30.0, program_id="failed"),
        call(30.0, prefill=5.0, decode=10.0, program_id="done", position=1),
        call(6.0, prefill=1.0, decode=60.0, program_id="open"),
    ]
    run = open_run(write_run(tmp_path / "run", programs=programs, calls=calls))
    found = aggregate(run, ASKED)
    assert (found.program_s, found.answer_s) == (counted(40.0), counted(30.0))


def test_the_last_call_may_come_in_a_later_part(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "BATCH_ROWS", 1)
    programs = [program("p0", arrived_s=0.0, finished_s=40.0, ended_at="finished")]
    calls = [call(1.0 * i, prefill=i, decode=1.0, position=i) for i in range(1, 10)]
    run = open_run(write_run(tmp_path / "run", programs=programs, calls=calls))
    assert aggregate(run, ASKED).answer_s == counted(18.0)


def test_the_worst_waiters_of_those_that_were_there(tmp_path):
    programs = [program(f"p{i:02}", worst_wait_s=float(i), steps_done=i) for i in range(30)]
    programs += [
        program("before", worst_wait_s=99.0, finished_s=10.0),
        program("after", worst_wait_s=99.0, arrived_s=70.5),
        program("also 29", worst_wait_s=29.0),
    ]
    found = aggregate(open_run(write_run(tmp_path / "run", programs=programs)), ASKED)
    assert len(found.waiters) == WORST
    assert found.waiters[:3] == [
        Waiter(29.0, "also 29", 0, "unfinished"),
        Waiter(29.0, "p29", 29, "unfinished"),
        Waiter(28.0, "p28", 28, "unfinished"),
    ]
    assert found.worst_wait_s == counted(*range(30), 29.0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_nothing_depends_on_how_tables_are_cut(tmp_path, monkeypatch, rows):
    asked = ASKED._replace(excerpt=True)
    programs = [
        program(f"p{i}", arrived_s=i, finished_s=30.0 + i, worst_wait_s=i % 3, ended_at="finished")
        for i in range(5)
    ]
    calls = [
        call(12.0 + i, queue=1.0, prefill=1.0, decode=5.0, program_id=f"p{i % 5}", call_id=str(i))
        for i in range(10)
    ]
    samples = [
        sample(10.0 * i, f"r{r}", used_tokens=10 * r * i, queries_total=9 * i, hits_total=i)
        for i in range(8)
        for r in range(2)
    ]
    sandboxes = [sandbox(released_s=20.0), sandbox(released_s=20.0, reclaimed_s=40.0)]
    folder = write_run(
        tmp_path / "run", programs=programs, calls=calls, samples=samples, sandboxes=sandboxes
    )
    whole = aggregate(open_run(folder), asked)
    monkeypatch.setattr(records, "BATCH_ROWS", rows)
    cut = aggregate(open_run(folder), asked)
    for name in ("ttft_s", "step_s", "program_s", "answer_s", "worst_wait_s", "waiters", "excerpt"):
        assert getattr(cut, name) == getattr(whole, name), name
    for name in ("steps_per_min", "hit_rate_share", "used_share", "imbalance_share", "unreclaimed"):
        np.testing.assert_allclose(getattr(cut.series, name), getattr(whole.series, name), err_msg=name)


def test_an_empty_run_has_empty_aggregates(tmp_path):
    found = aggregate(open_run(write_run(tmp_path / "run")), ASKED._replace(excerpt=True))
    assert found.step_s.total == found.worst_wait_s.total == 0
    assert found.waiters == []
    assert found.excerpt.spans == []

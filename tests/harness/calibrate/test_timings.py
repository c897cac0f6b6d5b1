from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.calibrate.timings import MIN_PROGRAMS, MIN_REQUESTS, read_requests, records_of
from harness.errors import SetupError
from harness.rows import CallRow
from tests.harness.calibrate.recorded import folder_of, lived, requests_of, trace_of

COUNTS = {"prompt_tokens": 9, "new_prompt_tokens": 9, "output_tokens": 1}
ROWS = lived(programs=MIN_PROGRAMS, steps=13)


def test_a_trace_and_the_run_it_was_recorded_from_say_the_same(tmp_path: Path) -> None:
    run, trace = requests_of(ROWS, tmp_path / "run"), read_requests(trace_of(ROWS, tmp_path / "t.jsonl"))
    assert (run.at_engine, trace.at_engine) == (True, False)
    assert (run.programs, trace.programs) == (MIN_PROGRAMS, MIN_PROGRAMS)
    order, other = (np.lexsort((each.end_s, each.prompt)) for each in (run, trace))
    for name in ("prompt", "computed", "output", "evidence"):
        assert getattr(run, name)[order].tolist() == getattr(trace, name)[other].tolist()
    # A trace is rounded to microseconds, which at 1.7e9 s are some 2.4e-7 apart.
    assert run.decode_s[order] == pytest.approx(trace.decode_s[other], abs=2e-6)
    assert (trace.ttft_s[other] >= run.ttft_s[order] - 2e-6).all()  # the client waits for a step to end


def test_an_estimated_output_is_load_and_no_evidence(tmp_path: Path) -> None:
    file = trace_of(ROWS, tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        line["steps"].append({**line["steps"][-1], "new_prompt_tokens": 1, "unlogged": True})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_requests(file)
    assert (len(found.evidence), int(found.evidence.sum())) == (len(ROWS) + MIN_PROGRAMS, len(ROWS))


def test_the_shared_prefix_is_computed_by_the_first_program_only(tmp_path: Path) -> None:
    found = read_requests(trace_of(ROWS, tmp_path / "t.jsonl", shared_prefix_tokens=15))
    first = [int(np.flatnonzero(found.program == k)[0]) for k in range(MIN_PROGRAMS)]
    left = [found.prompt[k] - found.computed[k] for k in first]
    assert left == [0.0] + [15.0] * (MIN_PROGRAMS - 1)


def test_a_preempted_call_is_no_evidence(tmp_path: Path) -> None:
    rows = [row._replace(preemptions=int(k < 3)) for k, row in enumerate(ROWS)]
    assert int(requests_of(rows, tmp_path / "run").evidence.sum()) == len(ROWS) - 3


def real(rows: list[CallRow], **more: Any) -> list[CallRow]:
    """The same calls as a run on real servers tells of them."""
    untold = {"scheduled_s": None, "queue_s": None, "preemptions": None, **more}
    return [row._replace(**untold) for row in rows]


def test_a_request_to_a_real_server_starts_when_it_was_handed_over(tmp_path: Path) -> None:
    late = [row._replace(dispatched_s=row.scheduled_s - 0.25) for row in ROWS]
    found, told = requests_of(real(late), tmp_path / "real"), requests_of(ROWS, tmp_path / "simulated")
    assert (found.at_engine, found.programs, found.evidence.all()) == (False, MIN_PROGRAMS, True)
    assert found.ttft_s == pytest.approx(told.ttft_s + 0.25)
    for name in ("decode_s", "prompt", "computed", "output"):
        assert getattr(found, name).tolist() == getattr(told, name).tolist()


def test_tokens_that_were_all_seen_at_one_time_are_no_evidence(tmp_path: Path) -> None:
    rows = [row._replace(finished_s=row.first_token_s) if k < 3 else row for k, row in enumerate(ROWS)]
    assert int(requests_of(real(rows), tmp_path / "run").evidence.sum()) == len(ROWS) - 3


@pytest.mark.parametrize(
    ("untold", "words"),
    [
        (
            {"cached_tokens": None, "recomputed_tokens": None},
            "104 of 104 calls without their cached tokens",
        ),
        ({"replica": None, "dispatched_s": None, "hold_s": None}, "does not say which server took a call"),
    ],
)
def test_what_a_real_server_did_not_say_is_refused_in_one_line(
    untold: dict[str, None], words: str, tmp_path: Path
) -> None:
    with pytest.raises(SetupError, match=words) as error:
        requests_of(real(ROWS, **untold), tmp_path / "run")
    assert "\n" not in str(error.value)


def test_replicas_do_not_meet(tmp_path: Path) -> None:
    """Each replica is an engine of its own: all calls of one end before any of the next begins."""
    rows = [row._replace(replica=f"r{row.position % 2}") for row in ROWS]
    found = requests_of(rows, tmp_path / "run")
    in_first = sum(row.position % 2 == 0 for row in ROWS)
    order = np.argsort(found.start_s)
    assert found.end_s[order[:in_first]].max() < found.start_s[order[in_first:]].min()


def _without_times(rows: list[CallRow], file: Path) -> Path:
    text = trace_of(rows, file).read_text()
    file.write_text(text.replace('"ttft_s"', '"unknown"'))
    return file


def test_what_has_no_timings_or_too_few_is_refused_in_one_line(tmp_path: Path) -> None:
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    cases = {
        _without_times(
            ROWS, tmp_path / "a.jsonl"
        ): "a.jsonl has no timings; expected steps with started_at",
        empty: "empty.jsonl has no timings; ",
        trace_of(ROWS[:20], tmp_path / "b.jsonl"): rf"20 requests .+ at least {MIN_REQUESTS} of",
        folder_of(ROWS[:20], tmp_path / "run"): rf"20 requests .+ at least {MIN_REQUESTS} of",
        tmp_path / "absent.jsonl": "absent.jsonl cannot be read",
        tmp_path: "a run and of a study|no run in|requests",
    }
    for source, words in cases.items():
        with pytest.raises(SetupError, match=words) as error:
            read_requests(source)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("\x00\xff", "line 1, field \\(line\\): no JSON"),
        ('{"program_id": "p", "steps": 7}', "field steps"),
        (
            json.dumps({"program_id": "p", "steps": [{**COUNTS, "ttft_s": "soon"}]}),
            "field steps\\[0\\].ttft_s",
        ),
        ('{"format": "thunderbench-program/1"}', "."),
    ],
)
def test_garbage_is_refused_with_line_and_field(line: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(line + "\n")
    with pytest.raises(SetupError, match=words):
        list(records_of(tmp_path / "t.jsonl"))


def test_times_that_contradict_each_other_are_left_out(tmp_path: Path) -> None:
    file = trace_of(ROWS, tmp_path / "t.jsonl")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["steps"][0]["ttft_s"] = lines[0]["steps"][0]["llm_s"] + 1
    lines[0]["steps"][1]["ttft_s"] = 0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(read_requests(file).program) == len(ROWS) - 2

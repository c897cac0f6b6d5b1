"""Distributions and percentiles of times."""

from reports.figures import latency
from reports.study import load_study
from tests.harness.results import call, program
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run


def test_distributions_of_time(study):
    figures, _ = by_id(latency.draw(study))
    curves = points(data(figures["step-latency"].spec, "lines"), "arm", "load", "x", "y", "least", "most")
    assert [row for row in curves if row[0] == "vllm" and row[1].startswith("2")] == [
        ("vllm", "2 programs at a time", 9.441, 0, 0, 0),
        ("vllm", "2 programs at a time", 10, 50, 0, 100),
        ("vllm", "2 programs at a time", 11.22, 100, 100, 100),
    ]
    assert figures["step-latency"].table.rows[0] == (
        "2 programs at a time",
        "vllm",
        4,
        None,
        None,
        None,
        None,
    )
    # vllm's first tokens come after 2 s, thunder's after 3 s.
    first = points(data(figures["ttft"].spec, "lines"), "arm", "load", "x", "y")
    assert first[1] == ("vllm", "2 programs at a time", 2.113, 100)
    assert first[3] == ("thunder", "2 programs at a time", 3.162, 100)


def test_percentiles_stand_where_samples_are_enough(tmp_path):
    programs = [program(f"p{i}", arrived_s=12.0, finished_s=22.0, ended_at="finished") for i in range(64)]
    calls = [call(12.0, prefill=1.0, decode=9.0, program_id=f"p{i}") for i in range(64)]
    make_run(tmp_path, programs=programs, calls=calls)
    figures, left_out = by_id(latency.draw(load_study([tmp_path])))
    assert figures["step-latency"].table.rows == (("2 programs at a time", "vllm", 64, 10, 10, None, None),)
    assert figures["final-answer"].table.rows == (("2 programs at a time", "vllm", 64, 1, 1, None, None),)
    assert left_out == {
        name: f"no run has a value of latency.{path}"
        for name, path in (
            ("ttft-p95", "ttft_s.p95"),
            ("ttft-p99", "ttft_s.p99"),
            ("step-p95", "step_s.p95"),
        )
    }

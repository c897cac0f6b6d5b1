"""Throughput, and what it may hide."""

from reports.figures import throughput
from tests.reports.figures.drawn import by_id, data, points


def test_throughput(study):
    figures, left_out = by_id(throughput.draw(study))
    assert left_out == {}
    assert list(figures) == ["steps-per-min", "steps-per-min-over-time", "programs-per-h", "worst-wait"]
    steps = figures["steps-per-min"]
    assert points(data(steps.spec, "runs"), "arm", "x", "y", "seed")[:3] == [
        ("vllm", 2, 2, 0),
        ("vllm", 2, 2, 1),
        ("vllm", 4, 2, 0),
    ]
    assert points(data(figures["programs-per-h"].spec, "means"), "arm", "x", "y", "repeats") == [
        ("vllm", 2, 120, 2),
        ("vllm", 4, 120, 2),
        ("thunder", 2, 120, 2),
        ("thunder", 4, 120, 2),
    ]
    assert figures["worst-wait"].table.columns[2] == "mean, longest wait of one call, s"
    assert figures["worst-wait"].table.rows[:2] == (
        ("2 programs at a time", "vllm", 1, 1, 1, 2),
        ("2 programs at a time", "thunder", 2, 2, 2, 2),
    )


def test_steps_over_time_end_in_their_bins(study):
    figures, _ = by_id(throughput.draw(only(study)))
    lines = data(figures["steps-per-min-over-time"].spec, "lines")
    # Bins of 5 s: vllm's two steps end at 22 s, thunder's at 17 s.
    assert [row for row in points(lines, "arm", "x", "y") if row[2]] == [
        ("vllm", 0.375, 24),
        ("thunder", 0.2917, 24),
    ]
    assert "least" not in lines[0]


def only(study):
    """The study with 4 programs at a time and seed 0 only."""
    return study.without([run.name for run in study.runs if (run.load.value, run.seed) != (4, 0)])

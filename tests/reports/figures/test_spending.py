"""Parts of a step, and costs of memory."""

import pytest

from reports.figures import spending
from reports.study import load_study
from tests.harness.results import sample
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run


def test_where_the_time_goes(study):
    figures, _ = by_id(spending.draw(study))
    step = figures["step-time"]
    assert points(data(step.spec, "parts"), "bar", "part", "y")[6:12] == [
        ("2 · thunder", "hold", 0),
        ("2 · thunder", "queue", 2),
        ("2 · thunder", "prefill", 1),
        ("2 · thunder", "decode", 1),
        ("2 · thunder", "sandbox", 0),
        ("2 · thunder", "tool", 1),
    ]
    assert step.table.rows[0] == ("2 programs at a time", "vllm", 0, 1, 1, 7.5, 0, 1)
    relative = points(data(step.relative_spec, "parts"), "bar", "part", "y")
    assert ("2 · thunder", "queue", 19.05) in relative  # 2 s of 10.5 s
    assert sum(y for bar, _, y in relative if bar == "4 · vllm") == pytest.approx(100, abs=0.01)


def test_where_the_memory_goes(tmp_path):
    gained = {"decode": 50, "prefill": 20, "recompute": 15, "caching": 10, "unused": 5}
    totals = {f"stp_{cost}_total": float(value) for cost, value in gained.items()}
    make_run(tmp_path, samples=[sample(10.0), sample(70.0, **totals)])
    figures, left_out = by_id(spending.draw(load_study([tmp_path])))
    assert points(data(figures["gpu-memory"].spec, "parts"), "part", "y") == list(gained.items())
    assert list(left_out) == ["step-time"]
    assert figures["gpu-memory"].spec["encoding"]["x"]["scale"] == {"nice": False}, "no axis to 110 %"

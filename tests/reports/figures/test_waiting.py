"""Who waits."""

from reports.figures import waiting
from tests.reports.figures.drawn import by_id, data, points


def test_who_waits(study):
    figures, _ = by_id(waiting.draw(study))
    worst = data(figures["worst-programs"].spec, "waiters")
    assert points(worst, "bar", "y", "seed", "steps", "ended")[:4] == [
        ("vllm · p0 s0", 1, 0, 1, "finished"),
        ("vllm · p0 s1", 1, 1, 1, "finished"),
        ("vllm · p1 s0", 1, 0, 1, "finished"),
        ("vllm · p1 s1", 1, 1, 1, "finished"),
    ]
    assert figures["worst-waits"].table.rows[:2] == (
        ("2 programs at a time", "vllm", 4, 1, 1, 1),
        ("2 programs at a time", "thunder", 4, 2.113, 2.113, 2.113),  # within 6 % of 2 s
    )
    assert points(data(figures["wait-gini"].spec, "means"), "y") == [(0,)] * 4

"""Hit rates against the load and over time."""

from reports.figures import cache
from tests.reports.figures.drawn import by_id, data, points


def test_hit_rates(study):
    figures, _ = by_id(cache.draw(study))
    assert points(data(figures["kv-hit-rate"].spec, "means"), "arm", "x", "y") == [
        ("vllm", 2, 50),
        ("vllm", 4, 50),
        ("thunder", 2, 90),
        ("thunder", 4, 90),
    ]
    over_time = data(figures["kv-hit-rate-over-time"].spec, "lines")
    assert {(row["arm"], row["y"], row["least"], row["most"]) for row in over_time} == {
        ("vllm", 50, 50, 50),
        ("thunder", 90, 90, 90),
    }
    begin = data(figures["kv-hit-rate-over-time"].spec, "rules")
    assert points(begin, "load", "x") == [
        ("2 programs at a time", 0.1667),
        ("4 programs at a time", 0.1667),
    ]

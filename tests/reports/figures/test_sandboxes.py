"""Disk, leaks and preparation."""

from reports.figures import sandboxes
from reports.study import load_study
from tests.harness.results import sample, sandbox
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run


def test_sandboxes(study, tmp_path):
    assert set(by_id(sandboxes.draw(study))[1]) == {
        "disk-over-time",
        "unreclaimed-over-time",
        "leaked-sandboxes",
        "preparation",
    }
    box = sandbox(requested_s=11.0, ready_s=20.0, hidden_s=6.0, exposed_s=3.0, released_s=30.0)
    boxes = [
        box._replace(leaked=True),
        box._replace(hidden_s=2.0, exposed_s=7.0, reclaimed_s=50.0),
    ]
    samples = [sample(t, sandbox_image_bytes=3 * 10**9, sandbox_writable_bytes=10**9) for t in (10.0, 70.0)]
    make_run(tmp_path, sandboxes=boxes, samples=samples)
    figures, _ = by_id(sandboxes.draw(load_study([tmp_path])))
    assert points(data(figures["disk-over-time"].spec, "lines"), "y") == [(4,), (4,)]
    kept = points(data(figures["unreclaimed-over-time"].spec, "lines"), "x", "y")
    assert [count for _, count in kept] == [0] * 5 + [2] * 4 + [1] * 5
    assert points(data(figures["leaked-sandboxes"].spec, "means"), "y") == [(1,)]
    assert points(data(figures["preparation"].spec, "parts"), "part", "y") == [
        ("hidden", 4),
        ("exposed", 5),
    ]

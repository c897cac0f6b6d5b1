"""What programs did when."""

from reports.figures import timeline
from reports.study import load_study
from tests.harness.results import call, program
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run


def test_a_timeline_of_programs(study):
    figures, _ = by_id(timeline.draw(study))
    line = figures["timeline"]
    rows = points(data(line.spec, "spans"), "bar", "state", "from", "to")
    assert rows[:3] == [
        ("vllm · p0", "waiting", 0.2, 0.216667),
        ("vllm · p0", "reasoning", 0.216667, 0.35),
        ("vllm · p0", "acting", 0.35, 0.366667),
    ]
    assert line.table.rows[0] == ("vllm · p0", 0, 0.01667, 0.1333, 0.01667, 0)
    assert "4 programs at a time, seed 0" in line.caption


def test_a_timeline_joins_what_is_too_small_to_see(tmp_path):
    calls = [call(12.0 + i, decode=0.99, tool=0.01, call_id=str(i)) for i in range(20)]
    programs = [program(arrived_s=12.0, finished_s=32.0, ended_at="finished")]
    make_run(tmp_path, programs=programs, calls=calls)
    figures, _ = by_id(timeline.draw(load_study([tmp_path])))
    assert points(data(figures["timeline"].spec, "spans"), "state", "from", "to") == [
        ("reasoning", 0.2, 0.533333)
    ]

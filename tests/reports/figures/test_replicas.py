"""Imbalance of replicas."""

from reports.figures import replicas
from reports.study import load_study
from tests.harness.results import sample
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run


def test_balance_is_a_question_only_where_there_are_several_replicas(study, tmp_path):
    figures, left_out = by_id(replicas.draw(study))
    assert (figures, set(left_out)) == ({}, {"imbalance", "imbalance-over-time"})
    rows = [
        sample(time, name, used_tokens=used)
        for time in (10.0, 40.0, 70.0)
        for name, used in (("r0", 30), ("r1", 10))
    ]
    make_run(tmp_path, samples=rows)
    figures, _ = by_id(replicas.draw(load_study([tmp_path])))
    assert points(data(figures["imbalance"].spec, "means"), "y") == [(20,)]
    assert points(data(figures["imbalance-over-time"].spec, "lines"), "x", "y") == [
        (0.125, 20),
        (0.625, 20),
        (1.125, 20),
    ]

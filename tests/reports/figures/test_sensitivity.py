"""Heat maps of parameters."""

from reports.figures import sensitivity
from reports.study import load_study
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run, plain_rows


def swept(folder, configs, loads=(2,)):
    for i, config in enumerate(configs):
        for load in loads:
            make_run(folder / str(i), "thunder", load, config=config, **plain_rows(wait_s=float(i + 1)))
    return load_study([folder / str(i) for i in range(len(configs))])


def test_one_parameter_against_the_load(tmp_path):
    study = swept(tmp_path, [{"delta": value, "same": 1} for value in (20.0, 5.0)], loads=(2, 4))
    figures, _ = by_id(sensitivity.draw(study))
    worst = figures["sensitivity-worst-wait"]
    assert points(data(worst.spec, "cells"), "a", "b", "y") == [
        ("5", "2", 2),
        ("20", "2", 1),
        ("5", "4", 2),
        ("20", "4", 1),
    ]
    assert worst.table.columns == ("load", "delta", "longest wait of one call, s", "repeats")
    assert worst.table.rows[0] == ("2 programs at a time", "5", 2, 1)


def test_two_parameters_against_each_other(tmp_path):
    study = swept(tmp_path, [{"a": a, "b": b} for a in (1, 2) for b in ("x", "y")])
    figures, _ = by_id(sensitivity.draw(study))
    assert points(data(figures["sensitivity-worst-wait"].spec, "cells"), "a", "b", "y") == [
        ("1", "x", 1),
        ("1", "y", 2),
        ("2", "x", 3),
        ("2", "y", 4),
    ]


def test_three_parameters_have_no_map(tmp_path):
    study = swept(tmp_path, [{"a": i, "b": i, "c": i} for i in range(2)])
    assert by_id(sensitivity.draw(study)) == (
        {},
        {"sensitivity": "3 parameters of thunder differ, and a map has two axes"},
    )

"""Numbers against the load, and beside the baseline."""

import json

import pytest

from reports.figures import cache, latency, spending, throughput, waiting
from reports.figures.overloads import arithmetic, geometric
from reports.study import load_study
from tests.reports.figures.drawn import by_id, data, points
from tests.reports.studies import make_run, plain_rows


def test_beside_the_baseline_repeats_are_paired_by_load_and_seed(study):
    figures, _ = by_id(throughput.draw(study))
    relative = figures["worst-wait"].relative_spec
    assert points(data(relative, "means"), "arm", "x", "y") == [
        ("vllm", 2, 1),
        ("vllm", 4, 1),
        ("thunder", 2, 2),
        ("thunder", 4, 2),
    ]
    hits, _ = by_id(cache.draw(study))
    assert points(data(hits["kv-hit-rate"].relative_spec, "means"), "arm", "x", "y") == [
        ("vllm", 2, 0),
        ("vllm", 4, 0),
        ("thunder", 2, 40),
        ("thunder", 4, 40),
    ]


def test_a_study_of_one_scheduler_has_nothing_to_stand_beside(tmp_path):
    make_run(tmp_path, **plain_rows())
    study = load_study([tmp_path])
    for module in (throughput, cache, spending):
        assert {figure.relative_spec is None for figure in by_id(module.draw(study))[0].values()} == {True}


def test_ratios_are_averaged_as_the_verdict_does():
    assert geometric([0.5, 2.0]) == pytest.approx(1.0)
    assert geometric([0.0, 2.0]) == 0.0
    assert arithmetic([1.0, 2.0]) == 1.5


def test_numbers_in_specs_are_short(study):
    for module in (throughput, cache, latency, waiting, spending):
        for figure in by_id(module.draw(study))[0].values():
            text = json.dumps(figure.spec["datasets"])
            assert max(len(word) for word in text.replace(",", " ").split() if word[:1].isdigit()) < 12

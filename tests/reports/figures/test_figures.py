"""Of all figures: Vega draws them, they are the same every time, and names in them are only data."""

import json
import os
import subprocess
import sys

import pytest
import vl_convert

from reports.figures import draw, figures, omitted, render_png, render_svg
from reports.figures.figure import FILE_WIDTH
from reports.study import load_study
from tests.harness.results import sandbox
from tests.reports.figures.drawn import marks, png_size
from tests.reports.studies import make_run, plain_rows, plain_study

HOSTILE = [
    "<script>alert(1)</script>",
    "\"quotes\" 'and' `more` \\ {x: 1} ${y} %s {{z}}",
    "x" * 10_000,
    "🧨 emoji",
    "\u202eright to left אבג",
    "a.b[0]['c']",
    "image",
]


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """A study with two replicas, sandboxes and a swept parameter, so that most figures are drawn."""
    folder = tmp_path_factory.mktemp("studies")
    for base in (1.0, 2.0):
        for load in (24, 48):
            rows = plain_rows(5.0 + base)
            rows["samples"] += [row._replace(replica="r1", used_tokens=10) for row in rows["samples"]]
            rows["samples"].sort(key=lambda row: row.time_s)
            rows["samples"] = [row._replace(sandbox_writable_bytes=10**9) for row in rows["samples"]]
            rows["sandboxes"] = [
                sandbox(requested_s=11.0, ready_s=20.0, hidden_s=4.0, exposed_s=5.0, released_s=30.0)
            ]
            make_run(folder / f"b{base}", "thunder", load, config={"decay_base": base}, **rows)
    return load_study(sorted(folder.iterdir()))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_study(tmp_path_factory.mktemp("plain"))


def specs(study):
    for figure in figures(study):
        yield figure.id, figure.spec
        if figure.relative_spec:
            yield f"{figure.id}, relative", figure.relative_spec


def test_every_spec_compiles_and_nothing_in_it_comes_from_elsewhere(everything, plain):
    for study in (everything, plain):
        for name, spec in specs(study):
            text = json.dumps(vl_convert.vegalite_to_vega(spec))
            assert '"url"' not in text, name
            assert spec["width"] == "container", name
            assert "config" not in spec, name
            assert spec["datasets"], name


def test_every_figure_draws_marks(everything, plain):
    for study in (everything, plain):
        for figure in figures(study):
            assert marks(figure) > 10, figure.id


def test_ids_are_slugs_and_stand_once(everything, plain):
    for study in (everything, plain):
        drawn, left_out = draw(study)
        ids = [one.id for one in (*drawn, *left_out)]
        assert len(set(ids)) == len(ids)
        assert all(name.replace("-", "").isalnum() and name == name.lower() for name in ids)
        assert (figures(study), omitted(study)) == (drawn, left_out)
        assert all(one.reason for one in left_out)


def test_figures_of_a_question_stand_together(everything):
    questions = [figure.question for figure in figures(everything)]
    changes = [a for a, b in zip(questions, [*questions[1:], None], strict=True) if a != b]
    assert len(changes) == len(set(questions))
    assert all(question.endswith("?") for question in questions)


def test_every_table_fits_its_columns_and_every_caption_says_that_it_is_simulated(everything, plain):
    for study in (everything, plain):
        for figure in figures(study):
            assert figure.table.rows, figure.id
            assert {len(row) for row in figure.table.rows} == {len(figure.table.columns)}, figure.id
            assert "imulated" in figure.caption, figure.id


def test_specs_are_the_same_in_every_process(tmp_path, plain):
    plain_study(tmp_path)
    script = (
        "import json, sys; from pathlib import Path; from reports.study import load_study\n"
        "from reports.figures import figures\n"
        "for f in figures(load_study([Path(sys.argv[1])])):\n"
        "    print(json.dumps([f.id, f.spec, f.relative_spec, f.table, f.caption]))\n"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", script, tmp_path],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = "".join(
        json.dumps([f.id, f.spec, f.relative_spec, f.table, f.caption]) + "\n" for f in figures(plain)
    )
    assert texts == {here}


def test_hostile_names_are_only_data(tmp_path):
    for i, name in enumerate(HOSTILE):
        make_run(tmp_path / str(i), name, config={name: i}, **plain_rows(5.0 + i, prefix=name))
    study = load_study([tmp_path / str(i) for i in range(len(HOSTILE))])
    for figure in figures(study):
        assert marks(figure) > 10, figure.id
        assert all(len(cell) < 200 for row in figure.table.rows for cell in row if isinstance(cell, str))
        svg = vl_convert.vegalite_to_svg(figure.spec)
        assert "<script" not in svg, figure.id
    assert len(json.dumps([figure.spec for figure in figures(study)])) < 1_000_000


def test_a_run_in_which_nothing_happened_has_no_figures_but_reasons(tmp_path):
    make_run(tmp_path)
    drawn, left_out = draw(load_study([tmp_path]))
    assert {figure.id for figure in drawn} <= {"leaked-sandboxes", "steps-per-min", "programs-per-h"}
    assert {"kv-hit-rate", "ttft", "timeline", "sensitivity", "imbalance"} <= {one.id for one in left_out}


def test_files_are_as_wide_as_a_page_and_need_no_browser(tmp_path, plain):
    figure = next(figure for figure in figures(plain) if figure.id == "steps-per-min")
    width, height = png_size(render_png(figure, tmp_path))
    assert FILE_WIDTH * 2 <= width < FILE_WIDTH * 2.4
    assert 300 < height < width
    svg = render_svg(figure, tmp_path).read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert figure.title in svg
    assert sorted(path.name for path in tmp_path.iterdir()) == ["steps-per-min.png", "steps-per-min.svg"]

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from harness.errors import SetupError
from reports.compare import compare_paths
from reports.content import Table, content
from reports.page import cell, cells, cleaned, for_data, for_script, render, write
from reports.study import load_study
from reports.text import number
from tests.harness.results import PROVENANCE, call, program, sample, write_run
from tests.reports.pages import HOSTILE, STEPS, Page, hostile_study, study, summary
from tests.reports.studies import UNTOLD_OF_CALLS, UNTOLD_OF_GATEWAYS, live_rows, make_run, plain_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return study(tmp_path_factory.mktemp("real") / "sweep", "--concurrency", "4,8", "--repeats", "3")


@pytest.fixture(scope="module")
def text(results: Path) -> str:
    return render(content(load_study([results])))


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> str:
    return render(content(load_study([hostile_study(tmp_path_factory.mktemp("hostile"))])))


def small_run(
    folder: Path, *, scheduler: str, steps: int = STEPS, spec: str = "", **changes: object
) -> Path:
    """A run that is valid unless it has too few steps."""
    write_run(
        folder,
        programs=[program(worst_wait_s=3.0)],
        calls=[call(arrived=float(k), decode=1.0, prompt_tokens=100) for k in range(steps)],
        samples=[sample(t, programs_live=2, queries_total=int(14 * t)) for t in (0.0, 500.0, 1000.0)],
        spec=f'concurrency = [2]\nseed = 7\nschedulers = ["{scheduler}"]\nworkload = "w"\n{spec}',
        provenance={**PROVENANCE, "policy": {"name": scheduler, "config": {}, "seed": 7}},
        summary=summary(**changes),
    )
    return folder


# ------------------------------------------------------------------ structure


def test_ids_are_unique_and_every_reference_has_its_target(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))
    wanted = {href[1:] for found in page.all("a") if (href := found["href"] or "").startswith("#")}
    for name in ("aria-labelledby", "aria-describedby", "data-for", "data-absolute", "data-relative"):
        wanted |= {found[name] or "" for _, found in page.elements if name in found}
    assert wanted <= set(page.ids)


def test_headings_begin_with_one_title_and_skip_no_level(page: Page) -> None:
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(words.strip() for _, words in page.headings)


def test_every_section_and_figure_can_be_linked_to(page: Page) -> None:
    linked = {found["href"] for found in page.all("a") if found.get("class") == "anchor"}
    sections = {f"#{found['aria-labelledby']}" for found in page.all("section")}
    figures = {f"#{found['id']}" for found in page.all("figure")}
    assert linked == sections | figures
    assert sections <= {found["href"] for found in page.all("a") if "class" not in found}


def test_there_are_landmarks_and_a_way_past_them(page: Page) -> None:
    tags = [tag for tag, _ in page.elements]
    assert [tags.count(tag) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    assert page.all("a")[0] == {"class": "skip", "href": "#verdict"}


def test_every_chart_has_words_and_a_table(page: Page) -> None:
    charts = [found for _, found in page.elements if found.get("class") == "chart"]
    assert len(charts) == len(page.all("figure")) >= 10
    assert all(found["role"] == "img" and found["aria-label"] for found in charts)
    assert all(found["data-absolute"] in page.ids for found in charts)
    assert len(page.all("table")) >= len(charts)


def test_what_is_simulated_says_so(page: Page) -> None:
    of_figures = [words for level, words in page.headings if level == 3 and "#" in words]
    assert len(of_figures) == len(page.all("figure"))
    assert all("simulated" in words for words in of_figures)
    assert "In simulation:" in "".join(page.words)


def test_a_live_study_shows_what_was_told_and_nothing_else(tmp_path: Path) -> None:
    """No number of what servers did not say, no 0 in its place; the hit rate is by the calls' usage."""
    ours, theirs = live_rows(UNTOLD_OF_CALLS), live_rows(UNTOLD_OF_GATEWAYS | {"prefill_s": 0.2})
    for seed in range(3):
        make_run(tmp_path, "vllm", seed=seed, simulated=False, **ours)
        make_run(tmp_path, "external:http://gw:9000", seed=seed, simulated=False, **theirs)
    made = content(load_study([tmp_path]))
    assert made.invalid == {}
    rows = {row.scheduler: row for load in made.verdict.loads for row in load.rows}
    assert (rows["vllm"].hit_rate, rows["external:http://gw:9000"].hit_rate) == ("39.7%", "-")
    tables = {chart.figure.id: chart.table for q in made.questions for chart in q.charts}
    parts = {row[1]: row[2:] for row in tables["step-time"].rows}
    hold, queue, prefill = parts["vllm"][:3]
    assert (hold, queue, prefill) == (0.1, None, 0.1)
    assert parts["external:http://gw:9000"][:3] == (None, None, 0.2)
    assert "gpu-memory" in {slug.lower().replace(" ", "-") for slug, _ in made.omitted}
    page = Page(render(made))
    words = "".join(page.words)
    assert "On real servers:" in words
    assert "measured on real servers" in words
    assert "simulation" not in words.lower()
    assert made.facts[0] == "real servers"


# ------------------------------------------------------------------ alone and the same


def test_nothing_is_loaded(page: Page, text: str) -> None:
    assert [found for _, found in page.elements if "src" in found or "srcset" in found] == []
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]
    assert all((found["href"] or "").startswith("#") for found in page.all("a"))
    assert page.all("iframe") + page.all("object") + page.all("form") == []
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert re.findall(r"url\(|@import", style) == []
    policy = next(found["content"] for found in page.all("meta") if "http-equiv" in found)
    assert (policy or "").startswith("default-src 'none'; ")
    assert "unsafe-eval" not in (policy or "")


def test_the_policy_lets_our_scripts_run_and_no_other(page: Page) -> None:
    kinds = [found.get("type") for found in page.all("script")]
    ours = [script for script, kind in zip(page.scripts, kinds, strict=True) if kind is None]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in ours]
    policy = next(found["content"] or "" for found in page.all("meta") if "http-equiv" in found)
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert len(hashes) == 2


def test_the_same_results_give_the_same_bytes_in_another_process(
    results: Path, tmp_path: Path, text: str
) -> None:
    made = tmp_path / "again.html"
    subprocess.run(
        (sys.executable, "-c", "from harness.cli import main; main()", "report", results, "-q", "-o", made),
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "4711", "TZ": "Asia/Kolkata", "LC_ALL": "C"},
        check=True,
    )
    assert made.read_bytes() == text.encode()


def test_a_study_fits_the_size_of_a_mail(text: str) -> None:
    assert len(text.encode()) < 3_000_000


# ------------------------------------------------------------------ hostile names


def test_hostile_names_make_no_elements(hostile: str, page: Page) -> None:
    found = Page(hostile)
    assert {tag for tag, _ in found.elements} <= {tag for tag, _ in page.elements} | {"dl", "dt", "dd"}
    assert [names for _, names in found.elements if any(name.startswith("on") for name in names)] == []
    switches = [names for _, names in found.elements if "data-relative" in names]
    assert len(found.all("script")) == 2 + len(found.all("figure")) + len(switches)
    assert len(found.ids) == len(set(found.ids))


def test_hostile_names_are_shown_as_they_are(hostile: str) -> None:
    words = "".join(Page(hostile).words)
    for name in HOSTILE:
        assert cleaned(name if len(name) < 60 else name[:25]) in words
    assert "(10,0" in words  # what is cut says how long it was
    assert "49" not in words.partition("{{ 7 * 7 }}")[0][-20:]


def test_nothing_invisible_is_left(hostile: str) -> None:
    assert hostile == cleaned(hostile)


def test_data_of_charts_are_whole(hostile: str) -> None:
    found = Page(hostile)
    data = [
        script
        for script, names in zip(found.scripts, found.all("script"), strict=True)
        if names.get("type") == "application/json"
    ]
    assert data
    assert all("<" not in script and json.loads(script)["datasets"] for script in data)


# ------------------------------------------------------------------ what it says


def test_an_arm_alone_is_reported_and_said_to_be_alone(tmp_path: Path) -> None:
    small_run(tmp_path / "a", scheduler="mine")
    words = "".join(Page(render(content(load_study([tmp_path])))).words)
    assert "Only mine ran: nothing to compare." in words


def test_an_invalid_run_is_shown_and_counts_nowhere(tmp_path: Path) -> None:
    small_run(tmp_path / "a", scheduler="vllm", steps_per_min=10.0)
    small_run(tmp_path / "b", scheduler="mine", steps_per_min=99.0, steps=7)
    found = content(load_study([tmp_path]))
    assert list(found.invalid) == ["b"]
    assert "too few steps: 7 " in found.invalid["b"]
    (load,) = found.verdict.loads
    assert [(row.scheduler, row.tag) for row in load.rows] == [("vllm", ""), ("mine", "INVALID")]
    assert load.outcome == "only vllm has a valid run: nothing to compare"
    assert "99" not in json.dumps([figure.spec["datasets"] for figure in found.figures])
    assert "b" in [cells for table in found.provenance for row in table.rows for cells in row]


def test_total_and_steady_stand_side_by_side_as_in_compare(results: Path, text: str) -> None:
    found = content(load_study([results]))
    # The page has the baseline first.
    arms = [(load, arm) for load in compare_paths([results])["loads"] for arm in load["arms"][::-1]]
    for row, (load, arm) in zip(found.steady.rows, arms, strict=True):
        values = [arm[kind] for kind in ("values", "steady")]
        assert row == (
            *(load["label"], arm["arm"]),
            *(number("steps_per_min", each["steps_per_min"]) for each in values),
            *(number("hit_rate_share", each["hit_rate_share"]) for each in values),
            f"{arm['steady']['runs']} of 3",
        )
    assert [line.partition(";")[0] for line in found.unsettled] == [
        f"{arm['arm']} at {load['label']}: steady state in {arm['steady']['runs']} of 3 runs"
        for load, arm in arms
        if arm["steady"]["reasons"]
    ]
    assert f"A steady state was found in {sum(a['steady']['runs'] for _, a in arms)} of 12 runs." in text
    assert "steady" in Page(text).ids


def test_runs_stand_in_the_order_in_which_they_began(results: Path) -> None:
    """Each repeat begins with another scheduler, and a reader can see that it did."""
    (table,) = (t for t in content(load_study([results])).provenance if t.id == "provenance-runs")
    began = [
        json.loads((results / str(row[0]) / "provenance.json").read_text())["started_utc"]
        for row in table.rows
    ]
    assert began == sorted(began)


def test_options_that_differ_between_arms_are_named(tmp_path: Path) -> None:
    small_run(tmp_path / "a", scheduler="vllm", spec="[engine]\nblock_size = 16\n")
    small_run(tmp_path / "b", scheduler="mine", spec="[engine]\nblock_size = 32\n")
    found = {table.id: table for table in content(load_study([tmp_path])).provenance}
    assert found["provenance-differences"].columns == ("option", "vllm", "mine")
    assert found["provenance-differences"].rows == [("engine.block_size", "16", "32")]
    assert ("workload", "w") in found["provenance-shared"].rows


# ------------------------------------------------------------------ pieces


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "-"),
        (0, "0"),
        (1234567, "1,234,567"),
        (0.0, "0"),
        (2.0, "2"),
        (1234.5, "1,234"),
        (123.45, "123.5"),
        (1.006, "1.01"),
        (0.00012345, "0.000123"),
        (True, "yes"),
        ("text", "text"),
        ("y" * 500, "y" * 160 + "\u2026 (500 characters)"),
    ],
)
def test_cells(value: object, written: str) -> None:
    assert cell(value) == written


@pytest.mark.parametrize(
    ("values", "written"),
    [
        ([272, 270.8, None], ["272.0", "270.8", "-"]),
        ([0.417, 69.58, 0], ["0.42", "69.58", "0.00"]),
        ([4711, 0.2], ["4,711", "0.2"]),
        ([0.5, 0.25], ["0.5", "0.25"]),
        ([3, 1200], ["3", "1,200"]),
    ],
)
def test_numbers_of_a_column_are_written_alike(values: list[float | None], written: list[str]) -> None:
    table = Table("id", "title", ("name", "number"), [("x", value) for value in values])
    assert [row[1] for row in cells(table)] == [("n", text) for text in written]


def test_data_cannot_leave_their_script() -> None:
    assert for_data({"$schema": "https://x", "a": ["</script>&<!--", "\u202e"]}) == (
        '{"a":["\\u003c/script\\u003e\\u0026\\u003c!--","\\ufffd"]}'
    )


@pytest.mark.parametrize(
    ("source", "safe"),
    [
        ("a = '</script>'", "a = '\\x3c/script>'"),
        ("a = '</SCRIPT '", "a = '\\x3c/SCRIPT '"),
        ("a = '<!--'", "a = '\\x3c!--'"),
        ("a < b\r\nc", "a < b\nc"),
    ],
)
def test_scripts_cannot_end_early(source: str, safe: str) -> None:
    assert for_script(source) == safe


def test_a_page_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "new" / "page.html"
    write("one", place)
    assert place.read_text() == "one"

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(SetupError, match="No space left on device"):
        write("two", place)
    assert [path.name for path in place.parent.iterdir()] == ["page.html"]
    assert place.read_text() == "one"


def test_reference_runs_of_several_studies_are_told_apart(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / name, "vllm", **plain_rows())
        make_run(tmp_path / name, "unlimited", spec="reference = true\n", **plain_rows())
    names = {f"{study}/{arm}-c2-s0" for study in "ab" for arm in ("vllm", "unlimited")}
    assert set(content(load_study([tmp_path / "a", tmp_path / "b"])).invalid) == names


def test_the_share_of_the_bound_is_on_the_page_and_the_reference_arm_is_none_of_its_arms(
    results: Path, text: str, page: Page
) -> None:
    found = content(load_study([results]))
    assert {row.scheduler for load in found.verdict.loads for row in load.rows} == {"thunder", "vllm"}
    assert all(row.of_bound.endswith("%") for load in found.verdict.loads for row in load.rows)
    assert "Of bound: share of the steps/min with endless KV memory" in " ".join(page.words)
    assert "Besides, 6 runs of the reference arm (unlimited)." in page.words
    assert "unlimited-c4-s0" not in text


def test_groups_have_a_table_where_there_are_any(results: Path, tmp_path: Path) -> None:
    assert content(load_study([results])).groups.rows == []
    figures = {"mean": 120.0, "p50": 100.0, "p90": None, "max": 300.0}
    groups = {"groups": {"finished": 12, "completion_s": figures, "straggler_share": 0.25}}
    calls = [call(arrived=float(k), queue=1.0, decode=1.0, prompt_tokens=100) for k in range(STEPS)]
    samples = [sample(t, programs_live=2, queries_total=int(14 * t)) for t in (0.0, 500.0, 1000.0)]
    run = tmp_path / "vllm-c2-s7"
    write_run(run, programs=[program()], calls=calls, samples=samples, summary=summary() | groups)
    found = content(load_study([run]))
    assert found.invalid == {}
    assert found.groups.rows == [("2 programs at a time", "vllm", 12.0, 120.0, 100.0, None, 300.0, "25.0%")]
    assert "Groups: until the slowest member has ended" in [
        title for _, title in Page(render(found)).headings
    ]


@pytest.mark.parametrize(("replicas", "place"), [(1, "M on 8xH100"), (2, "M on 8xH100, 2 replicas")])
def test_the_page_says_where_it_ran(tmp_path: Path, replicas: int, place: str) -> None:
    spec = f'model = "M"\nhardware = "8xH100"\nreplicas = {replicas}\n'
    make_run(tmp_path, "vllm", 24, spec=spec, **plain_rows())
    assert content(load_study([tmp_path])).facts[0] == place

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from reports.commands.report import PATIENCE_S, Telling
from tests.harness.results import call, sample, write_run
from tests.reports.pages import invoke, study, summary


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study; not to be changed."""
    return study(tmp_path_factory.mktemp("studies") / "sweep", "--concurrency", "4")


@pytest.fixture
def copied(results: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(results, tmp_path / "sweep"))


def refused(*args: object) -> str:
    """The one line that a command ends with when the user is to blame."""
    result = invoke("report", *args, "-q")
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line.removeprefix("thunderbench: error: ")


def test_the_report_lands_beside_the_results(copied: Path) -> None:
    result = invoke("report", copied)
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Report: {copied / 'report.html'} (")
    assert (copied / "report.html").read_text().startswith("<!doctype html>")
    assert sorted(path.name for path in copied.iterdir() if path.is_file()) == [
        "report.html",
        "spec.toml",
        "summary.json",
    ]


def test_a_report_of_one_run_lands_beside_it_and_not_in_it(copied: Path) -> None:
    before = sorted((copied / "vllm-c4-s0").iterdir())
    assert invoke("report", copied / "vllm-c4-s0", "-q").exit_code == 0
    assert (copied / "vllm-c4-s0.html").exists()
    assert sorted((copied / "vllm-c4-s0").iterdir()) == before


def test_a_report_of_several_lands_where_all_of_them_are(copied: Path) -> None:
    runs = [copied / "vllm-c4-s0", copied / "thunder-c4-s0"]
    assert invoke("report", *runs, "-q").exit_code == 0
    assert (copied / "report.html").exists()


def test_json_tells_what_was_written_and_found(results: Path, tmp_path: Path) -> None:
    result = invoke("report", results, "-o", tmp_path / "x.html", "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    found = json.loads(result.stdout)
    assert found["report"] == str(tmp_path / "x.html")
    assert found["bytes"] == (tmp_path / "x.html").stat().st_size
    assert found["simulated"] is True
    assert found["verdict"][0] == "In simulation:"
    assert found["invalid"] == {}
    assert "steps-per-min" in found["figures"]
    assert found["omitted"]["Imbalance over time"] == "one replica has nothing to be balanced with"


def test_charts_are_written_as_pictures(results: Path, tmp_path: Path) -> None:
    folders = ("--png", tmp_path / "p", "--svg", tmp_path / "s")
    found = json.loads(invoke("report", results, "-o", tmp_path / "x.html", *folders, "--json").stdout)
    pngs = [tmp_path / "p" / f"{name}.png" for name in found["figures"]]
    svgs = [tmp_path / "s" / f"{name}.svg" for name in found["figures"]]
    assert found["charts"] == [str(path) for path in (*pngs, *svgs)]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pngs)
    assert all(">simulated</text>" in path.read_text() for path in svgs)


def test_the_baseline_is_who_it_is_asked_to_be(results: Path, tmp_path: Path) -> None:
    assert (
        invoke("report", results, "-o", tmp_path / "x.html", "-q", "--baseline", "thunder").exit_code == 0
    )
    text = (tmp_path / "x.html").read_text()
    assert "relative to thunder" in text
    assert "relative to vllm" not in text
    assert "baseline 'fifo'; expected one of thunder, vllm" in refused(results, "--baseline", "fifo")


def test_run_writes_a_report_when_asked(tmp_path: Path) -> None:
    flags = ("--duration", "5m", "--warmup", "0", "--concurrency", "4", "--scheduler", "vllm", "--report")
    result = invoke("run", *flags, "-o", tmp_path / "a", "--no-progress")
    assert result.exit_code == 0
    assert result.stdout.endswith(f"\nReport: {tmp_path / 'a' / 'report.html'}\n")
    assert "Only vllm ran: nothing to compare." in (tmp_path / "a" / "report.html").read_text()
    result = invoke("run", *flags, "-o", tmp_path / "b", "--json")
    assert (tmp_path / "b" / "report.html").exists()
    assert json.loads(result.stdout)["folder"] == str(tmp_path / "b")


def test_missing_results_are_one_line(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent").startswith(f"no run in {tmp_path / 'absent'}; expected ")
    assert refused(tmp_path).startswith(f"no run in {tmp_path}; expected ")


def test_incomplete_results_are_one_line(copied: Path) -> None:
    (copied / "summary.json").unlink()
    assert refused(copied) == (
        f"incomplete: {copied} has no summary.json; expected a finished study. "
        f"Finish it with thunderbench run --resume {copied}"
    )
    (copied / "vllm-c4-s0" / "DONE").unlink()
    assert "vllm-c4-s0 has no DONE" in refused(copied / "vllm-c4-s0")


def test_damaged_results_are_one_line(copied: Path) -> None:
    (copied / "vllm-c4-s0" / "calls.parquet").write_bytes(b"PAR1 no more")
    assert "calls.parquet" in refused(copied)
    (copied / "vllm-c4-s0" / "calls.parquet").unlink()
    assert "calls.parquet" in refused(copied)


def test_mixed_schema_versions_are_one_line(copied: Path) -> None:
    file = copied / "vllm-c4-s0" / "provenance.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema_version": 0}))
    assert "version" in refused(copied)


def test_an_empty_run_is_one_line(tmp_path: Path) -> None:
    write_run(tmp_path / "a", summary=summary(steps=0))
    assert refused(tmp_path) == (
        "no step ended in the measured window of any run; expected runs that measured something. "
        "Run longer."
    )


def test_a_place_that_cannot_be_written_is_one_line(results: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(results, "-o", tmp_path / "file" / "x.html").startswith(
        f"cannot write {tmp_path / 'file' / 'x.html'}: "
    )
    assert refused(results, "-o", tmp_path).startswith(f"{tmp_path} is a folder; expected a file")
    assert "cannot write into" in refused(results, "-o", tmp_path / "x.html", "--png", tmp_path / "file")


def test_invalid_runs_are_named_in_clean_words(tmp_path: Path) -> None:
    for name, steps in (("good", 140), ("\x1b[31mbad\u202e", 7)):
        write_run(
            tmp_path / name,
            calls=[call(arrived=float(k), decode=1.0, prompt_tokens=9) for k in range(steps)],
            samples=[sample(t, programs_live=2, queries_total=int(14 * t)) for t in (0.0, 1000.0)],
            summary=summary(),
            spec='concurrency = [2]\nseed = 7\nschedulers = ["vllm"]\n',
        )
    result = invoke("report", tmp_path, "-o", tmp_path / "x.html")
    assert result.exit_code == 0
    line = next(line for line in result.stderr.splitlines() if "INVALID" in line)
    assert line.startswith("thunderbench: INVALID: ")
    assert "too few steps" in line
    assert "\x1b" not in line
    assert "\u202e" not in line


def test_it_tells_what_it_does_from_two_seconds_on() -> None:
    now, said = [0.0], []
    tell = Telling(said.append, lambda: now[0])
    tell("reading")
    now[0] = PATIENCE_S
    tell("drawing")
    tell("writing")
    assert said == ["drawing ...", "writing ..."]

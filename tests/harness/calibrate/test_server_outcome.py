"""What is told of a measured server: rows, notes, and settings that hold no guess."""

from __future__ import annotations

import json

import pytest

from harness.calibrate.measure import Measured
from harness.calibrate.plan import Plan, Size
from harness.calibrate.server import About
from harness.calibrate.server_fit import fit_server
from harness.calibrate.server_outcome import (
    Labels,
    Outcome,
    as_json,
    comments,
    constant_rows,
    error_rows,
    notes,
    provenance,
    settings,
)
from harness.profile_file import profile_text
from harness.virtual.steptime import StepTime
from tests.harness.calibrate.test_server_fit import BUDGET, TRUTH, measured

ABOUT = About("http://h:1", "tiny", 4096, "0.32.0", 65536, 128, "auto")
LABELS = Labels(None, None, None, None, 256, BUDGET, "2026-01-01T00:00:00+00:00")


def outcome(
    truth: StepTime = TRUTH, about: About = ABOUT, labels: Labels = LABELS, **more: object
) -> Outcome:
    points = measured(truth, noise=0.001)
    found = Measured(points, True, 0, 0, False, 0.0004, 0.1, 33.0)._replace(**more)  # type: ignore[arg-type]  # noqa: FBT003
    return Outcome(about, labels, Plan((Size(0, 100, 1),), 3, 7), found, fit_server(points, BUDGET))


def test_what_the_user_says_comes_before_what_the_server_says() -> None:
    labels = LABELS._replace(model="Qwen3-8B", hardware="1xH200", kv_dtype="fp8", kv_tokens=1000)
    told = settings(outcome(labels=labels))
    assert (told["model"], told["hardware"], told["kv_dtype"], told["kv_tokens"]) == (
        "Qwen3-8B",
        "1xH200",
        "fp8",
        1000,
    )
    assert settings(outcome())["model"] == "tiny"


def test_what_nobody_says_is_in_no_profile() -> None:
    """A hardware or a capacity that was guessed would be read as a fact."""
    silent = About("http://h:1", "tiny", None, None, None, None, None)
    found = outcome(about=silent)
    text = profile_text(settings(found), provenance(found), comments(found))
    for word in ("hardware", "kv_tokens", "kv_dtype", "block_size", "server_version"):
        assert f"\n{word} =" not in text
    assert any("give --kv-tokens" in line for line in notes(found))


def test_constants_are_written_to_six_digits_and_read_as_they_are() -> None:
    told = settings(outcome())["step_time"]
    assert told["compute_s_per_token"] == float(f"{told['compute_s_per_token']:.6g}")
    assert told["compute_s_per_token"] == pytest.approx(TRUTH.compute_s_per_token, rel=0.05)
    assert told["experts"] == 0


def test_a_constant_that_is_not_identified_says_so_in_table_and_profile() -> None:
    fast = StepTime(1e-9, 0.006, 0.0, 0, 0, 1.5e-9, 3e-8, 0.002)
    found = outcome(fast)
    rows = {row[0]: row for row in constant_rows(found)}
    assert rows["overhead_s"][3] == "not told apart from dense_weights_s"
    assert rows["outside_s_per_call"][3] == ""
    assert {"overhead_s", "dense_weights_s"} <= set(provenance(found)["not_identified"])
    assert any("not told apart from" in line for line in comments(found))


def test_errors_are_told_as_shares() -> None:
    found = outcome()
    (ttft, _, tpot) = error_rows(found)
    assert (ttft[0], tpot[0]) == ("TTFT", "TPOT")
    assert ttft[2] == f"{found.fit.errors[0].median_share:.1%}"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"left_out": 3}, "3 measurements were left out: the client was too slow"),
        ({"cut": 2}, "2 of the 1 sizes could not be measured"),
        ({"rounds_cut": True}, "Time ran out"),
        ({"cached_known": False}, "every prompt was new"),
    ],
)
def test_what_went_otherwise_is_noted(change: dict[str, object], words: str) -> None:
    assert any(words in line for line in notes(outcome(**change)))
    assert not any(words in line for line in notes(outcome()))


def test_json_says_of_every_size_what_was_measured_and_predicted() -> None:
    found = outcome()
    told = json.loads(json.dumps(as_json(found), allow_nan=False))
    assert len(told["points"]) == len(found.measured.points)
    assert sum(point["held_out"] for point in told["points"]) == provenance(found)["held_out"]
    for point, given in zip(told["points"], found.measured.points, strict=True):
        assert point["predicted_s"] == pytest.approx(found.fit.predicted(given))

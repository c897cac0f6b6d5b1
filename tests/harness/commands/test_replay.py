from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from schedulers.contract import CallArrived, Hold
from schedulers.vllm import Vllm
from tests.harness.commands.conftest import Invoke


def test_every_run_of_a_study_is_replayed(invoke: Invoke, study: Path) -> None:
    result = invoke("replay", study)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.partition(":")[0] for line in lines] == [
        "thunder-c2-s0",
        "unlimited-c2-s0",
        "vllm-c2-s0",
    ]
    assert all(line.endswith("actions: all the same") for line in lines)


def test_json_counts_events_and_actions(invoke: Invoke, study: Path) -> None:
    (found,) = json.loads(invoke("replay", study / "vllm-c2-s0", "--json").stdout)
    assert (found["run"], found["scheduler"]) == ("vllm-c2-s0", "vllm")
    assert found["events"] > found["actions"] > 0


def test_somebody_elses_decisions_are_left_out_of_a_study_and_refused_alone(
    invoke: Invoke, study: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(study, tmp_path / "study"))
    file = copy / "vllm-c2-s0" / "provenance.json"
    facts = json.loads(file.read_text())
    facts["policy"]["name"] = "external:http://gateway:9000"
    file.write_text(json.dumps(facts))
    result = invoke("replay", copy)
    assert result.exit_code == 0
    said = "vllm-c2-s0: somebody else's gateway, which does not tell its decisions"
    assert result.stdout.splitlines()[2:] == [said]
    of_all = {
        each["run"]: each["scheduler"] for each in json.loads(invoke("replay", copy, "--json").stdout)
    }
    assert of_all["vllm-c2-s0"] == "external:http://gateway:9000"
    alone = invoke("replay", copy / "vllm-c2-s0")
    assert alone.exit_code == 2
    assert (
        "behind external:http://gateway:9000, which does not tell its decisions; expected" in alone.stderr
    )


def test_the_first_difference_ends_with_6(
    invoke: Invoke, study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        Vllm, "handle", lambda _self, event, _now: [Hold("x")] if isinstance(event, CallArrived) else []
    )
    result = invoke("replay", study / "vllm-c2-s0")
    assert result.exit_code == 6
    assert "replayed [Hold(call_id='x')]" in result.stderr
    assert len(result.stderr.splitlines()) == 1

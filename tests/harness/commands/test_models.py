from __future__ import annotations

import json

from harness import profiles
from tests.harness.commands.conftest import Invoke


def test_all_models_are_listed_with_the_kv_they_leave_room_for(invoke: Invoke) -> None:
    found = json.loads(invoke("models", "--json").stdout)
    assert [row["model"] for row in found["models"]] == list(profiles.model_names())
    assert found["gpus"] == list(profiles.hardware_names())
    glm = found["models"][0]
    assert glm["kv_tokens"] == profiles.kv_capacity_tokens(
        profiles.model("GLM-4.6-FP8"), profiles.hardware("8xH100"), "fp8"
    )
    assert all(row["source"] for row in found["models"])


def test_what_does_not_fit_says_so(invoke: Invoke) -> None:
    assert "does not fit" in invoke("models", "--hardware", "1xH100").stdout
    rows = json.loads(invoke("models", "--hardware", "1xH100", "--json").stdout)["models"]
    assert rows[0]["kv_tokens"] is None


def test_nonsense_is_refused(invoke: Invoke) -> None:
    for flags in (("--kv-dtype", "int3"), ("--gpu-memory-utilization", "2")):
        result = invoke("models", *flags)
        assert (result.exit_code, result.stdout) == (2, "")

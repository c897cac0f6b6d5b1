from __future__ import annotations

import json
from dataclasses import make_dataclass

from harness.commands.schedulers import _parameters
from tests.harness.commands.conftest import Invoke


def test_all_schedulers_are_listed(invoke: Invoke) -> None:
    text = invoke("schedulers").stdout
    names = [row["name"] for row in json.loads(invoke("schedulers", "--json").stdout)]
    assert {"vllm", "thunder"} <= set(names)
    assert all(f"\n{name} " in text for name in names)


def test_show_says_what_each_parameter_means(invoke: Invoke) -> None:
    found = json.loads(invoke("schedulers", "show", "thunder", "--json").stdout)
    assert found["manages_sandboxes"] is True
    assert found["needs"] == []
    by_name = {row["name"]: row for row in found["parameters"]}
    assert by_name["delta_t_s"]["default"] == 5.0
    assert by_name["delta_t_s"]["meaning"].startswith("Seconds")
    assert all(row["meaning"] for row in found["parameters"])
    text = invoke("schedulers", "show", "thunder").stdout
    assert "--set scheduler.thunder.delta_t_s=VALUE" in text


def test_a_config_without_source_has_no_meanings() -> None:
    assert _parameters(make_dataclass("Config", [("share", float)])) == [
        {"name": "share", "default": None, "meaning": ""}
    ]

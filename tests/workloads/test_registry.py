import json
import sys

import pytest

from workloads import registry
from workloads.errors import UnknownWorkload, WorkloadError
from workloads.swe_lite import SweLite
from workloads.traces import TraceWorkload

MODULE = """
class Mine:
    name, params, size, notes = "mine", {}, None, ()
    def __init__(self, *, seed, overrides):
        self.seed, self.overrides = seed, overrides
    def program(self, index):
        raise NotImplementedError
"""


def test_a_registered_name_is_built_with_seed_and_overrides():
    workload = registry.load("swe-lite", seed=5, overrides={"steps.median": "60"})
    assert isinstance(workload, SweLite)
    assert workload.seed == 5
    assert workload.params["steps.median"] == 60.0


def test_a_trace_is_opened(tmp_path):
    file = tmp_path / "a.jsonl"
    step = {"prompt_tokens": 1, "new_prompt_tokens": 1, "output_tokens": 1}
    file.write_text(json.dumps({"program_id": "p", "steps": [step]}))
    workload = registry.load(f"trace:{file}", seed=1)
    assert isinstance(workload, TraceWorkload)
    assert workload.name == f"trace:{file}"


def test_a_class_of_the_users_own_is_built(tmp_path, monkeypatch):
    (tmp_path / "users_workload.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    workload = registry.load("users_workload:Mine", seed=2, overrides={"a": "b"})
    assert (workload.seed, workload.overrides) == (2, {"a": "b"})
    with pytest.raises(WorkloadError, match="has no class Yours"):
        registry.load("users_workload:Yours")


def test_the_current_directory_is_looked_into(tmp_path, monkeypatch):
    (tmp_path / "workload_right_here.py").write_text(MODULE)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    assert registry.load("workload_right_here:Mine").name == "mine"


def test_an_unknown_name_lists_known_and_nearest():
    with pytest.raises(UnknownWorkload, match="Did you mean swe-lite"):
        registry.load("swe-light")


@pytest.mark.parametrize(
    "name", ["trace:", "no_such_module:Class", "no_such.module:Class", ":Class", "json:"]
)
def test_names_that_lead_nowhere_are_refused(name):
    with pytest.raises(WorkloadError):
        registry.load(name)


def test_an_import_error_inside_the_module_comes_through(tmp_path, monkeypatch):
    (tmp_path / "broken_workload.py").write_text("import no_such_dependency\n")
    (tmp_path / "broken_package").mkdir()
    (tmp_path / "broken_package" / "__init__.py").write_text("import no_such_dependency\n")
    (tmp_path / "broken_package" / "inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("broken_workload:Mine", "broken_package.inner:Mine"):
        with pytest.raises(ModuleNotFoundError, match="no_such_dependency"):
            registry.load(name)


def test_every_name_has_one_line():
    listed = dict(registry.names())
    assert {"swe-lite", "trace:FILE"} <= set(listed)
    assert all(line and "\n" not in line for line in listed.values())


def test_looking_up_names_imports_no_workload(monkeypatch):
    monkeypatch.delitem(sys.modules, "workloads.swe_lite")
    registry.names()
    assert "workloads.swe_lite" not in sys.modules

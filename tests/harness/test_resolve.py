from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.resolve import build_policy, engine_options, load_workload, refuse_unmet_needs, resolve
from harness.settings import load_spec, read_spec, validated
from harness.spec import RunSpec
from harness.virtual.offers import ENDLESS_TOKENS
from schedulers.contract import Capability


def spec(*sets: str, **flags: Any) -> RunSpec:
    return read_spec(flags, sets, environment={})


def test_nothing_is_left_open_and_resolving_again_changes_nothing(tmp_path: Path) -> None:
    resolved = resolve(
        spec("workload.steps.median=60", "scheduler.thunder.delta_t_s=2", model="glm 4.6 fp8")
    )
    assert resolved.model == "GLM-4.6-FP8"
    assert resolved.kv_tokens is not None
    assert resolved.step_time is not None
    assert resolved.overrides.workload["steps.median"] == 60
    assert len(resolved.overrides.workload) > 10
    assert resolved.overrides.scheduler["thunder"]["delta_t_s"] == 2.0
    assert "decay_base" in resolved.overrides.scheduler["thunder"]
    assert resolve(resolved) == resolved
    (tmp_path / "spec.toml").write_text(resolved.toml())
    assert load_spec(tmp_path / "spec.toml") == resolved


def test_what_is_given_stands_above_the_profiles() -> None:
    resolved = resolve(spec(kv_tokens="100000"))
    assert resolved.kv_tokens == 100_000
    assert engine_options(resolved).kv_tokens == 100_000


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"workload": "swe-lit"}, ["swe-lit", "swe-lite"]),
        ({"workload": "trace:absent.jsonl"}, ["absent.jsonl"]),
        ({"schedulers": "thundr"}, ["thundr", "Did you mean 'thunder'?"]),
        ({"schedulers": "no_such_module:Policy"}, ["no_such_module"]),
        ({"schedulers": "tests.harness.policies:Curious"}, ["observes ToolProgressed", "does not deliver"]),
        ({"workload": "tests.harness.endless:Unplayable"}, ["call 'c0' of 'p0'", "its prompt is empty"]),
        ({"model": "GLM-4.5"}, ["GLM-4.5", "GLM-4.6-FP8"]),
        ({"hardware": "8xH10"}, ["H10", "H100"]),
        ({"hardware": "0xH100"}, ["0xH100"]),
        ({"hardware": "3xB200"}, ["96 query, 8 KV heads do not split evenly", "such as 2 or 4"]),
        ({"hardware": "1000xB200"}, ["such as 96"]),
        ({"hardware": "2xH100"}, ["GLM-4.6-FP8 does not fit", "GB too little"]),
        ({"kv_dtype": "int3"}, ["int3", "fp8"]),
        ({"duration_s": "inf", "workload": "tests.harness.endless:Endless"}, ["duration_s", "no end"]),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(SetupError) as caught:
        resolve(spec(**given))
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text


@pytest.mark.parametrize(
    "text",
    [
        "workload.no_such=1",
        "workload.steps.median=-5",
        "scheduler.thunder.delta_t_s=0",
        "scheduler.vllm.router=x",
    ],
)
def test_parameters_of_workload_and_schedulers_are_checked(text: str) -> None:
    with pytest.raises(SetupError):
        resolve(spec(text))


def test_a_malformed_trace_is_named_by_file_line_and_field(tmp_path: Path) -> None:
    good = {
        "program_id": "p",
        "steps": [{"prompt_tokens": 10, "new_prompt_tokens": 10, "output_tokens": 3}],
    }
    bad = {"program_id": "q", "steps": [{"prompt_tokens": -1, "new_prompt_tokens": 10, "output_tokens": 3}]}
    trace = tmp_path / "programs.jsonl"
    trace.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    with pytest.raises(SetupError, match=r"programs\.jsonl, line 2, field .*prompt_tokens"):
        resolve(spec(workload=f"trace:{trace}"))


def test_recorded_arrivals_take_the_place_of_the_word(tmp_path: Path) -> None:
    """Program `i` of the resolved study is the one that began at its time `i`."""
    call = {"call_id": "c", "parent": None, "new": [["k", "task", 5]], "output": ["o", "thought", 1]}
    file = tmp_path / "programs.jsonl"
    times = {"late": 7.25, "first": 0.0, "second": 7.25}
    with file.open("w") as out:
        for name, arrived_s in times.items():
            program = {"program_id": name, "calls": [call], "arrived_s": arrived_s}
            out.write(json.dumps({"format": "thunderbench program 1", **program}) + "\n")
    asked = spec(workload=f"trace:{file}", arrival_times="trace", schedulers="vllm")
    resolved = resolve(asked)
    assert resolved.arrival_times == (0.0, 7.25, 7.25)
    assert resolve(resolved) == resolved
    workload = load_workload(resolved, seed=3)
    played = [workload.program(index) for index in range(3)]
    assert [program.arrived_s for program in played] == [0.0, 7.25, 7.25]
    assert [program.program_id for program in played] == ["first/3/0", "late/3/1", "second/3/2"]


def test_arrivals_that_nobody_recorded_are_refused_in_one_line() -> None:
    with pytest.raises(
        SetupError, match="does not say when all programs began; expected a recorded"
    ) as caught:
        resolve(spec(arrival_times="trace"))
    assert "\n" not in str(caught.value)


def test_the_backend_vllm_core_needs_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.resolve.find_spec", lambda _: None)
    with pytest.raises(SetupError, match=r"without vLLM; expected vLLM installed. Install it: pip install"):
        resolve(spec(backend="vllm-core"))


class Needy:
    name = "needy"
    observes = frozenset()
    needs = frozenset({Capability.EVICT, Capability.PRIORITY})


def test_a_policy_whose_needs_are_not_met_is_refused_by_name() -> None:
    words = "'needy' needs `evict`, which the backend virtual does not offer; expected endless_kv, pin"
    with pytest.raises(SetupError, match=words):
        refuse_unmet_needs("needy", Needy(), resolve(spec()))  # type: ignore[arg-type]


class Priority(Needy):
    needs = frozenset({Capability.PRIORITY})


def test_a_queue_that_the_user_fixed_is_not_changed_for_a_policy() -> None:
    with pytest.raises(SetupError, match=r"Leave engine\.scheduling_policy to the scheduler"):
        refuse_unmet_needs("p", Priority(), resolve(spec("engine.scheduling_policy=fcfs")))  # type: ignore[arg-type]


def test_engines_are_started_as_their_policy_needs_them() -> None:
    resolved = resolve(spec(kv_tokens="100000"))
    refuse_unmet_needs("p", Priority(), resolved)  # type: ignore[arg-type]
    endless = engine_options(resolved, frozenset({Capability.ENDLESS_KV}))
    assert engine_options(resolved).scheduling_policy == "fcfs"
    assert engine_options(resolved, Priority.needs).scheduling_policy == "priority"
    assert (endless.scheduling_policy, endless.kv_tokens) == ("fcfs", ENDLESS_TOKENS)


def test_a_tier_has_the_tokens_of_its_bytes_and_the_links_of_the_gpus() -> None:
    """40 GiB of 188,416 bytes a token; loads and stores at 8 x 55 GB/s; a transfer has no part in it."""
    resolved = resolve(spec("engine.cpu_offload_gb=40"))
    assert engine_options(resolved).offload_tokens == 40 * 2**30 // 188_416
    assert resolved.step_time is not None
    assert resolved.step_time.load_s_per_token == resolved.step_time.store_s_per_token
    assert resolved.step_time.load_s_per_token == pytest.approx(188_416 / (8 * 55e9))
    assert resolved.step_time.transfer_s_per_token is None
    assert resolve(resolved) == resolved


def test_parts_of_a_replica_have_a_network_between_them() -> None:
    resolved = resolve(spec("engine.disaggregate=1:3"))
    assert resolved.step_time is not None
    assert resolved.step_time.transfer_s_per_token == pytest.approx(188_416 / (8 * 50e9))
    assert (resolved.step_time.load_s_per_token, engine_options(resolved).offload_tokens) == (None, 0)
    assert resolve(resolved) == resolved


def test_a_link_that_is_given_stands_above_the_profile() -> None:
    given = resolve(spec()).step_time
    assert given is not None
    constants = [f"step_time.{name}={value}" for name, value in given.model_dump(exclude_none=True).items()]
    resolved = resolve(spec("engine.cpu_offload_gb=40", *constants, "step_time.load_s_per_token=0.5"))
    assert resolved.step_time is not None
    assert resolved.step_time.load_s_per_token == 0.5
    assert resolved.step_time.store_s_per_token == pytest.approx(188_416 / (8 * 55e9))


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        (["engine.cpu_offload_gb=0.01"], "a CPU tier of 56 tokens; expected at least one chunk of 256"),
        (["engine.cpu_offload_gb=1e-6"], "cpu_offload_gb = 1e-06; expected room for the KV of a token"),
        (["engine.cpu_offload_gb=1", "engine.block_size=24"], "in chunks of 256 tokens; expected whole"),
        (["engine.cpu_offload_gb=1", "backend=vllm-core"], "cpu_offload_gb = 1.0 with the backend vllm"),
        (["engine.disaggregate=1:1", "backend=vllm-core"], "disaggregate = '1:1' with the backend vllm"),
        (["engine.disaggregate=1:1", "engine.cpu_offload_gb=1"], "'1:1'; expected one of the two"),
    ],
)
def test_replicas_that_no_engine_stands_for_are_refused_in_one_line(sets: list[str], words: str) -> None:
    with pytest.raises(SetupError, match=words) as caught:
        resolve(spec(*sets))
    assert "\n" not in str(caught.value)


class Pinning(Needy):
    needs = frozenset({Capability.PIN})


def test_engines_in_parts_offer_no_pins() -> None:
    refuse_unmet_needs("p", Pinning(), resolve(spec()))  # type: ignore[arg-type]
    message = r"needs `pin`, which the backend virtual does not offer.*\. Leave out engine\.disaggregate"
    with pytest.raises(SetupError, match=message):
        refuse_unmet_needs("p", Pinning(), resolve(spec("engine.disaggregate=1:3")))  # type: ignore[arg-type]


def test_all_schedulers_of_a_repeat_get_the_same_programs_and_another_repeat_gets_others() -> None:
    resolved = resolve(spec(repeats="2"))
    one, two = (
        {key.seed for key in resolved.runs() if key.scheduler == name} for name in ("thunder", "vllm")
    )
    assert one == two == {0, 1}
    assert load_workload(resolved, 0).program(0) == load_workload(resolved, 0).program(0)
    assert load_workload(resolved, 0).program(0) != load_workload(resolved, 1).program(0)


def test_policies_are_fresh() -> None:
    resolved = resolve(spec())
    assert build_policy(resolved, "thunder", 0) is not build_policy(resolved, "thunder", 0)


def test_the_measured_efficiency_makes_slower_steps() -> None:
    derived, measured = resolve(spec()), resolve(spec(efficiency="measured"))
    assert derived.step_time is not None
    assert measured.step_time is not None
    assert (derived.efficiency, measured.efficiency) == ("derived", "measured")
    assert (derived.step_time.overhead_s, measured.step_time.overhead_s) == (0.004, 0.02071)
    assert measured.step_time.compute_s_per_token > derived.step_time.compute_s_per_token


def test_a_step_time_of_the_user_s_own_is_called_given_and_contradicts_a_named_efficiency() -> None:
    measured = resolve(spec(efficiency="measured"))
    own = measured.model_dump()["step_time"]
    assert resolve(validated({"step_time": own})).efficiency == "given"
    assert resolve(validated({"step_time": own, "efficiency": "measured"})).efficiency == "measured"
    assert resolve(resolve(validated({"step_time": own}))).efficiency == "given"
    with pytest.raises(SetupError, match=r"efficiency = derived, and a table \[step_time\].*one of"):
        resolve(validated({"step_time": own, "efficiency": "derived"}))
    with pytest.raises(SetupError, match=r"efficiency = given without a table \[step_time\]"):
        resolve(spec(efficiency="given"))


def test_with_capacity_and_step_time_given_model_and_hardware_are_mere_names() -> None:
    known = resolve(spec(kv_tokens="100000"))
    assert known.step_time is not None
    own = {"model": "Tiny", "hardware": "2 cores", "step_time": known.step_time.model_dump()}
    resolved = resolve(validated({**own, "kv_tokens": 4096}))
    assert (resolved.model, resolved.hardware, resolved.kv_tokens) == ("Tiny", "2 cores", 4096)
    assert resolved.efficiency == "given"
    assert resolve(resolved) == resolved
    for missing in ({**own, "kv_tokens": None}, {"model": "Tiny", "kv_tokens": 4096}):
        with pytest.raises(SetupError, match="model 'Tiny'"):
            resolve(validated(missing))
    with pytest.raises(SetupError, match="model 'Tiny'"):
        resolve(validated({**own, "kv_tokens": 4096, "engine": {"cpu_offload_gb": 1}}))

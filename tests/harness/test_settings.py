from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import SetupError
from harness.settings import load_spec, parse_set, read_spec
from harness.spec import RunSpec


def read(
    flags: dict[str, Any] | None = None,
    sets: tuple[str, ...] = (),
    env: dict[str, str] | None = None,
    file: Path | None = None,
) -> RunSpec:
    return read_spec(flags or {}, sets, file=file, environment=env or {})


def message(**given: Any) -> str:
    with pytest.raises(SetupError) as caught:
        read(**given)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_flags_beat_the_environment_which_beats_the_file_which_beats_defaults(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text('seed = 1\nrepeats = 1\nreplicas = 1\nmodel = "Qwen3-8B"\n[engine]\nblock_size = 32\n')
    env = {"THUNDERBENCH_SEED": "2", "THUNDERBENCH_REPEATS": "2", "THUNDERBENCH_ENGINE__MAX_NUM_SEQS": "7"}
    spec = read({"seed": "3", "concurrency": None}, file=file, env=env)
    assert (spec.seed, spec.repeats, spec.replicas, spec.model) == (3, 2, 1, "Qwen3-8B")
    assert (spec.engine.block_size, spec.engine.max_num_seqs) == (32, 7)
    assert spec.concurrency == (96,)


def test_one_load_replaces_another_from_below(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text("concurrency = [24, 48]\n")
    spec = read({"request_rate": "0.5"}, file=file)
    assert (spec.concurrency, spec.request_rate) == ((), (0.5,))


def test_set_reaches_workload_schedulers_engine_and_every_field() -> None:
    sets = (
        "workload.steps.median=60",
        "scheduler.thunder.delta_t_s=2",
        "scheduler.vllm.router=round-robin",
        "engine.block_size=32",
        "seed=9",
        "duration_s=1m",
    )
    spec = read(sets=sets)
    assert spec.overrides.workload == {"steps.median": 60}
    assert spec.overrides.scheduler == {"thunder": {"delta_t_s": 2}, "vllm": {"router": "round-robin"}}
    assert (spec.engine.block_size, spec.seed, spec.duration_s) == (32, 9, 60.0)


def test_set_of_a_policy_given_by_its_path() -> None:
    assert parse_set("scheduler.my.module:Policy.share=0.5") == {
        "overrides": {"scheduler": {"my.module:Policy": {"share": 0.5}}}
    }


def test_tables_of_a_file_and_set_name_the_same_parameter(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text("[overrides.workload.steps]\nmedian = 60\np90 = 100\n")
    spec = read(file=file, sets=("workload.steps.median=70",))
    assert spec.overrides.workload == {"steps.median": 70, "steps.p90": 100}


def test_variables_of_others_are_left_alone_and_slips_are_refused() -> None:
    assert read(env={"THUNDERBENCH_ADMIN": "x", "THUNDERBENCH_JOBS": "2", "PATH": "/"}) == RunSpec()
    assert read(env={"THUNDERBENCH_DURATION": "1m"}).duration_s == 60
    text = message(env={"THUNDERBENCH_CONCURENCY": "4"})
    assert text == (
        "environment THUNDERBENCH_CONCURENCY; expected THUNDERBENCH_ and a setting's name. "
        "Did you mean concurrency?"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"flags": {"concurrency": "-3"}}, "concurrency[0] = '-3'; expected at least 1"),
        ({"flags": {"concurrency": "many"}}, "concurrency[0] = 'many'; expected a valid integer"),
        ({"flags": {"repeats": "1.5"}}, "repeats = '1.5'; expected a valid integer"),
        (
            {"flags": {"duration_s": "-1h"}},
            "duration_s = '-1h'; expected a duration such as 90, 30s, 10m, 1h or 1h30m",
        ),
        (
            {"flags": {"backend": "vllm-cor"}},
            (
                "backend = 'vllm-cor'; expected 'virtual', 'vllm-core', 'vllm' or 'servers'. "
                "Did you mean vllm-core?"
            ),
        ),
        (
            {"sets": ("engine.blok_size=1",)},
            (
                "unknown setting engine.blok_size; expected one of block_size, max_num_seqs, "
                "max_num_batched_tokens, scheduling_policy, cpu_offload_gb, disaggregate. "
                "Did you mean block_size?"
            ),
        ),
        (
            {"flags": {"request_rate": "1", "concurrency": "1"}},
            (
                "settings that do not fit together; expected one of concurrency, request_rate and "
                "arrival_times, not concurrency and request_rate"
            ),
        ),
        (
            {"flags": {"seed": "-1", "repeats": "0"}},
            "repeats = '0'; expected at least 1. (1 more problem after this one)",
        ),
        (
            {"sets": ("seed",)},
            "--set 'seed'; expected NAME=VALUE with a dotted NAME, such as engine.block_size=32",
        ),
    ],
)
def test_one_line_says_the_field_what_was_found_and_what_was_expected(
    given: dict[str, Any], expected: str
) -> None:
    assert message(**given) == expected


def test_a_scheduler_setting_needs_a_scheduler_and_a_field() -> None:
    assert message(sets=("scheduler.thunder=2",)).startswith(
        "--set 'scheduler.thunder=2'; expected scheduler.NAME"
    )


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert message(file=tmp_path / "absent.toml").endswith(
        "No such file or directory; expected a readable TOML file"
    )
    bad = tmp_path / "bad.toml"
    bad.write_text("seed = ")
    assert message(file=bad).startswith(f"config {bad}: Invalid value (at end of document)")
    bad.write_bytes(b"\xff\xfe")
    assert "expected valid TOML" in message(file=bad)
    bad.write_text("overrides = 3")
    assert message(file=bad).startswith("overrides = 3; expected")


def test_what_a_spec_writes_is_read_back(tmp_path: Path) -> None:
    spec = read(sets=("workload.steps.median=60", "scheduler.vllm.router=session"))
    (tmp_path / "spec.toml").write_text(spec.toml())
    assert load_spec(tmp_path / "spec.toml") == spec


def test_a_profile_lies_below_the_file(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text("[engine]\nblock_size = 32\n")
    profile = {"model": "Tiny", "kv_tokens": 4096, "engine": {"block_size": 8, "max_num_seqs": 4}}
    found = read_spec({"kv_tokens": "8192"}, file=file, profile=profile, environment={})
    assert (found.model, found.kv_tokens) == ("Tiny", 8192)
    assert (found.engine.block_size, found.engine.max_num_seqs) == (32, 4)


def test_settings_of_servers_are_read_by_table_and_environment() -> None:
    environment = {"THUNDERBENCH_BACKEND": "http://a", "THUNDERBENCH_LIVE__RETRIES": "0"}
    found = read_spec({}, ["live.api=chat"], environment=environment)
    assert found.live is not None
    assert (found.live.urls, found.live.retries, found.live.api) == (("http://a",), 0, "chat")
    assert message(sets=("backend=http://a", "live.apy=chat")).endswith("Did you mean api?")

"""Profiles: what was written is read back, and garbage is one line."""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.profile_file import profile_text, read_profile, write_profile
from harness.settings import validated
from harness.virtual.steptime import StepTime

STEP_TIME: dict[str, Any] = {
    "compute_s_per_token": 2e-5,
    "dense_weights_s": 0.004,
    "expert_weights_s": 0.0,
    "experts": 0,
    "experts_per_token": 0,
    "attention_s_per_pair": 1e-9,
    "kv_read_s_per_token": 3e-8,
    "overhead_s": 0.001,
}
SETTINGS: dict[str, Any] = {
    "model": "tiny",
    "hardware": "one CPU",
    "kv_tokens": 4096,
    "engine": {"block_size": 16, "max_num_batched_tokens": 2048, "max_num_seqs": 128},
    "step_time": STEP_TIME,
}
PROVENANCE: dict[str, Any] = {"server": "http://127.0.0.1:8000", "held_out": {"TTFT": {"median": 0.02}}}

constants = st.floats(0, 10, allow_nan=False, allow_subnormal=False)


@given(st.fixed_dictionaries({name: constants for name in STEP_TIME if not name.startswith("experts")}))
def test_constants_come_back_to_the_last_digit(known: dict[str, float]) -> None:
    settings = {**SETTINGS, "step_time": {**STEP_TIME, **known}}
    assert tomllib.loads(profile_text(settings, {})) == settings


def test_reading_gives_the_settings_without_the_provenance(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    write_profile(file, SETTINGS, PROVENANCE, ["measured\nby hand"])
    assert read_profile(file) == SETTINGS
    assert file.read_text().startswith("# measured by hand\n\n")
    assert tomllib.loads(file.read_text())["calibration"] == PROVENANCE


def test_its_settings_are_those_of_a_spec() -> None:
    spec = validated(tomllib.loads(profile_text(SETTINGS, {})))
    assert (spec.model, spec.kv_tokens, spec.engine.max_num_seqs) == ("tiny", 4096, 128)
    assert spec.step_time is not None
    known = spec.step_time.model_dump(exclude_none=True)
    assert known == STEP_TIME
    assert StepTime(**known).step(1, 10, 10) == pytest.approx(0.005 + 1e-8 + 3e-7)
    assert set(STEP_TIME) <= set(asdict(StepTime(**known)))


def test_what_is_not_known_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    write_profile(file, {**SETTINGS, "hardware": None, "engine": {"block_size": None}}, {"version": None})
    expected = {name: value for name, value in SETTINGS.items() if name != "hardware"} | {"engine": {}}
    assert read_profile(file) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "No such file or directory; expected a readable TOML file"),
        (b"\xff\xfe", "expected valid TOML"),
        (b"model = ", "expected valid TOML"),
        (b"model = 'x'\n", "without step_time; expected a profile as"),
        (b"[step_time]\noverhead_s = 1\n", "without step_time.compute_s_per_token"),
        (profile_text(SETTINGS, {}).replace("kv_tokens = 4096", "kv_tokens = 0"), "kv_tokens = 0"),
        (profile_text(SETTINGS, {}).replace("overhead_s = 0.001", "overhead_s = -1.0"), "overhead_s = -1"),
        (profile_text(SETTINGS, {}).replace("overhead_s = 0.001", "overhead_s = nan"), "overhead_s = nan"),
        (profile_text(SETTINGS, {}).replace("kv_tokens", "kv_token"), "with kv_token, which no profile"),
        (
            profile_text(SETTINGS, {}).replace("block_size", "blocks"),
            "with engine.blocks, which no profile",
        ),
    ],
)
def test_garbage_is_one_line_that_names_the_file(text: Any, words: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(SetupError) as caught:
        read_profile(file)
    line = str(caught.value)
    assert str(file) in line
    assert words in line
    assert "\n" not in line


def test_a_profile_that_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    with pytest.raises(SetupError, match="without step_time"):
        write_profile(file, {"model": "x"}, {})
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_there_stays_unless_forced(tmp_path: Path) -> None:
    file = tmp_path / "profile.toml"
    write_profile(file, SETTINGS, {})
    with pytest.raises(SetupError, match="exists already"):
        write_profile(file, {**SETTINGS, "model": "other"}, {})
    assert read_profile(file)["model"] == "tiny"
    write_profile(file, {**SETTINGS, "model": "other"}, {}, force=True)
    assert read_profile(file)["model"] == "other"

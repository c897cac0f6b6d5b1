"""A profile on disk: a TOML file that says of one kind of server what `run` must know to stand for it.

    model = "Qwen3-8B"            # labels, when the step time and the capacity are given
    hardware = "1xH200"
    kv_tokens = 800000            # of one replica
    [engine]                      # block_size, max_num_batched_tokens, max_num_seqs
    [step_time]                   # the constants of `harness.virtual.steptime.StepTime`
    [calibration]                 # where it comes from; read by people, not by `run`

All but the last are settings of `harness.spec.RunSpec` under their own names, so the file minus its last
table is a spec as well.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from harness.errors import SetupError
from harness.export.files import whole_file
from harness.spec import StepTimeSpec

PROVENANCE = "calibration"
_EXPECTED = "a profile as `thunderbench calibrate --backend URL -o FILE` writes it"


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class _Engine(_Strict):
    block_size: int | None = Field(default=None, ge=1, le=4096)
    max_num_batched_tokens: int | None = Field(default=None, ge=1, le=10_000_000)
    max_num_seqs: int | None = Field(default=None, ge=1, le=1_000_000)


class _Profile(_Strict):
    model: str | None = Field(default=None, min_length=1)
    hardware: str | None = Field(default=None, min_length=1)
    kv_dtype: str | None = Field(default=None, min_length=1)
    kv_tokens: int | None = Field(default=None, ge=1, le=10**12)
    engine: _Engine = _Engine()
    step_time: StepTimeSpec
    calibration: dict[str, Any] = Field(default_factory=dict)


def read_profile(path: Path) -> dict[str, Any]:
    """The settings in a profile, a layer below the config file, environment and flags.

    Raises `SetupError` for a file that cannot be read, is no TOML or is no profile.
    """
    try:
        given = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"profile {path}: {error.strerror}", "a readable TOML file") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SetupError(f"profile {path}: {error}", "valid TOML") from None
    _checked(given, f"profile {path}")
    return {name: value for name, value in given.items() if name != PROVENANCE}


def profile_text(
    settings: Mapping[str, Any], provenance: Mapping[str, Any], comments: Sequence[str] = ()
) -> str:
    """A profile as it stands in its file; what is null is left out. Raises `SetupError` like reading."""
    tables = {**settings, PROVENANCE: provenance} if provenance else dict(settings)
    given = _without_nulls(tables)
    _checked(given, "a profile")
    head = "".join(f"# {' '.join(line.split())}\n" for line in comments)
    return f"{head}\n{tomli_w.dumps(given)}" if head else tomli_w.dumps(given)


def write_profile(
    path: Path,
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    comments: Sequence[str] = (),
    *,
    force: bool = False,
) -> None:
    """Write a profile whole or not at all. Raises `SetupError` for a file that is there, unless `force`."""
    text = profile_text(settings, provenance, comments)
    with whole_file(path, force=force) as out:
        out.write(text)


def _checked(given: Mapping[str, Any], what: str) -> None:
    try:
        _Profile.model_validate(given)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "missing":
            raise SetupError(f"{what} without {place}", _EXPECTED) from None
        if problem["type"] == "extra_forbidden":
            raise SetupError(f"{what} with {place}, which no profile says", _EXPECTED) from None
        found = f"{what}: {place} = {problem['input']!r}"
        raise SetupError(found, problem["msg"].removeprefix("Input should be ")) from None


def _without_nulls(table: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_nulls(value) if isinstance(value, Mapping) else value
        for name, value in table.items()
        if value is not None
    }

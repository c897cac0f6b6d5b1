"""Where a spec comes from: flags > environment > TOML file > profile > defaults, merged and validated.

Whatever is wrong becomes one `SetupError` line: where it was said, what was found, what was expected.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from harness.errors import SetupError
from harness.spec import LOADS, EngineSpec, LiveSpec, Overrides, RunSpec, StepTimeSpec

PREFIX = "THUNDERBENCH_"
NOT_SETTINGS = frozenset({"jobs"})  # environment of the command line itself
_TYPO = 0.85  # how alike an unknown variable is to a known one before it is refused as a slip

# Flags and environment say `duration`; the field says its unit, too.
UNITS_LEFT_OUT = {
    "duration": "duration_s",
    "warmup": "warmup_s",
    "sample_every": "sample_every_s",
    "start_spread": "start_spread_s",
}

_SCHEDULER_KEY = re.compile(r"scheduler\.((?:[\w.]+:)?[\w-]+)\.(.+)")  # `scheduler.my.module:Policy.field`
_TABLES: dict[str, type[BaseModel]] = {
    "": RunSpec,
    "engine": EngineSpec,
    "step_time": StepTimeSpec,
    "live": LiveSpec,
    "overrides": Overrides,
}


def read_spec(
    flags: Mapping[str, Any],
    sets: Iterable[str] = (),
    *,
    file: Path | None = None,
    profile: Mapping[str, Any] | None = None,
    environment: Mapping[str, str],
) -> RunSpec:
    """The spec of a study. `flags` by field name, null where not given; `sets` are `a.b=c` texts.

    `profile` are settings below those of the file (see `harness.profile_file`).
    """
    merged = _merge(profile or {}, _read_file(file) if file else {})
    merged = _merge(merged, _read_environment(environment))
    merged = _merge(merged, {name: value for name, value in flags.items() if value is not None})
    for text in sets:
        merged = _merge(merged, parse_set(text))  # last: it can name every field
    return validated(merged)


def validated(given: Mapping[str, Any]) -> RunSpec:
    """A RunSpec, or the first thing wrong with it as `SetupError`."""
    try:
        return RunSpec.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise _translated(problems[0], len(problems) - 1) from None


def load_spec(file: Path) -> RunSpec:
    """The spec written to a results folder, with nothing merged into it."""
    return validated(_read_file(file))


def parse_set(text: str) -> dict[str, Any]:
    """`engine.block_size=32` as a nested table; a value that is no TOML value is taken as text."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise SetupError(f"--set {text!r}", "NAME=VALUE with a dotted NAME, such as engine.block_size=32")
    path = key.split(".")
    scheduler = _SCHEDULER_KEY.fullmatch(key)
    if scheduler:
        path = ["overrides", "scheduler", scheduler[1], scheduler[2]]
    elif path[0] == "scheduler":
        raise SetupError(
            f"--set {text!r}", "scheduler.NAME.FIELD=VALUE", "Such as scheduler.thunder.delta_t_s=2"
        )
    elif path[0] == "workload" and len(path) > 1:
        path = ["overrides", "workload", key.removeprefix("workload.")]
    nested: Any = _toml_value(value.strip())
    for part in reversed(path):
        nested = {part: nested}
    return dict(nested)


def nearest(name: str, known: Iterable[str], likeness: float = 0.6) -> str:
    """A sentence with the closest known name, or the empty text."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=likeness)
    return f"Did you mean {close[0]}?" if close else ""


def _read_file(file: Path) -> dict[str, Any]:
    try:
        given = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SetupError(f"config {file}: {error.strerror}", "a readable TOML file") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise SetupError(f"config {file}: {error}", "valid TOML") from None
    overrides = given.get("overrides")
    if isinstance(overrides, dict):  # dotted names, as --set gives them, so that the two merge
        if isinstance(overrides.get("workload"), dict):
            overrides["workload"] = _dotted(overrides["workload"])
        if isinstance(overrides.get("scheduler"), dict):
            of_all = overrides["scheduler"].items()
            overrides["scheduler"] = {n: _dotted(of) if isinstance(of, dict) else of for n, of in of_all}
    return given


def _dotted(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"steps": {"median": 60}}` as `{"steps.median": 60}`."""
    flat: dict[str, Any] = {}
    for name, value in table.items():
        flat |= _dotted(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """`THUNDERBENCH_CONCURRENCY=24,48`, `THUNDERBENCH_ENGINE__BLOCK_SIZE=32`."""
    merged: dict[str, Any] = {}
    for variable, text in sorted(environment.items()):
        name = variable.removeprefix(PREFIX).lower()
        if not variable.startswith(PREFIX) or name in NOT_SETTINGS:
            continue
        first, *rest = name.split("__")
        field = UNITS_LEFT_OUT.get(first, first)
        if field not in RunSpec.model_fields:
            slip = nearest(field, [*RunSpec.model_fields, *UNITS_LEFT_OUT], _TYPO)
            if slip:
                raise SetupError(f"environment {variable}", f"{PREFIX} and a setting's name", slip)
            continue  # of another command, or of something around us
        nested: Any = text
        for part in reversed([field, *rest]):
            nested = {part: nested}
        merged = _merge(merged, nested)
    return merged


def _merge(low: Mapping[str, Any], high: Mapping[str, Any]) -> dict[str, Any]:
    """Tables merge key by key, anything else of `high` replaces; a load replaces every other load."""
    merged = dict(low)
    if not set(LOADS).isdisjoint(high):
        merged = {name: value for name, value in low.items() if name not in LOADS}
    for name, value in high.items():
        old = merged.get(name)
        merged[name] = (
            _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _translated(problem: ErrorDetails, more: int) -> SetupError:
    """Pydantic's account of one problem, in one line."""
    place = ""
    for part in problem["loc"]:
        place += f"[{part}]" if isinstance(part, int) else f".{part}" if place else str(part)
    found, expected, fix = f"{place} = {problem['input']!r}", problem["msg"], ""
    context = problem.get("ctx", {})
    if problem["type"] == "extra_forbidden":
        known = _TABLES["" if len(problem["loc"]) == 1 else str(problem["loc"][0])].model_fields
        name = str(problem["loc"][-1])
        found, expected = f"unknown setting {place}", f"one of {', '.join(known)}"
        fix = nearest(name, known)
    elif problem["type"] == "value_error":
        expected = str(context["error"])
        found = found if problem["loc"] else "settings that do not fit together"
    elif problem["type"] == "literal_error":
        expected = str(context["expected"])
        fix = nearest(str(problem["input"]), re.findall(r"'([^']+)'", expected))
    else:
        expected = _plain(expected)
    if more:
        fix = f"{fix} ({more} more problem{'s' if more > 1 else ''} after this one)".strip()
    return SetupError(found, expected, fix)


def _plain(message: str) -> str:
    """`Input should be greater than or equal to 1` as `at least 1`."""
    text = message.removeprefix("Input should be ").partition(", unable to parse")[0]
    text = text.replace("greater than or equal to", "at least").replace("less than or equal to", "at most")
    return text[:1].lower() + text[1:]

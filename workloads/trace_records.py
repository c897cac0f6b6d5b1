"""One line of recorded programs, checked field by field; `traces` says what the fields mean."""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NamedTuple

from workloads.errors import TraceError

_MAX_TOKENS = 100_000_000  # no context is longer; a larger number is a mistake


class Step(NamedTuple):
    """One checked step. `acting_s` is null where the source has no time."""

    prompt: int
    new: int
    output: int
    tool: str
    acting_s: float | None
    observation: int | None


class Record(NamedTuple):
    """One checked line."""

    program_id: str
    workload: str
    task_id: str | None
    shared: int
    prepare_s: float | None
    image_bytes: int
    steps: list[Step]


def parse_record(file: str, number: int, line: bytes) -> Record:
    """Check one line. Raises TraceError naming the field."""
    try:
        raw = json.loads(line)
    except ValueError as error:
        raise TraceError(file, number, "(line)", f"no JSON ({error})", "one JSON object") from error
    read = _Reader(file, number, "", raw)
    listed = raw.get("steps")
    if not isinstance(listed, list) or not listed:
        raise TraceError(file, number, "steps", _short(listed), "a list of at least one step")
    image_mb = read.number("image_size_mb")
    return Record(
        program_id=read.text("program_id", required=True) or "",
        workload=read.text("workload") or "unnamed",
        task_id=read.text("task_id"),
        shared=read.count("shared_prefix_tokens", default=0),
        prepare_s=read.number("env_prepare_s"),
        image_bytes=round((image_mb or 0.0) * 1e6),
        steps=_steps(file, number, listed),
    )


def _steps(file: str, number: int, listed: list[Any]) -> list[Step]:
    if len(listed) > 1 and _broken_off(listed[-1]):
        listed = listed[:-1]
    steps: list[Step] = []
    total = 0
    for k, raw in enumerate(listed):
        read = _Reader(file, number, f"steps[{k}].", raw)
        step = _step(read)
        if k and step.prompt - step.new > total:
            raise read.wrong(
                "new_prompt_tokens",
                f"{step.new}: the other {step.prompt - step.new} tokens of the prompt would be reused",
                f"at least {step.prompt - total}, as the previous prompt and output are {total} tokens",
            )
        steps.append(step)
        total = step.prompt + step.output
    return steps


def _step(read: _Reader) -> Step:
    prompt, new = read.count("prompt_tokens", low=1), read.count("new_prompt_tokens")
    if new > prompt:
        raise read.wrong("new_prompt_tokens", str(new), f"at most prompt_tokens, {prompt}")
    gap = read.number("gap_s")
    observation = read.raw.get("observation_tokens")
    return Step(
        prompt=prompt,
        new=new,
        output=max(1, read.count("output_tokens")),  # an engine generates one token at the least
        tool=read.text("tool") or "tool",
        acting_s=read.number("tool_duration_s") if gap is None else gap,
        observation=None if observation is None else read.count("observation_tokens"),
    )


def _broken_off(step: Any) -> bool:
    """A last step without counts: the recording ended in the middle of it."""
    counts = ("prompt_tokens", "new_prompt_tokens", "output_tokens")
    return isinstance(step, dict) and all(key in step and step[key] is None for key in counts)


class _Reader:
    """Typed access to one JSON object; every complaint names file, line and field."""

    def __init__(self, file: str, number: int, prefix: str, raw: Any) -> None:
        self.file, self.line, self.prefix = file, number, prefix
        if not isinstance(raw, dict):
            raise TraceError(file, number, prefix.rstrip(".") or "(line)", _short(raw), "a JSON object")
        self.raw: dict[str, Any] = raw

    def wrong(self, field: str, found: str, expected: str) -> TraceError:
        return TraceError(self.file, self.line, f"{self.prefix}{field}", found, expected)

    def count(self, field: str, *, low: int = 0, default: int | None = None) -> int:
        """A whole number from `low`; missing or null is `default`, an error without one."""
        value = self.raw.get(field)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= _MAX_TOKENS:
            raise self.wrong(field, self._found(field), f"a whole number from {low} to {_MAX_TOKENS}")
        return value

    def number(self, field: str) -> float | None:
        """A number of at least 0, rounded to microseconds; null where missing."""
        value = self.raw.get(field)
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not value >= 0
            or not isfinite(value)
        ):
            raise self.wrong(field, self._found(field), "a number of at least 0")
        return round(float(value), 6)

    def text(self, field: str, *, required: bool = False) -> str | None:
        value = self.raw.get(field)
        if value is None and not required:
            return None
        if not isinstance(value, str) or not value:
            raise self.wrong(field, self._found(field), "a text")
        return value

    def _found(self, field: str) -> str:
        return _short(self.raw[field]) if field in self.raw else "missing"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

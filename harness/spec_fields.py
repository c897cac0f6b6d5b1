"""How people write the fields of a spec: durations, lists, limits. Wrong texts raise ValueError."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidatorFunctionWrapHandler

A_MONTH_S = 30 * 24 * 3600.0
RECORDED = "trace"  # arrival times: those of the workload

_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s?)?")


class Frozen(BaseModel):
    """A table of the spec: it cannot be changed, and knows all its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


def _seconds(value: object) -> object:
    """`1h`, `10m`, `1h30m`, `45s`, `45` and numbers become seconds; `inf` stays infinite."""
    if not isinstance(value, str) or value == "inf":
        return value
    match = _DURATION.fullmatch(value.strip())
    if match is None or not any(match.groups()):
        raise ValueError("a duration such as 90, 30s, 10m, 1h or 1h30m")
    hours, minutes, seconds = (float(match[part] or 0) for part in "hms")
    return hours * 3600 + minutes * 60 + seconds


def listed(value: object) -> object:
    """`24,48` and single values become lists."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",")]
    return [value] if isinstance(value, (int, float)) else value


def read_times(value: object, given: ValidatorFunctionWrapHandler) -> Any:
    """The word `trace`, or a list of times. A union type would name its branches in error messages."""
    return value if value == RECORDED else given(listed(value))


def read_limits(value: object) -> object:
    """`ttft_s:2,step_s:60` becomes a table."""
    if not isinstance(value, str):
        return value
    pairs = [part.partition(":") for part in value.split(",")]
    return {name.strip(): limit.strip() for name, _, limit in pairs}


def read_parts(value: str) -> str:
    """`1:3` or nothing."""
    if value and not re.fullmatch(r"[1-9]\d{0,2}:[1-9]\d{0,2}", value):
        raise ValueError("how many engines prefill and how many decode, such as 1:3")
    return value


Seconds = Annotated[float, BeforeValidator(_seconds)]

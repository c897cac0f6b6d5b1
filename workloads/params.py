"""Parameters of workloads: frozen dataclasses whose fields are set by dotted names.

A field is declared with `param`, which keeps its meaning, unit, source and limits beside its default;
a field that is itself such a dataclass is a group. `steps.median=60` sets `median` in the group `steps`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import Field, field, fields, is_dataclass, replace
from difflib import get_close_matches
from math import inf, isfinite
from typing import Any, NamedTuple, TypeVar

from workloads.errors import WorkloadError, nearest_hint

Params = TypeVar("Params")
Scalar = int | float | bool | str

_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Described(NamedTuple):
    """One parameter as `show` prints it."""

    name: str
    value: Scalar
    unit: str
    meaning: str
    source: str


def param(
    default: Scalar, meaning: str, *, unit: str = "", source: str = "", low: float = 0.0, high: float = inf
) -> Any:
    """A dataclass field with its meaning, unit and source; numbers lie in [low, high]."""
    about = {"meaning": meaning, "unit": unit, "source": source, "low": low, "high": high}
    return field(default=default, metadata=about)


def override(params: Params, overrides: Mapping[str, str]) -> Params:
    """`params` with the named fields set.

    Raises WorkloadError, naming the known and the nearest fields, for an unknown name, and for a value
    that is no number of the field's type or lies outside its limits.
    """
    known = {name: (spec, value) for name, spec, value in _leaves(params, "")}
    values: dict[str, Scalar] = {}
    for name, text in overrides.items():
        if name not in known:
            raise WorkloadError(
                f"no parameter is called {name!r}",
                f"one of {', '.join(known)}" if known else "none: this workload has no parameters",
                nearest_hint(get_close_matches(name, known, n=3, cutoff=0.6)),
            )
        values[name] = _parse(*known[name], name, text)
    changed: Params = _rebuilt(params, "", values)
    return changed


def describe_params(params: object) -> Iterator[Described]:
    """All parameters, groups opened into dotted names."""
    for name, spec, value in _leaves(params, ""):
        about = spec.metadata
        yield Described(
            name, value, about.get("unit", ""), about.get("meaning", ""), about.get("source", "")
        )


def flat(params: object) -> dict[str, Scalar]:
    """The parameters as a JSON-able mapping of dotted names."""
    return {name: value for name, _, value in _leaves(params, "")}


def _leaves(params: object, prefix: str) -> Iterator[tuple[str, Field[Any], Scalar]]:
    for spec in fields(params):  # type: ignore[arg-type]  # only dataclasses are passed
        value = getattr(params, spec.name)
        if is_dataclass(value):
            yield from _leaves(value, f"{prefix}{spec.name}.")
        else:
            yield f"{prefix}{spec.name}", spec, value


def _rebuilt(params: Any, prefix: str, values: Mapping[str, Scalar]) -> Any:
    """`params` with all `values` set at once, so that checks across fields see only the outcome."""
    changes: dict[str, Any] = {}
    for spec in fields(params):
        name, old = f"{prefix}{spec.name}", getattr(params, spec.name)
        changes[spec.name] = (
            _rebuilt(old, f"{name}.", values) if is_dataclass(old) else values.get(name, old)
        )
    return replace(params, **changes)


def _parse(spec: Field[Any], old: Scalar, name: str, text: str) -> Scalar:
    if isinstance(old, bool):
        if text.lower() not in _FLAGS:
            raise WorkloadError(f"{name}={text}", "true or false")
        return _FLAGS[text.lower()]
    if isinstance(old, str):
        return text
    kind = "a whole number" if isinstance(old, int) else "a number"
    low, high = spec.metadata.get("low", 0.0), spec.metadata.get("high", inf)
    limits = f"{kind} from {low:g}" + (f" to {high:g}" if isfinite(high) else "")
    expected = f"{limits} {spec.metadata.get('unit', '')}".rstrip()
    try:
        value = type(old)(text)
    except ValueError:
        raise WorkloadError(f"{name}={text}", expected) from None
    if not (isfinite(value) and low <= value <= high):
        raise WorkloadError(f"{name}={text}", expected)
    return value

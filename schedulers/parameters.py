"""A policy's `Config` from text: `--set thunder.delta_t_s=2` and the like."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from schedulers.errors import BadConfig, nearest

_TRUTHS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def parse_config(policy: str, config: type[Any], overrides: Mapping[str, str]) -> Any:
    """An instance of the dataclass `config` with `overrides` read as the types of their fields.

    Fields may be int, float, bool, str, Enum, Literal, or one of these or None. Raises `BadConfig` for
    an unknown field, a text that is no such value, or a value that `config` itself refuses.
    """
    fields = [field.name for field in dataclasses.fields(config) if field.init]
    for name in overrides:
        if name not in fields:
            raise BadConfig(
                f"{policy} has no parameter {name!r}",
                f"one of {', '.join(fields)}" if fields else "none, it has no parameters",
                nearest(name, fields),
            )
    hints = get_type_hints(config)
    values = {name: _parse(policy, name, hints[name], text) for name, text in overrides.items()}
    try:
        return config(**values)
    except BadConfig as error:
        raise BadConfig(f"{policy}.{error.found}", error.expected, error.fix) from error
    except (TypeError, ValueError) as error:
        raise BadConfig(
            f"{policy} refuses its parameters", "a Config that takes them", str(error)
        ) from error


def _parse(policy: str, name: str, kind: Any, text: str) -> Any:
    if get_origin(kind) in (Union, UnionType):
        kinds = [one for one in get_args(kind) if one is not NoneType]
        if NoneType in get_args(kind) and text.strip().lower() in ("none", "null", ""):
            return None
        if len(kinds) == 1:
            return _parse(policy, name, kinds[0], text)
    choices = _choices(kind)
    if choices is not None:
        return _choose(policy, name, choices, text.lower() if kind is bool else text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError as error:
            what = "a whole number" if kind is int else "a number"
            raise BadConfig(f"{policy}.{name} = {text!r}", what) from error
    if kind is str:
        return text
    raise BadConfig(
        f"{policy}.{name} is a {kind}", "a parameter that text can give: a number, a word, a flag"
    )


def _choices(kind: Any) -> Mapping[str, Any] | None:
    """The words that stand for values of a type with few values; null for other types."""
    if get_origin(kind) is Literal:
        return {str(value): value for value in get_args(kind)}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {str(member.value): member for member in kind}
    return _TRUTHS if kind is bool else None


def _choose(policy: str, name: str, choices: Mapping[str, Any], text: str) -> Any:
    if text not in choices:
        raise BadConfig(
            f"{policy}.{name} = {text!r}", f"one of {', '.join(choices)}", nearest(text, list(choices))
        )
    return choices[text]

"""Hypothesis strategies made from the annotations of rows, events and actions."""

from dataclasses import fields
from types import NoneType, UnionType
from typing import Annotated, Union, get_args, get_origin, get_type_hints

from hypothesis import strategies as st

from harness.decisions import ACTIONS, EVENTS

_PLAIN = {
    int: st.integers(-(2**63), 2**63 - 1),
    float: st.floats(allow_nan=False),
    str: st.text(),
    bool: st.booleans(),
}


def values(annotation):
    """Values of an annotation of `harness.rows` or `schedulers.contract`."""
    if get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    if get_origin(annotation) in {UnionType, Union}:
        inner = [part for part in get_args(annotation) if part is not NoneType]
        return st.none() | st.one_of([_PLAIN[part] for part in inner])
    return _PLAIN[annotation]


def rows(row_type):
    """Rows of a NamedTuple of `harness.rows`."""
    hints = get_type_hints(row_type, include_extras=True)
    return st.builds(row_type, *(values(hint) for hint in hints.values()))


def made(cls):
    """Instances of an event or action."""
    hints = get_type_hints(cls)
    return st.builds(cls, **{field.name: values(hints[field.name]) for field in fields(cls)})


events = st.one_of([made(cls) for cls in EVENTS])
actions = st.one_of([made(cls) for cls in ACTIONS])

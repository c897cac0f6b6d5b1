from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedulers.contract import NoConfig
from schedulers.errors import BadConfig
from schedulers.parameters import parse_config


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Config:
    share: float = 0.5
    count: int = 3
    on: bool = False
    word: str = "x"
    colour: Colour = Colour.RED
    mode: Literal["a", "b", 3] = "a"
    limit: float | None = None
    table: tuple[int, ...] = ()

    def __post_init__(self):
        if self.count > 100:
            raise ValueError("count is too large")


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("share", "1e-3", 0.001),
        ("count", "7", 7),
        ("on", "True", True),
        ("on", "0", False),
        ("word", "1.0", "1.0"),
        ("colour", "blue", Colour.BLUE),
        ("mode", "3", 3),
        ("limit", "2", 2.0),
        ("limit", "none", None),
    ],
)
def test_text_becomes_the_type_of_its_field(field, text, value):
    config = parse_config("mine", Config, {field: text})
    assert getattr(config, field) == value
    assert type(getattr(config, field)) is type(value)


@pytest.mark.parametrize(
    ("field", "text", "says"),
    [
        ("share", "much", "mine.share = 'much'; expected a number"),
        ("count", "1.5", "mine.count = '1.5'; expected a whole number"),
        ("on", "maybe", "mine.on = 'maybe'; expected one of true, yes"),
        ("colour", "bleu", "mine.colour = 'bleu'; expected one of red, blue. Did you mean 'blue'?"),
        ("mode", "c", "mine.mode = 'c'; expected one of a, b, 3"),
        ("table", "1,2", "mine.table is a tuple"),
        ("shares", "1", "mine has no parameter 'shares'; expected one of share, count"),
        (
            "count",
            "101",
            "mine refuses its parameters; expected a Config that takes them. count is too large",
        ),
    ],
)
def test_what_does_not_fit_is_named(field, text, says):
    with pytest.raises(BadConfig) as caught:
        parse_config("mine", Config, {field: text})
    assert str(caught.value).startswith(says)


def test_a_policy_without_parameters_says_so():
    assert parse_config("mine", NoConfig, {}) == NoConfig()
    with pytest.raises(BadConfig, match="expected none, it has no parameters"):
        parse_config("mine", NoConfig, {"x": "1"})


@given(share=st.floats(allow_nan=False), count=st.integers(-100, 100), on=st.booleans())
def test_written_out_and_read_back_is_the_same(share, count, on):
    text = {"share": repr(share), "count": str(count), "on": str(on)}
    assert parse_config("mine", Config, text) == Config(share, count, on)

from dataclasses import dataclass, field

import pytest

from workloads.errors import WorkloadError
from workloads.params import Described, describe_params, flat, override, param


@dataclass(frozen=True)
class Group:
    median: float = param(77.0, "how many", unit="calls", source="a paper", low=1, high=1000)
    limit: int = param(250, "at most", low=1)


@dataclass(frozen=True)
class Ends:
    low: float = param(1.0, "lower end")
    high: float = param(2.0, "upper end")

    def __post_init__(self):
        if self.high < self.low:
            raise WorkloadError(f"ends {self.low} and {self.high}", "a rise")


@dataclass(frozen=True)
class Settings:
    steps: Group = field(default_factory=Group)
    shuffle: bool = param(default=True, meaning="whether")
    label: str = param("x", "what")


def test_dotted_names_set_fields_of_their_type():
    changed = override(
        Settings(), {"steps.median": "60", "steps.limit": "5", "shuffle": "False", "label": "y"}
    )
    assert changed == Settings(Group(60.0, 5), shuffle=False, label="y")
    assert flat(changed) == {"steps.median": 60.0, "steps.limit": 5, "shuffle": False, "label": "y"}


def test_description_has_meaning_unit_and_source():
    assert next(describe_params(Settings())) == Described(
        "steps.median", 77.0, "calls", "how many", "a paper"
    )


def test_an_unknown_name_lists_the_known_and_the_nearest():
    with pytest.raises(WorkloadError) as caught:
        override(Settings(), {"step.median": "3"})
    assert str(caught.value) == (
        "no parameter is called 'step.median'; expected one of steps.median, steps.limit, shuffle, label. "
        "Did you mean steps.median?"
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("steps.median", "-1"),
        ("steps.median", "1e9"),
        ("steps.median", "nan"),
        ("steps.median", "inf"),
        ("steps.median", "many"),
        ("steps.limit", "2.5"),
        ("steps.limit", "0"),
        ("shuffle", "perhaps"),
    ],
)
def test_absurd_values_are_refused_by_name(name, text):
    with pytest.raises(WorkloadError, match=f"{name}={text}; expected"):
        override(Settings(), {name: text})


def test_a_group_is_not_a_parameter():
    with pytest.raises(WorkloadError, match="no parameter is called 'steps'"):
        override(Settings(), {"steps": "3"})


def test_checks_across_fields_see_all_overrides_at_once():
    both = {"low": "5", "high": "6"}
    assert override(Ends(), both) == Ends(5.0, 6.0)
    with pytest.raises(WorkloadError, match="a rise"):
        override(Ends(), {"low": "5"})

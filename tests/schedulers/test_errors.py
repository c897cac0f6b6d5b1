import pytest

from schedulers.errors import (
    BadConfig,
    PolicyError,
    SchedulerSetupError,
    UnknownScheduler,
    nearest,
    require,
)


def test_a_policy_error_tells_event_program_state_reason_and_story():
    error = PolicyError("Fact", "p1", "new", "too early", ["0.0 s: A", "1.0 s: B"])
    assert str(error) == "'Fact' refused: too early; p1 is new\n  0.0 s: A\n  1.0 s: B"
    assert (error.event, error.program, error.state, error.reason) == ("Fact", "p1", "new", "too early")


def test_a_set_up_error_says_found_expected_and_fix():
    assert str(UnknownScheduler("x", "y", "Do z.")) == "x; expected y. Do z."
    assert str(BadConfig("x", "y")) == "x; expected y"
    assert (BadConfig.exit_code, PolicyError.exit_code) == (2, 1)
    assert issubclass(BadConfig, SchedulerSetupError)


def test_nearest_points_at_a_similar_name_only():
    assert nearest("thundr", ["vllm", "thunder"]) == "Did you mean 'thunder'?"
    assert nearest("quux", ["vllm", "thunder"]) == ""


def test_require_names_field_and_value():
    require("a", 1, ok=True, expected="more")
    with pytest.raises(BadConfig, match="a = -1; expected more"):
        require("a", -1, ok=False, expected="more")

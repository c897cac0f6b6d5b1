import pickle

import pytest

from workloads.errors import TraceError, UnknownWorkload, WorkloadError


def test_text_says_found_expected_and_fix():
    assert (
        str(WorkloadError("7 apples", "at most 5", "Eat two.")) == "7 apples; expected at most 5. Eat two."
    )
    assert str(WorkloadError("7 apples", "at most 5")) == "7 apples; expected at most 5"


def test_unknown_workload_lists_known_and_nearest():
    error = UnknownWorkload("swe-lit", ["swe-lite", "other"])
    assert error.nearest == ("swe-lite",)
    assert "one of other, swe-lite, trace:FILE or module:Class" in str(error)
    assert str(error).endswith("Did you mean swe-lite?")


def test_trace_error_names_file_line_and_field():
    error = TraceError("runs.jsonl", 3, "steps[2].output_tokens", "-1", "a whole number from 0")
    assert (
        str(error) == "runs.jsonl, line 3, field steps[2].output_tokens: -1; expected a whole number from 0"
    )


@pytest.mark.parametrize(
    "error", [WorkloadError("a", "b", "c"), UnknownWorkload("a", ["b"]), TraceError("f", 1, "x", "y", "z")]
)
def test_errors_cross_processes_with_their_text(error):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert isinstance(copy, WorkloadError)
    assert str(copy) == str(error)

"""Body before headers, headers in order, and families of sessions as one program."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import SetupError
from harness.live.identity import DEFAULT_HEADERS, IdentityRules, validated_header


def session(name, parent=None, *, final=None):
    """The headers of a request of a session."""
    told = {"x-dynamo-session-id": name}
    if parent is not None:
        told["x-dynamo-parent-session-id"] = parent
    if final is not None:
        told["x-dynamo-session-final"] = final
    return told


def test_the_body_comes_before_every_header():
    assert IdentityRules().identify({"X-Program-Id": "h"}, "b") == ("b", False, None)


def test_headers_count_in_the_order_of_the_list():
    rules = IdentityRules()
    headers = {name: f"from {name}" for name in reversed(DEFAULT_HEADERS)}
    found = []
    for name in DEFAULT_HEADERS:
        found.append(rules.identify(headers, None).program_id)
        del headers[name]
    assert found == [f"from {name}" for name in DEFAULT_HEADERS]
    assert rules.identify(headers, None) == (None, False, None)


def test_header_names_have_no_case_and_can_be_chosen():
    rules = IdentityRules(headers=["X-Task"])
    assert rules.identify({"x-tASK": "t", "X-Program-Id": "p"}, None).program_id == "t"


def test_of_a_repeated_header_the_first_counts():
    class Repeated(dict):
        def items(self):
            return [("X-Program-Id", "first"), ("x-program-id", "second")]

    assert IdentityRules().identify(Repeated(), None).program_id == "first"


@pytest.mark.parametrize("bad", ["", "  ", "x" * 257, "a\nb", "a\x00", "\udcff"])
def test_an_id_that_cannot_be_one_counts_as_absent(bad):
    rules = IdentityRules()
    assert rules.identify({"X-Program-Id": bad, "X-Session-Id": "s"}, bad).program_id == "s"
    assert rules.identify({"X-Program-Id": bad}, None) == (None, False, None)


def test_ids_are_stripped_and_may_have_256_characters():
    assert IdentityRules().identify({}, f" {'x' * 256}\t").program_id == "x" * 256


def test_a_session_with_a_parent_belongs_to_the_root_of_its_chain():
    rules = IdentityRules()
    assert rules.identify(session("root"), None) == ("root", False, None)
    assert rules.identify(session("child", "root"), None) == ("root", False, "root")
    assert rules.identify(session("grandchild", "child"), None) == ("root", False, "child")


def test_a_parent_once_told_is_remembered():
    rules = IdentityRules()
    rules.identify(session("child", "root"), None)
    assert rules.identify(session("child"), None) == ("root", False, None)


def test_a_parent_that_turns_out_to_have_one_takes_its_children_along():
    rules = IdentityRules()
    assert rules.identify(session("grandchild", "child"), None).program_id == "child"
    assert rules.identify(session("child", "root"), None).program_id == "root"
    assert rules.identify(session("grandchild"), None).program_id == "root"


def test_only_the_root_ends_the_program():
    rules = IdentityRules()
    assert rules.identify(session("child", "root", final="true"), None) == ("root", False, "root")
    assert rules.identify(session("child", final="1"), None) == ("root", False, None)
    assert rules.identify(session("root", final=" True"), None) == ("root", True, None)
    assert rules.identify(session("root", final="false"), None) == ("root", False, None)
    assert rules.identify({"x-dynamo-session-final": "1"}, None) == (None, False, None)


def test_a_parent_is_taken_from_whatever_header_named_the_session():
    found = IdentityRules().identify({"X-Session-Id": "s", "x-dynamo-parent-session-id": "r"}, None)
    assert found == ("r", False, "r")


def test_a_program_named_beside_the_session_needs_no_chain():
    rules = IdentityRules()
    assert rules.identify(session("s", "r"), "p") == ("p", False, "r")
    assert rules.identify({"X-Program-Id": "p"} | session("s", "r"), None).program_id == "p"
    assert rules.identify(session("s", "r"), "s") == ("r", False, "r")


def test_parents_in_a_ring_leave_the_last_a_root():
    rules = IdentityRules()
    assert rules.identify(session("a", "b"), None).program_id == "b"
    assert rules.identify(session("b", "a"), None).program_id == "b"
    assert rules.identify(session("b", "b", final="1"), None) == ("b", True, "b")


def test_memory_is_bounded_and_keeps_those_heard_of_last():
    rules = IdentityRules(known=2)
    for child in ("a", "b", "a", "c"):
        rules.identify(session(child, "root"), None)
    assert [rules.identify(session(child), None).program_id for child in "abc"] == ["root", "b", "root"]


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.none() | st.sampled_from("abcdef")), max_size=40),
    st.integers(1, 6),
)
def test_any_order_of_parents_ends_at_a_root_within_the_bound(told, known):
    """A program found for a session is a root: asked for itself it answers itself."""
    rules = IdentityRules(known=known)
    for child, parent in told:
        root = rules.identify(session(child, parent), None).program_id
        assert rules.identify(session(root), None).program_id == root
        assert len(rules._roots) <= known


def test_a_name_that_no_header_can_have_is_refused():
    assert validated_header("X-My_Header.1") == "X-My_Header.1"
    for name in ("", "a b", "a:b", "\u00e4", "a\n"):
        with pytest.raises(SetupError, match="header name"):
            validated_header(name)
    with pytest.raises(SetupError, match="header name 'a b'"):
        IdentityRules(headers=["a b"])

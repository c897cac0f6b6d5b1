import pytest

from workloads.check import check
from workloads.errors import WorkloadError
from workloads.model import Call, Program, Segment, SegmentKind, ToolRun
from workloads.swe_lite import SweLite


def part(key, tokens=3):
    return Segment(key, SegmentKind.TASK, tokens)


def call(name, parent=None, after=(), new=None, output=1, tools=()):
    return Call(
        name, parent, (part(f"{name}/new"),) if new is None else new, part("o", output), after, tools
    )


def test_what_can_be_played_comes_back_as_it_is():
    tree = Program(
        "p",
        (
            call("a"),
            call("b", "a", ("a",)),
            call("c", "a", ("a",)),
            call("d", "a", ("b", "c"), new=()),  # waits for its parent through others
        ),
    )
    assert check(tree) is tree
    for index in range(3):
        check(SweLite().program(index))


@pytest.mark.parametrize(
    ("calls", "words"),
    [
        ((), "program 'p' has no calls"),
        ((call("a"), call("a")), "call 'a' of 'p': its id is there twice"),
        ((call("a", after=("b",)), call("b")), "it comes after 'b'"),
        ((call("a", parent="x"),), "its parent 'x' need not have ended"),
        ((call("a"), call("b", parent="a")), "its parent 'a' need not have ended"),
        ((call("a", new=()),), "its prompt is empty"),
        ((call("a", new=(part("k", 0),)),), "segment 'k' of 0 tokens"),
        ((call("a", output=0),), "segment 'o' of 0 tokens"),
        ((call("a", tools=(ToolRun("t", float("nan"), 1),)),), "tool 't' of nan s"),
    ],
)
def test_what_nobody_can_play_is_named(calls, words):
    with pytest.raises(WorkloadError, match=words):
        check(Program("p", calls))

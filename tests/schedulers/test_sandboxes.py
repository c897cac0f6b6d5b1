import pytest

from schedulers.contract import PrepareSandbox, ProgramArrived, ReclaimSandbox
from schedulers.sandboxes import SandboxBook


def test_prepared_once_and_reclaimed_once():
    book = SandboxBook()
    book.arrive(ProgramArrived("a", needs_sandbox=True))
    assert [book.prepare("a"), book.prepare("a")] == [[PrepareSandbox("a")], []]
    assert [book.reclaim("a"), book.reclaim("a")] == [[ReclaimSandbox("a")], []]
    book.check_invariants(())


def test_who_needs_none_or_never_got_one_has_nothing_to_reclaim():
    book = SandboxBook()
    book.arrive(ProgramArrived("a", needs_sandbox=False))
    book.arrive(ProgramArrived("b", needs_sandbox=True))
    assert [book.prepare("a"), book.reclaim("a"), book.reclaim("b")] == [[], [], []]
    assert not book.lacking


def test_a_sandbox_of_nobody_is_found():
    book = SandboxBook()
    book.arrive(ProgramArrived("a", needs_sandbox=True))
    with pytest.raises(AssertionError, match="who is not there"):
        book.check_invariants(())

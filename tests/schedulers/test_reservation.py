from schedulers.ledger import Account, OpenCall, ProgramEntry
from schedulers.reservation import Reservation

SMALL, LARGE = Account("r0", 0, 500), Account("r1", 1, 1000)


def waiting(name, tokens, since=0.0, *, calls=True):
    entry = ProgramEntry(name, 0, needs_sandbox=False, phase_since=since, context_tokens=tokens)
    if calls:
        entry.calls["c"] = OpenCall("c", entry, tokens)
    return entry


def test_oversize_is_what_the_largest_replica_cannot_hold():
    reservation = Reservation(0.9)
    assert not reservation.oversize(waiting("a", 900), [SMALL, LARGE])
    assert reservation.oversize(waiting("a", 901), [SMALL, LARGE])
    assert not reservation.oversize(waiting("a", 901), [])


def test_the_longest_waiting_one_reserves_the_largest_replica_until_its_turn_is_over():
    reservation = Reservation(1.0)
    first, second = waiting("first", 3000, 1.0), waiting("second", 2000, 2.0)
    queue = [second, first, waiting("idle", 4000, 0.0, calls=False), waiting("small", 10)]
    reservation.review(queue, [SMALL, LARGE])
    assert (reservation.program, reservation.account) == (first, LARGE)
    assert reservation.claim() == (first, LARGE)
    assert (reservation.claim(), reservation.account) == (None, None)
    reservation.review([second], [SMALL, LARGE])
    assert reservation.program is first
    reservation.end(second)
    assert reservation.program is first
    reservation.end(first)
    reservation.review([second], [SMALL, LARGE])
    assert reservation.program is None  # ordinary programs come first once
    reservation.review([second], [SMALL, LARGE])
    assert reservation.program is second


def test_nothing_is_claimed_while_somebody_is_left():
    reservation = Reservation(1.0)
    busy = Account("r0", 0, 100, residents={"x": waiting("x", 5)})
    reservation.review([waiting("big", 101)], [busy])
    assert reservation.claim() is None
    busy.residents.clear()
    assert reservation.claim() is not None


def test_it_ends_with_the_need_the_calls_or_the_replica():
    for cause in ("shrunk", "gave up", "lost"):
        reservation, big = Reservation(1.0), waiting("big", 1001)
        reservation.review([big], [LARGE])
        if cause == "shrunk":
            big.context_tokens = 1000
            reservation.review([], [LARGE])
        elif cause == "gave up":
            big.calls.clear()
            reservation.review([big], [LARGE])
        else:
            reservation.lose(SMALL)
            assert reservation.program is big
            reservation.lose(LARGE)
        assert (reservation.program, reservation.account) == (None, None)

from schedulers.ledger import Account, ProgramEntry
from schedulers.routing import ROUTERS, LeastLoaded, RoundRobin, Session


def accounts(*calls):
    return [Account(f"r{i}", i, 100, calls=n) for i, n in enumerate(calls)]


ENTRY = ProgramEntry("p", 0, needs_sandbox=False, phase_since=0.0)


def test_least_loaded_takes_the_fewest_calls_then_the_first():
    assert LeastLoaded().choose(ENTRY, accounts(2, 1, 1)).name == "r1"
    assert LeastLoaded().choose(ENTRY, accounts(5)).name == "r0"


def test_round_robin_goes_around_and_survives_replicas_that_come_and_go():
    router, three = RoundRobin(), accounts(0, 0, 0)
    assert [router.choose(ENTRY, three).name for _ in range(4)] == ["r0", "r1", "r2", "r0"]
    assert router.choose(ENTRY, [three[0], three[2]]).name == "r2"
    assert router.choose(ENTRY, [three[0], three[2]]).name == "r0"


def test_session_keeps_a_program_where_it_is():
    three = accounts(1, 0, 9)
    placed = ProgramEntry("p", 0, needs_sandbox=False, phase_since=0.0, account=three[2])
    assert Session().choose(placed, three) is three[2]
    assert Session().choose(ENTRY, three) is three[1]


def test_the_names_users_give():
    assert list(ROUTERS) == ["least-loaded", "round-robin", "session"]

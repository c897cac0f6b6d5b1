"""Orders go to the engine that has the context, and nowhere where there is none."""

from harness.live.engine_orders import order
from schedulers.contract import Evict, Pin, Retain, Unpin
from tests.harness.live.test_driver import Hooks

REPLICAS = ("r0", "r1")
ORDERS = (Pin("p", 9.0), Evict("p", 5), Retain("p", "task", 1, 3.0))


def sent(action, last_replica, now=4.0):
    hooks = Hooks()
    order(hooks, action, last_replica, REPLICAS, now)
    return hooks.sent


def test_an_order_goes_where_the_program_last_ran():
    assert [sent(action, "r1") for action in ORDERS] == [
        [("pin", "r1", "p", 5.0, {"yields": False})],
        [("evict", "r1", "p", 5)],
        [("retain", "r1", "p", "task", 1, 3.0)],
    ]
    assert sent(Unpin("p"), "r1") == [("unpin", "r1", "p")]


def test_a_pin_whose_time_has_passed_is_over_at_once():
    assert sent(Pin("p", 1.0), "r0") == [("pin", "r0", "p", 0.0, {"yields": False})]


def test_a_program_without_a_context_has_nothing_to_keep():
    for nowhere in (None, "", "gone"):
        assert [sent(action, nowhere) for action in ORDERS] == [[], [], []]


def test_the_pin_of_a_program_that_is_over_may_be_anywhere():
    assert sent(Unpin("p"), None) == [("unpin", "r0", "p"), ("unpin", "r1", "p")]
    assert sent(Unpin("p"), "gone") == []

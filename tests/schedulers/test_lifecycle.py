import pytest

from schedulers.errors import PolicyError
from schedulers.lifecycle import TABLE, Phase, State, Status, Step, advance


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("step", Step)
def test_a_pair_is_either_in_the_table_or_raises_naming_state_step_and_story(state, step):
    if step in TABLE[state]:
        assert advance(state, step) is TABLE[state][step]
        return
    with pytest.raises(PolicyError) as caught:
        advance(state, step, event="the fact", program="p1", story=["0.0 s: it arrived"])
    for said in (state, step, "the fact", "p1", "0.0 s: it arrived"):
        assert str(said) in str(caught.value)


def test_the_last_call_makes_a_program_acting_whatever_its_status():
    assert advance(State.REASONING_ACTIVE, Step.LAST_CALL_ENDED) is State.ACTING_ACTIVE
    assert advance(State.REASONING_PAUSED, Step.LAST_CALL_ENDED) is State.ACTING_PAUSED
    assert advance(State.REASONING_ACTIVE, Step.CALL_ENDED) is State.REASONING_ACTIVE


def test_pausing_and_resuming_keep_the_phase():
    for state in State:
        for step in (Step.PAUSED, Step.RESUMED, Step.REPLICA_LOST):
            if step in TABLE[state]:
                assert TABLE[state][step].phase is state.phase


def test_a_program_can_finish_in_every_state_but_the_last():
    finishing = [state for state in State if Step.RELEASED in TABLE[state]]
    assert finishing == [state for state in State if state is not State.TERMINATED]
    assert set(TABLE[State.TERMINATED].values()) == {State.TERMINATED}


def test_every_state_can_be_reached_from_new():
    reached, todo = {State.NEW}, [State.NEW]
    while todo:
        for after in TABLE[todo.pop()].values():
            if after not in reached:
                reached.add(after)
                todo.append(after)
    assert reached == set(State)


def test_phase_and_status_of_each_state():
    assert (State.NEW.phase, State.NEW.status) == (None, None)
    assert (State.TERMINATED.phase, State.TERMINATED.status) == (None, Status.TERMINATED)
    pairs = {(s.phase, s.status) for s in State if s.phase is not None}
    assert pairs == {(p, s) for p in Phase for s in (Status.ACTIVE, Status.PAUSED)}

"""The lockstep batch against counting request by request."""

from hypothesis import given
from hypothesis import strategies as st

from harness.virtual.batch import Batch, Live
from harness.virtual.engine import EngineRequest, Piece


def live(order: int, prompt: int, output: int, generated: int = 1) -> Live:
    """A request whose prefill is done and that has generated `generated` of its output tokens."""
    request = EngineRequest(str(order), (Piece(str(order), prompt),), Piece("out", output))
    request.prompt_tokens = prompt
    one = Live(request, [])
    one.order = order
    one.length = prompt + generated
    one.computed = one.length - 1
    return one


requests = st.lists(st.tuples(st.integers(1, 60), st.integers(2, 40)), min_size=1, max_size=6)


@given(st.integers(1, 17), requests, st.integers(0, 30))
def test_blocks_and_context_are_those_of_the_requests(block, sizes, before):
    batch = Batch(block)
    batch.advance(before)
    lives = [live(i, prompt, output) for i, (prompt, output) in enumerate(sizes)]
    for one in lives:
        batch.join(one)
    shortest = min(output for _, output in sizes) - 1
    for steps in range(shortest + 1):
        need = sum(-(-(p + steps) // block) - -(-p // block) for p, _ in sizes)
        assert batch.blocks_for(steps) == need
        assert batch.run(free=need) <= shortest
        if batch.run(free=need) < shortest:
            assert batch.blocks_for(batch.run(free=need)) <= need
            assert batch.blocks_for(batch.run(free=need) + 1) > need
    batch.advance(shortest)
    assert batch.context == sum(p + shortest for p, _ in sizes)
    ended = batch.ended()
    assert [one.order for one in ended] == [
        i for i, (_, output) in enumerate(sizes) if output == shortest + 1
    ]
    for one in ended:
        assert one.length == one.request.prompt_tokens + one.request.output.tokens
        assert one.computed == one.length - 1
        assert one.last_step == -1
    assert batch.size == len(sizes) - len(ended)


def test_who_parts_and_joins_again_is_not_ended_by_its_old_entry():
    batch = Batch(4)
    one = live(1, 10, 5)
    batch.join(one)
    batch.advance(2)
    batch.part(one)
    batch.advance(1)  # sits a step out
    batch.join(one)
    batch.advance(1)
    assert batch.ended() == []
    batch.advance(1)
    assert batch.ended() == [one]
    assert one.length == 15


def test_an_empty_batch_runs_nowhere():
    assert Batch(16).run(free=100) == 0

"""An excerpt says what a few programs did, and nothing that the tables do not say."""

import numpy as np
import pyarrow as pa

from harness.rows import CallRow
from reports.spans import CALLS, LENGTH_S, PROGRAMS, ExcerptMaker, Span
from tests.harness.results import as_table, call

WINDOW = (10.0, 110.0)
NAN = float("nan")


def excerpt(programs, calls=(), window=WINDOW, part=1000):
    """`programs`: (name, arrived, finished, worst wait)."""
    maker = ExcerptMaker(window)
    names, *columns = zip(*programs, strict=True)
    maker.programs(pa.array(names), *(np.array(column, dtype=float) for column in columns))
    for batch in as_table(CallRow, calls).to_batches(max_chunksize=part):
        maker.calls(batch)
    return maker.finish()


def test_a_step_is_paused_waiting_reasoning_acting():
    one = call(20.0, hold=1.0, queue=2.0, prefill=3.0, decode=4.0, sandbox=5.0, tool=6.0)
    found = excerpt([("p0", 15.0, 41.0, 3.0)], [one])
    assert found.spans == [
        Span("p0", "paused", 20.0, 21.0),
        Span("p0", "waiting", 21.0, 23.0),
        Span("p0", "reasoning", 23.0, 30.0),
        Span("p0", "acting", 30.0, 41.0),
    ]


def test_what_nobody_told_belongs_to_the_next_state_that_is_known():
    """A server does not say when it scheduled, a gateway of somebody else's not even when it dispatched."""
    ours = call(20.0, hold=1.0, queue=2.0, prefill=3.0, decode=4.0, tool=6.0)._replace(scheduled_s=None)
    theirs = ours._replace(dispatched_s=None)
    found = excerpt([("p0", 20.0, 36.0, 3.0)], [ours])
    assert found.spans == [
        Span("p0", "paused", 20.0, 21.0),
        Span("p0", "reasoning", 21.0, 30.0),
        Span("p0", "acting", 30.0, 36.0),
    ]
    found = excerpt([("p0", 20.0, 36.0, 3.0)], [theirs])
    assert found.spans == [Span("p0", "reasoning", 20.0, 30.0), Span("p0", "acting", 30.0, 36.0)]


def test_spans_are_cut_at_the_edges():
    calls = [call(0.0, hold=5.0, decode=20.0), call(100.0, decode=50.0)]
    found = excerpt([("p0", 0.0, NAN, 5.0)], calls)
    assert found.spans == [
        Span("p0", "reasoning", 10.0, 25.0),
        Span("p0", "reasoning", 100.0, 110.0),
    ]


def test_a_step_that_never_ended_is_open_until_the_excerpt_ends():
    found = excerpt([("p0", 0.0, NAN, 90.0)], [call(5.0, decode=15.0)])
    assert found.spans == [Span("p0", "reasoning", 10.0, 20.0), Span("p0", "open", 20.0, 110.0)]


def test_programs_are_at_even_ranks_of_their_longest_wait():
    programs = [(f"p{i:02}", 0.0, NAN, float(i)) for i in range(91)]
    found = excerpt(programs)
    assert len(found.programs) == PROGRAMS
    assert found.programs == [f"p{90 - 10 * rank:02}" for rank in range(10)]
    assert found.there == 91


def test_programs_that_were_not_there_are_left_out():
    found = excerpt([("before", 0.0, 9.0, 1.0), ("there", 0.0, 10.5, 1.0), ("after", 110.0, NAN, 1.0)])
    assert (found.programs, found.there) == (["there"], 1)


def test_an_excerpt_is_as_long_as_its_limit_at_most():
    found = excerpt([("p0", 0.0, NAN, 1.0)], window=(10.0, 4000.0))
    assert (found.start_s, found.end_s) == (10.0, 10.0 + LENGTH_S)


def test_many_short_steps_end_the_excerpt_early_and_keep_it_small():
    calls = [call(10.0 + 0.1 * i, decode=0.1, call_id=str(i)) for i in range(2 * CALLS)]
    whole = excerpt([("p0", 0.0, NAN, 1.0)], calls, window=(10.0, 1000.0))
    assert whole.end_s == 10.0 + 0.1 * CALLS + 0.1
    assert len(whole.spans) == CALLS + 1
    assert excerpt([("p0", 0.0, NAN, 1.0)], calls, window=(10.0, 1000.0), part=7) == whole

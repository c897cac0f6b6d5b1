"""Plans: the end of every step and the step in progress, against adding up step by step."""

from math import inf, isclose

from hypothesis import given
from hypothesis import strategies as st

from harness.virtual.plan import Plan


@st.composite
def plans(draw):
    plan = Plan()
    steps = draw(st.integers(1, 200))
    base = draw(st.floats(1e-4, 1.0))
    slope = draw(st.sampled_from([0.0, 1e-9, 1e-6, 1e-4]))
    context, batch = draw(st.integers(1, 10**6)), draw(st.integers(1, 500))
    start = draw(st.floats(0, 1e4))
    plan.many(start, steps, base, slope, context, batch)
    ends, now = [], start
    for i in range(steps):
        now += base + slope * (context + batch * i)
        ends.append(now)
    return plan, ends


@given(plans())
def test_every_end_is_the_sum_of_its_steps(case):
    plan, ends = case
    for i, end in enumerate(ends):
        assert isclose(plan.end_of(i + 1), end, rel_tol=1e-9)
    assert plan.end == plan.end_of(len(ends))


@given(plans(), st.floats(0, 1), st.booleans())
def test_due_is_the_first_step_that_ends_at_or_after_now(case, share, exactly):
    plan, _ = case
    step = 1 + int(share * (plan.steps - 1))
    now = plan.end_of(step)
    if not exactly:
        now -= (now - plan.end_of(step - 1)) / 2
    assert plan.due(now) == step


def test_cut_keeps_the_step_in_progress():
    plan = Plan()
    plan.many(10.0, 8, 1.0, 0.0, 5, 1)
    plan.begun = plan.due(12.5)
    plan.cut()
    assert (plan.steps, plan.end) == (3, 13.0)
    plan.clear()
    assert (plan.steps, plan.begun, plan.end) == (0, 0, inf)


def test_one_step_may_take_any_time():
    plan = Plan()
    plan.one(2.0, 0.25)
    plan.cut()
    assert (plan.steps, plan.begun, plan.end, plan.due(2.1)) == (1, 1, 2.25, 1)

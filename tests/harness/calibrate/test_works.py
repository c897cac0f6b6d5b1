"""Work of prefills and decodes, against engine steps counted one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.calibrate.predict import Outside
from harness.calibrate.works import Point, Work, decode_work, prefill_work
from harness.virtual.steptime import StepTime

STEP_TIME = StepTime(2e-5, 0.004, 0.0, 0, 0, 1e-9, 3e-8, 0.001)


@given(st.integers(1, 300), st.integers(0, 299), st.integers(1, 64))
def test_a_prefill_attends_every_pair_once_and_computes_every_new_token_once(
    prompt: int, cached: int, budget: int
) -> None:
    cached = min(cached, prompt - 1)
    work = prefill_work(prompt, cached, budget)
    assert sum(work.steps) == prompt - cached
    assert all(0 < new <= budget for new in work.steps)
    assert work.pairs == sum(range(cached + 1, prompt + 1))
    assert (work.calls, work.prompt_tokens) == (1, prompt)


def test_a_long_prompt_reads_its_earlier_chunks_again() -> None:
    assert prefill_work(10, 0, 4) == Work((4, 4, 2), 55, 4 + 8 + 10, 1, 10)
    assert prefill_work(10, 8, 4) == Work((2,), 9 + 10, 10, 1, 10)


def test_seconds_are_those_of_the_steps_and_of_what_is_outside() -> None:
    work = prefill_work(10, 0, 4)
    inside = STEP_TIME.step(4, 10, 4) + STEP_TIME.step(4, 26, 8) + STEP_TIME.step(2, 19, 10)
    assert work.seconds(STEP_TIME, Outside(0.5, 0.01)) == pytest.approx(inside + 0.5 + 0.1)
    assert decode_work(3, 100).seconds(STEP_TIME, Outside(0.5, 0.01)) == pytest.approx(
        STEP_TIME.step(3, 300, 300)
    )


def test_a_point_has_the_work_of_its_kind() -> None:
    cold = Point("cold prefill", 1, 10.0, 0, 2.0, 1.9, 2.3, 3)
    assert cold.work(4) == prefill_work(10, 0, 4)
    assert cold._replace(kind="cached prefill", cached=8).work(4) == prefill_work(10, 8, 4)
    assert cold._replace(kind="decode", batch=3).work(4) == decode_work(3, 10.0)
    assert cold.spread_share == pytest.approx(0.2)

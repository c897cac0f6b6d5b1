"""The fit of a server's constants: known ones come back, and what cannot be known is said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.calibrate.predict import Outside
from harness.calibrate.server_fit import NAMES, Experts, Fitted, ServerFit, fit_server, hold_out
from harness.calibrate.works import Point
from harness.errors import SetupError
from harness.virtual.steptime import StepTime

BUDGET = 8192
LENGTHS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
CONTEXTS = (128, 1024, 4096)
TRUTH = StepTime(
    compute_s_per_token=3.5e-5,
    dense_weights_s=0.006,
    expert_weights_s=0.0,
    experts=0,
    experts_per_token=0,
    attention_s_per_pair=1.5e-9,
    kv_read_s_per_token=3e-8,
    overhead_s=0.002,
)
OUTSIDE = Outside(0.012, 2e-6)


def measured(
    truth: StepTime = TRUTH,
    outside: Outside = OUTSIDE,
    *,
    noise: float = 0.0,
    seed: int = 0,
    lengths: tuple[int, ...] = LENGTHS,
    cached: bool = True,
) -> list[Point]:
    """Points as a server with these constants would be measured."""
    random = Random(seed)
    sizes = [("cold prefill", 1, float(length), 0) for length in lengths]
    if cached:
        sizes += [("cached prefill", 1, float(n), (n - 1) // 16 * 16) for n in lengths]
    sizes += [("decode", batch, context + 16.5, 0) for batch in BATCHES for context in CONTEXTS]
    found = []
    for size in sizes:
        point = Point(*size, 1.0, 1.0, 1.0, 3)  # type: ignore[arg-type]
        seconds = point.work(BUDGET).seconds(truth, outside) * random.lognormvariate(0, noise)
        found.append(point._replace(seconds=seconds, low_s=seconds, high_s=seconds))
    return found


def values(found: ServerFit) -> dict[str, float]:
    return {each.name: each.value for each in found.constants}


def named(found: ServerFit, name: str) -> Fitted:
    return next(each for each in found.constants if each.name == name)


def true_values(truth: StepTime, outside: Outside) -> dict[str, float]:
    known = asdict(truth) | {
        "outside_s_per_call": outside.per_call_s,
        "outside_s_per_token": outside.per_prompt_token_s,
    }
    return {name: known[name] for name in NAMES if name != "expert_weights_s"}


def test_without_noise_every_constant_comes_back() -> None:
    """Weights and overhead trade under the noise that every measurement is taken to have."""
    found = fit_server(measured(), BUDGET)
    assert values(found) == pytest.approx(true_values(TRUTH, OUTSIDE), rel=1e-3)
    assert all(each.low <= each.value <= each.high for each in found.constants)
    vague = {each.name for each in found.constants if not each.identified}
    assert vague <= {"dense_weights_s", "overhead_s"}
    assert all(error.p90_share < 1e-3 for error in found.errors)
    assert [error.metric for error in found.errors] == ["TTFT", "TTFT, prompt cached", "TPOT"]


def truths(draws: int) -> Iterator[tuple[StepTime, Outside, int]]:
    """Servers of which every constant is half to twice as large as of the one above, and a seed each."""
    random = Random(0)
    for seed in range(draws):
        compute, weights, attention, read, overhead, call = (random.uniform(0.5, 2) for _ in range(6))
        step_time = StepTime(
            3.5e-5 * compute, 0.006 * weights, 0.0, 0, 0, 1.5e-9 * attention, 3e-8 * read, 0.002 * overhead
        )
        yield step_time, Outside(0.012 * call, 2e-6), seed


def test_intervals_of_identified_constants_hold_the_truth_as_often_as_they_say() -> None:
    """95 % of them, less what chance does to some hundred; what cannot be identified is not counted."""
    held: list[bool] = []
    for truth, outside, seed in truths(40):
        found = fit_server(measured(truth, outside, noise=0.01, seed=seed), BUDGET, seed=seed)
        known = true_values(truth, outside)
        held += [each.low <= known[each.name] <= each.high for each in found.constants if each.identified]
        assert values(found)["compute_s_per_token"] == pytest.approx(truth.compute_s_per_token, rel=0.3)
        assert named(found, "outside_s_per_call").identified
        assert all(error.median_share < 0.05 for error in found.errors)
    assert len(held) > 150
    assert sum(held) / len(held) > 0.92


def test_weights_and_overhead_are_not_told_apart_when_no_step_is_bound_by_compute() -> None:
    """Their sum is known all the same, so predictions within what was measured are right."""
    fast = StepTime(1e-9, 0.006, 0.0, 0, 0, 1.5e-9, 3e-8, 0.002)
    found = fit_server(measured(fast, noise=0.005), BUDGET)
    weights, overhead = named(found, "dense_weights_s"), named(found, "overhead_s")
    assert not weights.identified
    assert not overhead.identified
    assert weights.value + overhead.value == pytest.approx(0.008, rel=0.03)
    assert max(weights.high, overhead.high) < 0.009  # no part can be more than the whole
    assert {weights.why, overhead.why} == {
        "not told apart from overhead_s",
        "not told apart from dense_weights_s",
    }
    assert all(error.median_share < 0.02 for error in found.errors)


def test_without_cached_prompts_the_way_of_a_token_to_the_engine_looks_like_computing_it() -> None:
    found = fit_server(measured(noise=0.005, cached=False), BUDGET)
    assert not named(found, "outside_s_per_token").identified
    assert [error.metric for error in found.errors] == ["TTFT", "TPOT"]


def test_experts_are_fitted_where_the_model_has_some() -> None:
    truth = StepTime(3e-5, 0.002, 0.02, 128, 8, 1.5e-9, 3e-8, 0.002)
    found = fit_server(measured(truth), BUDGET, experts=Experts(128, 8))
    assert named(found, "expert_weights_s").value == pytest.approx(0.02, rel=0.05)
    assert (found.step_time.experts, found.step_time.experts_per_token) == (128, 8)
    dense = fit_server(measured(truth), BUDGET)
    assert "expert_weights_s" not in values(dense)
    assert dense.errors[-1].p90_share > 2 * found.errors[-1].p90_share


def test_a_point_far_off_does_not_carry_the_others_away() -> None:
    points = measured(noise=0.002)
    points[4] = points[4]._replace(seconds=points[4].seconds * 3)
    found = fit_server(points, BUDGET)
    assert values(found)["compute_s_per_token"] == pytest.approx(3.5e-5, rel=0.1)


def test_errors_are_of_sizes_that_were_not_fitted() -> None:
    """Spoil what is held out: the constants stay, the errors tell."""
    points = measured()
    held_out = hold_out(points, 0.25, 0)
    spoiled = [p._replace(seconds=p.seconds * 2) if p in held_out else p for p in points]
    clean, found = fit_server(points, BUDGET), fit_server(spoiled, BUDGET)
    assert found.step_time == clean.step_time
    assert [error.median_share for error in found.errors] == pytest.approx([0.5, 0.5, 0.5], rel=1e-3)
    assert sum(error.sizes for error in found.errors) == len(held_out)


@given(st.integers(0, 10_000), st.floats(0.05, 0.9))
def test_the_ends_of_every_kind_are_fitted(seed: int, holdout: float) -> None:
    points = measured()
    held_out = hold_out(points, holdout, seed)
    for kind in ("cold prefill", "cached prefill", "decode"):
        mine = sorted(point for point in points if point.kind == kind)
        assert not {mine[0], mine[-1]} & held_out
        assert held_out & set(mine)


def test_too_few_sizes_are_refused() -> None:
    with pytest.raises(SetupError, match="3 sizes of cold prefill measured; expected at least 4"):
        fit_server(measured(lengths=LENGTHS[:3]), BUDGET)

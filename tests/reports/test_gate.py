"""The gate's decisions, on summaries made by hand."""

from dataclasses import replace

import pytest

from harness.errors import SetupError
from reports.baseline import RunSummary
from reports.gate import Arm, InvalidRuns, decide, gate, overall
from reports.statistics import effect
from reports.thresholds import parse, parse_all

SPEC = {"concurrency": [2], "workload": "swe-lite", "duration_s": 60.0}
THROUGHPUT = parse_all(["throughput<-5%"])


def run(steps=100.0, *, scheduler="vllm", seed=0, programs=2, hits=0.5, leaked=0, **changes):
    made = RunSummary(
        name=f"{scheduler}-c{programs}-s{seed}",
        scheduler=scheduler,
        load="concurrency",
        value=float(programs),
        seed=seed,
        plan_hash=f"plan{seed}",
        invalid=(),
        spec=SPEC | {"concurrency": [programs], "seed": seed},
        provenance={"simulated": True, "plan_hash": f"plan{seed}", "git_commit": "abc"},
        summary={
            "throughput": {"steps_per_min": steps},
            "kv": {"hit_rate_share": hits},
            "sandboxes": {"leaked": leaked},
        },
    )
    return replace(made, **changes)


def runs(*steps, **changes):
    return [run(each, seed=seed, **changes) for seed, each in enumerate(steps)]


BEFORE = runs(100, 110, 90, 105, 95)


def reasons(verdict):
    return [(check.outcome, check.reason) for check in verdict.checks]


def test_equal_results_pass():
    verdict = gate(BEFORE, BEFORE, parse_all(["throughput<-5%", "kv_hit_rate<-0.02", "leaked>0"]))
    assert verdict.outcome == "pass"
    assert [check.reason for check in verdict.checks] == [
        "within throughput<-5%",
        "within kv_hit_rate<-0.02",
        "within leaked>+0",
    ]
    assert (verdict.exit_code(strict=False), verdict.exit_code(strict=True)) == (0, 0)
    assert verdict.checks[0].effect.word == "equivalent"


def test_a_limit_of_nothing_passes_equal_results():
    assert gate(BEFORE, BEFORE, parse_all(["throughput<0%", "leaked>0"])).outcome == "pass"


def test_a_fall_beyond_the_limit_that_is_no_noise_is_a_regression():
    verdict = gate(runs(90, 99, 80, 95, 85), BEFORE, THROUGHPUT)
    assert verdict.outcome == "regression"
    assert verdict.checks[0].reason.startswith("beyond throughput<-5% and significant (p = ")
    assert (verdict.exit_code(strict=False), verdict.exit_code(strict=True)) == (6, 6)


def test_the_same_fall_everywhere_is_no_noise_either():
    """As in virtual time, where a change may cost every repeat exactly as much."""
    (found,) = gate([run(94.0, seed=seed) for seed in range(3)], runs(100, 100, 100), THROUGHPUT).checks
    assert found.outcome == "regression"
    assert found.effect.note == "degenerate: all repeats give the same change"


def test_a_fall_within_the_limit_passes_however_sure_it_is():
    assert gate(runs(97, 107, 87.2, 102, 92), BEFORE, THROUGHPUT).outcome == "pass"


def test_a_fall_that_may_be_noise_is_inconclusive():
    verdict = gate(runs(60, 150, 70, 120, 60), BEFORE, THROUGHPUT)
    assert verdict.checks[0].reason.startswith("beyond throughput<-5%, but it may be noise (p = ")
    assert (verdict.outcome, verdict.exit_code(strict=False)) == ("inconclusive", 0)
    assert verdict.exit_code(strict=True) == 7


def test_an_interval_that_reaches_beyond_the_limit_is_inconclusive():
    verdict = gate(runs(110, 100, 100, 95, 95), BEFORE, THROUGHPUT)
    assert reasons(verdict) == [("inconclusive", "the interval reaches beyond throughput<-5%")]


@pytest.mark.parametrize("count", [1, 2])
def test_too_few_pairs_are_inconclusive(count):
    verdict = gate(BEFORE[:count], BEFORE[:count], THROUGHPUT)
    assert verdict.outcome == "inconclusive"
    assert "so the noise is unknown" in verdict.checks[0].reason


def test_a_number_that_is_missing_is_inconclusive():
    verdict = gate(BEFORE, BEFORE, parse_all(["ttft_p95>+10%"]))
    assert reasons(verdict) == [("inconclusive", "a run has no value here")]


def test_zero_on_both_sides_passes_and_zero_on_one_side_has_no_ratio():
    leak = parse_all(["leaked>+10%"])
    assert reasons(gate(BEFORE, BEFORE, leak)) == [("pass", "0 on both sides")]
    leaking = gate(runs(1, 1, 1, leaked=5), runs(1, 1, 1), leak)
    assert reasons(leaking) == [("inconclusive", "0 in a run, so there is no ratio")]
    assert gate(runs(1, 1, 1, leaked=5), runs(1, 1, 1), parse_all(["leaked>0"])).outcome == "regression"


def test_a_fall_of_a_share_is_absolute():
    limit = parse_all(["kv_hit_rate<-0.02"])
    assert gate(runs(1, 1, 1, hits=0.485), runs(1, 1, 1), limit).outcome == "pass"
    assert gate(runs(1, 1, 1, hits=0.47), runs(1, 1, 1), limit).outcome == "regression"


def test_all_checks_are_corrected_together():
    """What is significant alone is not among many; Holm multiplies the smallest p by their number."""
    after, arms = runs(90, 99, 83, 98, 92), range(2, 12)
    (alone,) = gate(after, BEFORE, THROUGHPUT).checks
    assert alone.outcome == "regression"
    same = [each for count in arms for each in runs(100, 110, 90, 105, 95, programs=count)]
    noisy = [each for count in arms[1:] for each in runs(100, 120, 80, 104, 97, programs=count)]
    many = gate([*after, *noisy], same, THROUGHPUT)
    (among,) = [check for check in many.checks if check.arm.value == 2]
    assert among.effect.p_holm == pytest.approx(10 * alone.effect.p_value)


def test_the_worst_outcome_counts():
    assert overall([]) == "pass"
    assert overall(["pass", "inconclusive"]) == "inconclusive"
    assert overall(["inconclusive", "regression", "pass"]) == "regression"


def test_schedulers_and_loads_are_checked_apart():
    before = [*runs(100, 100, 100), *runs(200, 200, 200, scheduler="thunder")]
    after = [*runs(100, 100, 100), *runs(150, 150, 150, scheduler="thunder")]
    verdict = gate(after, before, THROUGHPUT)
    assert [(check.arm, check.outcome) for check in verdict.checks] == [
        (Arm("thunder", "concurrency", 2.0), "regression"),
        (Arm("vllm", "concurrency", 2.0), "pass"),
    ]
    assert gate(after, before, THROUGHPUT, scheduler="vllm").outcome == "pass"


def test_what_only_one_side_has_is_named_and_left_out():
    before = [*runs(100, 100, 100, 100), *runs(200, 200, 200, scheduler="thunder")]
    verdict = gate(runs(100, 100, 100), before, THROUGHPUT)
    assert verdict.left_out == (
        "thunder, 2 programs at a time: not in the results",
        "vllm, 2 programs at a time: seed 3 not in the results",
    )
    assert [check.effect.pairs for check in verdict.checks] == [3]


@pytest.mark.parametrize(
    ("after", "scheduler", "complaint"),
    [
        (runs(100, scheduler="thunder"), None, "have no scheduler, load and seed in common"),
        (runs(100, programs=3), None, "results of vllm, 3 programs at a time and a baseline of vllm, 2"),
        ([run(seed=9)], None, "have no scheduler, load and seed in common"),
        (BEFORE, "thundr", "no scheduler thundr in the results; expected one of vllm"),
        ([*BEFORE, replace(BEFORE[0], name="copy")], None, "vllm-c2-s0 and copy are the same"),
    ],
)
def test_what_cannot_be_compared_is_refused(after, scheduler, complaint):
    with pytest.raises(SetupError, match=complaint):
        gate(after, BEFORE, THROUGHPUT, scheduler=scheduler)


def test_other_settings_are_refused_unless_forced():
    longer = [replace(each, spec=each.spec | {"duration_s": 90.0}) for each in BEFORE]
    with pytest.raises(SetupError, match=r"differ in duration_s: 90\.0 in results .*--force"):
        gate(longer, BEFORE, THROUGHPUT)
    verdict = gate(longer, BEFORE, THROUGHPUT, force=True)
    assert verdict.outcome == "pass"
    assert verdict.forced[0].startswith("duration_s: 90.0 in results vllm-c2-s0")


def test_other_programs_are_refused():
    other = [replace(each, provenance=each.provenance | {"plan_hash": "x"}) for each in BEFORE]
    with pytest.raises(SetupError, match="plan_hash"):
        gate(other, BEFORE, THROUGHPUT)


def test_the_scheduler_s_own_parameters_may_differ():
    """They are what a change is about."""
    spec = {"overrides": {"scheduler": {"vllm": {"router": "other"}}, "workload": {}}}
    other = [replace(each, spec=each.spec | spec) for each in BEFORE]
    assert gate(other, BEFORE, THROUGHPUT).forced == ()


def test_invalid_runs_are_refused_on_both_sides():
    broken = [*BEFORE[:4], replace(BEFORE[4], invalid=("too few steps: 3",))]
    for after, before in ((broken, BEFORE), (BEFORE, broken)):
        with pytest.raises(InvalidRuns) as caught:
            gate(after, before, THROUGHPUT, force=True)
        assert str(caught.value) == "INVALID runs are no measure of anything: vllm-c2-s4: too few steps: 3"
        assert caught.value.exit_code == 5


def test_runs_that_measured_nothing_are_bad_input_and_no_regression():
    """Exit 2: nothing was measured, so nothing can be said about it."""
    empty = [
        replace(each, invalid=("too few steps: 0",), summary={"throughput": {"steps": 0}})
        for each in BEFORE
    ]
    for after, before in ((empty, BEFORE), (BEFORE, empty)):
        with pytest.raises(
            SetupError,
            match=r"no step ended in the measured window of vllm-c2-s0 and 4 more; .* Run longer",
        ) as caught:
            gate(after, before, THROUGHPUT)
        assert caught.value.exit_code == 2


def test_a_complaint_about_many_invalid_runs_stays_a_line():
    many = [replace(run(seed=seed), invalid=("x\x1b\n" * 1000,)) for seed in range(50)]
    with pytest.raises(InvalidRuns) as caught:
        gate(many, many, THROUGHPUT)
    line = str(caught.value)
    assert line.endswith("; 95 more")
    assert line.isprintable()
    assert len(line) < 2000


def test_invalid_runs_that_are_not_looked_at_do_no_harm():
    other = replace(run(scheduler="thunder"), invalid=("x",))
    assert gate([*BEFORE, other], BEFORE, THROUGHPUT, scheduler="vllm").outcome == "pass"
    assert gate(BEFORE, [*BEFORE, other], THROUGHPUT).outcome == "pass"
    with pytest.raises(InvalidRuns):
        gate([*BEFORE, other], BEFORE, THROUGHPUT)


def test_the_verdict_says_what_made_both_sides_and_is_plain():
    verdict = gate(BEFORE, BEFORE, THROUGHPUT).json()
    assert verdict["baseline"] == {
        "thunderbench_version": None,
        "git_commit": "abc",
        "command": None,
        "study_started_utc": None,
    }
    assert verdict["checks"][0]["threshold"] == "throughput<-5%"
    assert verdict["checks"][0]["effect"]["ratio"] == 1.0


def test_a_limit_for_which_less_is_better_looks_at_the_upper_end():
    limit = parse("ttft_p95>+10%")

    def decided(*ratios):
        pairs = [(ratio, 1.0) for ratio in ratios]
        return decide(effect(pairs, metric="x", more_is_better=False, kind="ratio"), limit)[0]

    assert decided(0.5, 0.5, 0.5) == "pass"
    assert decided(1.2, 1.21, 1.19) == "regression"
    assert decided(1.0, 1.2, 1.05) == "inconclusive"

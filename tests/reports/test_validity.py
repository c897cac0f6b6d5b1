"""VALID or INVALID, with every reason; from rows made by hand and from a real run."""

import pytest

from harness.errors import SetupError
from harness.records import open_run
from reports.validity import LEAST_STEPS, Validity, validity
from tests.harness.results import PROVENANCE, call, program, sample, write_run

WINDOW = {"window": {"start_s": 10.0, "end_s": 100.0}}
CLOSED = "concurrency = [2]\nduration_s = 90.0\nseed = 7\n"
UNTIL_THE_END = "concurrency = [2]\nduration_s = inf\nseed = 7\n"
OPEN = "concurrency = []\nrequest_rate = [0.1]\nduration_s = 90.0\nseed = 7\n"


def calls(count=LEAST_STEPS, **changes):
    """Calls that end in the window, one at a time, each finding most of its prompt in the cache."""
    plain = {"prompt_tokens": 100, "cached_tokens": 80, "known_tokens": 90, "output_tokens": 1}
    first = call(arrived=20.0, decode=0.1, **plain | {"cached_tokens": 0, "known_tokens": 0})
    later = [call(arrived=21.0 + i / 10, decode=0.1, **plain | changes) for i in range(count - 1)]
    return [first, *later][:count]


def samples(live=2, last=(20_000, 10_000), every=10):
    """Two programs live all the time; counters begin at 0."""
    rows = [sample(float(t), programs_live=live) for t in range(0, 100, every)]
    return [*rows, sample(100.0, programs_live=live, queries_total=last[0], hits_total=last[1])]


def judged(folder, **changes):
    plain = {
        "programs": [program("p0", steps_done=9), program("p1", steps_done=9)],
        "calls": calls(),
        "samples": samples(),
        "spec": CLOSED,
        "summary": WINDOW,
    }
    return validity(open_run(write_run(folder / "run", **plain | changes)))


def test_a_run_that_measured_what_it_says_is_valid(tmp_path):
    assert judged(tmp_path) == Validity(valid=True, reasons=())


def test_its_text_is_one_line():
    assert str(Validity(valid=True, reasons=())) == "VALID"
    assert str(Validity(valid=False, reasons=("a", "b"))) == "INVALID: a; b"


@pytest.mark.parametrize(("failed", "valid"), [(1, True), (2, False)])
def test_more_than_one_failure_in_a_hundred_programs_is_too_many(tmp_path, failed, valid):
    ends = ["failed: out of\nmemory"] * failed + ["finished"] * (100 - failed)
    found = judged(tmp_path, programs=[program(f"p{i}", ended_at=end) for i, end in enumerate(ends)])
    assert found.valid == valid
    if not valid:
        assert found.reasons == (
            "2 of 100 programs failed (2.0%, at most 1%); the first: failed: out of memory",
        )


def test_a_long_complaint_of_a_server_is_cut(tmp_path):
    found = judged(tmp_path, programs=[program(ended_at="failed: " + "x" * 10_000)])
    assert len(found.reasons[0]) < 300


def test_no_call_finds_its_whole_prompt_in_the_cache(tmp_path):
    assert judged(tmp_path, calls=calls(cached_tokens=99)).valid
    found = judged(tmp_path / "2", calls=calls(cached_tokens=100))
    (reason,) = found.reasons
    assert reason.startswith("hit rate above the bound: 129 calls found their whole prompt in the cache")


def test_what_is_new_to_a_program_was_computed_once(tmp_path):
    """130 prompts of 100 tokens: the longest but for 70 put out, one token of every other."""
    queries = 13_000
    assert judged(tmp_path, samples=samples(last=(queries, queries - 130))).valid
    found = judged(tmp_path / "2", samples=samples(last=(queries, queries - 129)))
    (reason,) = found.reasons
    assert reason.endswith("12871 of 13000 prompt tokens counted as cached, and at most 12870 can be")
    long = [*calls(), call(arrived=60.0, decode=1.0, prompt_tokens=1130, output_tokens=0)]
    assert judged(tmp_path / "3", calls=long, samples=samples(last=(14_130, 13_130))).valid
    assert not judged(tmp_path / "4", calls=long, samples=samples(last=(14_130, 13_131))).valid


def test_counters_that_have_not_seen_every_call_are_held_to_their_own_queries(tmp_path):
    assert judged(tmp_path, samples=samples(last=(12_000, 12_000))).valid
    assert not judged(tmp_path / "2", samples=samples(last=(12_000, 12_001))).valid


def test_hits_before_anything_was_computed_come_from_a_warm_cache(tmp_path):
    warm = [calls()[0]._replace(cached_tokens=96), *calls()[1:]]
    assert judged(tmp_path, calls=warm).reasons == (
        "warm cache carried over: the first call, at 20 s, found 96 tokens before anything was computed",
    )


def test_two_calls_of_the_first_instant_may_share(tmp_path):
    """One engine step takes both, and the second finds the blocks of the first."""
    twin = calls()[0]._replace(cached_tokens=96, program_id="p1")
    assert judged(tmp_path, calls=[twin, *calls()]).valid


def test_the_first_call_of_all_may_have_left_no_row(tmp_path):
    """Its program was still at it when the run ended, and it may have computed what the others found."""
    warm = [calls()[0]._replace(cached_tokens=96), *calls()[1:]]
    at_it = [program("p0", steps_done=9), program("p1", first_call_s=19.0)]
    assert judged(tmp_path, programs=at_it, calls=warm).valid


def test_counters_begin_at_zero(tmp_path):
    rows = [sample(0.0, programs_live=2, queries_total=500, hits_total=7), *samples()[1:]]
    (reason,) = judged(tmp_path, samples=rows).reasons
    assert reason.startswith("warm cache carried over: r0 had queries_total = 500, hits_total = 7 before")


def test_a_replica_that_joined_later_may_have_counted(tmp_path):
    rows = [*samples(), sample(100.0, "r1", programs_live=2, queries_total=500, hits_total=7)]
    assert judged(tmp_path, samples=rows).valid


def test_fewer_programs_live_than_asked_for(tmp_path):
    assert judged(tmp_path, samples=samples(live=1)).reasons == (
        "concurrency never reached: 1.0 programs live on average, 2 asked for",
    )


def test_a_plan_that_ran_out_is_no_fault(tmp_path):
    """Run until the end, only the time up to the last arrival counts."""
    early = [program("p0", arrived_s=0.0), program("p1", arrived_s=50.0)]
    thin = [*samples()[:6], *[row._replace(programs_live=1) for row in samples()[6:]]]
    assert judged(tmp_path, programs=early, samples=thin, spec=UNTIL_THE_END).valid
    assert not judged(tmp_path / "2", programs=early, samples=thin, spec=CLOSED).valid
    assert not judged(tmp_path / "3", programs=early, samples=samples(live=1), spec=UNTIL_THE_END).valid


def test_first_programs_that_start_one_by_one_are_not_missed_before(tmp_path):
    """Start spread: both programs are wanted from the end of the spread on, not from its beginning."""
    rows = [row._replace(programs_live=1) if row.time_s < 60.0 else row for row in samples()]
    spread = {spec: f"start_spread_s = 60.0\n{spec}" for spec in (CLOSED, UNTIL_THE_END)}
    late = [program("p0", arrived_s=0.0), program("p1", arrived_s=30.0), program("p2", arrived_s=100.0)]
    for number, (plain, wide) in enumerate(spread.items()):
        assert not judged(tmp_path / f"{number}", programs=late, samples=rows, spec=plain).valid
        assert judged(tmp_path / f"{number}w", programs=late, samples=rows, spec=wide).valid


def test_a_server_that_was_away_makes_arms_unlike(tmp_path):
    outages = {"r0": {"times": 1, "away_s": 12.25}, "r1": {"times": 2, "away_s": 3.0}}
    assert judged(tmp_path, summary=WINDOW | {"servers": {"outages": outages}}).reasons == (
        "server r0 was away once, for 12.2 s in all",
        "server r1 was away 2 times, for 3 s in all",
    )
    assert judged(tmp_path / "2", summary=WINDOW | {"servers": {"outages": {}}}).valid


def test_an_open_loop_has_no_concurrency_to_reach(tmp_path):
    assert judged(tmp_path, samples=samples(live=0), spec=OPEN).valid


FAST = {"lateness_p99_s": 0.1, "lag_p99_s": 0.1, "lag_max_s": 9.0, "cpu_share": 0.9, "failed_calls": 1}


NOT_CARRIED = (
    "not carried into the next prompts: the server did not return what it generated; without "
    "return_token_ids, use --api chat"
)
LATE = "up to 0.6 s late (p99, at most 0.1 s)"
NOT_HEEDED = "longer or shorter than asked for: the server heeds neither ignore_eos nor min_tokens"
SLOW = "; play fewer programs, or from a faster machine"
STARVED = (
    "; it used 12% of its core, so others did: keep servers off it (taskset), or play from another machine"
)


@pytest.mark.parametrize(
    ("client", "step_s", "reasons"),
    [
        (None, 60.0, ()),
        ({}, 60.0, ()),
        (FAST, 60.0, ()),
        (FAST, 2.0, ()),
        (FAST, None, ()),
        (
            FAST | {"lateness_p99_s": 0.25},
            60.0,
            (f"client too slow: it sent calls up to 0.25 s late (p99, at most 0.1 s){SLOW}",),
        ),
        (
            FAST | {"lag_p99_s": 0.101},
            None,
            (f"client too slow: its event loop woke up up to 0.101 s late (p99, at most 0.1 s){SLOW}",),
        ),
        (
            {"lateness_p99_s": 0.06},
            1.0,
            (f"client too slow: it sent calls up to 0.06 s late (p99, at most 0.05 s){SLOW}",),
        ),
        (
            {"lateness_p99_s": 0.6, "lag_p99_s": 0.6, "cpu_share": 0.12},
            60.0,
            (f"client too slow: it sent calls {LATE}, its event loop woke up {LATE}{STARVED}",),
        ),
        (
            FAST | {"cpu_share": 0.97},
            60.0,
            (f"client too slow: it used 97% of its core (at most 90%){SLOW}",),
        ),
        ({"outputs_lost": 1, "odd_lengths": 1, "calls_sent": 100}, 60.0, ()),
        (
            {"outputs_lost": 2, "odd_lengths": 3, "calls_sent": 100},
            60.0,
            (
                f"outputs of 2 of 100 calls {NOT_CARRIED}",
                f"outputs of 3 of 100 calls {NOT_HEEDED}",
            ),
        ),
        (FAST | {"failed_calls": 2}, 60.0, ("2 of 132 calls failed (1.5%, at most 1%)",)),
    ],
)
def test_a_client_that_was_the_bottleneck_is_named(tmp_path, client, step_s, reasons):
    """Late by more than 100 ms or 5 % of the median step, out of CPU, or with too many failed calls."""
    summary = WINDOW | {"client": client, "latency": {"step_s": {"p50": step_s}}}
    assert judged(tmp_path, summary=summary).reasons == reasons


def live(rows, **changes):
    """Calls as a real server tells of them."""
    return [row._replace(scheduled_s=None, queue_s=None, preemptions=None, **changes) for row in rows]


def on_servers(folder, **changes):
    return judged(folder, provenance=PROVENANCE | {"simulated": False}, **changes)


def test_a_live_run_is_valid_without_what_servers_do_not_say(tmp_path):
    nothing = dict.fromkeys(("queries_total", "hits_total", "preemptions_total", "used_tokens"))
    silent = [row._replace(**nothing) for row in samples()]
    assert on_servers(tmp_path, calls=live(calls()), samples=silent).valid
    untold = live(calls(), cached_tokens=None, recomputed_tokens=None, replica=None, dispatched_s=None)
    assert on_servers(tmp_path / "2", calls=untold, samples=silent).valid


def test_servers_count_from_their_own_start_and_one_that_began_anew_says_nothing(tmp_path):
    """Hits of before are none of the run's, and counters above 0 are no warm cache."""
    before = [row._replace(queries_total=10**6, hits_total=10**6) for row in samples()]
    after = [*before[:-1], before[-1]._replace(queries_total=10**6 + 20_000, hits_total=10**6 + 10_000)]
    assert on_servers(tmp_path, calls=live(calls()), samples=after).valid
    too_many = [*before[:-1], before[-1]._replace(queries_total=10**6 + 20_000, hits_total=10**6 + 20_000)]
    (reason,) = on_servers(tmp_path / "2", calls=live(calls()), samples=too_many).reasons
    assert reason.startswith("hit rate above the bound: 20000 of 20000 prompt tokens")
    restarted = [*before[:-1], before[-1]._replace(queries_total=5, hits_total=5)]
    assert on_servers(tmp_path / "3", calls=live(calls()), samples=restarted).valid


def test_a_warm_server_is_found_by_what_was_sent_before_anything_was_answered(tmp_path):
    first = calls()[0]._replace(first_token_s=20.5, finished_s=20.6, ended_s=20.6)
    twin = first._replace(arrived_s=20.1, dispatched_s=20.1, cached_tokens=96, program_id="p1")
    assert on_servers(tmp_path, calls=live([first, twin, *calls()[1:]])).valid
    warm = [first._replace(cached_tokens=16), twin, *calls()[1:]]
    (reason,) = on_servers(tmp_path / "2", calls=live(warm)).reasons
    assert reason == (
        "warm cache carried over: the first call, at 20 s, found 16 tokens before anything was computed"
    )


def test_steps_are_counted_in_the_window(tmp_path):
    found = judged(tmp_path, calls=[call(arrived=1.0, decode=1.0, prompt_tokens=9), *calls(129)])
    assert found.reasons == ("too few steps: 129 ended in the window, at least 130 are needed",)


def test_every_reason_is_given(tmp_path):
    found = judged(tmp_path, programs=[program(ended_at="failed: x")], calls=[], samples=samples(live=0))
    assert [reason.split(":")[0] for reason in found.reasons] == [
        "1 of 1 programs failed (100.0%, at most 1%); the first",
        "concurrency never reached",
        "too few steps",
    ]


def test_a_run_without_any_row_is_invalid(tmp_path):
    """And without a window in its summary, all of it counts."""
    found = validity(open_run(write_run(tmp_path / "run")))
    assert found.reasons == ("too few steps: 0 ended in the window, at least 130 are needed",)


def test_rows_in_several_pieces_are_one_table(tmp_path):
    """140,000 rows come in more than one piece; the first call is in the last."""
    many = [call(arrived=50.0, prompt_tokens=10, cached_tokens=5) for _ in range(140_000)]
    first = call(arrived=20.0, prompt_tokens=10, decode=40.0)
    assert judged(tmp_path, calls=[*many, first], samples=samples(last=(1_400_010, 700_000))).valid
    assert not judged(tmp_path / "2", calls=many, samples=samples(last=(1_400_010, 700_000))).valid


def test_a_damaged_table_is_named(tmp_path):
    folder = write_run(tmp_path / "run", calls=calls())
    run = open_run(folder)
    content = bytearray((folder / "calls.parquet").read_bytes())
    content[4:400] = bytes(396)
    (folder / "calls.parquet").write_bytes(content)
    with pytest.raises(SetupError, match=r"unreadable: .*calls\.parquet"):
        validity(run)

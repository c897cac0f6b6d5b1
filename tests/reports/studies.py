"""Small studies with numbers that can be worked out by hand."""

from __future__ import annotations

import json

from harness.metrics import summarise
from harness.rows import TABLES
from reports.study import load_study
from tests.harness.results import as_table, call, program, sample, write_run

WINDOW = (10.0, 70.0)


class Given:
    """Tables from rows in memory."""

    def __init__(self, rows):
        self.rows = rows

    def table(self, name):
        return as_table(TABLES[name], self.rows.get(name, ()))


def make_run(
    study,
    scheduler="vllm",
    concurrency=2,
    seed=0,
    config=None,
    window=WINDOW,
    spec="",
    *,
    simulated=True,
    **rows,
):
    """A run with these rows and the summary that follows from them; its folder."""
    policy = {"name": scheduler, "config": config or {}, "seed": seed}
    letters = "".join(letter if letter.isalnum() else "_" for letter in scheduler)[:30]
    load = f"concurrency = [{concurrency}]\n" if concurrency else ""
    name = json.dumps(scheduler, ensure_ascii=False)
    return write_run(
        study / f"{letters}-c{concurrency}-s{seed}",
        spec=f"{load}seed = {seed}\nsample_every_s = 5.0\nschedulers = [{name}]\n{spec}",
        provenance={"simulated": simulated, "plan_hash": "abc", "policy": policy},
        summary=summarise(Given(rows), window),
        **rows,
    )


def plain_rows(step_s=10.0, hits=50, wait_s=1.0, prefix="p"):
    """Two programs, each a step that ends in the window; a cache with `hits` of 100 tokens found in it."""
    programs = [
        program(f"{prefix}{i}", arrived_s=12.0, finished_s=12.0 + step_s, steps_done=1, worst_wait_s=wait_s)
        for i in range(2)
    ]
    calls = [
        call(
            12.0,
            queue=wait_s,
            prefill=1.0,
            decode=step_s - wait_s - 2.0,
            tool=1.0,
            program_id=row.program_id,
        )
        for row in programs
    ]
    samples = [
        sample(time, used_tokens=40, queries_total=int(time) * 100, hits_total=int(time) * hits)
        for time in (0.0, 10.0, 40.0, 70.0)
    ]
    done = [row._replace(ended_at="finished") for row in programs]
    return {"programs": done, "calls": calls, "samples": samples}


# What a real server, and with it a gateway that is not ours, does not say.
UNTOLD_OF_CALLS = {"scheduled_s": None, "queue_s": None, "preemptions": None}
UNTOLD_OF_GATEWAYS = {
    **UNTOLD_OF_CALLS,
    "dispatched_s": None,
    "hold_s": None,
    "replica": None,
    "cached_tokens": None,
    "recomputed_tokens": None,
}


def live_rows(untold, steps=140):
    """Two programs on real servers, enough steps to be valid; samples tell nothing but the time."""
    programs = [
        program(f"p{i}", arrived_s=11.0, first_call_s=11.0, steps_done=steps // 2) for i in range(2)
    ]
    plain = {"prompt_tokens": 100, "cached_tokens": 40, "known_tokens": 80, "recomputed_tokens": 40}
    calls = [
        call(
            11.0 + i * 0.4,
            hold=0.1,
            prefill=0.1,
            decode=0.1,
            program_id=f"p{i % 2}",
            **plain | ({} if i else {"cached_tokens": 0}),
        )
        for i in range(steps)
    ]
    samples = [sample(float(time), programs_live=2) for time in range(0, 75, 5)]
    rows = {"programs": programs, "calls": calls, "samples": samples}
    silent = dict.fromkeys(name for name in sample(0.0)._fields if name.endswith("_total"))
    silent |= dict.fromkeys(("running", "waiting", "held", "used_tokens", "idle_cached_tokens"))
    return rows | {
        "calls": [row._replace(**untold) for row in rows["calls"]],
        "samples": [row._replace(capacity_tokens=None, **silent) for row in rows["samples"]],
    }


def plain_study(tmp_path):
    """vllm and thunder, 2 and 4 programs, seeds 0 and 1; thunder's steps take half as long."""
    for concurrency in (2, 4):
        for seed in (0, 1):
            make_run(tmp_path, "vllm", concurrency, seed, **plain_rows(10.0 + seed, hits=50))
            make_run(tmp_path, "thunder", concurrency, seed, **plain_rows(5.0, hits=90, wait_s=2.0))
    return load_study([tmp_path])


def rows_of(spec, name):
    """The data that a spec holds under a name."""
    return spec["datasets"][name]

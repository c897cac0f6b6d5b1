"""Every metric of a run and its definition.

All are taken over the measured window (start, end]: what happened after `start` and not after `end`, in
seconds of the run's clock. A step belongs to the window in which it ended, a program to the one in which
it finished; engine counters are differences of their totals at the two edges. Where nothing was there to
measure, a metric is null, never 0. Units stand in the keys; a `_share` is between 0 and 1.

Where rows are null (see `harness.rows`), a mean or a share is over those that are not, and null when there
are no others.

Percentiles are null below a floor of samples: p50 needs 11, p90 64, p95 130, p99 662. From that many on,
the second largest of n samples bounds the percentile with 99 % confidence (the early-stopping rule of
MLPerf: at most one sample in n above the percentile has a probability of at most 1 %).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from harness.columns import Floats, Metrics, Window, floats, inside, mean, ratio, texts, total, total_known
from harness.errors import SetupError
from harness.records import Tables
from harness.samples import Samples

FLOORS = {50: 11, 90: 64, 95: 130, 99: 662}
PARTS = ("hold", "queue", "prefill", "decode", "sandbox", "tool")
GOODPUT_LIMITS = ("ttft_s", "tpot_s", "step_s")


def summarise(
    tables: Tables,
    window: Window,
    goodput: Mapping[str, float] | None = None,
    client: Mapping[str, object] | None = None,
) -> Metrics:
    """All metrics of a run over `window`, nested by subject and JSON-able.

    `goodput` are upper limits in seconds, of `GOODPUT_LIMITS`. `client` is how the client of a live run
    fared, null in virtual time: `lateness_p99_s`, by how much it sent calls later than they were due;
    `lag_p99_s`, `lag_max_s`, by how much its event loop woke up late; `cpu_share` of one core that it used;
    `retries`, `failed_calls`, `outputs_lost`: attempts made again, calls given up after all attempts, calls
    whose generated tokens are not known and so did not go into the next prompt. Raises SetupError for
    another limit.
    """
    start, end = window
    calls = inside(tables.table("calls"), "ended_s", window)
    programs = tables.table("programs")
    samples = Samples(tables.table("samples"))
    sandboxes = tables.table("sandboxes")
    return {
        "window": {"start_s": start, "end_s": end, "length_s": end - start},
        "throughput": throughput(calls, programs, window),
        "kv": reuse(kv(calls), samples.kv(window)),
        "space_time": samples.space_time(window),
        "latency": latency(calls, programs, window),
        "fairness": fairness(calls, programs, window),
        "groups": groups(programs, window),
        "tools": tools(tables.table("tools"), window),
        "disk": samples.disk(window),
        "sandboxes": preparation(sandboxes, window),
        "goodput": goodput_of(calls, goodput, window) if goodput else None,
        "client": None if client is None else dict(client),
    }


def throughput(calls: pa.Table, programs: pa.Table, window: Window) -> Metrics:
    """Work done per time.

    `steps_per_min`: steps that ended in the window (the unit of the field's papers). `programs_per_h`:
    programs that finished all their calls in it; failed ones are counted apart. `output_tokens_per_s`,
    `prompt_tokens_per_s`: tokens of the steps that ended in it.
    """
    length = window[1] - window[0]
    ended = inside(programs, "finished_s", window)
    finished = int(np.count_nonzero(texts(ended, "ended_at") == "finished"))
    return {
        "steps": calls.num_rows,
        "programs_finished": finished,
        "programs_failed": ended.num_rows - finished,
        "steps_per_min": ratio(calls.num_rows * 60.0, length),
        "programs_per_h": ratio(finished * 3600.0, length),
        "output_tokens_per_s": ratio(total(calls, "output_tokens"), length),
        "prompt_tokens_per_s": ratio(total(calls, "prompt_tokens"), length),
    }


def kv(calls: pa.Table) -> Metrics:
    """Prefix reuse as the calls saw it, over the steps that ended in the window.

    `hit_rate_of_calls_share`: sum of cached / sum of prompt tokens, each call as first scheduled (vLLM:
    usage.prompt_tokens_details.cached_tokens). `recomputed_tokens`: prompt tokens computed again although
    this program had computed them before, and tokens computed again because of preemptions;
    `recomputed_share` is over prompt tokens. `zero_recompute_share`: of the leading prompt tokens that the
    program had computed before, on whatever replica, the share found in the cache.
    Shares are over the calls of which the server told what was cached; a sum is null unless it is known of
    all calls.
    """
    told = calls.filter(pc.is_valid(calls["cached_tokens"]))
    prompt, recomputed = total(told, "prompt_tokens"), total(told, "recomputed_tokens")
    before, cached = floats(told, "known_tokens"), floats(told, "cached_tokens")
    return {
        "hit_rate_of_calls_share": ratio(total(told, "cached_tokens"), prompt),
        "recomputed_tokens": int(recomputed) if told.num_rows == calls.num_rows else None,
        "recomputed_share": ratio(recomputed, prompt),
        "zero_recompute_share": ratio(float(np.minimum(before, cached).sum()), float(before.sum())),
    }


def reuse(of_calls: Metrics, of_engines: Metrics) -> Metrics:
    """What calls and engines say of the cache, together.

    `hit_rate_share` is by the engines' counters, which count what was looked up until a window's very edge
    and after a preemption too; where they are not told it is by the calls' usage. `hit_rate_from` says
    which: `engines`, `usage`, or null where nobody tells.
    """
    found = {**of_calls, **of_engines, "hit_rate_from": "engines"}
    if of_engines["queried_tokens"] is None or of_engines["hit_tokens"] is None:
        usage = of_calls["hit_rate_of_calls_share"]
        found |= {"hit_rate_share": usage, "hit_rate_from": None if usage is None else "usage"}
    return found


def latency(calls: pa.Table, programs: pa.Table, window: Window) -> Metrics:
    """Times of the steps that ended in the window, seconds.

    `ttft_s`: the request reaches the gateway -> first output token, so holding counts. `tpot_s`: first to
    last output token / (output tokens - 1), vLLM's definition; a call with one token has none. `step_s`:
    the request reaches the gateway -> its tool runs have ended. `split_s`: means of the six parts of the
    step, which sum to `step_s.mean`; `sum_minus_step_s` is what is left of that check. A part that nobody
    told is null, and the next one includes it (see `harness.rows`). `program_s`:
    arrival -> end of the programs that finished in the window. `answer_s`: arrival -> first token of the
    final answer, the call that ended last, of the same programs (FTR, first token rendered).
    A step that has not ended has no time yet: who waits for ever is not in these means, but in `fairness`.
    """
    step = floats(calls, "ended_s") - floats(calls, "arrived_s")
    parts = {part: floats(calls, f"{part}_s") for part in PARTS}
    split = {part: mean(seconds) for part, seconds in parts.items()}
    done = inside(programs, "finished_s", window)
    done = done.filter(pc.equal(done["ended_at"], "finished"))
    firsts = dict(zip(texts(calls, "program_id"), floats(calls, "first_token_s"), strict=True))
    answered = np.array([firsts.get(name, np.nan) for name in texts(done, "program_id")], dtype=np.float64)
    answer = answered - floats(done, "arrived_s")
    unexplained = mean(sum(map(np.nan_to_num, parts.values()), np.zeros(len(step))) - step)
    return {
        "ttft_s": _distribution(_ttft(calls)),
        "tpot_s": _distribution(_tpot(calls)[floats(calls, "output_tokens") > 1]),
        "step_s": _distribution(step),
        "split_s": {**split, "sum_minus_step_s": unexplained},
        "program_s": _distribution(floats(done, "finished_s") - floats(done, "arrived_s")),
        "answer_s": _distribution(answer[~np.isnan(answer)]),
    }


def fairness(calls: pa.Table, programs: pa.Table, window: Window) -> Metrics:
    """Who waited, of the programs that were there in the window.

    Waiting is being held at the gateway or queued at the engine; where the server does not say how long it
    queued a call, the time to its first token. `worst_wait_s`: the longest wait of one
    call of such a program, begun at any time; a wait still open at the end of the run counts as far as it
    got, so starvation cannot hide. `worst_wait_program`: whose it was. `wait_gini_share`: Gini coefficient
    of the seconds each program waited (0 all alike, towards 1 one waits for all): the waits of its steps
    that ended in the window, or its worst wait where that is longer (its step has not ended yet).
    """
    finished = floats(programs, "finished_s")  # NaN: not finished
    there = (floats(programs, "arrived_s") <= window[1]) & ~(finished <= window[0])
    names = texts(programs, "program_id")[there]
    if not len(names):
        return {"programs": 0, "worst_wait_s": None, "worst_wait_program": None, "wait_gini_share": None}
    worst = floats(programs, "worst_wait_s")[there]
    waits = floats(calls, "hold_s") + floats(calls, "queue_s")
    waits = np.where(np.isnan(waits), _ttft(calls), waits)
    waited: dict[str, float] = {}
    for name, wait in zip(texts(calls, "program_id"), waits, strict=True):
        waited[name] = waited.get(name, 0.0) + float(wait)
    seconds = np.maximum(worst, [waited.get(name, 0.0) for name in names])
    longest = int(worst.argmax())
    return {
        "programs": len(names),
        "worst_wait_s": float(worst[longest]),
        "worst_wait_program": str(names[longest]),
        "wait_gini_share": gini(seconds),
    }


def gini(values: Floats) -> float | None:
    """Gini coefficient of numbers >= 0; null for none, 0 when all are 0."""
    if not len(values):
        return None
    count, everything = len(values), float(values.sum())
    if not everything:
        return 0.0
    ranks = np.arange(1, count + 1)
    return float(2 * (ranks * np.sort(values)).sum() / (count * everything) - (count + 1) / count)


def groups(programs: pa.Table, window: Window) -> Metrics | None:
    """Groups of programs whose results are wanted together (a rollout's samples); null without groups.

    A group has finished when its slowest member ended, well or not; `finished` in the window. Its
    `completion_s` runs from the first member's arrival to that end. `straggler_share`: the part of it that
    passed after the median member's end, mean over the groups: what all but the slow ones wait for. In a
    closed loop members start one by one, as programs end, so completion includes that. Nobody knows
    whether the group that arrived last has members to come: it counts if it is as large as the largest.
    """
    names = texts(programs, "group_id")
    grouped = np.array([name is not None for name in names], dtype=bool)
    if not grouped.any():
        return None
    members: dict[str, list[int]] = {}
    for row in np.flatnonzero(grouped):
        members.setdefault(str(names[row]), []).append(int(row))
    largest = max(map(len, members.values()))
    arrived, ended = floats(programs, "arrived_s"), floats(programs, "finished_s")
    latest = str(names[grouped][floats(programs, "position")[grouped].argmax()])
    times, shares = [], []
    for name, rows in members.items():
        last = float(ended[rows].max())  # NaN while a member runs
        if not window[0] < last <= window[1] or (name == latest and len(rows) < largest):
            continue
        times.append(last - float(arrived[rows].min()))
        shares.append(ratio(last - float(np.median(ended[rows])), times[-1]))
    return {
        "finished": len(times),
        "completion_s": _distribution(np.array(times, dtype=np.float64)),
        "straggler_share": mean(np.array([share for share in shares if share is not None])),
    }


def tools(runs: pa.Table, window: Window) -> Metrics:
    """Tool runs that ended in the window: how many, how long they ran, what they returned."""
    ended = inside(runs, "finished_s", window)
    return {
        "runs": ended.num_rows,
        "run_s": _distribution(floats(ended, "finished_s") - floats(ended, "started_s")),
        "observation_tokens": int(total(ended, "observation_tokens")),
    }


def preparation(sandboxes: pa.Table, window: Window) -> Metrics:
    """Sandboxes that got ready in the window, and what was left behind by the whole run.

    `prepare_s`: preparation begins -> it can run tools. Of these seconds, `hidden_s` passed while the
    program did other work and `exposed_s` while somebody waited. `leaked`: sandboxes whose program finished
    and that nobody reclaimed before the run ended; `leaked_bytes`: their own layers.
    """
    ready = inside(sandboxes, "ready_s", window)
    leaked = sandboxes.filter(sandboxes["leaked"])
    return {
        "prepared": ready.num_rows,
        "prepare_s": _distribution(floats(ready, "ready_s") - floats(ready, "requested_s")),
        "hidden_s": total_known(floats(ready, "hidden_s")),
        "exposed_s": total_known(floats(ready, "exposed_s")),
        "leaked": leaked.num_rows,
        "leaked_bytes": int(total(leaked, "writable_bytes")),
    }


def goodput_of(calls: pa.Table, limits: Mapping[str, float], window: Window) -> Metrics:
    """Steps of the window that kept every limit; a call of one token keeps any `tpot_s`."""
    values = {
        "ttft_s": _ttft(calls),
        "tpot_s": _tpot(calls),
        "step_s": floats(calls, "ended_s") - floats(calls, "arrived_s"),
    }
    good = np.ones(calls.num_rows, dtype=bool)
    for name, limit in limits.items():
        if name not in values:
            raise SetupError(f"goodput limit {name!r}", f"one of {', '.join(GOODPUT_LIMITS)}")
        good &= values[name] <= limit
    count = int(good.sum())
    return {
        "limits": dict(limits),
        "good_steps": count,
        "good_steps_per_min": ratio(count * 60.0, window[1] - window[0]),
        "good_share": ratio(count, calls.num_rows),
    }


def _ttft(calls: pa.Table) -> Floats:
    return floats(calls, "first_token_s") - floats(calls, "arrived_s")


def _tpot(calls: pa.Table) -> Floats:
    """Seconds per output token after the first; 0 where there is only one."""
    seconds: Floats = floats(calls, "finished_s") - floats(calls, "first_token_s")
    seconds /= np.maximum(floats(calls, "output_tokens") - 1, 1)
    return seconds


def _distribution(values: Floats) -> Metrics:
    """Count, mean, maximum and percentiles (linear between ranks); null where samples are too few."""
    count = len(values)
    shares = {
        f"p{p}": float(np.percentile(values, p)) if count >= floor else None for p, floor in FLOORS.items()
    }
    return {"n": count, "mean": mean(values), **shares, "max": float(values.max()) if count else None}

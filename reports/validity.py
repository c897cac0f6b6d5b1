"""Whether a run measured what it says it measured.

A run is INVALID, with every reason that applies, when

    errors       more than 1 % of the programs that arrived failed. Each failure makes room for another
                 program, so the load is no longer the one that was asked for.
    hit rate     the cache gave more than it can hold. The rows allow a bound that needs no contents: an
                 engine computes at least the last token of every prompt, and the longest prompt of a
                 program, less what the program's own calls put out, was computed once by somebody. So
                 hits <= queries - max(calls, that much of any one program).
    warm cache   hits from before the run: every call among those scheduled first found tokens in the
                 cache, or a counter was not 0 before the first program arrived. Real servers do not say
                 when they scheduled, so there the first are all that were sent before any was answered;
                 and they have counted since they were started, so their counters say nothing.
    concurrency  in a closed loop fewer programs were live than asked for while there were more to start:
                 on average below 95 % of them, from when the last of the first had started.
    client       the client of a live run was the bottleneck. It sent calls late, or its event loop woke up
                 late and so took the times of tokens late: p99 above 0.1 s, as long as a cached call takes
                 to its first token, or above 5 % of the median step; means are late by far less than a
                 p99, so then by less than the 2 % that count as no difference. Or it used more than 90 %
                 of the core that its event loop has: from there on what waits for it grows tenfold.
                 Virtual runs have no client, and what is absent is not judged. A client that was late
                 with its core half idle was kept from it, by servers on the same machine, say.
    failed calls more than 1 % of the calls of a live run failed for good, after all retries.
    outputs      of more than 1 % of the calls of a live run the server did not say what it generated, so
                 the next prompts did not hold it: its cache was asked for less than an agent would ask. Or
                 the outputs of more than 1 % were of another length than the plan's: not the same load.
    servers      one was away for a time: the other schedulers had all of them.
    steps        fewer than 130 steps ended in the window. Below that no p95 can be stated (the floors of
                 `harness.metrics`), and the noise of counting alone, 1 / sqrt(130) = 9 %, hides whatever
                 difference anybody looks for.

The tables are read in pieces, with the columns that are needed; the length of a run is no matter.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from harness.records import Run
from reports.measures import pick

MOST_FAILED_SHARE = 0.01
LEAST_LIVE_SHARE = 0.95
MOST_LATE_S = 0.1
MOST_LATE_SHARE = 0.05  # of the median step
MOST_CPU_SHARE = 0.9
IDLE_CPU_SHARE = 0.5
MOST_LOST_SHARE = 0.01
LEAST_STEPS = 130

_LATE = {"lateness_p99_s": "it sent calls", "lag_p99_s": "its event loop woke up"}
_COUNTERS = ("queries_total", "hits_total", "preemptions_total", "evicted_blocks_total")
_MOMENTS = ("arrived_s", "dispatched_s", "scheduled_s", "first_token_s")


class Validity(NamedTuple):
    """Whether a run counts; without reasons it does. Each reason is a clause without a full stop."""

    valid: bool
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return "VALID" if self.valid else f"INVALID: {'; '.join(self.reasons)}"


def validity(run: Run) -> Validity:
    """VALID, or INVALID with every reason that applies. Raises SetupError when a table cannot be read."""
    programs, calls, samples = _programs(run), _calls(run), _samples(run)
    reasons = [
        *_errors(programs),
        *_hit_rate(calls, samples),
        *_warm_cache(programs, calls, samples, simulated=run.provenance.get("simulated", False)),
        *_concurrency(run, programs, samples),
        *_client(run),
        *_failed_calls(run, calls),
        *_outputs(run),
        *_servers(run),
        *_steps(calls),
    ]
    return Validity(not reasons, tuple(reasons))


# ------------------------------------------------------------------ what the tables say


@dataclass(slots=True)
class _Programs:
    arrived: int = 0
    failed: int = 0
    first_reason: str = ""
    first_arrival_s: float = math.inf
    last_arrival_s: float = -math.inf
    first_open_call_s: float = math.inf
    """When a program of which no step ended called for the first time: a call that left no row."""


@dataclass(slots=True)
class _Calls:
    calls: int = 0
    in_window: int = 0
    impossible: int = 0
    """Calls that found their whole prompt in the cache, or more."""
    prompt: int = 0
    longest: dict[str, int] = field(default_factory=dict)
    """Program -> its longest prompt, tokens."""
    output: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    """Program -> tokens that its calls put out."""
    first: tuple[float, int] = (math.inf, 0)
    """When a call was first scheduled, and the fewest cached tokens of the calls scheduled then.

    Where servers do not say: when a call was first sent, the fewest of all sent before any was answered.
    """


@dataclass(slots=True)
class _Samples:
    queries: int = 0
    hits: int = 0
    """What the engines counted in the run; 0 where they do not tell."""
    first: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """Replica -> time and counters of its first sample."""
    live: list[pa.Array] = field(default_factory=list)
    times: list[pa.Array] = field(default_factory=list)


def _programs(run: Run) -> _Programs:
    found = _Programs()
    for part in _parts(run, "programs", ["arrived_s", "first_call_s", "steps_done", "ended_at"]):
        found.arrived += part.num_rows
        failed = part.filter(pc.starts_with(part["ended_at"], "failed"))["ended_at"]
        found.failed += len(failed)
        found.first_reason = found.first_reason or (_short(failed[0].as_py()) if len(failed) else "")
        found.first_arrival_s = _smallest(part["arrived_s"], found.first_arrival_s)
        found.last_arrival_s = max(found.last_arrival_s, pc.max(part["arrived_s"]).as_py())
        open_calls = part.filter(pc.equal(part["steps_done"], 0))["first_call_s"]
        found.first_open_call_s = _smallest(open_calls, found.first_open_call_s)
    return found


def _calls(run: Run) -> _Calls:
    found = _Calls()
    start, end = _window(run)
    unscheduled: list[pa.Table] = []
    columns = ["program_id", *_MOMENTS, "ended_s", "prompt_tokens", "cached_tokens", "output_tokens"]
    for part in _parts(run, "calls", columns):
        prompt, cached, ended = part["prompt_tokens"], part["cached_tokens"], part["ended_s"]
        found.calls += part.num_rows
        found.in_window += _count(pc.and_(pc.greater(ended, start), pc.less_equal(ended, end)))
        found.impossible += _count(pc.and_(pc.greater_equal(cached, prompt), pc.greater(cached, 0)))
        found.prompt += pc.sum(prompt).as_py()
        own = part.group_by("program_id").aggregate([("prompt_tokens", "max"), ("output_tokens", "sum")])
        for row in own.to_pylist():
            name = row["program_id"]
            found.longest[name] = max(found.longest.get(name, 0), row["prompt_tokens_max"])
            found.output[name] += row["output_tokens_sum"]
        first = _smallest(part["scheduled_s"], math.inf)
        fewest = pc.min(part.filter(pc.equal(part["scheduled_s"], first))["cached_tokens"]).as_py()
        found.first = min(found.first, (first, fewest or 0))
        silent = part.filter(pc.is_null(part["scheduled_s"])).select([*_MOMENTS, "cached_tokens"])
        unscheduled += [silent] if silent.num_rows else []
    if unscheduled:
        found.first = min(found.first, _first_sent(pa.concat_tables(unscheduled)))
    return found


def _first_sent(calls: pa.Table) -> tuple[float, int]:
    """`_Calls.first` of calls whose servers do not say when they scheduled."""
    sent = pc.coalesce(calls["dispatched_s"], calls["arrived_s"])
    before = calls.filter(pc.less(sent, pc.min(calls["first_token_s"])))
    return pc.min(sent).as_py(), pc.min(before["cached_tokens"]).as_py() or 0


def _samples(run: Run) -> _Samples:
    found = _Samples()
    last: dict[str, dict[str, int | None]] = {}
    for part in _parts(run, "samples", ["time_s", "replica", "programs_live", *_COUNTERS]):
        found.times += part["time_s"].chunks
        found.live += part["programs_live"].chunks
        for replica in pc.unique(part["replica"]).to_pylist():
            own = part.filter(pc.equal(part["replica"], replica)).select(["time_s", *_COUNTERS])
            found.first.setdefault(replica, own.slice(0, 1).to_pylist()[0])
            last[replica] = own.slice(own.num_rows - 1).to_pylist()[0]
    gained = {
        name: [_gain(found.first[replica][name], row[name]) for replica, row in last.items()]
        for name in ("queries_total", "hits_total")
    }
    if all(None not in each for each in gained.values()):
        found.queries, found.hits = (sum(filter(None, each)) for each in gained.values())
    return found


def _gain(first: float | None, last: float | None) -> int | None:
    """What a total grew by; null where it is not told, and where it fell: its server began anew."""
    return None if first is None or last is None or last < first else int(last - first)


# ------------------------------------------------------------------ the reasons


def _errors(programs: _Programs) -> Iterator[str]:
    if programs.failed > MOST_FAILED_SHARE * programs.arrived:
        share = programs.failed / programs.arrived
        yield (
            f"{programs.failed} of {programs.arrived} programs failed ({share:.1%}, at most "
            f"{MOST_FAILED_SHARE:.0%}); the first: {programs.first_reason}"
        )


def _hit_rate(calls: _Calls, samples: _Samples) -> Iterator[str]:
    if calls.impossible:
        yield (
            f"hit rate above the bound: {calls.impossible} calls found their whole prompt in the cache, "
            "and an engine computes at least its last token"
        )
    new = max((tokens - calls.output[name] for name, tokens in calls.longest.items()), default=0)
    bound = samples.queries
    if samples.queries >= calls.prompt:  # the last sample has seen all of these calls
        bound -= max(calls.calls, new)
    if samples.hits > bound:
        yield (
            f"hit rate above the bound: {samples.hits} of {samples.queries} prompt tokens counted as "
            f"cached, and at most {max(bound, 0)} can be"
        )


def _warm_cache(programs: _Programs, calls: _Calls, samples: _Samples, *, simulated: bool) -> Iterator[str]:
    scheduled_s, cached = calls.first
    if cached > 0 and scheduled_s < programs.first_open_call_s:
        yield (
            f"warm cache carried over: the first call, at {scheduled_s:g} s, found {cached} tokens before "
            "anything was computed"
        )
    for replica, row in samples.first.items() if simulated else ():
        counted = ", ".join(f"{name} = {row[name]}" for name in _COUNTERS if row[name])
        if counted and (row["time_s"] or 0.0) <= programs.first_arrival_s:
            yield f"warm cache carried over: {replica} had {counted} before the first program arrived"


def _concurrency(run: Run, programs: _Programs, samples: _Samples) -> Iterator[str]:
    asked = (run.spec.get("concurrency") or [None])[0]
    if asked is None or not samples.times:
        return
    start, end = _window(run)
    start = max(start, float(run.spec.get("start_spread_s", 0.0)))
    if math.isinf(float(run.spec.get("duration_s", 0.0))):
        end = min(end, programs.last_arrival_s)  # from there on there was nothing more to start
    times = pa.chunked_array(samples.times)
    inside = pc.and_(pc.greater_equal(times, start), pc.less_equal(times, end))
    live = pc.mean(pa.chunked_array(samples.live).filter(inside)).as_py()
    if live is not None and live < LEAST_LIVE_SHARE * asked:
        yield f"concurrency never reached: {live:.1f} programs live on average, {asked} asked for"


def _client(run: Run) -> Iterator[str]:
    step_s = pick(run.summary, ("latency", "step_s", "p50"))
    most_s = MOST_LATE_S if step_s is None else min(MOST_LATE_S, MOST_LATE_SHARE * step_s)
    cpu = pick(run.summary, ("client", "cpu_share"))
    why = "; play fewer programs, or from a faster machine"
    if cpu is not None and cpu < IDLE_CPU_SHARE:
        why = f"; it used {cpu:.0%} of its core, so others did: "
        why += "keep servers off it (taskset), or play from another machine"
    found = []
    for name, what in _LATE.items():
        late_s = pick(run.summary, ("client", name))
        if late_s is not None and late_s > most_s:
            found.append(f"{what} up to {late_s:.3g} s late (p99, at most {most_s:.2g} s)")
    if cpu is not None and cpu > MOST_CPU_SHARE:
        found.append(f"it used {cpu:.0%} of its core (at most {MOST_CPU_SHARE:.0%})")
    if found:
        yield f"client too slow: {', '.join(found)}{why}"


def _failed_calls(run: Run, calls: _Calls) -> Iterator[str]:
    failed = pick(run.summary, ("client", "failed_calls")) or 0.0
    every = calls.calls + failed
    if failed > MOST_FAILED_SHARE * every:
        yield (
            f"{failed:.0f} of {every:.0f} calls failed ({failed / every:.1%}, at most "
            f"{MOST_FAILED_SHARE:.0%})"
        )


def _outputs(run: Run) -> Iterator[str]:
    lost, sent = (pick(run.summary, ("client", name)) or 0.0 for name in ("outputs_lost", "calls_sent"))
    if lost > MOST_LOST_SHARE * sent:
        yield (
            f"outputs of {lost:.0f} of {sent:.0f} calls not carried into the next prompts: the server did "
            "not return what it generated; without return_token_ids, use --api chat"
        )
    odd = pick(run.summary, ("client", "odd_lengths")) or 0.0
    if odd > MOST_LOST_SHARE * sent:
        yield (
            f"outputs of {odd:.0f} of {sent:.0f} calls longer or shorter than asked for: the server heeds "
            "neither ignore_eos nor min_tokens"
        )


def _servers(run: Run) -> Iterator[str]:
    outages = (run.summary.get("servers") or {}).get("outages") or {}
    for name, each in outages.items():
        times = "once" if each["times"] == 1 else f"{each['times']} times"
        yield f"server {name} was away {times}, for {each['away_s']:.3g} s in all"


def _steps(calls: _Calls) -> Iterator[str]:
    if calls.in_window < LEAST_STEPS:
        yield f"too few steps: {calls.in_window} ended in the window, at least {LEAST_STEPS} are needed"


# ------------------------------------------------------------------ reading


def _window(run: Run) -> tuple[float, float]:
    """The measured window, (start, end]; the whole run where the summary does not say."""
    start, end = (pick(run.summary, ("window", edge)) for edge in ("start_s", "end_s"))
    return (-math.inf if start is None else start, math.inf if end is None else end)


def _parts(run: Run, name: str, columns: list[str]) -> Iterator[pa.Table]:
    """Some columns of a table in pieces that are not empty."""
    for batch in run.batches(name, columns):
        if batch.num_rows:
            yield pa.Table.from_batches([batch])


def _smallest(values: pa.ChunkedArray, so_far: float) -> float:
    found = pc.min(values).as_py()
    return so_far if found is None else min(so_far, found)


def _count(mask: pa.ChunkedArray) -> int:
    return int(pc.sum(mask).as_py() or 0)


def _short(text: str) -> str:
    """One line of at most 200 characters; servers write novels."""
    line = " ".join(text.split())
    return line if len(line) <= 200 else f"{line[:199]}…"

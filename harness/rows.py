"""The rows of a run's tables. Column names, types and descriptions stand here and nowhere else.

Each table is a NamedTuple; `records.py` derives the Arrow schema from the annotations. Units are in the
names: `_s` seconds of the run's own clock, `_tokens`, `_bytes`. Null means "not known" or "did not
happen", never 0.

Virtual time knows everything. A live run knows what its servers tell: a part of a step that they do not
tell is null, and the next part that is known includes it, so that those that are known still add up to the
step. Without `scheduled_s`, `prefill_s` counts from `dispatched_s` and so includes the server's queue;
without that too, as behind a gateway that is not ours, from `arrived_s`.
"""

from __future__ import annotations

from typing import Annotated, NamedTuple


class ProgramRow(NamedTuple):
    """One row per program that arrived: as they ended, then those that had not."""

    program_id: Annotated[str, "identity, as sent to the server"]
    position: Annotated[int, "position in the plan"]
    task_id: Annotated[str | None, "task the program works on"]
    group_id: Annotated[str | None, "group whose results are wanted together, such as a rollout's samples"]
    arrived_s: Annotated[float, "the program exists and wants to start"]
    first_call_s: Annotated[float | None, "its first call reached the gateway"]
    finished_s: Annotated[float | None, "all calls and tools ended; null when the run ended first"]
    calls_planned: Annotated[int, "calls of the program"]
    steps_done: Annotated[int, "steps ended: a call and the tool runs after it"]
    prompt_tokens: Annotated[int, "sum over finished calls"]
    cached_tokens: Annotated[
        int | None,
        "prompt tokens found in the prefix cache, sum over finished calls; null: not told of all",
    ]
    output_tokens: Annotated[int, "sum over finished calls"]
    recomputed_tokens: Annotated[
        int | None, "tokens computed again, sum over finished calls; null: not known of all"
    ]
    pauses: Annotated[int, "times the policy paused the program"]
    worst_wait_s: Annotated[
        float,
        "longest wait of one call for its first scheduling (held, then queued), or for its first token "
        "where the server does not say when it scheduled; open waits count",
    ]
    ended_at: Annotated[str, "finished, failed: why, or unfinished when the run ended first"]


class CallRow(NamedTuple):
    """One row per step that ended (its call and its tools), in order of ending.

    In a live run a call that failed and was tried again is one call: its times are those of the attempt
    that succeeded, apart from `arrived_s`, and what went before counts to its first known part.
    """

    program_id: Annotated[str, "program of the call"]
    call_id: Annotated[str, "identity of the call"]
    position: Annotated[int, "position of the call in its program"]
    replica: Annotated[str | None, "replica that served it; null: the gateway does not say"]
    arrived_s: Annotated[float, "the request reached the gateway; in a live run: when it was due"]
    dispatched_s: Annotated[
        float | None, "the gateway handed it to the engine; null: the gateway does not say"
    ]
    scheduled_s: Annotated[
        float | None, "an engine step took it for the first time; null: the server does not say"
    ]
    first_token_s: Annotated[float, "its first output token came"]
    finished_s: Annotated[float, "its last output token came"]
    ended_s: Annotated[float, "its tool runs had ended too: the end of the step"]
    prompt_tokens: Annotated[int, "length of the prompt"]
    cached_tokens: Annotated[
        int | None, "prompt tokens found in the prefix cache at first scheduling; null: not told"
    ]
    known_tokens: Annotated[int, "leading prompt tokens this program had computed before"]
    recomputed_tokens: Annotated[
        int | None,
        "max(0, known - cached) + tokens computed again because of preemptions; null: cached not told",
    ]
    output_tokens: Annotated[int, "tokens generated"]
    preemptions: Annotated[int | None, "times the engine preempted it; null: the server does not say"]
    hold_s: Annotated[float | None, "part of the step: held at the gateway; null: in the next known part"]
    queue_s: Annotated[
        float | None,
        "part of the step: in the engine's waiting queue before first scheduling; null: in `prefill_s`",
    ]
    prefill_s: Annotated[
        float, "part of the step: first scheduling to first token, and the parts before that are null"
    ]
    decode_s: Annotated[float, "part of the step: first token to last"]
    sandbox_s: Annotated[float, "part of the step: tools waiting for their sandbox"]
    tool_s: Annotated[float, "part of the step: tools running"]
    retries: Annotated[int, "attempts before that failed; 0 in virtual time"]
    late_s: Annotated[
        float | None,
        "how much later than it was due the client sent it, in the first part; null: not known",
    ]


class ToolRow(NamedTuple):
    """One row per tool run that ended."""

    program_id: Annotated[str, "program of the tool run"]
    call_id: Annotated[str, "call that asked for it"]
    tool: Annotated[str, "name of the tool"]
    asked_s: Annotated[float, "its call had ended: the tool could start"]
    started_s: Annotated[float, "it started (its sandbox was ready)"]
    finished_s: Annotated[float, "it ended"]
    observation_tokens: Annotated[int, "tokens it returned"]


class SampleRow(NamedTuple):
    """One row per replica and sampling instant. Totals count from the start of the run.

    What a server does not tell, or did not tell in time, is null. Totals of a real server count from its
    own start: between two samples they say what happened, by themselves nothing.
    """

    time_s: Annotated[float, "sampling instant"]
    replica: Annotated[str, "replica"]
    running: Annotated[int | None, "requests in the batch (vllm:num_requests_running)"]
    waiting: Annotated[int | None, "requests in the engine's queue (vllm:num_requests_waiting)"]
    held: Annotated[int | None, "calls held at the gateway, all replicas together"]
    used_tokens: Annotated[int | None, "KV held by running requests"]
    idle_cached_tokens: Annotated[int | None, "KV held by nobody but still reusable"]
    capacity_tokens: Annotated[int | None, "KV capacity"]
    queries_total: Annotated[int | None, "prompt tokens looked up (vllm:prefix_cache_queries)"]
    hits_total: Annotated[int | None, "of them cached (vllm:prefix_cache_hits)"]
    preemptions_total: Annotated[int | None, "preemptions (vllm:num_preemptions)"]
    evicted_blocks_total: Annotated[int | None, "cached blocks overwritten"]
    stp_decode_total: Annotated[float | None, "token-seconds held by decoding requests"]
    stp_prefill_total: Annotated[float | None, "token-seconds held by requests in first prefill"]
    stp_recompute_total: Annotated[float | None, "token-seconds held by prefill computing again"]
    stp_unused_total: Annotated[float | None, "token-seconds of blank KV"]
    stp_caching_total: Annotated[float | None, "token-seconds of idle cached KV"]
    programs_live: Annotated[int, "programs arrived and not finished"]
    sandboxes: Annotated[int, "sandboxes that hold disk"]
    sandbox_writable_bytes: Annotated[int, "disk of the sandboxes' own layers"]
    sandbox_image_bytes: Annotated[int, "disk of the images they use, each image once"]


class SandboxRow(NamedTuple):
    """One row per sandbox."""

    program_id: Annotated[str, "program it belongs to"]
    image: Annotated[str, "image it was made from"]
    requested_s: Annotated[float, "preparation began"]
    ready_s: Annotated[float | None, "it can run tools"]
    needed_s: Annotated[float | None, "the agent first waited for it or used it"]
    released_s: Annotated[float | None, "its program finished"]
    reclaimed_s: Annotated[float | None, "its disk was freed; null when the run ended first"]
    hidden_s: Annotated[float | None, "preparation that overlapped other work"]
    exposed_s: Annotated[float | None, "preparation that somebody waited for"]
    image_bytes: Annotated[int, "size of the image, shared by its users"]
    writable_bytes: Annotated[int, "size of its own layer"]
    leaked: Annotated[bool, "its program finished and nobody reclaimed it"]


TABLES: dict[str, type] = {
    "programs": ProgramRow,
    "calls": CallRow,
    "tools": ToolRow,
    "samples": SampleRow,
    "sandboxes": SandboxRow,
}

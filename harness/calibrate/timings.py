"""When the requests of a recorded run came, got their first token and ended, as columns.

Two sources: a recorded trace whose steps have `started_at`, `ttft_s` and `llm_s` (a client's clock, so
whatever stands between client and engine is in it), and the results folder of a run (`calls.parquet`; the
engine's own moments, so neither holding nor queueing is). Of a run on real servers a request starts when
the gateway handed it to its server, which does not say when it took it nor whether it preempted it: its
queue is in the time to first token, so calibrate on a run that the servers' memory was large enough for.

What a trace does not say is taken so: the prefix cache held all that an earlier prompt of the program held
(`new_prompt_tokens` were computed), and the prefix shared by all programs of a workload from its second
program on. Steps marked `unlogged` have output tokens that were estimated from their times, so they count
as load and never as evidence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from harness.columns import Floats, floats, texts
from harness.errors import SetupError
from harness.records import find_runs, open_run
from harness.resolve import setup_errors
from workloads.model import Program
from workloads.trace_records import Record, parse_line

MIN_PROGRAMS = 8  # fewer cannot be split into a part to fit and a part to hold out
MIN_REQUESTS = 100
_GAP_S = 1.0  # between engines that are put on one time line

OnProgress = Callable[[int, int], None]


class Requests(NamedTuple):
    """Requests of one or more engines on one time line, one entry per request, in no order.

    `program` numbers the programs. `computed` are the prompt tokens that were not cached. `evidence` says
    whether the output tokens were counted and the request ran undisturbed. `at_engine` says that `start_s`
    is when an engine step took the request; else a step in progress may have had to end first.
    """

    program: NDArray[np.int64]
    start_s: Floats
    first_s: Floats
    end_s: Floats
    prompt: Floats
    computed: Floats
    output: Floats
    evidence: NDArray[np.bool_]
    at_engine: bool

    @property
    def ttft_s(self) -> Floats:
        """Seconds to the first token."""
        return self.first_s - self.start_s

    @property
    def decode_s(self) -> Floats:
        """Seconds from the first token to the last."""
        return self.end_s - self.first_s

    @property
    def programs(self) -> int:
        """How many programs there are."""
        return int(self.program.max()) + 1


def read_requests(source: Path, on_progress: OnProgress | None = None) -> Requests:
    """The timings in a trace of recorded steps or in a results folder. Raises `SetupError`."""
    found = _of_folder(source) if source.is_dir() else _of_trace(source, on_progress)
    if not len(found.program):
        raise SetupError(
            f"{source} has no timings",
            "steps with started_at, ttft_s and llm_s, or the results folder of a run",
        )
    if found.programs < MIN_PROGRAMS or found.evidence.sum() < MIN_REQUESTS:
        raise SetupError(
            f"{source}: {found.evidence.sum()} requests with timings, of {found.programs} programs",
            f"at least {MIN_REQUESTS} of {MIN_PROGRAMS} programs, to fit on some and judge by others",
        )
    return found


def records_of(file: Path, on_progress: OnProgress | None = None) -> Iterator[Record]:
    """The records of a trace of steps, in order. Raises `SetupError`; whole programs have no timings."""
    try:
        size = file.stat().st_size
        done = 0
        with file.open("rb") as lines, setup_errors():
            for number, line in enumerate(lines, 1):
                done += len(line)
                if line.strip():
                    yield _steps(file, parse_line(str(file), number, line))
                if on_progress is not None:
                    on_progress(done // 1_000_000, size // 1_000_000)
    except OSError as error:
        raise SetupError(
            f"{file} cannot be read ({error.strerror})", "a recorded trace or a results folder"
        ) from error


def _steps(file: Path, found: Record | Program) -> Record:
    if isinstance(found, Record):
        return found
    raise SetupError(
        f"{file} has no timings: it holds programs to be played",
        "the recording itself: steps with started_at, ttft_s and llm_s",
    )


# ------------------------------------------------------------------ traces


class _Row(NamedTuple):
    program: int
    start_s: float
    first_s: float
    end_s: float
    prompt: int
    computed: int
    output: int
    evidence: bool


def _of_trace(file: Path, on_progress: OnProgress | None) -> Requests:
    rows: list[_Row] = []
    warm: set[str] = set()  # workloads whose shared prefix some program has computed
    program = 0
    for record in records_of(file, on_progress):
        mine = _rows(record, program, record.shared if record.workload in warm else 0)
        warm.add(record.workload)
        rows += mine
        program += bool(mine)
    return _requests(rows)


def _rows(record: Record, program: int, shared: int) -> list[_Row]:
    rows = []
    for k, step in enumerate(record.steps):
        if step.started_s is None or step.ttft_s is None or step.llm_s is None:
            continue
        if not 0 < step.ttft_s <= step.llm_s:
            continue  # a clock that was set back, or a first token nobody saw
        cached = step.prompt - step.new if k else min(shared, step.prompt - 1)
        rows.append(
            _Row(
                program,
                step.started_s,
                step.started_s + step.ttft_s,
                step.started_s + step.llm_s,
                step.prompt,
                max(1, step.prompt - cached),
                step.output,
                step.counted,
            )
        )
    return rows


def _requests(rows: Sequence[_Row]) -> Requests:
    program = np.array([row.program for row in rows], dtype=np.int64)
    evidence = np.array([row.evidence for row in rows], dtype=np.bool_)
    numbers = np.array([row[1:7] for row in rows], dtype=np.float64).reshape(-1, 6)
    began = numbers[:, 0].min(initial=np.inf)
    numbers[:, :3] -= began  # small numbers keep their digits
    return _made(program, list(numbers.T), evidence, at_engine=False)


def _made(
    program: NDArray[np.int64], columns: Sequence[Floats], evidence: NDArray[np.bool_], *, at_engine: bool
) -> Requests:
    start, first, end, prompt, computed, output = columns
    return Requests(program, start, first, end, prompt, computed, output, evidence, at_engine)


# ------------------------------------------------------------------ results folders


def _of_folder(folder: Path) -> Requests:
    parts: list[list[Floats]] = []
    names: list[NDArray[np.object_]] = []
    offset, at_engine = 0.0, True
    for path in find_runs(folder):
        calls = open_run(path).table("calls")
        _refuse_untold(path, calls)
        replicas = texts(calls, "replica")
        first_moment = "dispatched" if calls["scheduled_s"].null_count else "scheduled"
        at_engine = at_engine and first_moment == "scheduled"
        for replica in dict.fromkeys(replicas):
            mine = replicas == replica
            moments = [
                floats(calls, f"{name}_s")[mine] for name in (first_moment, "first_token", "finished")
            ]
            prompt, cached, output, preempted = (
                floats(calls, name)[mine]
                for name in ("prompt_tokens", "cached_tokens", "output_tokens", "preemptions")
            )
            parts.append([*(m + offset for m in moments), prompt, prompt - cached, output, preempted])
            names.append(texts(calls, "program_id")[mine])
            offset += float(moments[2].max()) + _GAP_S
    if not parts:
        return _requests(())
    *columns, preempted = (np.concatenate(column) for column in zip(*parts, strict=True))
    _, program = np.unique(np.concatenate(names).astype(str), return_inverse=True)
    start, first, end, _, _, output = columns
    # On the wall clock a client that was held up takes the first token and the last at one time.
    seen = (first > start) & ((end > first) | (output <= 1))
    return _made(program.astype(np.int64), columns, seen & ~(preempted > 0), at_engine=at_engine)


def _refuse_untold(run: Path, calls: pa.Table) -> None:
    """Raise `SetupError` unless every call says which server took it when, and what that had cached."""
    if calls["replica"].null_count or calls["dispatched_s"].null_count:
        raise SetupError(
            f"{run}: behind a gateway that does not say which server took a call, and when",
            "a run of a scheduler of ours",
        )
    untold = calls["cached_tokens"].null_count
    if untold:
        raise SetupError(
            f"{run}: {untold} of {calls.num_rows} calls without their cached tokens",
            "servers that tell them, so that what was computed is known",
            "Start vLLM with --enable-prompt-tokens-details",
        )


def is_step_file(source: Path) -> bool:
    """Whether a file holds timings of engine steps rather than of requests, by its name."""
    return source.suffix.lower() in {".csv", ".parquet"}

"""A study from its spec to its results folder.

    <study>/  spec.toml (resolved)  <run>/ ... (see `records`)  summary.json (last)

Everything the user can get wrong is refused before the folder exists. A study that is interrupted, or
some of whose runs die, keeps the runs that finished; `resume` does only what is missing.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from harness.errors import EngineFailed, SetupError
from harness.lazy import named
from harness.processes import Job, Results, run_jobs
from harness.progress import View
from harness.records import DONE, PARTIAL, open_run
from harness.settings import load_spec
from harness.spec import RunKey, RunSpec
from harness.tables import writing
from harness.worker import Failed, work

RESULTS = Path("results")
SPEC = "spec.toml"
SUMMARY = "summary.json"
LOGS = "logs"  # of servers that were started; all that a study leaves whose servers did not start
VERDICT = "reports.verdict:verdict"

# A run of an hour with a hundred programs writes some 5 MB.
FREE_BYTES_PER_RUN = 20_000_000


class Study(NamedTuple):
    """A finished, interrupted or partly failed study. `summary` is null unless every run is there."""

    folder: Path
    summary: dict[str, Any] | None
    failed: dict[str, Failed]
    stopped_by: int | None


def run_study(
    spec: RunSpec, folder: Path, *, jobs: int, view: View, provenance: Mapping[str, Any]
) -> Study:
    """Play every run of a resolved study that `folder` does not hold yet, then compare them.

    `folder` is new, empty or that of the same study. Raises `SetupError`.
    """
    keys = spec.runs()
    with closing(view):
        _distinct_names(keys)
        made = _make_folder(folder)
        with _claimed(folder):
            missing = [key for key in keys if not (folder / key.name / DONE).exists()]
            for key in keys:
                if key not in missing:
                    open_run(folder / key.name)  # what cannot be read is known before hours are spent
            try:
                _room_for(folder, len(missing))
                with writing(folder):
                    (folder / SPEC).write_text(spec.toml(), encoding="utf-8")
                    for key in missing:  # what a broken copy left
                        shutil.rmtree(folder / key.name, ignore_errors=True)
                outcomes, stopped_by = _play(spec, missing, folder, jobs=jobs, view=view, facts=provenance)
            finally:
                _tidy(folder, keys, made)
    failed = {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Failed)}
    if failed or stopped_by is not None:
        return Study(folder, None, failed, stopped_by)
    summary = summary_of(folder, [key.name for key in keys])
    _write_summary(folder, summary)
    return Study(folder, summary, failed, stopped_by)


def _play(
    spec: RunSpec,
    missing: Sequence[RunKey],
    folder: Path,
    *,
    jobs: int,
    view: View,
    facts: Mapping[str, Any],
) -> Results:
    """Play the runs: simulated ones side by side, those on real servers one at a time."""

    def job(known: RunSpec, key: RunKey) -> Job:
        return Job(key.name, work, (known, key, folder / key.name, facts))

    if not spec.is_live:
        return run_jobs([job(spec, key) for key in missing], jobs, view)
    if not missing:
        return Results({}, None)
    from harness.live.study import reachable  # noqa: PLC0415 - simulated studies need no servers

    with reachable(spec, folder / LOGS, view.note) as reached:
        found = run_jobs([job(reached.spec, key) for key in missing], 1, view)
        return _explained(found, reached.failure())


def _explained(found: Results, failure: EngineFailed | None) -> Results:
    """Runs that failed when a server of ours had ended say why it had."""
    if failure is None:
        return found
    return Results(
        {
            name: Failed(f"{each.reason}; {failure}", failure.exit_code, each.trace)
            if isinstance(each, Failed)
            else each
            for name, each in found.outcomes.items()
        },
        found.stopped_by,
    )


def summary_of(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """Compare the runs `names` of a study. `invalid` says which of them do not count, and why.

    Raises `SetupError` when one of them is missing, incomplete or of another schema version.
    """
    runs = {name: open_run(folder / name) for name in names}
    verdict = named(VERDICT)(list(runs.values()))
    return {
        "order": list(runs),
        "invalid": [f"{each['run']}: {'; '.join(each['reasons'])}" for each in verdict["invalid"]],
        "verdict": verdict,
        "runs": {name: run.summary for name, run in runs.items()},
    }


def _write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    partial = folder / f"{SUMMARY}{PARTIAL}"
    with writing(folder):
        partial.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        partial.replace(folder / SUMMARY)


def new_folder(spec: RunSpec) -> Path:
    """Where a study goes: the place asked for, which must be new or empty, or a new one in `results/`."""
    if spec.output_dir is None:
        workload = RunKey(spec.workload.rpartition("/")[2], "concurrency", 0, 0).name.partition("-c0")[0]
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        return RESULTS / f"{stamp}-{workload}-{uuid4().hex[:6]}"
    folder = Path(spec.output_dir)
    if folder.is_dir() and {path.name for path in folder.iterdir()} - {LOGS}:
        raise SetupError(
            f"results folder {folder} is not empty",
            "a new or empty folder",
            f"Finish a study that is there with --resume {folder}.",
        )
    return folder


def resumed_spec(folder: Path, wanted: Callable[[Path], RunSpec]) -> RunSpec:
    """The spec of an unfinished study.

    `wanted` makes a resolved spec of the study's own file and of what the user says besides. Raises
    `SetupError` that names every difference between the two.
    """
    file = folder / SPEC
    if not file.is_file():
        raise SetupError(f"--resume {folder}: no {SPEC} in it", "the results folder of an earlier study")
    before = load_spec(file)
    now = wanted(file).model_copy(update={"output_dir": None})
    if now != before:
        differences = _differences(before.model_dump(), now.model_dump())
        raise SetupError(
            f"--resume {folder}: {'; '.join(differences)}",
            "the settings that the study began with",
            "Leave them out, or start a new study.",
        )
    return before


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`seed is 1, was 0`, for every setting that differs."""
    found: list[str] = []
    for name in sorted({*before, *now}):
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += _differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name} is {new!r}, was {old!r}")
    return found


def _distinct_names(keys: Sequence[RunKey]) -> None:
    names = [key.name for key in keys]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SetupError(f"two runs called {twice}", "schedulers whose names differ in letters or digits")


def _make_folder(folder: Path) -> Path | None:
    """Make `folder`; the topmost folder made on the way, null when it was there."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0" * 4096)
    except SetupError:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise
    return missing[-1] if missing else None


@contextmanager
def _claimed(folder: Path) -> Iterator[None]:
    """Nobody else plays runs into `folder` meanwhile; a process that dies gives it back."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise SetupError(
            f"results folder {folder} is in use by another thunderbench",
            "a folder of one's own",
            "Wait for it to end, or choose another place with --output-dir.",
        ) from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


def _room_for(folder: Path, runs: int) -> None:
    free, wanted = shutil.disk_usage(folder).free, runs * FREE_BYTES_PER_RUN
    if free < wanted:
        raise SetupError(
            f"results folder {folder}: {free / 1e6:.0f} MB free",
            f"at least {wanted / 1e6:.0f} MB for {runs} runs",
            "Make room, or choose another place with --output-dir.",
        )


def _tidy(folder: Path, keys: Sequence[RunKey], made: Path | None) -> None:
    """Remove unfinished runs; without any finished one, also whatever was made for the study."""
    for key in keys:
        shutil.rmtree(folder / f"{key.name}{PARTIAL}", ignore_errors=True)
    if any((folder / key.name / DONE).exists() for key in keys):
        return
    (folder / SPEC).unlink(missing_ok=True)
    for path in (folder, *folder.parents) if made else ():
        try:
            path.rmdir()
        except OSError:  # somebody else put something there
            return
        if path == made:
            return


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

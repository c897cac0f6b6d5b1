"""What happens in the process of one run, and what it tells its parent."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

from harness.compose import compose
from harness.errors import PolicyFailed, ThunderbenchError
from harness.metrics import summarise
from harness.records import RunWriter
from harness.spec import RunKey, RunSpec
from harness.virtual.driver import Progress
from schedulers.registry import is_built_in


class Failed(NamedTuple):
    """A run that died: one line of why, the exit code it calls for, a traceback if code is to blame."""

    reason: str
    exit_code: int
    trace: str = ""


class Done(NamedTuple):
    """A run whose folder is complete."""


def work(
    study: RunSpec, key: RunKey, folder: Path, provenance: Mapping[str, Any], parent: Connection
) -> None:
    """Play a run and tell `parent` how it goes; the last message is `Done` or `Failed`.

    A run makes millions of small objects that live for minutes of it. Looking through them for cycles
    as often as Python does by default takes a sixth of the time; memory stays the same.
    """
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
    parent.send(attempt(study, key, folder, provenance, parent.send))
    parent.close()


def _composed(study: RunSpec) -> Callable[..., tuple[Any, RunWriter]]:
    """The composition root of a study's runs."""
    if not study.is_live:
        return compose
    from harness.live.compose import compose_live  # noqa: PLC0415 - simulated runs need nothing of it

    return compose_live


def attempt(
    study: RunSpec,
    key: RunKey,
    folder: Path,
    provenance: Mapping[str, Any],
    on_progress: Callable[[Progress], None] | None = None,
) -> Done | Failed:
    """Play a run; whatever goes wrong in it becomes `Failed`, and then it leaves nothing behind."""
    try:
        run, recorder = _composed(study)(study, key, folder, provenance, on_progress)
        with recorder:
            run.run()
            window = (min(study.warmup_s, run.end_s), run.end_s)
            limits = {str(name): limit for name, limit in study.goodput.items()}
            found = summarise(recorder.tables(), window, limits, client=run.client)
            recorder.finish({**found, "servers": run.servers})
    except PolicyFailed as error:
        ours = is_built_in(key.scheduler)
        return Failed(str(error), 1 if ours else error.exit_code, traceback.format_exc())
    except ThunderbenchError as error:
        return Failed(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 - one run that dies must not take the others along
        return Failed(f"{type(error).__name__}: {error}", 1, traceback.format_exc())
    return Done()

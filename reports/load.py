"""Results as reports read them.

A report is a pure function of results folders: it reads what a finished run wrote, computes, draws, and
never runs, repairs or changes anything. Two reports of the same folders are the same. Whatever a report
needs stands in the folders; a folder that is incomplete or of another schema version is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.records import Run, find_runs, open_run

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class RunData:
    """A finished run: its name, what was asked (`spec`), how it was made (`provenance`), its `summary`."""

    name: str
    spec: dict[str, Any]
    provenance: dict[str, Any]
    summary: dict[str, Any]
    run: Run

    def frame(self, table: str) -> pd.DataFrame:
        """One of `harness.rows.TABLES` as a pandas frame, read anew at each call."""
        frame: pd.DataFrame = self.run.table(table).to_pandas()
        return frame


def load(path: Path) -> list[RunData]:
    """The run at `path`, or all runs of the study at `path`, in order of name.

    Raises SetupError when there is none, or when one is incomplete, damaged or of another version.
    """
    runs = [open_run(folder) for folder in find_runs(path)]
    return [RunData(run.folder.name, run.spec, run.provenance, run.summary, run) for run in runs]

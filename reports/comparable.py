"""Whether runs may be compared: they must have done the same work on the same thing.

These agree: the plan (per load and seed), workload and its parameters, model, hardware, KV type and size,
replicas, engine options, step times, backend, simulated or not, servers and how they were started, warm-up,
window and sampling. The scheduler
and its parameters differ, for that is the question; versions of the software may, for that is another one.
Whatever else two runs disagree in is a difference and is named.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from harness.errors import SetupError
from reports.measures import LOADS, label
from reports.text import shown

NONE = "none"

# Settings by which arms and repeats differ on purpose, or that change no number that is compared.
_FREE = frozenset({"schedulers", "seed", "repeats", "goodput", "output_dir", "reference", *LOADS})
_FREE_OF_SERVERS = frozenset({"port", "ready_timeout_s"})
_SHOWN_NAMES = 3


class Made(Protocol):
    """A run as far as it says how it was made."""

    @property
    def folder(self) -> Path:
        """Where it lies; its name is the run's."""
        ...

    @property
    def spec(self) -> Mapping[str, Any]:
        """What was asked."""
        ...

    @property
    def provenance(self) -> Mapping[str, Any]:
        """How it was made."""
        ...

    @property
    def summary(self) -> Mapping[str, Any]:
        """What was measured."""
        ...


def load_of(spec: Mapping[str, Any], where: object = "a run") -> tuple[str, float]:
    """Kind and value of a run's load: programs at a time, per second, or how many arrival times.

    Raises SetupError, which says `where`, when the spec names none.
    """
    kind = next((name for name in LOADS if spec.get(name)), None)
    if kind is None and "backends" in spec:
        found = f"{where} was recorded by `thunderbench serve`, whose clients made the load"
        raise SetupError(found, "runs of `thunderbench run`", "`show` and `replay` read this one")
    if kind is None:
        raise SetupError(f"the spec of {where} names no load", f"one of {', '.join(LOADS)}")
    return kind, len(spec[kind]) if kind == "arrival_times" else spec[kind][0]


def differences(runs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]]) -> list[str]:
    """What runs, given as (name, spec, provenance), disagree in: one line each; none when comparable."""
    found = [line for key, values in _settings(runs) if (line := _line(key, values))]
    plans: dict[tuple[str, float, int], list[tuple[str, str]]] = {}
    for name, spec, provenance in runs:
        plan = str(provenance.get("plan_hash", NONE))
        plans.setdefault((*load_of(spec), spec.get("seed", 0)), []).append((name, plan[:12]))
    for (kind, value, seed), hashes in plans.items():
        line = _line(f"plan_hash at {label(kind, value)}, seed {seed}", hashes)
        found += [line] if line else []
    return found


def _settings(
    runs: Sequence[tuple[str, Mapping[str, Any], Mapping[str, Any]]],
) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Every setting that has to agree, with its value in each run.

    Parameters of different workloads have nothing to do with each other and are left out.
    """
    flat = [(name, dict(_flat(_agreed(spec, provenance)))) for name, spec, provenance in runs]
    several = len({settings.get("workload") for _, settings in flat}) > 1
    for key in dict.fromkeys(key for _, settings in flat for key in settings):
        if several and key.startswith("overrides.workload."):
            continue
        yield key, [(name, settings.get(key, NONE)) for name, settings in flat]


def _agreed(spec: Mapping[str, Any], provenance: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in spec.items() if key not in _FREE}
    kept["overrides"] = {"workload": spec.get("overrides", {}).get("workload", {})}
    engine = spec.get("engine", {})
    options = provenance.get("options", {})
    kept["options"] = {key: v for key, v in options.items() if key not in engine and key not in spec}
    live = {key: value for key, value in spec.get("live", {}).items() if key not in _FREE_OF_SERVERS}
    if live:
        kept["live"] = live
    kept["simulated"] = provenance.get("simulated", False)
    return kept


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)


def _line(key: str, values: Sequence[tuple[str, str]]) -> str:
    """`model: Qwen3-8B in a, b; GLM-4.6-FP8 in c`; empty when all agree."""
    by_value: dict[str, list[str]] = {}
    for name, value in values:
        by_value.setdefault(value, []).append(name)
    if len(by_value) < 2:
        return ""
    parts = [f"{shown(value, 40)} in {_names(names)}" for value, names in by_value.items()]
    return f"{shown(key, 80)}: {'; '.join(parts)}"


def _names(names: Sequence[str]) -> str:
    few = ", ".join(shown(name) for name in names[:_SHOWN_NAMES])
    return few if len(names) <= _SHOWN_NAMES else f"{few} and {len(names) - _SHOWN_NAMES} more"

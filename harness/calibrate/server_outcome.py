"""A measured server on paper: tables, JSON, and the profile that `run --backend sim --profile` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, NamedTuple

from harness.calibrate.measure import Measured
from harness.calibrate.plan import Plan
from harness.calibrate.server import About
from harness.calibrate.server_fit import ServerFit
from harness.calibrate.works import Point
from harness.spec import StepTimeSpec

_DIGITS = 6  # significant ones of a constant in a file


class Labels(NamedTuple):
    """What the user says of the server, for the profile; null: what the server said, or nothing."""

    model: str | None
    hardware: str | None
    kv_dtype: str | None
    kv_tokens: int | None
    max_num_seqs: int
    max_num_batched_tokens: int
    date: str  # when it was measured, ISO 8601


class Outcome(NamedTuple):
    """All that is told of a calibration."""

    about: About
    labels: Labels
    plan: Plan
    measured: Measured
    fit: ServerFit

    @property
    def model(self) -> str:
        """The model's name in the profile."""
        return self.labels.model or self.about.model

    @property
    def kv_tokens(self) -> int | None:
        """KV capacity in tokens."""
        return self.labels.kv_tokens or self.about.kv_tokens


def settings(found: Outcome) -> dict[str, Any]:
    """The part of a profile that `run` reads."""
    labels = found.labels
    return {
        "model": found.model,
        "hardware": labels.hardware,
        "kv_dtype": labels.kv_dtype or found.about.kv_dtype,
        "kv_tokens": found.kv_tokens,
        "engine": {
            "block_size": found.about.block_size,
            "max_num_batched_tokens": labels.max_num_batched_tokens,
            "max_num_seqs": labels.max_num_seqs,
        },
        "step_time": _step_time(found.fit),
    }


def _step_time(fit: ServerFit) -> dict[str, Any]:
    required = [name for name, field in StepTimeSpec.model_fields.items() if field.is_required()]
    values = {name: getattr(fit.step_time, name) for name in required}
    return {name: _rounded(v) if isinstance(v, float) else v for name, v in values.items()}


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def provenance(found: Outcome) -> dict[str, Any]:
    """The table `[calibration]` of a profile."""
    about, measured, fit = found.about, found.measured, found.fit
    return {
        "server": about.url,
        "served_model": about.model,
        "server_version": about.version,
        "date": found.labels.date,
        "seed": found.plan.seed,
        "sizes": len(measured.points),
        "held_out": len(fit.held_out),
        "repeats": found.plan.repeats,
        "not_identified": [each.name for each in fit.constants if not each.identified],
        "outside": {name: _rounded(value) for name, value in fit.outside._asdict().items()},
        "errors": {
            error.metric: {"median": _rounded(error.median_share), "p90": _rounded(error.p90_share)}
            for error in fit.errors
        },
    }


def comments(found: Outcome) -> list[str]:
    """The head of a profile: what its tables do not say of themselves."""
    labels = found.labels
    return [
        f"Measured with thunderbench calibrate at {found.about.url} on {labels.date}.",
        "max_num_batched_tokens and max_num_seqs cannot be seen from outside: they are",
        "what calibrate was told, or vLLM's defaults for large GPUs.",
        *(
            f"{each.name} = {each.value:.4g}: {each.why or _interval(each.low, each.high)}"
            for each in found.fit.constants
        ),
        "outside: seconds before a first token that are no engine step; `run` does not play them.",
        "errors: |predicted / measured - 1| of sizes that were not fitted.",
    ]


def _interval(low: float, high: float) -> str:
    return f"{low:.3g} to {high:.3g} (95 %)" if isfinite(high) else ""


def constant_rows(found: Outcome) -> Iterator[list[str]]:
    """Constant, value, 95 % interval, and what is not known of it."""
    for each in found.fit.constants:
        yield [
            each.name,
            f"{each.value:.4g}",
            _interval(each.low, each.high).removesuffix(" (95 %)"),
            each.why,
        ]


def error_rows(found: Outcome) -> Iterator[list[str]]:
    """Metric, sizes held out, median and 90th percentile of the errors."""
    for error in found.fit.errors:
        yield [error.metric, str(error.sizes), f"{error.median_share:.1%}", f"{error.p90_share:.1%}"]


def notes(found: Outcome) -> Iterator[str]:
    """What one should know of it, in lines."""
    measured = found.measured
    spreads = sorted(point.spread_share for point in measured.points if point.repeats > 1)
    if spreads:
        half = spreads[len(spreads) // 2]
        yield f"Repeats of a size spread over {half:.1%} of their median, half of them less."
    yield (
        f"The client's timer was late by {measured.lag_s * 1e3:.2f} ms at most in half of the "
        f"measurements, with {measured.busy_share:.0%} of a core used."
    )
    if measured.left_out:
        yield f"{measured.left_out} measurements were left out: the client was too slow during them."
    if measured.cut:
        yield f"{measured.cut} of the {len(found.plan.sizes)} sizes could not be measured."
    if measured.rounds_cut:
        yield "Time ran out before every size was measured as often as planned (--time-limit)."
    if not measured.cached_known:
        yield (
            "The server does not tell cached tokens (vLLM: --enable-prompt-tokens-details), so tokenizing "
            "and sending a prompt cannot be told from computing it; every prompt was new."
        )
    if found.kv_tokens is None:
        yield "The server does not tell its KV capacity: give --kv-tokens here or to `run`."
    outside = found.fit.outside
    yield (
        f"Outside the engine's steps before a first token: {outside.per_call_s:.3g} s per call and "
        f"{outside.per_prompt_token_s:.3g} s per prompt token; `run` does not play it."
    )


def as_json(found: Outcome) -> dict[str, Any]:
    """Everything, JSON-able."""
    fit, measured = found.fit, found.measured
    return {
        "server": found.about._asdict(),
        "settings": settings(found),
        "calibration": provenance(found),
        "constants": [
            {
                **each._asdict(),
                "high": each.high if isfinite(each.high) else None,
                "identified": each.identified,
            }
            for each in fit.constants
        ],
        "outside": fit.outside._asdict(),
        "errors": [error._asdict() for error in fit.errors],
        "points": [_point(fit, point) for point in measured.points],
        "client": {
            "lag_s": measured.lag_s,
            "busy_share": measured.busy_share,
            "left_out": measured.left_out,
        },
        "notes": list(notes(found)),
    }


def _point(fit: ServerFit, point: Point) -> Mapping[str, Any]:
    return {
        **point._asdict(),
        "predicted_s": fit.predicted(point),
        "held_out": point in fit.held_out,
    }

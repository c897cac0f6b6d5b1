"""What makes a gate fail: `throughput<-5%`, `kv_hit_rate<-0.02`, `ttft_p99>+10%`.

    threshold := METRIC ('<' | '>') NUMBER ['%']

A change is that of the candidate against the baseline. With `%` it is relative to the baseline, without
absolute, in the unit of the metric (seconds, tokens, bytes, shares between 0 and 1). `<` is for metrics of
which more is better and takes a limit of 0 or below; `>` is for the others and takes one of 0 or above.
What can never fail, or would fail when nothing changed, is refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.errors import SetupError
from reports.measures import MEASURES, Kind, Measure

# Short names of the metrics people gate on; every name of `measures` works too.
ALIASES = {
    "throughput": "steps_per_min",
    "programs": "programs_per_h",
    "kv_hit_rate": "hit_rate_share",
    "recomputed": "recomputed_share",
    "ttft_p50": "ttft_p50_s",
    "ttft_p95": "ttft_p95_s",
    "ttft_p99": "ttft_p99_s",
    "step_mean": "step_mean_s",
    "step_p95": "step_p95_s",
    "worst_wait": "worst_wait_s",
}

# Throughput, the cache that most schedulers are about, and the wait a user feels. Limits are what is worth
# stopping a change for. TTFT at p95, because every valid run has enough steps for it.
DEFAULTS = ("throughput<-5%", "kv_hit_rate<-0.02", "ttft_p95>+10%")

_FORM = re.compile(
    r"\s*(?P<metric>[A-Za-z]\w*)\s*(?P<sign>[<>])\s*(?P<limit>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"\s*(?P<unit>%?)\s*",
    re.ASCII,
)
_EXPECTED = "METRIC<-NUMBER[%] or METRIC>+NUMBER[%], such as throughput<-5% or kv_hit_rate<-0.02"


@dataclass(frozen=True, slots=True)
class Threshold:
    """A limit on the change of one metric. `limit` is a share with kind `ratio`, else in the metric's unit.

    `text` is its one canonical spelling.
    """

    name: str
    measure: Measure
    kind: Kind
    limit: float

    @property
    def more_is_better(self) -> bool:
        """Whether falls are watched; otherwise rises."""
        return self.measure.more_is_better

    @property
    def text(self) -> str:
        """`throughput<-5%`; equal thresholds have equal texts."""
        size = abs(self.limit) * (100 if self.kind == "ratio" else 1)
        number = f"{size:.12g}" + ("%" if self.kind == "ratio" else "")
        return f"{self.name}{'<-' if self.more_is_better else '>+'}{number}"

    @property
    def bound(self) -> float:
        """The limit on the scale of an effect's `value`: a ratio to the baseline, or a difference."""
        return 1.0 + self.limit if self.kind == "ratio" else self.limit

    def beyond(self, value: float) -> bool:
        """Whether an effect of `value` is worse than the limit allows; the limit itself is allowed."""
        return value < self.bound if self.more_is_better else value > self.bound


def parse(text: str) -> Threshold:
    """Read a threshold. Raises SetupError, in one line, for anything that is not one or cannot fail."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise SetupError(f"--fail-on {_shown(text)}", _EXPECTED, _nearest(re.split(r"[<>=\s]", text)[0]))
    name, relative = match["metric"], bool(match["unit"])
    measure = MEASURES.get(ALIASES.get(name, name))
    if measure is None:
        raise SetupError(
            f"--fail-on {_shown(text)}: no metric {_shown(name)}",
            f"one of {', '.join(ALIASES)}, or a column name such as {next(iter(MEASURES))}",
            _nearest(name),
        )
    limit = float(match["limit"]) / (100 if relative else 1)
    _refuse_aimless(text, match["sign"], limit, measure, relative=relative)
    return Threshold(name, measure, "ratio" if relative else "difference", limit)


def parse_all(texts: Sequence[str]) -> list[Threshold]:
    """Every threshold once, in order; `DEFAULTS` when there is none. Raises SetupError."""
    found: dict[tuple[str, Kind], Threshold] = {}
    for threshold in map(parse, texts or DEFAULTS):
        other = found.setdefault((threshold.measure.name, threshold.kind), threshold)
        if other.limit != threshold.limit:
            raise SetupError(
                f"--fail-on {other.text} and --fail-on {threshold.text}", "one limit of a kind per metric"
            )
    return list(found.values())


def _refuse_aimless(text: str, sign: str, limit: float, measure: Measure, *, relative: bool) -> None:
    """Raise SetupError for a limit that no change for the worse can pass, or that no change passes."""
    better = measure.more_is_better
    if sign != ("<" if better else ">"):
        raise SetupError(
            f"--fail-on {_shown(text)} never fails on a change for the worse: "
            f"{'more' if better else 'less'} of it is better",
            f"{_name(text)}{'<-' if better else '>+'}NUMBER[%]",
        )
    if limit and (limit > 0) == better:
        raise SetupError(
            f"--fail-on {_shown(text)} fails even when nothing changes",
            f"a limit of 0 or {'below' if better else 'above'}",
        )
    share = measure.name.endswith("_share") and not relative
    farthest = 1.0 if share or (relative and better) else math.inf  # nothing falls by more than all of it
    if abs(limit) >= farthest:
        raise SetupError(
            f"--fail-on {_shown(text)} can never fail",
            "a limit that a change can pass" + (" (shares lie between 0 and 1)" if share else ""),
        )


def _name(text: str) -> str:
    return re.split(r"[<>]", text)[0].strip()


def _nearest(name: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415 - only when something is wrong

    close = get_close_matches(name[:100].strip(), [*ALIASES, *MEASURES], n=1)
    return f"Did you mean {close[0]}?" if close and close[0] != name.strip() else ""


def _shown(text: str) -> str:
    """Any text as one short printable line."""
    return ascii(text if len(text) <= 60 else f"{text[:57]}...")

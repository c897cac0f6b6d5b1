"""Whether the KV cache still holds what a program's next call needs: against the load and over time."""

from __future__ import annotations

from collections.abc import Iterator

from reports.figures.figure import Figure, Omitted
from reports.figures.overloads import Measure, over_loads
from reports.figures.overtime import over_time
from reports.study import Study

QUESTION = "Does the KV cache hold?"

HIT_RATE = Measure(("kv", "hit_rate_share"), "KV hit rate, %", scale=100.0, difference=True)
RECOMPUTED = Measure(
    ("kv", "recomputed_share"), "recomputed, % of prompt tokens", scale=100.0, difference=True
)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """Hit rates, and what is computed again because they are low."""
    yield over_loads(
        study,
        HIT_RATE,
        slug="kv-hit-rate",
        question=QUESTION,
        title="KV hit rate against load",
        look_at="Prompt tokens found in the prefix cache. Where the rate falls, memory no longer holds the "
        "programs that are away at their tools.",
    )
    yield over_time(
        study,
        lambda series: series.hit_rate_share,
        slug="kv-hit-rate-over-time",
        question=QUESTION,
        title="KV hit rate over time",
        unit="KV hit rate, %",
        scale=100.0,
        look_at="A rate that falls and stays low is thrashing; one that swings shows how far apart its "
        "moments are.",
    )
    yield over_loads(
        study,
        RECOMPUTED,
        slug="recomputed",
        question=QUESTION,
        title="Prompt tokens computed again, against load",
        look_at="The share of prompt tokens that the program had computed before and lost.",
    )

"""Whether the replicas' memories fill alike."""

from __future__ import annotations

from collections.abc import Iterator

from reports.figures.figure import Figure, Omitted
from reports.figures.overloads import Measure, over_loads
from reports.figures.overtime import over_time
from reports.study import Study

QUESTION = "Do the replicas share the load?"
MEAN = Measure(("kv", "imbalance_mean_share"), "imbalance, % of capacity", scale=100.0, difference=True)


def draw(study: Study) -> Iterator[Figure | Omitted]:
    """The difference between the fullest replica and the emptiest; only where there are several."""
    if all(len(run.seen.series.replica_used_share) < 2 for run in study.runs):
        for slug in ("imbalance-over-time", "imbalance"):
            yield Omitted(slug, "one replica has nothing to be balanced with")
        return
    yield over_time(
        study,
        lambda series: series.imbalance_share,
        slug="imbalance-over-time",
        question=QUESTION,
        title="Memory imbalance over time",
        unit="fullest minus emptiest replica, % of capacity",
        scale=100.0,
        look_at="KV held by running requests: far above 0, one replica queues while another has room.",
    )
    yield over_loads(
        study,
        MEAN,
        slug="imbalance",
        question=QUESTION,
        title="Memory imbalance against load",
        look_at="Fullest minus emptiest replica, mean over the measured time.",
    )

"""What the page says, in the order in which it says it, as plain data for the templates.

Everything follows from the study and nothing from the moment of writing, so the same results give the same
page. Runs that are INVALID are named, and taken out before anything is compared or drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from harness.records import Run, open_run
from reports.effects import averages
from reports.figures import Figure, draw
from reports.headline import Headline, headline
from reports.measures import MEASURES
from reports.steady import FIGURES, steady, summed_up, told
from reports.study import Study, StudyRun
from reports.text import NOTHING, number, tails
from reports.validity import validity
from reports.verdict import Verdict, compare_all, facts
from reports.wording import clipped, counted, listed, slug, sort_of

SHARE = "straggler_share"

# What varies by plan, or names one run only: none of it is a difference between arms.
_OF_ONE_RUN = frozenset({"run", "started_utc", "policy", "plan_hash", "schema_version"})
_OF_ONE_STUDY = frozenset({"command", "study_started_utc"})
_BY_PLAN = frozenset(
    {"schedulers", "seed", "repeats", "concurrency", "request_rate", "arrival_times", "reference"}
)


class Table(NamedTuple):
    """A table: `rows` of plain values, one per column. `id` and `title` are unique on the page."""

    id: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    note: str = ""

    @property
    def numeric(self) -> list[bool]:
        """Per column, whether it holds numbers only (or nothing)."""
        return [
            all(row[i] is None or _is_number(row[i]) for row in self.rows)
            and any(row[i] is not None for row in self.rows)
            for i in range(len(self.columns))
        ]


class Chart(NamedTuple):
    """A figure and its table."""

    figure: Figure
    table: Table


class Question(NamedTuple):
    """A section: a question and the figures that answer it."""

    id: str
    text: str
    charts: list[Chart]


class Content(NamedTuple):
    """The whole page. `invalid` gives the reasons by the name of the run."""

    title: str
    facts: list[str]
    simulated: bool
    verdict: Headline
    questions: list[Question]
    invalid: dict[str, str]
    omitted: list[tuple[str, str]]
    provenance: list[Table]
    steady: Table
    unsettled: list[str]
    groups: Table

    @property
    def kind(self) -> str:
        """What sort of numbers these are."""
        return sort_of(simulated=self.simulated)

    @property
    def invalid_table(self) -> Table:
        """The runs that do not count."""
        return Table("invalid-runs", "Invalid runs", ("run", "INVALID because"), list(self.invalid.items()))

    @property
    def figures(self) -> list[Figure]:
        """Every figure, in order."""
        return [chart.figure for question in self.questions for chart in question.charts]

    @property
    def sections(self) -> list[tuple[str, str]]:
        """Id and name of every section, in order."""
        return [
            ("verdict", "The verdict"),
            *((question.id, question.text) for question in self.questions),
            ("invalid", "What was invalid, and why"),
            ("left-out", "What was left out, and why"),
            ("provenance", "Where the numbers come from"),
        ]


def content(study: Study, tell: Callable[[str], None] = lambda _: None) -> Content:
    """The page of a study. `tell` hears what is being done. Raises SetupError when results are damaged."""
    tell("checking validity")
    opened = {run.name: open_run(run.folder) for run in study.runs}
    folders = [*(run.folder for run in study.runs), *(run.folder for run in study.references)]
    bounds = dict(zip(tails(folders)[len(study.runs) :], study.references, strict=True))
    judged = {name: validity(run) for name, run in (bounds | opened).items()}
    bad = {name: found.reasons for name, found in judged.items() if not found.valid}
    kept = study.without(bad)
    tell("comparing")
    found = [_facts(run, opened[run.name], bad) for run in study.runs]
    found += [{**facts(run), "run": name, "invalid": bad.get(name, ())} for name, run in bounds.items()]
    compared = compare_all(found, study.baseline)
    steady_table, unsettled = _settling(kept, opened)
    tell("drawing")
    figures, omitted = draw(kept) if kept.runs else ([], [])
    return Content(
        title=_title(study),
        facts=_facts_of(study),
        simulated=study.simulated,
        verdict=headline(compared),
        questions=_questions(figures),
        invalid={name: "; ".join(reasons) for name, reasons in bad.items()},
        omitted=[(slug.replace("-", " ").capitalize(), reason) for slug, reason in omitted],
        provenance=_provenance(study),
        steady=steady_table,
        unsettled=unsettled,
        groups=_groups(compared),
    )


def _facts(run: StudyRun, opened: Run, bad: Mapping[str, Sequence[str]]) -> Verdict:
    """What is compared of a run, as an arm of this study."""
    return {**facts(opened), "run": run.name, "scheduler": run.arm, "invalid": bad.get(run.name, ())}


def _groups(verdict: Verdict) -> Table:
    """Per load and arm how long groups of programs take; no rows where no program has a group."""
    names = ("groups_finished", *(f"group_{name}_s" for name in ("mean", "p50", "p90", "max")))
    rows = [
        (load["label"], row["scheduler"], *(row[name] for name in names), number(SHARE, row[SHARE]))
        for load in verdict["loads"]
        for row in load["schedulers"]
        if row["groups_finished"] is not None
    ]
    columns = ("load", "scheduler", "groups finished", "mean s", "p50 s", "p90 s", "max s", "stragglers")
    return Table(
        "groups",
        "Groups: until the slowest member has ended",
        columns,
        rows,
        "A group is programs whose results are wanted together, such as the samples of a rollout. Its time "
        "runs from the first member's arrival to the last member's end; members start as others end, so "
        "that is part of it. Stragglers: the share of that time after the median member had ended. Means "
        "over the repeats.",
    )


def _settling(study: Study, opened: Mapping[str, Run]) -> tuple[Table, list[str]]:
    """Per load and arm the whole window beside its steady part, and why runs have no steady part."""
    rows, unsettled, found = [], [], 0
    for load in study.loads:
        for arm in study.arms:
            runs = study.of(arm, load)
            if not runs:
                continue
            together = summed_up({run.name: steady(opened[run.name]) for run in runs})
            found += together["runs"]
            rows.append((str(load), arm, *_both(runs, together), f"{together['runs']} of {len(runs)}"))
            if together["reasons"]:
                unsettled.append(f"{arm} at {load}: {told(together, len(runs))}.")
    titles = [MEASURES[name].title for name in FIGURES]
    columns = [f"{title}, {part}" for title in titles for part in ("total", "steady")]
    note = f"A steady state was found in {found} of {counted(len(study.runs), 'run')}."
    title = "The whole window, and its steady part"
    return Table("steady", title, ("load", "scheduler", *columns, "steady runs"), rows, note), unsettled


def _both(runs: Sequence[StudyRun], together: Mapping[str, Any]) -> Iterator[str]:
    """Every number of `FIGURES`, total and steady, as it is written."""
    totals = averages([run.summary for run in runs], {name: MEASURES[name].path for name in FIGURES})
    for name in FIGURES:
        yield number(name, totals[name])
        yield number(name, together[name])


def _questions(figures: Iterable[Figure]) -> list[Question]:
    """The figures by question, in their order."""
    found: dict[str, list[Chart]] = {}
    for figure in figures:
        found.setdefault(figure.question, []).append(_chart(figure))
    return [Question(f"question-{slug(text)}", text, charts) for text, charts in found.items()]


def _chart(figure: Figure) -> Chart:
    table = Table(f"{figure.id}-table", f"Table: {figure.title}", figure.table.columns, figure.table.rows)
    return Chart(figure, table)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# ------------------------------------------------------------------ title and facts


def _title(study: Study) -> str:
    names = sorted({str(run.spec.get("workload", "unnamed work")) for run in study.runs})
    workloads = listed([clipped(name, 30) for name in names[:2]]) + (" and more" if len(names) > 2 else "")
    arms = listed([clipped(arm, 30) for arm in study.arms[:4]]) + (
        " and more" if len(study.arms) > 4 else ""
    )
    if len(study.arms) == 1:
        return f"{arms} on {workloads}"
    return f"Which scheduler for {workloads}? {arms} compared"


def _facts_of(study: Study) -> list[str]:
    repeats = len({run.seed for run in study.runs})
    runs = [
        counted(len(study.runs), "run"),
        counted(len(study.arms), "scheduler"),
        counted(len(study.loads), "load"),
        counted(repeats, "repeat"),
    ]
    places = sorted({_place(run) for run in study.runs})
    dates = sorted({str(run.provenance.get("study_started_utc", ""))[:10] for run in study.runs} - {""})
    when = (
        [] if not dates else ["run on " + (dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}")]
    )
    return [fact for fact in (clipped(listed(places), 120), ", ".join(runs), *when) if fact]


def _place(run: StudyRun) -> str:
    """`GLM-4.6-FP8 on 8xH100`, and how many times where there are several replicas."""
    names = {key: str(run.spec[key]) for key in ("model", "hardware") if key in run.spec}
    if not run.simulated:
        names.setdefault("hardware", "real servers")
    place = " on ".join(names.values())
    replicas = run.spec.get("replicas", 1)
    return place if replicas == 1 else f"{place}, {replicas} replicas"


# ------------------------------------------------------------------ provenance


def _provenance(study: Study) -> list[Table]:
    """What differs between the arms, each scheduler's parameters, what all share, every study and run."""
    settings = {run.name: _settings(run) for run in study.runs}
    keys = sorted({key for each in settings.values() for key in each})
    per_arm = {
        key: [_distinct(settings[run.name].get(key) for run in study.of(arm)) for arm in study.arms]
        for key in keys
    }
    shared = [(key, found[0]) for key, found in per_arm.items() if len(set(found)) == 1]
    differing = [(key, *found) for key, found in per_arm.items() if len(set(found)) > 1]
    schedulers = [
        (
            arm,
            ", ".join(f"{name} = {value}" for name, value in sorted(study.of(arm)[0].config.items()))
            or "none",
        )
        for arm in study.arms
    ]
    return [
        Table(
            "provenance-differences",
            "Options that differ between arms",
            ("option", *study.arms),
            differing,
            "" if differing else "None: every arm ran with the same options on the same software.",
        ),
        Table(
            "provenance-schedulers", "Parameters of the schedulers", ("scheduler", "parameters"), schedulers
        ),
        Table("provenance-shared", "What all arms share", ("option", "value"), shared),
        Table("provenance-studies", "Studies", ("started (UTC)", "command"), _studies(study)),
        Table(
            "provenance-runs",
            "Runs, in the order in which they began",
            ("run", "scheduler", "load", "seed", "plan hash", "started (UTC)"),
            [_run_row(run) for run in sorted(study.runs, key=_began)],
            _besides(study),
        ),
    ]


def _besides(study: Study) -> str:
    """What else was run, and stands in no table."""
    count = len(study.references)
    return f"Besides, {counted(count, 'run')} of the reference arm (unlimited)." if count else ""


def _studies(study: Study) -> list[tuple[str, str]]:
    """When each study began, and with which command."""
    made = [run.provenance for run in study.runs]
    rows = {(_moment(each.get("study_started_utc")), str(each.get("command") or NOTHING)) for each in made}
    return sorted(rows)


def _moment(text: Any) -> str:
    return NOTHING if text is None else str(text)[:19].replace("T", " ")


def _began(run: StudyRun) -> tuple[str, str]:
    return str(run.provenance.get("started_utc") or ""), run.name


def _run_row(run: StudyRun) -> tuple[Any, ...]:
    plan = run.provenance.get("plan_hash")
    return (
        run.name,
        run.arm,
        str(run.load),
        str(run.seed),
        None if plan is None else str(plan)[:12],
        _moment(run.provenance.get("started_utc")),
    )


def _settings(run: StudyRun) -> dict[str, str]:
    """Everything a run was made with, by dotted name, apart from its place in the plan and its policy."""
    spec = {key: value for key, value in run.spec.items() if key not in _BY_PLAN}
    overrides = dict(spec.pop("overrides", {}))
    overrides.pop("scheduler", None)
    made = {key: value for key, value in run.provenance.items() if key not in _OF_ONE_RUN | _OF_ONE_STUDY}
    return dict(_flat({**made, **spec, **overrides}))


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{key}.")
        else:
            found.append((f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value)))
    return found


def _distinct(values: Iterable[str | None]) -> str:
    return ", ".join(dict.fromkeys(NOTHING if value is None else value for value in values))

"""A comparison in the terminal: one table per question, then what has to be known to read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.compare import Comparison
from reports.measures import HEADLINES, MEASURES
from reports.steady import FIGURES, told
from reports.text import NOTHING, number, shown
from reports.wording import sort_of

# The questions and the numbers that answer them; `steady` is the number before, over the steady state.
# Programs/h and the worst wait always stand beside steps/min: a scheduler can buy steps with starvation.
QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (
        "How much work gets done?",
        ("steps_per_min", "steady steps_per_min", "programs_per_h", "worst_wait_s", "output_tokens_per_s"),
    ),
    (
        "What does the cache give?",
        ("hit_rate_share", "steady hit_rate_share", "recomputed_share", "preemptions"),
    ),
    (
        "How long does it take?",
        ("step_mean_s", "step_p95_s", "ttft_p50_s", "ttft_p95_s", "ttft_p99_s", "program_mean_s"),
    ),
    ("Who waits?", ("worst_wait_s", "wait_gini_share", "hold_s", "queue_s")),
    ("What do the sandboxes hold?", ("disk_peak_bytes", "leaked", "exposed_s")),
)
NAME = 14


def render(comparison: Comparison, console: Console) -> None:
    """Print a comparison; with two arms it fits 80 columns."""
    for question, names in QUESTIONS:
        words = sort_of(simulated=comparison["simulated"])
        console.print(f"\n[bold]{question}[/bold] ({words})", highlight=False)
        console.print(_table(comparison, names))
    for line in _reading(comparison):
        console.print(Text(line))


def _table(comparison: Comparison, names: Sequence[str]) -> Table:
    rivals = [arm for arm in comparison["arms"] if arm != comparison["baseline"]]
    several = len(rivals) > 1
    ours = "arm" if several else shown(rivals[0], NAME)
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 0, 0, 1))
    for heading in ("load", *(["arm"] if several else []), ""):
        table.add_column(heading, overflow="fold")
    for heading in (shown(comparison["baseline"], NAME), ours, "change", "95 %", "seen\nfrom"):
        table.add_column(Text(heading), justify="right", overflow="fold")
    table.add_column("", no_wrap=True)
    for load in comparison["loads"]:
        for pair in load["comparisons"]:
            places = _column(f"{load['value']:g}", load["scheduler"])
            arms = _column(pair["candidate"])
            for cells in _rows(load, pair, names):
                before = [next(places), next(arms)] if several else [next(places)]
                table.add_row(*map(Text, [*before, *cells]))
            table.add_section()
    return table


def _column(*texts: str | None) -> Iterator[str]:
    """What stands before a block of rows: each text in a row of its own, then nothing."""
    yield from (shown(text, NAME) for text in texts if text is not None)
    yield from repeat("")


def _rows(load: Comparison, pair: Comparison, names: Sequence[str]) -> Iterator[list[str]]:
    """Name, both means, change, interval, smallest change seen, word."""
    described = {arm["arm"]: arm for arm in load["arms"]}
    for name in names:
        kind, _, metric = name.rpartition(" ")
        effect = (pair["steady"] if kind else pair["effects"])[metric]
        values = [
            described[pair[side]]["steady" if kind else "values"] for side in ("baseline", "candidate")
        ]
        yield [
            kind or MEASURES[metric].title,
            *(number(metric, each[metric]) for each in values),
            *changed(effect),
            effect["word"] or "",
        ]


def changed(effect: Mapping[str, Any]) -> tuple[str, str, str]:
    """Change, its interval and the smallest change that would be seen, as text."""
    ratio, difference, interval = effect["ratio"], effect["difference"], effect["interval"]
    if ratio is not None:
        form = ".3f" if abs(ratio - 1) < 0.1 else ".2f" if ratio >= 0.1 else ".2g"
        ends = NOTHING if interval is None else "..".join(f"{end:{form}}" for end in interval)
        seen = NOTHING if effect["mde"] is None else f"{effect['mde']:.{1 if effect['mde'] < 0.1 else 0}%}"
        return f"{ratio:{form}}x", ends, seen
    if difference is None:
        return (NOTHING,) * 3
    share = effect["metric"].endswith("_share")
    scale, unit = (100.0, "pp") if share else (1.0, "")
    ends = NOTHING if interval is None else "..".join(f"{end * scale:+.1f}" for end in interval)
    seen = NOTHING if effect["mde"] is None else f"{effect['mde'] * scale:.1f}{unit}"
    return f"{difference * scale:+.1f}{unit}", ends, seen


# ------------------------------------------------------------------ how to read it


def _reading(comparison: Comparison) -> Iterator[str]:
    yield (
        f"{shown(comparison['baseline'])} is the baseline; a change is a ratio to it (x) or a difference, "
        "with its 95 % interval over pairs of the same seed. Means are over repeats, the worst wait is the "
        f"worst of all. Seen from: the smallest change found in {comparison['power']:.0%} of such studies. "
        f"Words are for the {len(HEADLINES)} headline numbers, corrected by Holm; equivalent means within "
        f"{comparison['margin_share']:.0%}."
    )
    yield from _notes(comparison)
    yield from _settling(comparison)
    yield from (f"FORCED: {line}" for line in comparison["forced"])
    for each in comparison["invalid"]:
        yield f"INVALID: {shown(each['run'], 60)}: {shown('; '.join(each['reasons']), 300)}"


def _notes(comparison: Comparison) -> Iterator[str]:
    """Why a headline has no interval, each reason once; and loads that one side alone ran."""
    found: dict[str, list[str]] = {}
    for load in comparison["loads"]:
        if not load["comparisons"]:
            arms = ", ".join(shown(arm["arm"]) for arm in load["arms"])
            whose = f" of {shown(load['scheduler'])}" if load["scheduler"] else ""
            yield f"At {load['label']}{whose}: only {arms}, nothing to compare."
        for pair in load["comparisons"]:
            for name in HEADLINES:
                note = pair["effects"][name]["note"]
                if note is not None:
                    found.setdefault(note, []).append(MEASURES[name].title)
    for note, titles in found.items():
        yield f"{', '.join(dict.fromkeys(titles))}: {note}."


def _settling(comparison: Comparison) -> Iterator[str]:
    """Arms that did not always reach a steady state."""
    for load in comparison["loads"]:
        for arm in load["arms"]:
            if arm["steady"]["reasons"]:
                words = told(arm["steady"], len(arm["runs"]))
                yield f"{shown(arm['arm'])} at {load['label']}: {words}."


assert {name.rpartition(" ")[2] for _, names in QUESTIONS for name in names} >= {*HEADLINES, *FIGURES}

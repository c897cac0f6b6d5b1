"""A gate's verdict as others read it: people at a terminal, GitHub, JUnit viewers, benchmark charts.

Names come from results and may hold anything. In JSON they stand as they are; everywhere else they lose
control and direction characters and are cut (`reports.text.shown`), XML escapes itself, and in Markdown
every character that could mean something is written as a character reference.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from harness.errors import SetupError
from reports.gate import Arm, Check, GateVerdict
from reports.measures import Measure, label
from reports.text import number, shown
from reports.wording import sort_of

_WORDS = {"pass": "pass", "regression": "REGRESSION", "inconclusive": "inconclusive"}
_LONGEST_REASON = 400
_SPECIAL = re.compile(r"""[&<>"'`*_{}\[\]()#!|~@\\$:=^]|(?<=www)\.""", re.IGNORECASE)


def write(verdict: GateVerdict, folder: Path, *, strict: bool) -> list[Path]:
    """verdict.json, junit.xml, summary.md and two files for github-action-benchmark; where they are.

    Raises SetupError when `folder` cannot be written.
    """
    contents = {
        "verdict.json": dumped({**verdict.json(), "exit_code": verdict.exit_code(strict=strict)}),
        "junit.xml": junit(verdict, strict=strict),
        "summary.md": markdown(verdict),
        "benchmark-bigger-is-better.json": dumped(benchmark(verdict, more_is_better=True)),
        "benchmark-smaller-is-better.json": dumped(benchmark(verdict, more_is_better=False)),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (folder / name).write_text(content, encoding="utf-8")
    except OSError as error:
        raise SetupError(
            f"cannot write the gate's files to {folder}: {error.strerror}",
            "a folder that you may write to",
            "Choose one with -o.",
        ) from error
    return [folder / name for name in contents]


def dumped(content: Any) -> str:
    """JSON for people too. Escapes everything that is not ASCII."""
    return json.dumps(content, indent=2, allow_nan=False) + "\n"


# ------------------------------------------------------------------ the terminal


def text(verdict: GateVerdict) -> str:
    """The verdict in lines that fit 80 columns where names are short; reasons may be longer."""
    lines = [_kind(verdict)]
    reasons = {_why(check) for check in verdict.checks if check.outcome != "pass"}
    once = len(reasons) == 1 < len(verdict.checks)  # as when there is a single repeat of everything
    arm: Arm | None = None
    for check in verdict.checks:
        if check.arm != arm:
            arm = check.arm
            pairs = check.effect.pairs
            lines.append(f"\n{_arm(arm)}, {pairs} pair{'s' if pairs != 1 else ''}")
        lines.append(f"  {_WORDS[check.outcome]:<12}  {check.threshold.text:<20} {_numbers(check)}")
        if check.outcome != "pass" and not once:
            lines.append(f"{'':16}{_why(check)}")
    remarks = [*(reasons if once else ()), *_remarks(verdict)]
    return "\n".join([*lines, *(["", *remarks] if remarks else []), "", f"gate: {headline(verdict)}"])


def headline(verdict: GateVerdict) -> str:
    """The outcome in a line."""
    count = {word: sum(check.outcome == word for check in verdict.checks) for word in _WORDS}
    parts = [f"{count[word]} {word}" for word in ("regression", "inconclusive", "pass") if count[word]]
    return f"{_WORDS[verdict.outcome]} ({', '.join(parts)})"


def _numbers(check: Check) -> str:
    """`225.0 -> 166.1  -28.6% [-35.7%, -20.7%]`."""
    sides = f"{_number(check, check.effect.baseline)} -> {_number(check, check.effect.candidate)}"
    return f"{sides:<20} {_change(check)}".rstrip()


def _number(check: Check, value: float | None) -> str:
    """A side's mean; short times with more digits than elsewhere, because their changes are judged."""
    name = check.threshold.measure.name
    return (
        f"{value:.3g}" if value is not None and name.endswith("_s") and value < 10 else number(name, value)
    )


def _change(check: Check) -> str:
    found = check.effect
    if found.value is None:
        return ""
    ratio, share = found.kind == "ratio", check.threshold.measure.name.endswith("_share")

    def written(value: float) -> str:
        return f"{(value - 1) * 100:+.1f}%" if ratio else f"{value:+.3f}" if share else f"{value:+.3g}"

    if found.low is None or found.high is None:
        return written(found.value)
    return f"{written(found.value)} [{written(found.low)}, {written(found.high)}]"


def _why(check: Check) -> str:
    """The reason, and what it would take to know more."""
    found = check.effect
    if check.outcome != "inconclusive" or not found.mde:
        return check.reason
    size = f"{found.mde:.1%}" if found.kind == "ratio" else f"{found.mde:.3g}"
    return f"{check.reason}; {found.pairs} repeats show a change of {size} in 4 of 5 gates"


def _remarks(verdict: GateVerdict) -> Iterator[str]:
    for difference in verdict.forced:
        yield f"compared by --force although they differ in {shown(difference, _LONGEST_REASON)}"
    for left_out in verdict.left_out:
        yield f"not compared: {shown(left_out, _LONGEST_REASON)}"


def _arm(arm: Arm, width: int = 60) -> str:
    return f"{shown(arm.scheduler, width)}, {label(arm.load, arm.value)}"


# ------------------------------------------------------------------ machines


def junit(verdict: GateVerdict, *, strict: bool) -> str:
    """One test case per check. Inconclusive ones are skipped, or failures when `strict`."""
    outcomes = [check.outcome for check in verdict.checks]
    failing = {"regression", "inconclusive"} if strict else {"regression"}
    counts = {
        "tests": str(len(outcomes)),
        "failures": str(sum(outcome in failing for outcome in outcomes)),
        "errors": "0",
        "skipped": str(sum(outcome == "inconclusive" and not strict for outcome in outcomes)),
    }
    name = f"thunderbench gate ({_kind(verdict)})"
    suites = ET.Element("testsuites", {"name": name, **counts})
    suite = ET.SubElement(suites, "testsuite", {"name": name, **counts})
    for check in verdict.checks:
        case = ET.SubElement(
            suite, "testcase", {"classname": _arm(check.arm, 120), "name": check.threshold.text}
        )
        if check.outcome in failing:
            about = {"type": check.outcome, "message": shown(check.reason, _LONGEST_REASON)}
            ET.SubElement(case, "failure", about).text = _numbers(check)
        elif check.outcome == "inconclusive":
            ET.SubElement(case, "skipped", {"message": shown(_why(check), _LONGEST_REASON)})
        else:
            ET.SubElement(case, "system-out").text = _numbers(check)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def benchmark(verdict: GateVerdict, *, more_is_better: bool) -> list[dict[str, Any]]:
    """The candidate's means for github-action-benchmark: customBiggerIsBetter, or customSmallerIsBetter."""
    return [
        {
            "name": f"{_arm(check.arm, 120)}: {check.threshold.measure.name}",
            "unit": _unit(check.threshold.measure),
            "value": check.effect.candidate,
            "extra": f"{_kind(verdict)}; {check.outcome}: {shown(check.reason, _LONGEST_REASON)}",
        }
        for check in verdict.checks
        if check.threshold.more_is_better == more_is_better and check.effect.candidate is not None
    ]


def _unit(measure: Measure) -> str:
    """The unit at the end of its name; what has none there is counted by its title."""
    last = measure.name.rpartition("_")[2]
    return last if last in {"s", "share", "bytes"} and "_per_" not in measure.name else measure.title


# ------------------------------------------------------------------ Markdown


def markdown(verdict: GateVerdict) -> str:
    """A section for a job's summary or a comment."""
    lines = [
        f"### thunderbench gate: {headline(verdict)}",
        "",
        "| | arm | fails on | baseline | now | change, 95 % interval | why |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for check in verdict.checks:
        cells = (
            f"**{_WORDS[check.outcome]}**" if check.outcome != "pass" else "pass",
            escaped(_arm(check.arm)),
            f"`{check.threshold.text}`",
            _number(check, check.effect.baseline),
            _number(check, check.effect.candidate),
            escaped(_change(check)),
            "" if check.outcome == "pass" else escaped(shown(_why(check), _LONGEST_REASON)),
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", *(f"- {escaped(remark)}" for remark in _remarks(verdict))]
    lines.append(f"- {_kind(verdict)}; {_versions(verdict)}")
    return "\n".join(lines) + "\n"


def escaped(plain: str) -> str:
    """Text that Markdown and HTML show as it is: no links, mentions, markup or cells of tables."""
    return _SPECIAL.sub(lambda match: f"&#{ord(match[0])};", plain)


def _kind(verdict: GateVerdict) -> str:
    """What sort of numbers these are."""
    return sort_of(simulated=verdict.simulated)


def _versions(verdict: GateVerdict) -> str:
    sides = (("baseline", verdict.baseline), ("now", verdict.candidate))
    return escaped(", ".join(f"{side} at {shown(str(made.get('git_commit')), 48)}" for side, made in sides))

"""Studies for the page, and what a test wants to know of a page."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import tomli_w
from click.testing import CliRunner, Result

from harness.cli import cli
from tests.harness.results import PROVENANCE, call, program, sample, sandbox, tool, write_run

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "\"'><img src=x onerror=alert(3)>",
    "{{ 7 * 7 }}{% include 'x' %}",
    "]]>&lt;&amp;\\u003c",
    "\u202eright to left\u202c \u05d0\u05d1\u05d2",
    "\U0001f980 crab\u200f",
    "x" * 10_000,
    "line\nbreak\ttab\x00\x1b[31m",
)
STEPS = 140  # the fewest with which a run is valid, and some


def invoke(*args: object) -> Result:
    return CliRunner().invoke(cli, [str(arg) for arg in args])


def study(folder: Path, *flags: str) -> Path:
    """A finished study, played for a few minutes of virtual time."""
    times = ("--duration", "5m", "--warmup", "1m")
    result = invoke("run", *times, *flags, "-q", "-o", folder)
    assert result.exit_code == 0, result.stderr
    return folder


def summary(steps_per_min: float = 10.0, steps: int = STEPS) -> dict[str, object]:
    """As much of a summary as the page cannot do without."""
    return {
        "window": {"start_s": 0.0, "end_s": 1000.0, "length_s": 1000.0},
        "throughput": {"steps": steps, "steps_per_min": steps_per_min, "programs_per_h": 5.0},
        "kv": {"hit_rate_share": 0.5, "recomputed_share": 0.1, "recomputed_tokens": 10},
        "latency": {"step_s": {"mean": 2.0}, "split_s": {"hold": 1.0, "queue": 1.0}},
        "fairness": {"worst_wait_s": 3.0, "wait_gini_share": 0.2},
    }


def hostile_study(folder: Path) -> Path:
    """A study in which whatever can have a name has one of `HOSTILE`: two schedulers, two programs each."""
    for i, scheduler in enumerate(HOSTILE):
        names = [scheduler, HOSTILE[i - 1] + " "]
        calls = [
            call(
                arrived=float(k),
                queue=1.0,
                decode=1.0,
                tool=1.0,
                program_id=names[k % 2],
                call_id=f"{names[k % 2]}/{k}",
                position=k // 2,
                replica=HOSTILE[i - 2],
                prompt_tokens=100,
            )
            for k in range(STEPS)
        ]
        write_run(
            folder / f"{i}-{HOSTILE[i % 2][:8].replace('/', '_')}",
            programs=[program(name, worst_wait_s=5.0 + k) for k, name in enumerate(names)],
            calls=calls,
            tools=[tool(program_id=names[0], tool=HOSTILE[i - 3], finished_s=2.0)],
            samples=[
                sample(t, HOSTILE[i - 2], programs_live=2, queries_total=int(14 * t))
                for t in (0.0, 500.0, 1000.0)
            ],
            sandboxes=[sandbox(program_id=names[0], image=HOSTILE[i - 4], ready_s=1.0)],
            spec=_spec(HOSTILE[i - 5]),
            provenance={
                **PROVENANCE,
                "command": HOSTILE[i - 6],
                "policy": {"name": scheduler, "config": {HOSTILE[i - 7]: HOSTILE[i - 8]}, "seed": 7},
            },
            summary=summary(10.0 + i),
        )
    return folder


def _spec(workload: str) -> str:
    return tomli_w.dumps({"concurrency": [2], "seed": 7, "schedulers": ["vllm"], "workload": workload})


class Page(HTMLParser):
    """What stands in a page: ids, headings as (level, text), elements with their attributes, all text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[tuple[int, str]] = []
        self.scripts: list[str] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()

    @property
    def ids(self) -> list[str]:
        return [found["id"] or "" for _, found in self.elements if "id" in found]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [found for name, found in self.elements if name == tag]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag in {"h1", "h2", "h3", "h4"}:
            self.headings.append((int(tag[1]), ""))
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        while tag in self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open[-1:]:
            self.scripts[-1] += data
        elif "style" not in self._open[-1:]:
            self.words.append(data)
            if any(tag in self._open for tag in ("h1", "h2", "h3", "h4")):
                level, text = self.headings[-1]
                self.headings[-1] = (level, text + data)

from __future__ import annotations

import io

import pytest

from harness.progress import Bars, Plain, Progress, Silent, choose_view, describe

HALF = Progress(2100.0, 4200.0, 36, 3900, 111.4, 0.876)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_run_in_one_line() -> None:
    assert describe(HALF) == "0:35:00 of 1:10:00, 36 programs done, 111.4 steps/min, hit rate 87.6%"
    assert describe(HALF._replace(end_s=None, hit_rate=None)) == (
        "0:35:00, 36 programs done, 111.4 steps/min"
    )


def test_plain_lines_come_every_few_seconds_for_runs_that_moved() -> None:
    out, now = io.StringIO(), [0.0]
    view = Plain(out, 2, clock=lambda: now[0])
    view.started("a")
    view.advanced("a", HALF)
    view.refresh()
    now[0] = 5.0
    view.refresh()
    now[0] = 10.0
    view.refresh()
    view.ended("a", "done")
    view.close()
    assert out.getvalue().splitlines() == ["a: started", f"a: {describe(HALF)}", "a: done (1 of 2 runs)"]


def test_bars_show_the_figures_of_every_run_and_keep_the_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = Terminal()
    view = Bars(out, 2)
    view.started("a")
    view.started("b")
    view.advanced("a", HALF)
    view.advanced("b", HALF._replace(end_s=None))
    view.refresh()
    view.ended("a", "its process died [oddly]")
    view.close()
    shown = out.getvalue()
    assert "0:35:00/1:10:00, 36 done, 111.4/min, 88% hits" in shown
    assert "a: its process died [oddly] (1 of 2 runs)" in shown


def test_the_view_fits_where_it_is_shown() -> None:
    assert isinstance(choose_view(Terminal(), 1, quiet=False, environment={}), Bars)
    assert isinstance(choose_view(Terminal(), 1, quiet=False, environment={"CI": "true"}), Plain)
    assert isinstance(choose_view(Terminal(), 1, quiet=False, environment={"TERM": "dumb"}), Plain)
    assert isinstance(choose_view(io.StringIO(), 1, quiet=False, environment={}), Plain)
    assert isinstance(choose_view(Terminal(), 1, quiet=True, environment={}), Silent)


def test_a_note_is_a_line_of_its_own() -> None:
    out = io.StringIO()
    Plain(out, 1).note("waiting for server 0")
    assert out.getvalue() == "waiting for server 0\n"
    terminal = Terminal()
    bars = Bars(terminal, 1)
    bars.note("waiting for [server] 0")
    bars.close()
    assert "waiting for [server] 0" in terminal.getvalue()

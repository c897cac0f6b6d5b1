"""The page in a real browser: what it draws, what its controls do, how it prints. Needs Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from reports.content import content
from reports.page import render, write
from reports.study import load_study
from tests.reports.browser import Browser, browser
from tests.reports.pages import HOSTILE, hostile_study, study

pytestmark = pytest.mark.browser

# What charts are made of, without axes, legends and grids.
MARKS = ".role-mark :is(path, line, rect, text, circle, image)"
WIDTHS = (390, 768, 1440)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    flags = ("--concurrency", "4,8", "--repeats", "3", "--replicas", "2")
    write(render(content(load_study([study(folder / "sweep", *flags)]))), folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write(render(content(load_study([hostile_study(folder / "study")]))), folder / "page.html")
    return folder / "page.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        found.driver.get("about:blank")
        found.requests()
        yield found


@pytest.mark.parametrize("which", ["page", "hostile"])
def test_it_draws_every_chart_alone_and_without_complaint(
    chromium: Browser, request: pytest.FixtureRequest, which: str
) -> None:
    place = request.getfixturevalue(which)
    chromium.open(place)
    states = chromium.ask(
        "[...document.querySelectorAll('.chart')].map(c => [c.dataset.state, "
        f"c.querySelectorAll('{MARKS}').length])"
    )
    assert len(states) >= 10
    assert [state for state, marks in states if state != "drawn" or not marks] == []
    assert chromium.complaints() == []
    assert chromium.requests() == [place.as_uri()]


def test_hostile_names_run_nothing(chromium: Browser, hostile: Path) -> None:
    chromium.open(hostile)
    assert chromium.ask("document.querySelectorAll('img').length") == 0
    assert chromium.ask("document.scripts.length") == chromium.ask(
        "document.querySelectorAll('body > script').length"
    )
    assert HOSTILE[0] in chromium.ask("document.querySelector('.verdicts').innerText")


@pytest.mark.parametrize("which", ["page", "hostile"])
@pytest.mark.parametrize("width", WIDTHS)
def test_it_fits_the_width(
    chromium: Browser, request: pytest.FixtureRequest, which: str, width: int
) -> None:
    chromium.open(request.getfixturevalue(which), width=width)
    assert chromium.ask("document.documentElement.scrollWidth") == width
    too_wide = "[...document.querySelectorAll('.chart')].filter(c => c.scrollWidth > c.clientWidth + 1)"
    assert chromium.ask(f"{too_wide}.map(c => c.parentElement.id)") == []


def test_what_tells_the_verdict_fits_a_phone(chromium: Browser, page: Path) -> None:
    chromium.open(page, width=390)
    too_wide = "(t => t.scrollWidth - t.clientWidth)(document.querySelector('.verdicts').parentElement)"
    assert chromium.ask(too_wide) == 0


def test_absolute_gives_way_to_relative_and_back(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    titles = (
        "[...document.querySelectorAll('#steps-per-min .role-axis-title text')].map(t => t.textContent)"
    )
    before = chromium.ask(titles)
    press(chromium, "#steps-per-min input[value=relative]")
    relative = chromium.ask(titles)
    press(chromium, "#steps-per-min input[value=absolute]")
    assert relative != before == chromium.ask(titles)
    assert any("vllm" in title for title in relative)
    assert chromium.complaints() == []


def press(chromium: Browser, selector: str) -> None:
    chromium.ask(f"document.querySelector('{selector}').click()")
    chromium.settle()


def test_a_legend_entry_switches_the_others_off_by_keys_and_by_clicks(
    chromium: Browser, page: Path
) -> None:
    lines = "[...document.querySelectorAll('#steps-per-min .mark-line path')]"
    faint = f"{lines}.map(p => +p.getAttribute('opacity') < 0.5)"
    pressed = "[...document.querySelectorAll('#steps-per-min .keys button')].map(b => b.ariaPressed)"
    button = "document.querySelector('#steps-per-min .keys button')"
    symbol = "document.querySelector('#steps-per-min .role-legend-symbol path')"
    click = "new MouseEvent('click', {bubbles: true, view: window})"
    for script in (f"{button}.click()", f"{symbol}.dispatchEvent({click})"):
        chromium.open(page)
        assert chromium.ask(faint) == [False, False]
        chromium.ask(script)
        chromium.wait(f"{faint}.join() == 'false,true'")
        assert chromium.ask(pressed) == ["true", "false"]
        chromium.ask(script)
        chromium.wait(f"{faint}.join() == 'false,false'")


def test_keys_of_the_legend_show_when_they_are_reached(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    height = "document.querySelector('#steps-per-min .keys').getBoundingClientRect().height"
    assert chromium.ask(height) <= 1
    chromium.ask("document.querySelector('#steps-per-min .keys button').focus()")
    assert chromium.ask(height) > 15


def test_a_load_can_be_picked(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    drawn = "document.querySelector('#step-latency .mark-line path').getAttribute('d')"
    before = chromium.ask(drawn)
    chromium.ask(
        "(s => { s.selectedIndex = 0; s.dispatchEvent(new Event('change', {bubbles: true})); "
        "s.dispatchEvent(new Event('input', {bubbles: true})); })"
        "(document.querySelector('#step-latency select'))"
    )
    chromium.wait(f"{drawn} != {before!r}")


@pytest.mark.parametrize("dark", [False, True])
def test_it_follows_the_system_until_the_button_is_pressed(
    chromium: Browser, page: Path, *, dark: bool
) -> None:
    chromium.open(page, dark=dark)
    assert is_dark(chromium) is dark
    assert chromium.ask("document.getElementById('theme').ariaPressed") == str(dark).lower()
    press(chromium, "#theme")
    assert is_dark(chromium) is not dark
    press(chromium, "#theme")
    assert is_dark(chromium) is dark


def is_dark(chromium: Browser) -> bool:
    """Whether text is brighter than the page, in the body and in every chart."""
    colour = "getComputedStyle(e)[e.tagName == 'BODY' ? 'color' : 'fill'].match(/\\d+/g).slice(0, 3)"
    found = chromium.ask(
        "[...document.querySelectorAll('body, .chart svg text')]"
        f".map(e => {colour}.reduce((sum, part) => sum + +part, 0) > 3 * 128)"
    )
    assert len(found) > 50
    assert len(set(found)) == 1
    bright: bool = found[0]
    return bright


def test_paper_is_white_and_everything_on_it_is_open(chromium: Browser, page: Path, tmp_path: Path) -> None:
    chromium.open(page, dark=True)
    chromium.ask("window.dispatchEvent(new Event('beforeprint'))")
    chromium.emulate(dark=True, media="print")
    assert is_dark(chromium) is False
    assert chromium.ask("document.querySelectorAll('details:not([open])').length") == 0
    assert chromium.ask("getComputedStyle(document.querySelector('nav')).display") == "none"
    chromium.ask("window.dispatchEvent(new Event('afterprint'))")
    assert chromium.ask("document.querySelectorAll('main details[open]').length") == 0
    assert chromium.pdf(tmp_path / "page.pdf").read_bytes().count(b"/Type /Page\n") > 5
    chromium.emulate()


def test_the_keyboard_meets_the_way_past_first(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    chromium.tab()
    assert chromium.ask("document.activeElement.className") == "skip"
    assert chromium.ask("document.activeElement.getBoundingClientRect().left") >= 0
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    for _ in range(6):
        chromium.tab()
        assert chromium.ask(outline) == "solid"


def test_without_scripts_tables_tell_everything(chromium: Browser, page: Path) -> None:
    chromium.open(page)
    empty = "[...document.querySelectorAll('figure')].filter(f => !f.querySelector('tbody td'))"
    assert chromium.ask(f"{empty}.map(f => f.id)") == []

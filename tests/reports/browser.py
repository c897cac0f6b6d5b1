"""A headless Chromium that opens one file and tells what happened in it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from tests.conftest import BROWSERS

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)
PATIENCE_S = 60


class Browser:
    """A page in Chromium, `width` pixels wide."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1440, dark: bool = False) -> None:
        """Open a page and wait until all of its charts are drawn or have failed."""
        self.resize(width)
        self.emulate(dark=dark)
        self.driver.get(page.resolve().as_uri())
        self.settle()

    def resize(self, width: int, height: int = 900) -> None:
        """Pretend that the window has this inner size."""
        self._do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def emulate(self, *, dark: bool = False, media: str = "") -> None:
        """Pretend that the system is dark, or that the page is printed (`media` is print)."""
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self._do("Emulation.setEmulatedMedia", media=media, features=features)

    def settle(self) -> None:
        """Wait until no chart is waiting or being drawn."""
        settled = (
            "document.readyState == 'complete' && "
            "[...document.querySelectorAll('.chart')].every(c => /drawn|failed/.test(c.dataset.state))"
        )
        self.wait(settled)

    def wait(self, condition: str) -> None:
        """Wait until a JavaScript condition holds."""
        WebDriverWait(self.driver, PATIENCE_S, poll_frequency=0.05).until(lambda _: self.ask(condition))

    def tab(self) -> None:
        """Press the tab key."""
        for kind in ("keyDown", "keyUp"):
            self._do("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def ask(self, script: str, *arguments: Any) -> Any:
        """The value of a JavaScript expression."""
        return self.driver.execute_script(f"return {script}", *arguments)

    def complaints(self) -> list[str]:
        """What the console said, errors and warnings, since it was last asked."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses of everything that the page asked for since it was last asked."""
        found = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.append(message["params"]["request"]["url"])
        return found

    def picture(self, path: Path) -> Path:
        """A picture of the whole page."""
        shot = self._do("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        return path

    def pdf(self, path: Path) -> Path:
        """The page as it would be printed."""
        path.write_bytes(base64.b64decode(self._do("Page.printToPDF", printBackground=True)["data"]))
        return path

    def _do(self, command: str, **parameters: Any) -> dict[str, Any]:
        found: dict[str, Any] = self.driver.execute_cdp_cmd(command, parameters)
        return found


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser that forgets everything; `profile` is an empty folder."""
    options = Options()
    binary = next(path for name in BROWSERS if (path := shutil.which(name)))
    options.binary_location = binary
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()

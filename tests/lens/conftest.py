"""A headless Chromium, where there is one, and a page opened in it from the file system."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import wait

from credit import lens

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A driver of Chromium; the test is skipped where none is installed."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    program = next(filter(None, map(shutil.which, NAMES)), None)
    driver = shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("no browser found: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    arguments = ["--headless=new", "--window-size=1400,900", "--disable-dev-shm-usage"]
    arguments += ["--no-sandbox"] if os.geteuid() == 0 else []
    for argument in arguments:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.chrome.service.Service(driver)
    running = webdriver.Chrome(options=options, service=service)
    yield running
    running.quit()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Callable[[Path], Any]:
    """Opens the page of a file of records and waits until it is drawn; at the end the console is empty."""

    def open_page(samples: Path) -> Any:
        path = tmp_path / "lens.html"
        path.write_text(lens.page(lens.read(samples), samples.name), encoding="utf-8")
        browser.get(path.as_uri())
        wait(browser, "return document.documentElement.dataset.ready === 'true'")
        return browser

    browser.get_log("browser")
    return open_page


@pytest.fixture(autouse=True)
def quiet(request: pytest.FixtureRequest) -> Iterator[None]:
    """The console of a test that opens a page holds no errors or warnings."""
    yield
    if "opened" in request.fixturenames:
        assert request.getfixturevalue("browser").get_log("browser") == []

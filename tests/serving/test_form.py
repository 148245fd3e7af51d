"""The form in a real Chromium, on a desk and on a phone: filled in, sent by the keyboard, read, and wrong input shown at its field."""

from __future__ import annotations

import itertools
import json
import math
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import free_port, wait_for

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")]
"""The messages are those of https://chromedevtools.github.io/devtools-protocol/."""


class Page:
    """A page of a browser, by the DevTools protocol."""

    def __init__(self, connection: Any) -> None:
        self._connection, self._numbers = connection, itertools.count(1)
        self.requested: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.tell(f"{domain}.enable")

    def tell(self, method: str, **parameters: Any) -> Any:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=20))
            if message.get("method") == "Network.requestWillBeSent":
                self.requested.append(message["params"]["request"]["url"])
            if message.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.errors.append(json.dumps(message["params"]))
            if message.get("id") == number:
                return message.get("result")

    def value(self, expression: str) -> Any:
        return self.tell("Runtime.evaluate", expression=expression)["result"].get("value")


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    from websockets.sync.client import connect

    port = free_port()
    command = [CHROMIUM or "", "--headless=new", "--no-sandbox", "--disable-gpu", f"--remote-debugging-port={port}"]
    with subprocess.Popen(
        [*command, f"--user-data-dir={tmp_path / 'chromium'}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as browser:
        try:
            pages: list[Any] = []

            def started() -> bool:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                    pages[:] = [each for each in json.load(answer) if each["type"] == "page"]
                return bool(pages)

            wait_for(started)
            with connect(pages[0]["webSocketDebuggerUrl"], max_size=None) as connection:
                yield Page(connection)
        finally:
            browser.terminate()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_person_can_score_a_customer(
    start: Callable[..., tuple[Any, int]], tmp_path: Path, scorecard: dict[str, Any], page: Page, width: int
) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    _, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank")
    page.tell("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500)
    page.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
    wait_for(lambda: page.value("document.getElementsByName('age').length") == 1)
    assert page.value("document.getElementsByName('kind')[0].options.length") == 3
    page.value("document.getElementsByName('kind')[0].value = 'rare'; document.getElementsByName('age')[0].focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    page.tell("Input.dispatchKeyEvent", type="keyDown", **enter)
    wait_for(lambda: page.value("document.getElementById('answer').hidden") is False)
    assert (
        page.value("document.getElementById('probability').textContent") == "23.1 %"
    )  # log-odds: -1 + 0.02 * 40 + 0.001 * 500 - 1.5
    assert page.value("document.getElementById('reasons').textContent").replace("\u2212", "-") == "kind rare-1.50"
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.getElementById('correction').hidden") is True
    assert page.errors == []
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in page.requested)
    page.value("document.getElementsByName('age')[0].value = '17'; document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('error').hidden") is False)
    assert "age" in page.value("document.getElementById('error').textContent")
    assert page.value("document.activeElement.name") == "age"


def test_the_form_shows_the_probability_in_the_population(
    start: Callable[..., tuple[Any, int]], tmp_path: Path, scorecard: dict[str, Any], page: Page
) -> None:
    # odds 1 / 9 in the population and 1 in the sample: the odds of a score and of the threshold are divided by 9
    scorecard["correction"] = {"base_rate": 0.1, "sample_rate": 0.5, "shift": math.log(1 / 9)}
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    _, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank")
    page.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
    wait_for(lambda: page.value("document.getElementsByName('age').length") == 1)
    page.value("document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('answer').hidden") is False)
    odds = math.exp(-1 + 0.02 * 40 + 0.001 * 500) / 9
    assert page.value("document.getElementById('probability').textContent") == f"{100 * odds / (1 + odds):.1f} %"
    assert "threshold is 10.0 %" in page.value("document.getElementById('decision').textContent")
    assert "population with 10.0 % yes" in page.value("document.getElementById('correction').textContent")
    assert page.errors == []

"""The form in a real Chromium, on a desk and on a phone: filled in, sent by the keyboard, read, and wrong input shown at its field."""

from __future__ import annotations

import itertools
import json
import math
import re
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
        found = self.tell("Runtime.evaluate", expression=expression)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def text(self, name: str) -> str:
        return str(self.value(f"document.getElementById({json.dumps(name)}).textContent"))


def control(column: str) -> str:
    """Returns the expression for a column's input, which a person finds by its label."""
    labels = "[...document.querySelectorAll('#fields label')]"
    return f"({labels}.find((each) => each.querySelector('span').textContent === {json.dumps(column)})?.control)"


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
    wait_for(lambda: page.value(f"{control('age')} !== undefined") is True)
    assert page.value(f"{control('kind')}.options.length") == 3
    page.value(f"{control('kind')}.value = 'rare'; {control('age')}.focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    page.tell("Input.dispatchKeyEvent", type="keyDown", **enter)
    wait_for(lambda: page.value("document.getElementById('answer').hidden") is False)
    assert page.text("probability") == "23.1 %"  # log-odds: -1 + 0.02 * 40 + 0.001 * 500 - 1.5
    assert page.text("reasons").replace("\u2212", "-") == "kind rare-1.50"
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value("document.getElementById('correction').hidden") is True
    assert page.errors == []
    assert all(url.startswith((f"http://127.0.0.1:{port}/", "data:")) for url in page.requested)
    page.value(f"{control('age')}.value = '17'; document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('error').hidden") is False)
    assert "age" in page.text("error")
    assert page.value(f"document.activeElement === {control('age')}") is True


def test_the_form_shows_the_probability_in_the_population(
    start: Callable[..., tuple[Any, int]], tmp_path: Path, scorecard: dict[str, Any], page: Page
) -> None:
    # odds 1 / 9 in the population and 1 in the sample: the odds of a score and of the threshold are divided by 9
    scorecard["correction"] = {"base_rate": 0.1, "sample_rate": 0.5, "shift": math.log(1 / 9)}
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    _, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank")
    page.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
    wait_for(lambda: page.value(f"{control('age')} !== undefined") is True)
    page.value("document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('answer').hidden") is False)
    odds = math.exp(-1 + 0.02 * 40 + 0.001 * 500) / 9
    assert page.text("probability") == f"{100 * odds / (1 + odds):.1f} %"
    assert "threshold is 10.0 %" in page.text("decision")
    assert "population with 10.0 % yes" in page.text("correction")
    assert page.errors == []


def test_the_form_asks_for_the_key_and_sends_it(
    start: Callable[..., tuple[Any, int]], tmp_path: Path, scorecard: dict[str, Any], page: Page
) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    _, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank", api_key="secret")
    page.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
    wait_for(lambda: page.value("document.getElementById('key-field')?.hidden === false") is True)
    assert "API key" in page.text("error")
    assert page.value("document.getElementById('fields').children.length") == 0
    page.value("document.getElementById('key').focus()")
    page.tell("Input.insertText", text="secret")
    page.value("document.getElementById('key').blur()")
    wait_for(lambda: page.value(f"{control('age')} !== undefined") is True)
    page.value("document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('answer').hidden") is False)


def test_a_column_may_be_called_as_anything_of_the_page(
    start: Callable[..., tuple[Any, int]], tmp_path: Path, scorecard: dict[str, Any], page: Page
) -> None:
    html = Path("serving/page/form.html").read_text()
    names = [*re.findall(r'\b(?:id|name|type|class)="([^"]+)"', html), "constructor", "__proto__", "elements", "reset"]
    names = [*dict.fromkeys([*names, "toString", "length", "0", "submit", "ownerDocument"])]
    assert {"score", "key", "form", "fields"} <= set(names)
    plain = scorecard["numeric"][0]
    scorecard |= {
        "specification": "[label]\nname = 'bought'\n[limits]\nscore = [0, 9]\n",
        "numeric": [{**plain, "name": name, "mean": 0.0} for name in names],
        "categorical": [],
        "features": [{"column": name, "kind": "numeric", "category": ""} for name in names],
        "coefficients": [[0.1 * (1 + place) for place in range(len(names))]],
        "intercepts": [-1.0],
    }
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    _, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank")
    page.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
    wait_for(lambda: page.value(f"{control(names[-1])} !== undefined") is True)
    for place, name in enumerate(names):
        reset = "".join(f"{control(each)}.value = '{int(each == name)}';" for each in names)
        page.value(f"{reset} document.getElementById('of').textContent = ''; document.getElementById('score').click()")
        wait_for(lambda: page.text("of") != "" or page.value("document.getElementById('error').hidden") is False)
        assert page.text("probability") == f"{100 / (1 + math.exp(1 - 0.1 * (1 + place))):.1f} %", name
        assert f"{name} 1" in page.text("reasons")
    assert page.errors == []
    page.value(f"{control('score')}.value = '10'; document.getElementById('score').click()")
    wait_for(lambda: page.value("document.getElementById('error').hidden") is False)
    assert page.value(f"document.activeElement === {control('score')}") is True

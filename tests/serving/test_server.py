"""The server as a process: it starts, follows the pointer under load without a lost request, and stops when its requests are done."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from server_process import ROW, Start, free_port, request, wait_for

JSON = {"Content-Type": "application/json"}


def test_no_request_is_lost_while_the_champion_changes(start: Start, registry: Any, scorecard: dict[str, Any]) -> None:
    for version, intercept in (("one", -1.0), ("two", 3.0)):
        registry.add(version, {**scorecard, "intercepts": [intercept]})
    registry.add("broken", scorecard, files={"scorecard.json": b"{}"})
    registry.point("one")
    _, port = start(f"--registry={registry.root}", "--model=bank")
    answers: list[tuple[int, str, float]] = []
    stop = threading.Event()

    def load() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        while not stop.is_set():
            connection.request("POST", "/v1/models/bank:predict", json.dumps({"instances": [ROW]}), JSON)
            answer = connection.getresponse()
            found = json.loads(answer.read())
            answers.append((answer.status, found["model_version"], found["predictions"][0]["probabilities"]["yes"]))

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for version in ("two", "broken", "one", "two", "one"):
            registry.point(version)
            if version == "broken":
                refused = 'model_refused{model="bank",version="broken"} 1'
                wait_for(lambda: refused in request(port, "GET", "/metrics")[1])  # noqa: B023
            else:
                wait_for(lambda: bool(answers) and answers[-1][1] == version)  # noqa: B023
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {status for status, _, _ in answers} == {200}
    assert {version for _, version, _ in answers} == {"one", "two"}
    assert (
        len({(version, score) for _, version, score in answers}) == 2
    )  # each answer is whole: its version's own score


def test_sigterm_lets_a_request_finish(start: Start, tmp_path: Path, scorecard: dict[str, Any]) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    process, port = start(f"--scorecard={tmp_path / 'scorecard.json'}")
    body = json.dumps({"instances": [ROW]}).encode()
    head = f"POST /v1/models/model:predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:
        caller.sendall(head.encode() + body[:5])
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=2)
        caller.sendall(body[5:])
        assert b" 200 OK" in caller.recv(4096)
    assert process.wait(10) == 0


def test_a_drain_sends_callers_away_without_losing_a_request(
    start: Start, tmp_path: Path, scorecard: dict[str, Any]
) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    process, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", drain_seconds="2")
    ended: list[str] = []

    def load() -> None:
        """Calls on one connection until the server asks to close it."""
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            for number in range(1_000_000):
                connection.request("POST", "/v1/models/model:predict", json.dumps({"instances": [ROW]}), JSON)
                answer = connection.getresponse()
                answer.read()
                if answer.will_close:
                    ended.append(f"{answer.status} after {min(number, 1)}")
                    return
        except (OSError, http.client.HTTPException) as error:
            ended.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert ended == ["200 after 1"] * 4
    status, _ = request(port, "POST", "/v1/models/model:predict", {"instances": [ROW]})
    assert status == 200, "a caller whose proxy has not heard of the end yet is answered, too"
    assert process.wait(10) == 0


def test_the_log_is_json(start: Start, tmp_path: Path, scorecard: dict[str, Any]) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    process, port = start(f"--scorecard={tmp_path / 'scorecard.json'}", "--model=bank")
    assert request(port, "POST", "/v1/models/bank:predict", {"instances": [{"age": "Smith"}]})[0] == 400
    with socket.create_connection(("127.0.0.1", port), timeout=10) as caller:  # no HTTP at all
        caller.sendall(b"Smith\r\n\r\n")
        caller.recv(4096)
    process.send_signal(signal.SIGTERM)
    process.wait(10)
    text = (tmp_path / "log").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert any(line.get("route") == "v1:predict" and line["error"] == "row" for line in lines)
    assert (lines[0]["port"], lines[0]["callers"]) == (port, "anyone: no API key is set, so none is asked for")
    assert "Smith" not in text


@pytest.mark.parametrize(
    ("arguments", "settings", "text"),
    [
        ([], {}, "give either --registry DIR_OR_URI or --scorecard FILE"),
        (["--registry=/nowhere"], {}, "/nowhere: there is no such directory"),
        (["--scorecard=/nowhere"], {}, "/nowhere cannot be read: No such file"),
        (["--registry={tmp}"], {}, "has no model with a champion; name one with --model"),
        (["--scorecard={tmp}/empty"], {}, "empty is damaged"),
        (["--registry=x", "--port=x"], {}, "SPARK_KFP_SERVE_PORT is 'x'; it must be a number from 0 to 65535"),
        (["--registry={tmp}"], {"max_rows": "-3"}, "SPARK_KFP_SERVE_MAX_ROWS is '-3'"),
        (["--registry={tmp}"], {"api_key_file": "/nowhere"}, "API_KEY_FILE /nowhere cannot be read"),
        (["--registry={tmp}"], {"api_key_file": "{tmp}/empty"}, "is empty; write the key into it"),
        (["--registry={tmp}"], {"api_key": "  "}, "SPARK_KFP_SERVE_API_KEY is blank; give it a value, or unset it"),
        (["--registry={tmp}"], {"api_key": ""}, "SPARK_KFP_SERVE_API_KEY is blank"),
        (["--registry={tmp}"], {"api_key_file": " "}, "SPARK_KFP_SERVE_API_KEY_FILE is blank"),
        (["--registry={tmp}", "--model=a", "--port={taken}"], {}, "port {taken}: Address already in use; give another"),
        (["--registry={tmp}", "--model=a", "--host=192.0.2.1"], {}, "on 192.0.2.1, port 8080: Cannot assign requested"),
        (["--registry={tmp}", "--model=a", "--host=no.invalid"], {}, "cannot listen on no.invalid, port 8080: "),
        (["--registry={tmp}", "--model=a", "--host=a..b"], {}, "this is no name of a host"),
    ],
)
def test_a_wrong_setting_is_told_in_one_sentence(
    tmp_path: Path, arguments: list[str], settings: dict[str, str], text: str
) -> None:
    (tmp_path / "empty").touch()
    environment = {f"SPARK_KFP_SERVE_{name.upper()}": value.format(tmp=tmp_path) for name, value in settings.items()}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        taken = listening.getsockname()[1]
        given = [each.format(tmp=tmp_path, taken=taken) for each in arguments]
        command = [sys.executable, "-P", "-m", "serving", *given]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    text = text.format(taken=taken)
    assert re.fullmatch(f"serving: error: .*{re.escape(text)}.*\n", done.stderr), done.stderr


def test_the_command_becomes_the_server(tmp_path: Path, scorecard: dict[str, Any]) -> None:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    (tmp_path / "serving.py").write_text("raise SystemExit('a file of the current folder was imported')")
    port = free_port()
    command = [
        str(Path(sys.executable).with_name("spark-kfp")),
        "serve",
        "--scorecard=scorecard.json",
        f"--port={port}",
    ]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        wait_for(lambda: request(port, "GET", "/v2/health/ready")[0] == 200)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.communicate()

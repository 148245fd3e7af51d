"""A search that is interrupted or killed loses no finished trial."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, until

from spark_jobs.errors import EXIT_INTERRUPTED

SEARCH = ("data.csv", "--label=label", "--trials=6")
COMMAND = ("run", *SEARCH, "--pipeline=tuning", "--algorithms=random,grid")
needs_java = pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")


def journals(folder: Path) -> list[Any]:
    found = []
    for path in (folder / "runs").glob("*/pipeline/*/tune/*/journal.json"):
        found.append(json.loads(path.read_text())["trials"])
    return found


def with_data(folder: Path) -> Machine:
    rows = "".join(f"{i % 17},{i * 7 % 11},{'yes' if i % 17 + i * 7 % 11 > 12 else 'no'}\n" for i in range(400))
    (folder / "data.csv").write_text("x,y,label\n" + rows)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    return Machine(folder, environment, None)


@pytest.mark.slow
@pytest.mark.spark
@needs_java
def test_the_same_command_goes_on_after_the_last_trial_of_a_search_that_was_killed(tmp_path: Path) -> None:
    machine = with_data(tmp_path)
    process = machine.start(*COMMAND)
    assert until(lambda: any(len(trials) >= 2 for trials in journals(tmp_path)), 300)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=20)
    assert until(lambda: not machine.processes(), 10)
    (kept,) = journals(tmp_path)
    assert 2 <= len(kept) < 12
    again = machine.start(*COMMAND)
    _, err = again.communicate(timeout=240)
    assert again.returncode == 0, err
    (whole,) = [json.loads(path.read_text())["trials"] for path in (tmp_path / "runs").rglob("trials.json")]
    assert whole[: len(kept)] == kept
    assert len(whole) == 12


@pytest.mark.slow
@pytest.mark.spark
@needs_java
def test_ctrl_c_keeps_the_finished_trials_and_says_how_to_go_on(tmp_path: Path) -> None:
    machine = with_data(tmp_path)
    process = machine.start("tune", *SEARCH, "--algorithms=random,grid")
    assert until(lambda: any(len(trials) >= 2 for trials in journals(tmp_path)), 300)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == EXIT_INTERRUPTED
    assert "finished trials are kept: the same command goes on after the last one" in out
    assert "spark-kfp: interrupted; start it again with the same arguments" in err
    assert until(lambda: not machine.processes(), 10)
    (kept,) = journals(tmp_path)
    assert 2 <= len(kept) < 12
    assert not [trial["error"] for trial in kept if trial["error"]], "a trial that was interrupted is none"
    (run,) = (tmp_path / "runs").glob("*/run.json")
    assert json.loads(run.read_text())["status"] == "cancelled"

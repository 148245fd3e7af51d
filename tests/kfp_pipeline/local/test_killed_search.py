"""A search that is killed loses no finished trial."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, until

COMMAND = ("run", "data.csv", "--label=label", "--pipeline=tuning", "--trials=6", "--algorithm=random,grid")


def journals(folder: Path) -> list[Any]:
    found = []
    for path in (folder / "runs").rglob("journal.json"):
        found.append(json.loads(path.read_text())["trials"])
    return found


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
def test_the_same_command_goes_on_after_the_last_trial_of_a_search_that_was_killed(tmp_path: Path) -> None:
    rows = "".join(f"{i % 17},{i * 7 % 11},{'yes' if i % 17 + i * 7 % 11 > 12 else 'no'}\n" for i in range(400))
    (tmp_path / "data.csv").write_text("x,y,label\n" + rows)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    machine = Machine(tmp_path, environment, None)
    process = machine.start(*COMMAND)
    assert until(lambda: any(len(trials) >= 2 for trials in journals(tmp_path)), 120)
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

"""An alarm starts a training, whose gate decides: whole runs with the real Spark."""

from __future__ import annotations

import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
from machine import Machine

REGISTRY = ("--label=answer", "--model-name=bank", "--registry-uri=models")
RETRAIN = ("--pipeline=retraining", "--model-uri=models/bank", "--train-data-uri=labelled.csv", *REGISTRY)


def write_table(path: Path, seed: int, *, older: float = 0.0, rows: int = 900) -> None:
    generator, lines = random.Random(seed), ["age,job,answer"]
    for _ in range(rows):
        age = generator.gauss(40 + older, 10)
        answer = "yes" if generator.random() < 1 / (1 + 2.718 ** ((45 + older - age) / 3)) else "no"
        lines.append(f"{age:.2f},{generator.choice('aabc')},{answer}")
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
def test_an_alarm_starts_one_training_and_the_gate_makes_its_model_the_champion(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    machine = Machine(tmp_path, environment, None)

    def run(data: str, *words: str) -> tuple[int, str, str]:
        process = machine.start("run", data, *words)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    def steps(run_id: str) -> dict[str, Any]:
        return {name: event["state"] for name, event in machine.record(run_id)["steps"].items()}

    def champion() -> Any:
        return json.loads((tmp_path / "models/bank/champion.json").read_text())["version"]

    write_table(tmp_path / "first.csv", 1)
    write_table(tmp_path / "same.csv", 2)
    write_table(tmp_path / "older.csv", 3, older=20)
    assert run("first.csv", *REGISTRY)[0] == 0
    first = champion()

    write_table(tmp_path / "labelled.csv", 4, older=20)
    code, out, err = run("same.csv", *RETRAIN, "--run-id=quiet")
    assert (code, steps("quiet")) == (0, {"drift": "done"}), err

    text = (tmp_path / "labelled.csv").read_text()
    (tmp_path / "labelled.csv").write_text(text + "40,a,\n" * 100)
    tuned = ("--tune-first", "--trials=2")
    code, _, err = run("older.csv", *RETRAIN, *tuned, "--run-id=alarm")
    assert code == 2, "the training fails, as a tenth of its rows have no label"
    assert "rows rejected" in err
    (tmp_path / "labelled.csv").write_text(text)
    code, out, err = run("older.csv", *RETRAIN, *tuned, "--run-id=alarm")
    assert code == 0, err
    done = dict.fromkeys(("load", "preprocess", "tune", "train", "evaluate", "promote"), "done")
    assert steps("alarm") == {"drift": "reused", **done}, "the repeated run keeps its decision"
    assert "drift of column 'age'" in out
    second = champion()
    assert second != first
    assert f"{second} is the champion of 'bank'" in out

    assert run("older.csv", *RETRAIN, "--run-id=after")[0] == 0
    assert steps("after") == {"drift": "done"}, "the new champion knows these rows"
    code, out, _ = run("same.csv", *RETRAIN, "--run-id=cooldown")
    assert (code, steps("cooldown")) == (0, {"drift": "done"})
    assert "no training is started before" in out
    assert champion() == second

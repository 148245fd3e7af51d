"""Whatever ends a run of `spark-kfp run`: no process is left, it is told as it was, and it can be started again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from machine import PATIENCE_SECONDS, Machine, until, until_asleep

REST = [
    (signal.SIGINT, "stubborn"),
    (signal.SIGINT, "grandchild"),
    (signal.SIGTERM, "sleep"),
    (signal.SIGTERM, "stubborn"),
    (signal.SIGKILL, "sleep"),
    (signal.SIGKILL, "grandchild"),
]
"""The other pairs of a signal and what the step does when it comes."""


@pytest.mark.parametrize(
    ("number", "behaviour"),
    [
        (signal.SIGINT, "sleep"),
        (signal.SIGTERM, "grandchild"),
        (signal.SIGKILL, "stubborn"),
        *(pytest.param(*rest, marks=pytest.mark.slow) for rest in REST),
    ],
)
def test_whatever_ends_a_run_leaves_no_process(machine: Machine, number: signal.Signals, behaviour: str) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK=f"load:{behaviour}")
    until_asleep(machine, "load")
    assert len(machine.processes()) >= 4  # the command, the graph, the task, spark-submit
    process.send_signal(number)
    assert until(lambda: not machine.processes(), 10), "\n".join(line[-150:] for line in machine.processes())
    _, err = process.communicate(timeout=10)
    if number != signal.SIGKILL:
        assert process.returncode == 130
        assert err == (
            "spark-kfp: interrupted; start it again with the same arguments, and finished steps are reused\n"
        )
        assert machine.record("one")["status"] == "cancelled"


@pytest.mark.slow
@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("seconds", [0.0, 1.0, 5.0])  # the JVM starts, Spark starts, a step runs
def test_whatever_ends_a_run_with_the_real_spark_leaves_no_process(
    tmp_path: Path, number: signal.Signals, seconds: float
) -> None:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(90)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    machine = Machine(tmp_path, environment, None)
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one")
    driver = re.compile(r"\S*/java .*SparkSubmit .*pyspark-shell")  # the JVM of the run's session
    assert until(lambda: any(driver.match(line) for line in machine.processes()))
    time.sleep(seconds)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert until(lambda: not machine.processes(), 10), "\n".join(line[-150:] for line in machine.processes())


def test_a_second_run_in_the_same_directory_is_refused_while_the_first_goes_on(machine: Machine) -> None:
    first = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="load:sleep")
    until_asleep(machine, "load")
    code, _, err = machine.run("--label=label", "--run-id=one")
    assert code == 2
    assert err.startswith("spark-kfp: error: another process is running in ")
    assert "choose another --run-id" in err
    assert first.poll() is None
    assert machine.record("one")["status"] == "running"


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.slow)])
def test_a_run_that_was_ended_in_the_middle_can_be_started_again(machine: Machine, number: signal.Signals) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="train:sleep")
    until_asleep(machine, "train")
    process.send_signal(number)
    process.communicate(timeout=20)
    assert until(lambda: not machine.processes(), 10)
    code, out, err = machine.run("--label=label", "--run-id=one")
    assert code == 0, err
    assert [line.split()[1] for line in out.splitlines() if line.startswith(("load", "preprocess"))] == [
        "running",
        "reused",
    ] * 2
    assert machine.spark.steps() == ["load", "preprocess", "train", "train", "evaluate"]
    assert not list((machine.folder / "runs" / "one").rglob("half"))


def test_a_run_that_was_killed_says_so_and_the_next_run_removes_what_it_left(machine: Machine) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="train:sleep")
    until_asleep(machine, "train")
    assert json.loads(machine.call("runs", "show", "one", "--json")[1])[0]["status"] == "running"
    so_far = machine.call("runs", "list")[1].splitlines()[1].split()[4]
    assert 1 <= int(so_far) < PATIENCE_SECONDS
    process.kill()
    process.communicate(timeout=20)
    assert until(lambda: not machine.processes(), 10)
    (run,) = json.loads(machine.call("runs", "list", "--json")[1])
    assert run["status"] == "killed"
    assert 0 < run["ended"] - run["started"] < PATIENCE_SECONDS
    _, shown, _ = machine.call("runs", "show", "last")
    assert "it was killed; `spark-kfp run` with the same arguments and --run-id=one takes over" in shown
    (machine.folder / "runs/one/scratch").mkdir(exist_ok=True)
    assert machine.run("--label=label", "--run-id=two")[0] == 0
    left = {path.name for path in (machine.folder / "runs/one").iterdir()}
    assert left == {".lock", "events.jsonl", "inputs.json", "kfp.log", "logs", "pipeline", "run.json"}


def test_a_run_whose_reader_has_gone_ends_and_is_not_left_running(machine: Machine) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one")
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(PATIENCE_SECONDS) != 0
    assert machine.record("one")["status"] == "cancelled"

"""`spark-kfp run` from the outside: the real KFP, a spark-submit that does as it is told, and every way to end a run."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

STEPS = ["load", "preprocess", "train", "evaluate"]
PATIENCE_SECONDS = 60.0


@dataclass
class Machine:
    """A folder with data, and `spark-kfp` in it; `mark` is in the environment of every process that comes of it."""

    folder: Path
    environment: dict[str, str]
    spark: Any
    mark: str = field(default_factory=lambda: f"spark-kfp-test-{uuid.uuid4().hex}")

    def start(self, *words: str, **environment: str) -> subprocess.Popen[str]:
        """Starts `spark-kfp` and does not wait."""
        return subprocess.Popen(
            [sys.executable, "-m", "kfp_pipeline", *words],
            cwd=self.folder,
            env={**self.environment, "MARK": self.mark, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def call(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Runs `spark-kfp` to its end: exit code, stdout, stderr."""
        process = self.start(*words, **environment)
        out, err = process.communicate(timeout=PATIENCE_SECONDS)
        return process.returncode, out, err

    def run(self, *words: str, **environment: str) -> tuple[int, str, str]:
        """Runs the pipeline over the data to its end."""
        return self.call("run", "data.csv", *words, **environment)

    def processes(self) -> list[str]:
        """The command lines of the processes that carry the mark."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"MARK={self.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                    found.append((path / "cmdline").read_text().replace("\0", " "))
        return found

    def record(self, run_id: str) -> dict[str, Any]:
        """run.json of a run."""
        document: dict[str, Any] = json.loads((self.folder / "runs" / run_id / "run.json").read_text())
        return document


@pytest.fixture
def machine(fake_spark: Any, make_java: Callable[[str], Path], tmp_path: Path) -> Iterator[Machine]:
    folder = tmp_path / "a folder of python3.11"  # spaces, and what KFP's runner looks for in a task's command
    folder.mkdir()
    (folder / "data.csv").write_text("x,label\n1,yes\n2,no\n")
    made = Machine(folder, {**fake_spark.environment(), "JAVA_HOME": str(make_java("17.0.15"))}, fake_spark)
    yield made
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"MARK={made.mark}".encode() in (path / "environ").read_bytes().split(b"\0"):
                os.kill(int(path.name), signal.SIGKILL)


def until(condition: Callable[[], Any], seconds: float = PATIENCE_SECONDS) -> bool:
    """Waits until a condition holds; false if it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def until_asleep(machine: Machine, step: str, run_id: str = "one") -> None:
    """Waits until the step's spark-submit sleeps."""
    log = machine.folder / "runs" / run_id / "logs" / f"{step}.log"
    assert until(lambda: log.exists() and "asleep" in log.read_text()), f"{step} did not start"


def test_a_run_shows_every_step_and_ends_with_metrics_and_report(machine: Machine) -> None:
    code, out, err = machine.run("--label=label", "--run-id=one")
    assert code == 0, err
    states = [line.split()[:2] for line in out.splitlines() if line.split()[:1] and line.split()[0] in STEPS]
    assert states == [[step, state] for step in STEPS for state in ("running", "done")]
    assert "8 rows" in out
    assert "accuracy" in out
    assert "0.7500" in out
    assert "0.7000 to 0.8000" in out
    assert "warning: small data" in out
    report = machine.folder / "runs" / "one" / "report.html"
    assert f"report: {report}" in out
    assert report.read_text() == "<html>a report</html>"
    assert machine.record("one")["status"] == "succeeded"
    assert machine.spark.steps() == STEPS
    assert "log of" not in out + err
    assert (machine.folder / "runs/one/logs/train.log").read_text() == "log of train\nin a standby\n"
    assert machine.processes() == []


def test_a_run_leaves_no_temporary_file(machine: Machine) -> None:
    temporary = machine.folder / "temporary"
    temporary.mkdir()
    code, _, err = machine.run("--label=label", "--run-id=one", TMPDIR=str(temporary))
    assert code == 0, err
    assert list(temporary.iterdir()) == []
    left = {path.name for path in (machine.folder / "runs/one").iterdir()}
    assert left == {".lock", "events.jsonl", "inputs.json", "kfp.log", "logs", "pipeline", "report.html", "run.json"}


def test_a_setting_reaches_the_step_that_has_it(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", "--reg-param=0.5", "--no-cache", "--fit-intercept=false", "--seed=7")
    assert code == 0, err
    words = dict(machine.spark.calls())
    assert {"--reg-param=0.5", "--fit-intercept=false"} <= set(words["train"])
    assert "--seed=7" in words["preprocess"]
    assert f"--data-uri={machine.folder / 'data.csv'}" in words["load"]


def test_the_same_run_again_reuses_every_step_and_says_so(machine: Machine) -> None:
    assert machine.run("--label=label", "--run-id=one")[0] == 0
    code, out, err = machine.run("--label=label", "--run-id=two")
    assert code == 0, err
    assert out.count("reused") == 4
    assert "same inputs, data and code as before" in out
    assert machine.spark.steps() == STEPS
    assert (machine.folder / "runs/two/report.html").exists()
    shutil.rmtree(machine.folder / "runs" / "one")
    code, out, err = machine.run("--label=label", "--run-id=three")
    assert code == 0, err
    assert out.count("reused") == 4

    (machine.folder / "data.csv").write_text("x,label\n1,yes\n3,no\n")
    assert machine.run("--label=label", "--run-id=four")[0] == 0
    assert machine.spark.steps() == STEPS * 2


def test_a_changed_setting_runs_its_step_and_what_follows(machine: Machine) -> None:
    assert machine.run("--label=label")[0] == 0
    assert machine.run("--label=label", "--reg-param=0.5")[0] == 0
    assert machine.spark.steps() == [*STEPS, "train", "evaluate"]


def test_no_cache_runs_every_step(machine: Machine) -> None:
    assert machine.run("--label=label")[0] == 0
    code, out, _ = machine.run("--label=label", "--no-cache")
    assert code == 0
    assert "reused" not in out
    assert machine.spark.steps() == STEPS * 2


def test_bad_input_ends_with_2_and_the_steps_own_words_alone(machine: Machine) -> None:
    code, out, err = machine.run("--label=label", "--run-id=one", FAKE_SPARK="preprocess:input_told")
    assert code == 2
    assert err == "spark-kfp: error: column x is not there; name another\n"
    assert "preprocess  failed" in out
    assert machine.record("one")["status"] == "failed"
    assert machine.record("one")["message"] == "column x is not there; name another"
    assert machine.spark.steps() == ["load", "preprocess"]


def test_a_fault_ends_with_1_the_last_log_lines_and_the_logs_path(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", FAKE_SPARK="train:fault")
    assert code == 1
    lines = err.splitlines()
    assert lines[:20] == [f"log line {number}" for number in range(20, 40)]
    assert lines[20] == "spark-kfp: error: step train ended with exit code 1 and left no result.json"
    assert lines[21:] == [f"the whole log: {machine.folder / 'runs/one/logs/train.log'}"]
    assert (machine.folder / "runs/one/logs/train.log").exists()


def test_a_killed_step_says_so(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", FAKE_SPARK="train:killed")
    assert code == 1
    assert "step train was ended by SIGKILL (out of memory?); run again" in err


def test_a_step_that_ends_well_without_a_result_has_failed(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", FAKE_SPARK="evaluate:no_result")
    assert code == 1
    assert "step evaluate ended with exit code 0 and left no result.json" in err


def test_a_second_run_in_the_same_directory_is_refused_while_the_first_goes_on(machine: Machine) -> None:
    first = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="load:sleep")
    until_asleep(machine, "load")
    code, _, err = machine.run("--label=label", "--run-id=one")
    assert code == 2
    assert err.startswith("spark-kfp: error: another process is running in ")
    assert "choose another --run-id" in err
    assert first.poll() is None
    assert machine.record("one")["status"] == "running"


def test_a_finished_run_is_not_overwritten(machine: Machine) -> None:
    assert machine.run("--label=label", "--run-id=one")[0] == 0
    before = machine.record("one")
    code, _, err = machine.run("--label=label", "--run-id=one")
    assert code == 2
    assert "run one is finished; choose another --run-id" in err
    assert machine.record("one") == before


@pytest.mark.parametrize("behaviour", ["sleep", "stubborn", "grandchild"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
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


@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_a_run_with_the_real_spark_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{i},{'yes' if i % 3 else 'no'}\n" for i in range(90)))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SPARK_")}
    machine = Machine(tmp_path, environment, None)
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one")
    driver = re.compile(
        r"\S*/python\S* \S*spark_jobs/__main__.py (load|standby) "
    )  # what the JVM of spark-submit starts
    assert until(lambda: any(driver.match(line) for line in machine.processes()))
    time.sleep(1)  # some way into the step
    process.send_signal(number)
    process.communicate(timeout=20)
    assert until(lambda: not machine.processes(), 10), "\n".join(line[-150:] for line in machine.processes())


def test_without_java_a_run_ends_with_2_before_anything_starts(machine: Machine, tmp_path: Path) -> None:
    code, out, err = machine.run("--label=label", JAVA_HOME=str(tmp_path / "nothing"))
    assert code == 2
    assert out == ""
    assert "no Java in JAVA_HOME=" in err
    assert "install a Java 17 or 21 runtime" in err
    assert not (machine.folder / "runs").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
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


def test_json_is_one_document_and_nothing_else(machine: Machine) -> None:
    code, out, err = machine.run("--label=label", "--run-id=one", "--json")
    assert code == 0, err
    document = json.loads(out)
    assert out.count("\n") == 1
    assert document["id"] == "one"
    assert document["status"] == "succeeded"
    assert document["metrics"] == {"accuracy": 0.75}
    assert document["evaluation"]["confusion"]["labels"] == ["no", "yes"]
    assert list(document["steps"]) == STEPS


def test_json_of_a_failed_run_is_one_document_too(machine: Machine) -> None:
    code, out, err = machine.run("--label=label", "--json", FAKE_SPARK="load:input")
    assert code == 2
    assert json.loads(out)["status"] == "failed"
    assert json.loads(out)["message"] == "no such file; name another"
    assert err == "spark-kfp: error: no such file; name another\n"


def test_runs_are_listed_shown_and_compared(machine: Machine) -> None:
    assert machine.run("--label=label", "--run-id=one")[0] == 0
    assert machine.run("--label=label", "--run-id=two", "--reg-param=0.5", FAKE_SPARK="train:fault")[0] == 1

    _, out, _ = machine.call("runs", "list")
    assert [line.split()[:2] for line in out.splitlines()[1:]] == [["one", "succeeded"], ["two", "failed"]]
    _, out, _ = machine.call("runs", "show", "last")
    assert "step train ended with exit code 1" in out
    assert "reg_param" in out
    _, out, _ = machine.call("runs", "compare", "one", "two")
    assert [line.split() for line in out.splitlines() if line.startswith("reg_param")] == [["reg_param", "0.0", "0.5"]]
    assert "data_uri" not in out
    code, out, _ = machine.call("runs", "show", "on", "--json")
    assert code == 0
    assert json.loads(out)[0]["metrics"] == {"accuracy": 0.75}
    code, _, err = machine.call("runs", "show", "nothing")
    assert code == 2
    assert "0 runs match 'nothing' in runs; `spark-kfp runs list` shows those there are" in err


def test_a_runs_directory_that_cannot_be_made_is_told(machine: Machine) -> None:
    (machine.folder / "file").write_text("")
    code, out, err = machine.run("--label=label", "--runs=file")
    assert code == 2
    assert out == ""
    assert err.startswith("spark-kfp: error: ")
    assert "file" in err
    assert "; name another directory with --runs" in err


@pytest.mark.parametrize("run_id", ["../elsewhere", "a/b", ".", "/elsewhere", ".finished", "a b"])
def test_the_name_of_a_run_stays_below_the_runs_directory(machine: Machine, run_id: str) -> None:
    code, _, err = machine.run("--label=label", f"--run-id={run_id}")
    assert code == 2
    assert "--run-id" in err
    assert machine.spark.steps() == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few kilobytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("needs the right to mount")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.parametrize("free_bytes", [0, 8192, 24576, 36864])
def test_a_full_disk_ends_a_run_with_a_clear_error(machine: Machine, small_disk: Path, free_bytes: int) -> None:
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        for _ in range((65536 - free_bytes) // 4096):
            filler.write(b"x" * 4096)
    code, _, err = machine.run("--label=label", f"--runs={small_disk / 'runs'}")
    assert code == 2, err
    assert "Traceback" not in err
    assert "space" in err
    assert machine.processes() == []


def standbys(machine: Machine) -> list[int]:
    """The processes that stood by for a step, whether one came or not."""
    path = machine.folder / "standbys"
    return [int(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def noting(machine: Machine) -> dict[str, str]:
    return {"FAKE_SPARK_STANDBYS": str(machine.folder / "standbys")}


def test_every_step_is_run_by_a_driver_that_stood_by_and_no_other_is_started(
    machine: Machine, noting: dict[str, str]
) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", **noting)
    assert code == 0, err
    assert machine.spark.steps() == STEPS
    assert len(standbys(machine)) == len(STEPS)
    for step in STEPS:
        log = (machine.folder / f"runs/one/logs/{step}.log").read_text()
        assert log.splitlines() == [f"log of {step}", "in a standby"]
    assert not (machine.folder / "runs/one/standbys").exists()
    assert until(lambda: not machine.processes(), 10)


def test_where_steps_are_reused_only_one_driver_stood_by(machine: Machine, noting: dict[str, str]) -> None:
    assert machine.run("--label=label", "--run-id=one")[0] == 0
    code, _, err = machine.run("--label=label", "--run-id=two", **noting)
    assert code == 0, err
    assert machine.spark.steps() == STEPS
    assert len(standbys(machine)) <= 1
    assert until(lambda: not machine.processes(), 10)


def test_a_driver_that_cannot_stand_by_is_not_missed(machine: Machine) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", FAKE_STANDBY="dies")
    assert code == 0, err
    assert machine.spark.steps() == STEPS
    assert "in a standby" not in (machine.folder / "runs/one/logs/train.log").read_text()


@pytest.mark.parametrize(
    "setting",
    [{"SPARK_KFP_STANDBYS": "false"}, {"SPARK_KFP_COMPILE_TIERS_BYTES": "10"}],
    ids=lambda given: next(iter(given)),
)
def test_none_stands_by_for_large_data_or_where_that_is_not_wanted(
    machine: Machine, noting: dict[str, str], setting: dict[str, str]
) -> None:
    code, _, err = machine.run("--label=label", "--run-id=one", **noting, **setting)
    assert code == 0, err
    assert standbys(machine) == []


def test_a_standby_that_is_killed_before_its_step_is_replaced_by_a_driver_of_the_step(
    machine: Machine, noting: dict[str, str]
) -> None:
    process = machine.start("run", "data.csv", "--label=label", "--run-id=one", FAKE_SPARK="load:nap", **noting)
    assert until(lambda: len(standbys(machine)) == 2)  # one for load, and the next
    os.kill(standbys(machine)[1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0, err
    assert machine.spark.steps() == STEPS
    assert "in a standby" not in (machine.folder / "runs/one/logs/preprocess.log").read_text()

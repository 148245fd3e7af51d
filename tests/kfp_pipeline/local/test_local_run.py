"""`spark-kfp run` from the outside: the real KFP, and a spark-submit that does as it is told.

A run takes seconds: tests that look at the same one share it, and a test that only adds a run does so in the same folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from machine import STEPS, Machine, make_machine, until


@dataclass(frozen=True)
class Ended:
    """A run that has ended, and what was submitted and noted until then."""

    machine: Machine
    code: int
    out: str
    err: str
    calls: list[Any]
    processes: list[str]


def end(machine: Machine, *words: str, **environment: str) -> Ended:
    """Runs the pipeline to its end."""
    submitted = len(machine.spark.calls())
    code, out, err = machine.run("--label=label", *words, **environment)
    until(lambda: not machine.processes(), 10)
    return Ended(machine, code, out, err, machine.spark.calls()[submitted:], machine.processes())


@pytest.fixture(scope="module")
def shared(
    fake_spark_of_the_module: Any, make_java: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Machine]:
    """A machine for tests that leave the runs of the others as they are."""
    made = make_machine(tmp_path_factory.mktemp("shared"), fake_spark_of_the_module, make_java("17.0.15"))
    (made.folder / "temporary").mkdir()
    yield made
    made.kill()


@pytest.fixture(scope="module")
def one(shared: Machine) -> Ended:
    """The first run of the shared machine, with settings of two steps."""
    words = ("--run-id=one", "--reg-param=0.5", "--fit-intercept=false", "--seed=7")
    return end(shared, *words, TMPDIR=str(shared.folder / "temporary"))


@pytest.fixture(scope="module")
def again(one: Ended) -> Ended:
    """The same once more, told as JSON."""
    words = ("--run-id=again", "--reg-param=0.5", "--fit-intercept=false", "--seed=7", "--json")
    return end(one.machine, *words)


@pytest.fixture(scope="module")
def failed(one: Ended) -> Ended:
    """A run of another setting, whose train ends by a fault."""
    words = ("--run-id=failed", "--reg-param=0.7", "--fit-intercept=false", "--seed=7")
    return end(one.machine, *words, FAKE_SPARK="train:fault")


def test_a_run_shows_every_step_and_ends_with_metrics_and_report(one: Ended) -> None:
    assert one.code == 0, one.err
    states = [line.split()[:2] for line in one.out.splitlines() if line.split()[:1] and line.split()[0] in STEPS]
    assert states == [[step, state] for step in STEPS for state in ("running", "done")]
    assert "8 rows" in one.out
    assert "accuracy" in one.out
    assert "0.7500" in one.out
    assert "0.7000 to 0.8000" in one.out
    assert "warning: small data" in one.out
    report = one.machine.folder / "runs" / "one" / "report.html"
    assert f"report: {report}" in one.out
    assert report.read_text() == "<html>a report</html>"
    assert one.machine.record("one")["status"] == "succeeded"
    assert [step for step, _ in one.calls] == STEPS
    assert "log of" not in one.out + one.err
    assert (one.machine.folder / "runs/one/logs/train.log").read_text() == "log of train\n"


def test_a_run_with_a_model_name_asks_the_gate_each_time_and_a_refusal_is_a_normal_end(one: Ended) -> None:
    for run_id in ("named", "named-again"):
        words = (f"--run-id={run_id}", "--reg-param=0.5", "--fit-intercept=false", "--seed=7", "--model-name=bank")
        named = end(one.machine, *words)
        assert named.code == 0, named.err
        assert [step for step, _ in named.calls] == ["promote"], "the other steps are reused, this one never is"
        assert "accuracy is too low" in named.out
        assert "a version of bank does not pass" in named.out
        (words_of_step,) = (words for _, words in named.calls)
        assert f"--registry-uri={one.machine.folder / 'models'}" in words_of_step


TUNED = ("--tune-first", "--trials=3", "--seed=7")


@pytest.fixture(scope="module")
def tuned(one: Ended) -> Ended:
    """A run of the same graph that tunes first."""
    return end(one.machine, "--run-id=tuned", *TUNED)


def test_a_run_that_tunes_first_goes_through_the_other_branch_of_the_same_graph(one: Ended, tuned: Ended) -> None:
    assert tuned.code == 0, tuned.err
    words = dict(tuned.calls)
    assert list(words) == ["tune", "train", "evaluate"], (
        "of the table and the features those of the first run are reused"
    )
    assert "--trials=3" in words["tune"]
    (tune_uri,) = (word.partition("=")[2] for word in words["train"] if word.startswith("--tune-uri="))
    assert (Path(tune_uri) / "best.json").exists()
    assert "--tune-uri=" in dict(one.calls)["train"]
    states = {step: event["state"] for step, event in tuned.machine.record("tuned")["steps"].items()}
    done = dict.fromkeys(("tune", "train", "evaluate"), "done")
    assert states == {"load": "reused", "preprocess": "reused", **done}
    assert tuned.machine.record("tuned")["pipeline"] == "training"


def test_it_shows_the_trials_and_keeps_both_reports(tuned: Ended) -> None:
    assert "reg_param 0.25" in tuned.out
    folder = tuned.machine.folder / "runs/tuned"
    assert f"report: {folder / 'report.html'}" in tuned.out
    assert f"report of the search: {folder / 'tune.html'}" in tuned.out
    assert (folder / "report.html").read_text() == "<html>a report</html>"
    assert (folder / "tune.html").read_text() == "<html>trials</html>"


def test_the_command_tune_is_that_run_and_reuses_all_of_it(tuned: Ended) -> None:
    code, out, err = tuned.machine.call("tune", "data.csv", "--label=label", "--run-id=tune", *TUNED[1:])
    assert code == 0, err
    states = {step: event["state"] for step, event in tuned.machine.record("tune")["steps"].items()}
    assert states == dict.fromkeys(("load", "preprocess", "tune", "train", "evaluate"), "reused")
    shown = out.partition("areaUnderROC  seconds")[2].partition("report:")[0]
    assert shown
    assert shown.splitlines()[:2] == tuned.out.partition("areaUnderROC  seconds")[2].splitlines()[:2]


def test_a_model_that_was_tuned_can_be_promoted(tuned: Ended) -> None:
    named = end(tuned.machine, "--run-id=tuned-named", *TUNED, "--model-name=bank")
    assert named.code == 0, named.err
    assert [step for step, _ in named.calls] == ["promote"]
    (words,) = (words for _, words in named.calls)
    (train_uri,) = (word.partition("=")[2] for word in words if word.startswith("--train-uri="))
    assert train_uri == named.machine.record("tuned-named")["steps"]["train"]["uri"]


def test_a_step_that_fails_in_that_branch_is_named_and_repeated_alone(tuned: Ended) -> None:
    words = ("--run-id=tuned-failed", *TUNED, "--threshold-rule=half")
    failed = end(tuned.machine, *words, FAKE_SPARK="train:fault_told")
    assert (failed.code, "the step said oops" in failed.err) == (1, True)
    assert [step for step, _ in failed.calls] == ["train"]
    again = end(tuned.machine, *words)
    assert (again.code, [step for step, _ in again.calls]) == (0, ["train", "evaluate"])


@pytest.mark.parametrize("words", [("--tune-first", "--reg-param=1"), ("--trials=3",), ("--canary-share=0.5",)])
def test_what_a_run_would_ignore_ends_it_before_it_starts(words: tuple[str, ...], one: Ended) -> None:
    refused = end(one.machine, "--run-id=refused", *words)
    assert (refused.code, refused.calls, len(refused.err.splitlines())) == (2, [], 1)
    assert not (one.machine.folder / "runs/refused").exists()


def test_a_run_leaves_no_process_and_no_temporary_file(one: Ended) -> None:
    assert one.processes == []
    assert list((one.machine.folder / "temporary").iterdir()) == []
    left = {path.name for path in (one.machine.folder / "runs/one").iterdir()}
    assert left == {".lock", "events.jsonl", "inputs.json", "kfp.log", "logs", "pipeline", "report.html", "run.json"}


def test_a_setting_reaches_the_step_that_has_it(one: Ended) -> None:
    words = dict(one.calls)
    assert {"--reg-param=0.5", "--fit-intercept=false"} <= set(words["train"])
    assert "--seed=7" in words["preprocess"]
    assert f"--data-uri={one.machine.folder / 'data.csv'}" in words["load"]


def test_where_the_shared_session_cannot_start_each_step_starts_spark_itself(one: Ended) -> None:
    log = (one.machine.folder / "runs/one/logs/session.log").read_text()
    assert "ImportError" in log or "ModuleNotFoundError" in log  # this Spark is no Spark
    assert [step for step, _ in one.calls] == STEPS


def test_no_session_is_started_where_that_is_not_wanted(machine: Machine) -> None:
    assert end(machine, "--run-id=one", SPARK_KFP_SHARE_SESSION="false").code == 0
    assert not (machine.folder / "runs/one/logs/session.log").exists()


def test_a_session_is_started_for_large_data_too(machine: Machine) -> None:
    assert end(machine, "--run-id=one", SPARK_KFP_COMPILE_TIERS_BYTES="10").code == 0
    assert (machine.folder / "runs/one/logs/session.log").exists()


def test_json_is_one_document_and_nothing_else(again: Ended) -> None:
    assert again.code == 0, again.err
    document = json.loads(again.out)
    assert again.out.count("\n") == 1
    assert document["id"] == "again"
    assert document["status"] == "succeeded"
    assert document["metrics"] == {"accuracy": 0.75}
    assert document["evaluation"]["confusion"]["labels"] == ["no", "yes"]
    assert list(document["steps"]) == STEPS


def test_a_step_that_is_reused_is_not_submitted(again: Ended) -> None:
    assert again.calls == []
    assert again.processes == []


def test_a_finished_run_is_not_overwritten(one: Ended) -> None:
    before = one.machine.record("one")
    code, _, err = one.machine.run("--label=label", "--run-id=one")
    assert code == 2
    assert "run one is finished; choose another --run-id" in err
    assert one.machine.record("one") == before


def test_no_cache_runs_every_step(one: Ended) -> None:
    anew = end(one.machine, "--reg-param=0.5", "--fit-intercept=false", "--seed=7", "--no-cache")
    assert anew.code == 0, anew.err
    assert "reused" not in anew.out
    assert [step for step, _ in anew.calls] == STEPS


def test_a_step_runs_again_only_where_its_settings_its_inputs_or_the_data_have_changed(machine: Machine) -> None:
    assert end(machine, "--run-id=one").code == 0
    two = end(machine, "--run-id=two")
    assert two.code == 0, two.err
    assert two.out.count("reused") == 4
    assert "same inputs, data and code as before" in two.out
    assert two.calls == []
    assert (machine.folder / "runs/two/report.html").exists()

    shutil.rmtree(machine.folder / "runs" / "one")
    three = end(machine, "--reg-param=0.5")
    assert three.code == 0, three.err
    assert [step for step, _ in three.calls] == ["train", "evaluate"]

    (machine.folder / "data.csv").write_text("x,label\n1,yes\n3,no\n")
    assert [step for step, _ in end(machine).calls] == STEPS


def test_bad_input_ends_with_2_and_the_steps_own_words_alone(one: Ended) -> None:
    bad = end(one.machine, "--run-id=bad", "--seed=8", FAKE_SPARK="preprocess:input_told")
    assert bad.code == 2
    assert bad.err == "spark-kfp: error: column x is not there; name another\n"
    assert "preprocess  failed" in bad.out
    assert one.machine.record("bad")["status"] == "failed"
    assert one.machine.record("bad")["message"] == "column x is not there; name another"
    assert [step for step, _ in bad.calls] == ["preprocess"]


def test_a_fault_ends_with_1_the_last_log_lines_and_the_logs_path(failed: Ended) -> None:
    assert failed.code == 1
    lines = failed.err.splitlines()
    assert lines[:20] == [f"log line {number}" for number in range(20, 40)]
    assert lines[20] == "spark-kfp: error: step train ended with exit code 1 and left no result.json"
    assert lines[21:] == [f"the whole log: {failed.machine.folder / 'runs/failed/logs/train.log'}"]
    assert (failed.machine.folder / "runs/failed/logs/train.log").exists()


def test_a_killed_step_says_so(one: Ended) -> None:
    killed = end(one.machine, "--reg-param=0.9", "--fit-intercept=false", "--seed=7", FAKE_SPARK="train:killed")
    assert killed.code == 1
    assert "step train was ended by SIGKILL (out of memory?); run again" in killed.err


def test_a_step_that_ends_well_without_a_result_has_failed(one: Ended) -> None:
    words = ("--reg-param=0.5", "--fit-intercept=false", "--seed=7", "--title=Another")
    ended = end(one.machine, *words, FAKE_SPARK="evaluate:no_result")
    assert ended.code == 1
    assert "step evaluate ended with exit code 0 and left no result.json" in ended.err


@pytest.mark.usefixtures("failed")
def test_runs_are_listed_shown_and_compared(one: Ended) -> None:
    machine = one.machine
    _, out, _ = machine.call("runs", "list")
    listed = [line.split()[:2] for line in out.splitlines()[1:]]
    assert [line for line in listed if line[0] in ("one", "failed")] == [["one", "succeeded"], ["failed", "failed"]]
    _, out, _ = machine.call("runs", "show", "failed")
    assert "step train ended with exit code 1" in out
    assert "reg_param" in out
    _, out, _ = machine.call("runs", "show", "one")
    assert [line.split() for line in out.splitlines() if line.startswith("accuracy")] == [
        ["accuracy", "0.7500", "0.7000", "to", "0.8000", "0.5000"]
    ]
    assert "warning: small data" in out
    _, out, _ = machine.call("runs", "compare", "one", "failed")
    assert [line.split() for line in out.splitlines() if line.startswith("reg_param")] == [["reg_param", "0.5", "0.7"]]
    assert "data_uri" not in out
    code, out, _ = machine.call("runs", "show", "on", "--json")
    assert code == 0
    assert json.loads(out)[0]["metrics"] == {"accuracy": 0.75}
    code, _, err = machine.call("runs", "show", "nothing")
    assert code == 2
    assert "0 runs match 'nothing' in runs; `spark-kfp runs list` shows those there are" in err


def test_json_of_a_failed_run_is_one_document_too(machine: Machine) -> None:
    code, out, err = machine.run("--label=label", "--json", FAKE_SPARK="load:input")
    assert code == 2
    assert json.loads(out)["status"] == "failed"
    assert json.loads(out)["message"] == "no such file; name another"
    assert err == "spark-kfp: error: no such file; name another\n"


def test_without_java_a_run_ends_with_2_before_anything_starts(machine: Machine, tmp_path: Path) -> None:
    code, out, err = machine.run("--label=label", JAVA_HOME=str(tmp_path / "nothing"))
    assert code == 2
    assert out == ""
    assert "no Java in JAVA_HOME=" in err
    assert "install a Java 17 or 21 runtime" in err
    assert not (machine.folder / "runs").exists()


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


@pytest.mark.parametrize(
    "free_bytes", [0, 24576, *(pytest.param(free, marks=pytest.mark.slow) for free in (8192, 36864))]
)
def test_a_full_disk_ends_a_run_with_a_clear_error(machine: Machine, small_disk: Path, free_bytes: int) -> None:
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        for _ in range((65536 - free_bytes) // 4096):
            filler.write(b"x" * 4096)
    code, _, err = machine.run("--label=label", f"--runs={small_disk / 'runs'}")
    assert code == 2, err
    assert "Traceback" not in err
    assert "space" in err
    assert machine.processes() == []

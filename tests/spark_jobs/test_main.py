"""A step as a process: what it leaves behind when the machine fails it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.failure_reasons import describe_failure, java_cause
from spark_jobs.result import Result
from spark_jobs.step_command import run_step as run_words

PROJECT = Path(__file__).resolve().parents[2]
LOAD = ["load", f"--data-uri={PROJECT}/data/bank_sample.csv", f"--specification-uri={PROJECT}/data/bank.toml"]

pytestmark = pytest.mark.spark


def command(output: Path) -> list[str]:
    return [sys.executable, "-m", "spark_jobs", *LOAD, f"--output-uri={output}"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1", **more}


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A directory on a file system of its own: 64 KiB, so that the table does not fit."""
    target = tmp_path / "small"
    target.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(target)], capture_output=True, check=False
    ).returncode:
        pytest.skip("mounting a file system needs root")
    yield target
    subprocess.run(["umount", "-l", str(target)], check=True)


def test_a_full_disk_is_told_as_one_and_leaves_nothing_half_written(
    mount: Path, spark: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_words([*LOAD, f"--output-uri={mount}/out"], spark) == 2
    said = capfd.readouterr().err
    assert "No space left on device" in said
    assert f"step load: No space left on device: the disk of {mount}/out is full; free some space" in said
    assert not (mount / "out/rows").exists()
    result = mount / "out/result.json"
    assert not result.exists() or Result.from_json(result.read_text()).status == "failed"


def test_a_read_only_output_directory_is_told_as_one(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    done = subprocess.run(command(mount / "out"), capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 2
    assert "the file system is read-only; name another output directory" in done.stderr


@pytest.mark.slow
def test_a_killed_step_leaves_no_result_and_can_be_run_again(tmp_path: Path) -> None:
    output = tmp_path / "out"
    process = subprocess.Popen(command(output), env=environment(), stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (output / "rows").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (output / "rows").exists()
    assert not (output / "result.json").exists()
    done = subprocess.run(command(output), env=environment(), capture_output=True, check=False)
    assert done.returncode == 0
    assert Result.from_json((output / "result.json").read_text()).rows_out == {"rows": 4000, "rejected": 0}


def test_a_step_that_fails_says_why_in_its_result_and_touches_no_other_file(
    tmp_path: Path, spark: Any, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    assert run_words(["load", "--data-uri=/no/such.csv", "--label=x", f"--output-uri={tmp_path}"], spark) == 2
    result = Result.from_json((tmp_path / "result.json").read_text())
    assert result.failure is not None
    assert (result.status, result.failure.kind) == ("failed", "input")
    assert "/no/such.csv: no such file" in result.failure.message
    assert "Traceback" not in capfd.readouterr().err
    assert (tmp_path / "mine.txt").read_text() == "keep"


@pytest.mark.slow
def test_ports_in_use_do_not_matter(tmp_path: Path) -> None:
    from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner
    from kfp_pipeline.settings import Settings
    from spark_jobs.contract import LoadArgs, Step

    args = LoadArgs(
        data_uri=LOAD[1].split("=")[1], specification_uri=LOAD[2].split("=")[1], output_uri=str(tmp_path / "out")
    )
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 4040))
        taken.listen()
        result = SparkSubmitRunner("local[2]", Settings()).run(Step.LOAD, args, tmp_path / "log")
    assert result.rows_out["rows"] == 4000


@pytest.mark.slow
def test_a_step_without_executors_takes_no_notice_of_the_master_of_spark_submit(tmp_path: Path) -> None:
    nobody = "--master spark://127.0.0.1:1 pyspark-shell"
    process = environment(PYSPARK_SUBMIT_ARGS=nobody, SPARK_KFP_MASTER="local[1]")
    done = subprocess.run(
        command(tmp_path / "out"), env=process, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_no_such_step_and_wrong_arguments_end_with_code_2() -> None:
    for words in (
        ["nope"],
        [],
        ["train", "--reg-param=x"],
        ["train", "--preprocess-uri=a", "--output-uri=b", "--reg-param=-1"],
    ):
        done = subprocess.run([sys.executable, "-m", "spark_jobs", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.startswith("spark-kfp: error: ")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("program", ["__main__.py", "rehearsal.py"])
def test_spark_submit_needs_no_installed_package(program: str, tmp_path: Path) -> None:
    """spark-submit hands the file to a Python that may never have heard of this project; -S leaves out what is installed here."""
    done = subprocess.run(
        [sys.executable, "-S", f"{PROJECT}/spark_jobs/{program}", "nope"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No module named 'spark_jobs'" not in done.stderr
    assert "there is no 'nope'" in done.stderr or "No module named 'pyspark'" in done.stderr


def test_an_error_of_the_jvm_is_told_by_its_cause_and_not_by_the_call() -> None:
    text = (
        "An error occurred while calling o96.parquet.\n"
        ": org.apache.spark.SparkException: Job aborted\n\tat org.apache.spark.X.y(Z:1)\n"
        "Caused by: java.io.IOException: read failed\n\tat a.b(C:2)\n"
        "Caused by: java.lang.RuntimeException: t.parquet is not a Parquet file\n"
    )
    told = "org.apache.spark.SparkException: Job aborted, caused by java.lang.RuntimeException: t.parquet is not a Parquet file"
    assert java_cause(text) == told
    assert java_cause("no column x") == ""
    assert describe_failure(RuntimeError(text)).message == told

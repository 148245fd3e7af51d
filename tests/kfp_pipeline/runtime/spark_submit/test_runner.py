"""What every runner must do, and what is particular to spark-submit."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.runner import Runner, runner_for
from kfp_pipeline.runtime.spark_submit import runner as spark_submit
from kfp_pipeline.runtime.spark_submit.java import archive_path, find_java
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner, read_result
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import to_argv
from spark_jobs.contract import LoadArgs, PreprocessArgs, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Failure, Result

RUNNERS: dict[str, Callable[[Settings], Runner]] = {
    "spark-submit": lambda settings: SparkSubmitRunner("local[1]", settings),
}
"""Every runner stands here; the conformance tests below take each in turn."""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(runs=tmp_path / "runs", cache=tmp_path / "cache")


@pytest.fixture(params=RUNNERS)
def runner(request: pytest.FixtureRequest, settings: Settings) -> Runner:
    request.getfixturevalue("submit_here")
    return RUNNERS[request.param](settings)


@pytest.fixture
def args(tmp_path: Path) -> LoadArgs:
    (tmp_path / "data.csv").write_text("x,label\n1,yes\n")
    return LoadArgs(data_uri=str(tmp_path / "data.csv"), output_uri=str(tmp_path / "out put"))


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "load.log"


def failing(runner: Runner, args: LoadArgs, log_path: Path, behaviour: str) -> StepError:
    """The error of a step that behaves as told."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FAKE_SPARK", behaviour)
        with pytest.raises(StepError) as error:
            runner.run(Step.LOAD, args, log_path)
    return error.value


def test_success_brings_the_result(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    result = runner.run(Step.LOAD, args, log_path)
    assert result.status == "succeeded"
    assert result.rows_out == {"rows": 8}
    assert result == read_result(Path(args.output_uri))
    assert log_path.read_text() == "log of load\n"


def test_the_step_gets_its_arguments_as_they_are(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    odd = replace(args, label="na me;$HOME", delimiter=";", positive="--yes")
    assert runner.run(Step.LOAD, odd, log_path).arguments == vars(odd)


def test_an_exit_code_of_0_without_a_result_is_a_failure(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    error = failing(runner, args, log_path, "no_result")
    assert isinstance(error, PermanentError)
    assert error.failure.kind == "fault"
    assert str(error) == "step load ended with exit code 0 and left no result.json"


def test_an_old_result_is_not_taken_for_this_runs(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    runner.run(Step.LOAD, args, log_path)
    error = failing(runner, args, log_path, "no_result")
    assert "left no result.json" in str(error)
    assert read_result(Path(args.output_uri)) is None


def test_a_result_that_is_not_one_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    for text in ("", "{", "[]", '{"contract_version": 999}', '{"contract_version": 1}'):
        (tmp_path / "r" / "result.json").write_text(text)
        assert read_result(tmp_path / "r") is None, text


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [("input", "no such file; name another"), ("input_told", "column x is not there; name another")],
)
def test_bad_input_is_told_in_the_steps_own_words_with_no_log(
    runner: Runner, args: LoadArgs, log_path: Path, behaviour: str, message: str
) -> None:
    error = failing(runner, args, log_path, behaviour)
    assert isinstance(error, PermanentError)
    assert str(error) == message
    assert error.failure.kind == "input"
    assert error.log == ""


def test_a_fault_brings_the_last_log_lines_and_the_logs_path(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    error = failing(runner, args, log_path, "fault")
    assert isinstance(error, PermanentError)
    assert error.failure.kind == "fault"
    assert error.log.splitlines() == [f"log line {number}" for number in range(20, 40)]
    assert error.log_path == str(log_path)
    assert log_path.read_text().splitlines()[0] == "log of load"


def test_a_fault_is_told_in_the_steps_own_words(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    error = failing(runner, args, log_path, "fault_told")
    assert str(error) == "the step said oops"
    assert "log line before the end" in error.log


def test_an_earlier_log_is_kept_and_not_shown_as_this_runs(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    log_path.parent.mkdir()
    log_path.write_text("spark-kfp: error: of long ago\n")
    error = failing(runner, args, log_path, "no_result")
    assert "long ago" not in error.log + str(error)
    assert log_path.read_text() == "spark-kfp: error: of long ago\nlog of load\n"


def test_a_killed_step_is_temporary_and_says_so(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    error = failing(runner, args, log_path, "killed")
    assert isinstance(error, TemporaryError)
    assert str(error) == "step load was ended by SIGKILL (out of memory?); run again"
    assert "log of load" in error.log


def test_a_shell_that_reports_a_killed_step_is_understood(log_path: Path) -> None:
    log_path.parent.mkdir()
    log_path.write_text("")
    error = spark_submit.step_error(Step.LOAD, 137, None, log_path, 0)  # 128 + SIGKILL, as a shell tells it
    assert isinstance(error, TemporaryError)
    assert "SIGKILL" in str(error)


@pytest.mark.parametrize(
    ("code", "kind", "reason"),
    [
        (1, "fault", "the step said oops"),
        (2, "input", "the step said oops"),
        (-9, "input", "the step said oops"),
        (-9, "fault", "step load was ended by SIGKILL (out of memory?); run again"),  # the step told of a lost JVM
    ],
)
def test_the_steps_own_reason_counts_unless_it_is_about_a_killed_jvm(
    log_path: Path, code: int, kind: str, reason: str
) -> None:
    log_path.parent.mkdir()
    log_path.write_text("noise\n")
    result = Result(step="load", status="failed", failure=Failure(kind=kind, type="Oops", message="the step said oops"))
    error = spark_submit.step_error(Step.LOAD, code, result, log_path, 0)
    assert isinstance(error, TemporaryError if code == -9 and kind == "fault" else PermanentError)
    assert str(error) == reason


def test_an_interrupted_run_leaves_no_process_and_no_scratch(
    runner: Runner, args: LoadArgs, log_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("FAKE_SPARK", "sleep")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()

    def interrupt_when_it_runs() -> None:
        while not log_path.exists() or "asleep" not in log_path.read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt_when_it_runs, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        runner.run(Step.LOAD, args, log_path)
    assert list((tmp_path / "scratch").iterdir()) == []
    submitted = [path for path in Path("/proc").glob("[0-9]*/cmdline") if str(tmp_path) in read_text(path)]
    assert submitted == []


def read_text(path: Path) -> str:
    """A file's text, or nothing if it is gone by now."""
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def option(command: list[str], start: str) -> str:
    """The one word of a command that starts so."""
    (found,) = [word for word in command if word.startswith(start)]
    return found.removeprefix(start)


def test_the_command_names_master_memory_program_step_and_arguments(
    submit_here: Any, args: LoadArgs, settings: Settings
) -> None:
    runner = SparkSubmitRunner("local[3]", replace(settings, driver_memory_mib=777))
    command = runner.command([Step.LOAD, *to_argv(args)], "/s", short=True)
    assert command[0] == str(submit_here.home / "bin/spark-submit")
    assert option(command, "--master=") == "local[3]"
    assert option(command, "--driver-memory=") == "777m"
    assert option(command, "spark.local.dir=") == "/s"
    assert option(command, "spark.driver.bindAddress=") == "127.0.0.1"
    program = command.index(str(spark_submit.step_program()))
    assert command[program + 1] == "load"
    assert f"--data-uri={args.data_uri}" in command[program + 2 :]


@pytest.mark.usefixtures("submit_here")
def test_only_data_below_the_limit_is_compiled_by_the_first_compiler_alone(
    args: LoadArgs, settings: Settings, tmp_path: Path
) -> None:
    size = (tmp_path / "data.csv").stat().st_size
    quick = "-XX:TieredStopAtLevel=1"
    assert SparkSubmitRunner("local", replace(settings, compile_tiers_bytes=size + 1)).is_short(args)
    runner = SparkSubmitRunner("local", replace(settings, compile_tiers_bytes=size))
    assert not runner.is_short(args)
    assert quick in runner.java_options(short=True)
    assert quick not in runner.java_options(short=False)


@pytest.mark.parametrize("short", [True, False])
def test_spark_accepts_the_options_also_where_no_archive_of_classes_is(
    settings: Settings, tmp_path: Path, *, short: bool
) -> None:
    runner = SparkSubmitRunner("local", replace(settings, cache=tmp_path / "empty"))
    command = [str(spark_submit.spark_home() / "bin/spark-submit"), *runner.options(str(tmp_path), short=short)]
    done = subprocess.run([*command, "--version"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("submit_here")
@pytest.mark.parametrize("variable", ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"])
def test_a_collector_that_the_user_has_chosen_is_kept(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    runner = SparkSubmitRunner("local", settings)
    monkeypatch.setenv(variable, "-Xss2m")
    assert spark_submit.COLLECTOR in runner.java_options(short=True)
    monkeypatch.setenv(variable, "-Xss2m -XX:+UseSerialGC")
    assert spark_submit.COLLECTOR not in runner.java_options(short=True)


def test_a_directory_is_as_large_as_its_files(tmp_path: Path) -> None:
    (tmp_path / "load" / "rows").mkdir(parents=True)
    (tmp_path / "load" / "rows" / "a").write_bytes(b"x" * 100)
    (tmp_path / "load" / "b").write_bytes(b"x" * 23)
    args = PreprocessArgs(load_uri=str(tmp_path / "load"), output_uri=str(tmp_path / "load"))
    assert spark_submit.input_bytes(args) == 123


def test_a_pattern_is_as_large_as_the_files_that_it_names(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv", "c.txt"):
        (tmp_path / name).write_bytes(b"x" * 10)
    args = LoadArgs(data_uri=str(tmp_path / "*.csv"), output_uri=str(tmp_path / "out"))
    assert spark_submit.input_bytes(args) == 20


def test_no_java_says_what_to_install(tmp_path: Path) -> None:
    for environment in ({"JAVA_HOME": str(tmp_path / "nothing")}, {"PATH": str(tmp_path)}):
        with pytest.raises(InputError, match=r"no Java in .*: install a Java 17 or 21 runtime, for example `apt-get"):
            find_java(environment)


@pytest.mark.parametrize("version", ["11.0.2", "1.8.0_402", "16.0.1"])
def test_an_old_java_says_what_to_install(make_java: Callable[[str], Path], version: str) -> None:
    home = make_java(version)
    with pytest.raises(InputError, match=rf"Java {version.removeprefix('1.')} in JAVA_HOME=.* is too old .*: install"):
        find_java({"JAVA_HOME": str(home)})


def test_a_java_that_tells_no_version_says_what_to_install(make_java: Callable[[str], Path]) -> None:
    home = make_java("17")
    (home / "bin/java").write_text("#!/bin/sh\necho nonsense >&2\n")
    with pytest.raises(InputError, match=r"does not tell its version: install"):
        find_java({"JAVA_HOME": str(home)})


@pytest.mark.parametrize("version", ["17", "17.0.15", "21-ea", "25"])
def test_a_new_java_is_taken(make_java: Callable[[str], Path], version: str) -> None:
    assert find_java({"JAVA_HOME": str(make_java(version))}).version == version


def test_a_step_does_not_start_without_java(
    runner: Runner, args: LoadArgs, log_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(InputError, match="no Java"):
        runner.run(Step.LOAD, args, log_path)


def test_the_archive_is_used_once_it_is_there(submit_here: Any, settings: Settings) -> None:
    runner = SparkSubmitRunner("local", settings)
    archive = archive_path(settings.cache, find_java(os.environ), submit_here.home)
    assert not [word for word in runner.java_options(short=True) if "Archive" in word]
    archive.parent.mkdir()
    archive.touch()
    assert f"-XX:SharedArchiveFile={archive}" in runner.java_options(short=True)


def test_another_java_or_other_jars_have_another_archive(
    submit_here: Any, make_java: Callable[[str], Path], tmp_path: Path
) -> None:
    def path() -> Path:
        return archive_path(tmp_path, find_java(os.environ), submit_here.home)

    first = path()
    assert path() == first
    other = find_java({"JAVA_HOME": str(make_java("21.0.1"))})
    assert archive_path(tmp_path, other, submit_here.home) != first
    (submit_here.home / "jars" / "new.jar").write_text("")
    assert path() != first


@pytest.mark.spark
@pytest.mark.skipif(not (os.environ.get("JAVA_HOME") or shutil.which("java")), reason="needs Java")
@pytest.mark.parametrize("content", [b"", b"garbage" * 10_000, None], ids=["empty", "garbage", "of other classes"])
def test_an_archive_that_does_not_fit_never_fails_a_run(
    fake_spark: Any, settings: Settings, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr("kfp_pipeline.runtime.spark_submit.runner.spark_home", lambda: fake_spark.home)
    java = find_java(os.environ)
    archive = archive_path(settings.cache, java, fake_spark.home)
    archive.parent.mkdir()
    if content is None:  # a whole archive, of a program with another class path
        made = [java.program, f"-XX:ArchiveClassesAtExit={archive}", "-version"]
        subprocess.run(made, capture_output=True, check=False)
    else:
        archive.write_bytes(content)
    options = SparkSubmitRunner("local", settings).java_options(short=True)
    assert [word for word in options if str(archive) in word]
    asked = subprocess.run([java.program, *options, "-version"], capture_output=True, text=True, check=False)
    assert asked.returncode == 0, asked.stderr
    assert java.version in asked.stderr
    assert "error" not in (asked.stdout + asked.stderr).lower()


@pytest.mark.parametrize("spark", ["local", "local[2]", "local[*]"])
def test_local_spark_has_a_runner(spark: str) -> None:
    assert isinstance(runner_for(spark, Settings()), SparkSubmitRunner)


@pytest.mark.parametrize(
    ("spark", "message"),
    [
        ("nonsense", r"--spark=nonsense is none of local"),
        ("", r"--spark= is none of local"),
        ("locally", r"--spark=locally is none of local"),
        ("local[", r"--spark=local\[ is none of local"),
        ("local[x]", r"--spark=local\[x\] is none of local"),
        ("local[0]", r"--spark=local\[0\] is none of local"),
    ],
)
def test_what_no_runner_knows_is_an_error_with_the_choice(spark: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        runner_for(spark, Settings())


def test_a_path_that_only_a_cluster_can_write_is_refused(runner: Runner, args: LoadArgs, log_path: Path) -> None:
    with pytest.raises(InputError, match=r"s3a://bucket/x: s3a:// needs a cluster; give a local path"):
        runner.run(Step.LOAD, replace(args, output_uri="s3a://bucket/x"), log_path)


def test_a_file_uri_is_the_path_behind_it() -> None:
    assert spark_submit.local_path("file:///a%20b/c") == Path("/a b/c")
    assert spark_submit.local_path("/a b/c#d?e") == Path("/a b/c#d?e")


def test_without_pyspark_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError) as refusal:
        spark_submit.spark_home()
    command = str(refusal.value).removeprefix("pyspark is not installed; install it with `").removesuffix("`")
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    words = shlex.split(command)
    assert words[:2] == ["pip", "install"]
    assert sorted(words[2:]) == sorted(project["optional-dependencies"]["spark"])

"""Runs a step with spark-submit on this machine.

Starting takes most of the time of a step on small data. So a small step gets options that let the JVM start faster, and it runs in the
Spark session that the steps of its run share, if there is one.
"""

from __future__ import annotations

import glob
import importlib.util
import os
import re
import shlex
import signal
import sys
from collections.abc import Sequence
from importlib.metadata import requires
from pathlib import Path
from urllib.parse import unquote, urlparse

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.processes import child_process
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.runtime.spark_submit.java import archive_path, find_java
from kfp_pipeline.runtime.spark_submit.shared_session import SESSION_NAME, SharedSession
from kfp_pipeline.settings import JAVA_OPTIONS, Settings, java_environment
from spark_jobs.arguments import Role, StepArgs, to_argv
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Failure, Result

LOG_LINES = 20
"""How many last lines of the log an error message shows."""
COLLECTOR = "-XX:+UseParallelGC"
"""Steps need throughput and no short pauses: with a million rows they take 0.9 times as long as with Java's default, G1."""
FAST_START_CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",  # no port is open to other machines
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "WARN",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.showConsoleProgress": "false",
}


class SparkSubmitRunner:
    """A `Runner` that runs each step in the shared session of its run, or starts one spark-submit process for it."""

    def __init__(self, master: str, settings: Settings) -> None:
        """Makes the runner.

        Args:
            master: Spark's master URL, such as local[*].
            settings: of this machine.
        """
        self._master = master
        self._settings = settings

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""
        output = local_path(vars(args)["output_uri"])
        (output / RESULT_NAME).unlink(missing_ok=True)  # an old result must not count as the result of this attempt
        log_path.parent.mkdir(parents=True, exist_ok=True)
        start = log_path.stat().st_size if log_path.exists() else 0
        code = self._in_shared_session(step, args, log_path)
        if code is None:
            code = self._in_new_process(step, args, log_path)
        result = read_result(output)
        if code == 0 and result and result.status == "succeeded":
            return result
        raise step_error(step, code, result, log_path, start)

    def _in_shared_session(self, step: Step, args: StepArgs, log_path: Path) -> int | None:
        if not self._settings.run:
            return None
        session = SharedSession.read(Path(self._settings.run) / SESSION_NAME)
        return session.run_step([step, *to_argv(args)], log_path) if session else None

    def _in_new_process(self, step: Step, args: StepArgs, log_path: Path) -> int:
        with scratch_folder() as folder, log_path.open("ab") as log:
            command = self.command([step, *to_argv(args)], str(folder), short=self.is_short(args))
            with child_process(command, output=log, environment=self.environment()) as process:
                return process.wait()

    def may_share_session(self, uris: Sequence[str]) -> bool:
        """Whether the steps of a run share a session: not if it is turned off, or if Spark or the data are not on this machine.

        Args:
            uris: URIs of the run's data.
        """
        return (
            self._settings.share_session and self._master.startswith("local") and not any("://" in uri for uri in uris)
        )

    def are_small(self, uris: Sequence[str]) -> bool:
        """Whether the steps of a run over these data are short, see `is_short`; an empty URI counts nothing."""
        return total_bytes(uris) < self._settings.compile_tiers_bytes

    def is_short(self, args: StepArgs) -> bool:
        """Whether a step reads so little that the JVM's optimising compiler (C2) costs more time than it saves."""
        return input_bytes(args) < self._settings.compile_tiers_bytes

    def command(self, program_arguments: list[str], folder: str, *, short: bool) -> list[str]:
        """Builds the spark-submit command of a step.

        Args:
            program_arguments: arguments of `spark_jobs/__main__.py`.
            folder: for Spark's temporary files.
            short: whether the step is short, see `is_short`.
        """
        return [
            str(spark_home() / "bin/spark-submit"),
            *self.options(folder, short=short),
            str(step_program()),
            *program_arguments,
        ]

    def options(self, folder: str, *, short: bool) -> list[str]:
        """Builds the options of spark-submit; for the arguments see `command`."""
        conf = {**FAST_START_CONF, "spark.local.dir": folder, "spark.sql.warehouse.dir": f"{folder}/warehouse"}
        return [
            f"--master={self._master}",
            f"--driver-memory={self._settings.driver_memory_mib}m",
            f"--driver-java-options={shlex.join(self.java_options(short=short))}",
            *[word for key, value in conf.items() for word in ("--conf", f"{key}={value}")],
        ]

    def java_options(self, *, short: bool) -> list[str]:
        """JVM options: the collector, for a short step only the fast compiler (C1), and the class-data archive if it exists."""
        environment = java_environment()
        java = find_java(environment)
        # With C1 alone Java reserves 48 MiB for compiled code. A session fills that within three runs, and Java then compiles no more.
        options = ["-XX:ReservedCodeCacheSize=256m", *(["-XX:TieredStopAtLevel=1"] if short else [])]
        # Java refuses a second collector.
        if not any(re.search(r"-XX:\+Use\w+GC\b", environment.get(name, "")) for name in JAVA_OPTIONS):
            options.append(COLLECTOR)
        archive = archive_path(self._settings.cache, java, spark_home())
        # With -Xshare:auto, Java ignores an archive that does not fit.
        return options + (
            [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off"] if archive.exists() else []
        )

    def environment(self) -> dict[str, str]:
        """The environment of spark-submit: this process's own, with the Python and the Spark of this installation."""
        fast = {"SPARK_LAUNCHER_OPTS": "-XX:TieredStopAtLevel=1"}
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        return {**os.environ, **python, **fast, "SPARK_HOME": str(spark_home())}


def spark_home() -> Path:
    """Finds the folder of the installed pyspark without importing it, because a task's process must not load Spark.

    Raises:
        InputError: pyspark is not installed.
    """
    found = importlib.util.find_spec("pyspark")
    if not found or not found.origin:
        raise InputError(
            f"pyspark is not installed; install it with `pip install {shlex.join(packages_of_extra('spark'))}`"
        )
    return Path(found.origin).parent


def packages_of_extra(name: str) -> list[str]:
    """Lists the packages of an extra. `pip install spark-kfp[NAME]` would need spark-kfp to be on a package index."""
    found = [re.fullmatch(rf"(.+?)\s*;\s*extra == .{name}.", text) for text in requires("spark-kfp") or ()]
    return [match[1] for match in found if match]


def step_program() -> Path:
    """The path of the program that spark-submit runs."""
    found = importlib.util.find_spec("spark_jobs")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "__main__.py"


def local_path(uri: str) -> Path:
    """Converts a local URI to a path.

    Raises:
        InputError: the URI is not local.
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if "://" in uri:
        raise InputError(f"{uri}: {parsed.scheme}:// needs a cluster; give a local path")
    return Path(uri)


def input_bytes(args: StepArgs) -> int:
    """The size of the files that a step reads, in bytes; Parquet from an earlier step is compressed, so it counts less than its CSV."""
    return total_bytes([getattr(args, name) for name in args.names(Role.GIVEN, Role.FROM_STEP)])


def total_bytes(uris: Sequence[str]) -> int:
    """The total size of the files behind the URIs, in bytes; an empty URI counts nothing."""
    return sum(file.stat().st_size for uri in uris if uri for file in files_of(uri))


def files_of(uri: str) -> list[Path]:
    """Lists the files behind a local URI of a file, a directory or a glob pattern; empty if there are none."""
    path = local_path(uri)
    roots = [path] if path.exists() else [Path(found) for found in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    entries = (entry for root in roots for entry in ([root] if root.is_file() else root.rglob("*")))
    return sorted({entry for entry in entries if entry.is_file()})


def read_result(output: Path) -> Result | None:
    """Reads the result document of a step from its output folder; None if it does not exist or is damaged."""
    try:
        return Result.from_json((output / RESULT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def step_error(step: Step, code: int, result: Result | None, log_path: Path, start: int) -> StepError:
    """Explains why a step failed: by its result document, else by the signal that ended it, else by its log.

    If its JVM was killed, a step may still write a result document about a fault, the lost connection: then the signal is the reason.

    Args:
        step: the step.
        code: exit code of spark-submit; negative for a signal.
        result: the result document, if there is one.
        log_path: path of the log.
        start: byte offset at which this attempt's log begins.
    """
    log = last_lines(log_path, start)
    number = -code if code < 0 else code - 128  # a shell reports a signal as 128 + its number
    killed = number in (signal.SIGKILL, signal.SIGTERM)
    if result and result.failure and (result.failure.kind == "input" or not killed):
        return PermanentError(result.failure, "" if result.failure.kind == "input" else log, str(log_path))
    if killed:
        name, hint = signal.Signals(number).name, " (out of memory?)" if number == signal.SIGKILL else ""
        failure = Failure(kind="fault", type="Killed", message=f"step {step} was ended by {name}{hint}; run again")
        return TemporaryError(failure, log, str(log_path))
    prefix = "spark-kfp: error: "
    errors = [line.removeprefix(prefix) for line in log.splitlines() if line.startswith(prefix)]
    kind = "input" if code == 2 and errors else "fault"
    message = errors[-1] if errors else f"step {step} ended with exit code {code} and left no {RESULT_NAME}"
    return PermanentError(
        Failure(kind=kind, type="StepFailed", message=message), "" if kind == "input" else log, str(log_path)
    )


def last_lines(path: Path, start: int = 0) -> str:
    """Reads the last lines of a log; lines before byte `start` do not count."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 65536))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES:])

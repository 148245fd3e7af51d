"""Runs a step with spark-submit on this machine."""

from __future__ import annotations

import glob
import importlib.util
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlparse

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.processes import child_process
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.runtime.spark_submit.java import archive_path, find_java
from kfp_pipeline.runtime.spark_submit.standby import EXIT_CODE_PIPE, FOLDER, STEP_PIPE, StandbyDrivers, run_in_standby
from kfp_pipeline.settings import Settings, where_java_is
from spark_jobs.arguments import Role, StepArgs, to_argv
from spark_jobs.contract import STANDBY, Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Failure, Result

LOG_LINES = 20
FAST_START_CONF = {
    "spark.ui.enabled": "false",
    "spark.driver.host": "127.0.0.1",  # nothing listens where others could connect, and no port can be taken
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.log.level": "WARN",
    "spark.sql.shuffle.partitions": "8",
    "spark.ui.showConsoleProgress": "false",
}


class SparkSubmitRunner:
    """A `Runner`: each step is a spark-submit process of its own."""

    def __init__(self, master: str, settings: Settings) -> None:
        """Args: master, such as local[*]; settings, of this machine."""
        self._master = master
        self._settings = settings

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`."""
        output = local_path(vars(args)["output_uri"])
        (output / RESULT_NAME).unlink(missing_ok=True)  # an old result must not be taken for this run's
        log_path.parent.mkdir(parents=True, exist_ok=True)
        start = log_path.stat().st_size if log_path.exists() else 0
        code = self._in_standby(step, args, log_path) if not start else None
        if code is None:
            code = self._in_new_process(step, args, log_path)
        result = read_result(output)
        if code == 0 and result and result.status == "succeeded":
            return result
        raise step_error(step, code, result, log_path, start)

    def _in_standby(self, step: Step, args: StepArgs, log_path: Path) -> int | None:
        if not self._settings.run or not self.is_short(args):
            return None
        return run_in_standby(Path(self._settings.run) / FOLDER, [step, *to_argv(args)], log_path)

    def _in_new_process(self, step: Step, args: StepArgs, log_path: Path) -> int:
        with scratch_folder() as folder, log_path.open("ab") as log:
            command = self.command([step, *to_argv(args)], str(folder), short=self.is_short(args))
            with child_process(command, output=log, environment=self.environment()) as process:
                return process.wait()

    def standby_drivers(self, data_uri: str) -> StandbyDrivers | None:
        """What starts the drivers of a run's steps ahead, if its data are small; else starting is little of its time."""
        if (
            not self._settings.standbys
            or "://" in data_uri
            or total_bytes([data_uri]) >= self._settings.compile_tiers_bytes
        ):
            return None

        def command(folder: Path, step: Step) -> list[str]:
            return self.command(
                [STANDBY, step, str(folder / STEP_PIPE), str(folder / EXIT_CODE_PIPE)], str(folder), short=True
            )

        return StandbyDrivers(Path(self._settings.run) / FOLDER, command, self.environment())

    def is_short(self, args: StepArgs) -> bool:
        """Whether a step reads so little that the JVM's second compiler does not pay."""
        return input_bytes(args) < self._settings.compile_tiers_bytes

    def command(self, words: list[str], folder: str, *, short: bool) -> list[str]:
        """The spark-submit line of a step, or of a standby."""
        conf = {**FAST_START_CONF, "spark.local.dir": folder, "spark.sql.warehouse.dir": f"{folder}/warehouse"}
        return [
            str(spark_home() / "bin/spark-submit"),
            f"--master={self._master}",
            f"--driver-memory={self._settings.driver_memory_mib}m",
            f"--driver-java-options={shlex.join(self.java_options(short=short))}",
            *[word for key, value in conf.items() for word in ("--conf", f"{key}={value}")],
            str(step_program()),
            *words,
        ]

    def java_options(self, *, short: bool) -> list[str]:
        """Options that start a short step faster and slow no long one."""
        java = find_java(where_java_is())
        options = ["-XX:TieredStopAtLevel=1"] if short else []
        archive = archive_path(self._settings.cache, java, spark_home())
        # With -Xshare:auto an archive that does not fit is passed over.
        return options + (
            [f"-XX:SharedArchiveFile={archive}", "-Xshare:auto", "-Xlog:cds=off"] if archive.exists() else []
        )

    def environment(self) -> dict[str, str]:
        """This process's environment, with the Python and the Spark of this installation."""
        fast = {"SPARK_LAUNCHER_OPTS": "-XX:TieredStopAtLevel=1"}
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        return {**os.environ, **python, **fast, "SPARK_HOME": str(spark_home())}


def spark_home() -> Path:
    """The folder of the installed pyspark, found without importing it.

    Raises:
        InputError: pyspark is not installed.
    """
    found = importlib.util.find_spec("pyspark")
    if not found or not found.origin:
        raise InputError("pyspark is not installed; install it with `pip install 'spark-kfp[spark]'`")
    return Path(found.origin).parent


def step_program() -> Path:
    """The file that spark-submit runs."""
    found = importlib.util.find_spec("spark_jobs")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "__main__.py"


def local_path(uri: str) -> Path:
    """The path behind a local URI.

    Raises:
        InputError: spark-submit on this machine cannot write there.
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    if "://" in uri:
        raise InputError(f"{uri}: {parsed.scheme}:// needs a cluster; give a local path")
    return Path(uri)


def input_bytes(args: StepArgs) -> int:
    """About how much data a step reads, in bytes as they are stored: Parquet from an earlier step is much smaller than its CSV."""
    return total_bytes([getattr(args, name) for name in args.names(Role.GIVEN, Role.FROM_STEP)])


def total_bytes(uris: Sequence[str]) -> int:
    """The bytes of the files behind some URIs."""
    return sum(file.stat().st_size for uri in uris if uri for file in files_of(uri))


def files_of(uri: str) -> list[Path]:
    """The files behind a URI that names a file, a directory or a pattern; empty if there are none."""
    path = local_path(uri)
    roots = [path] if path.exists() else [Path(found) for found in glob.glob(str(path), recursive=True)]  # noqa: PTH207
    entries = (entry for root in roots for entry in ([root] if root.is_file() else root.rglob("*")))
    return sorted({entry for entry in entries if entry.is_file()})


def read_result(output: Path) -> Result | None:
    """The result document, or None if there is none."""
    try:
        return Result.from_json((output / RESULT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def step_error(step: Step, code: int, result: Result | None, log_path: Path, start: int) -> StepError:
    """Why a step did not end well: its own word, else the signal that ended it, else the end of its log."""
    log = last_lines(log_path, start)
    if result and result.failure:
        return PermanentError(result.failure, "" if result.failure.kind == "input" else log, str(log_path))
    number = -code if code < 0 else code - 128
    if number in (signal.SIGKILL, signal.SIGTERM):
        name, hint = signal.Signals(number).name, " (out of memory?)" if number == signal.SIGKILL else ""
        failure = Failure(kind="fault", type="Killed", message=f"step {step} was ended by {name}{hint}; run again")
        return TemporaryError(failure, log, str(log_path))
    told = [
        line.removeprefix("spark-kfp: error: ") for line in log.splitlines() if line.startswith("spark-kfp: error: ")
    ]
    kind = "input" if code == 2 and told else "fault"
    message = told[-1] if told else f"step {step} ended with exit code {code} and left no {RESULT_NAME}"
    return PermanentError(
        Failure(kind=kind, type="StepFailed", message=message), "" if kind == "input" else log, str(log_path)
    )


def last_lines(path: Path, start: int = 0) -> str:
    """The last lines of a log, from what was written after byte `start`."""
    with path.open("rb") as file:
        file.seek(max(start, path.stat().st_size - 65536))
        return "\n".join(file.read().decode(errors="replace").splitlines()[-LOG_LINES:])

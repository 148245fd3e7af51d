"""Standby drivers: while one step of a run works, the JVM and the Spark session for the next step already start.

Each standby driver has a folder with two named pipes. It waits for a step at the first pipe. A task that has a step to run claims an idle
driver by renaming its marker file, which only one task can do, and writes the step's arguments into that pipe. The driver writes its exit
code into the second pipe as soon as the step is done, without waiting until Spark has stopped. If the driver is killed, the process that
started it writes the exit code. Pipes need no disk space, so that a full disk cannot leave a task waiting.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType

from kfp_pipeline.runtime.processes import child_process
from spark_jobs.contract import Step

FOLDER = "standbys"
"""Folder of the standby drivers, in the run's directory."""
IDLE_MARKER, LOG, STEP_PIPE, EXIT_CODE_PIPE = "idle", "log", "orders", "exit_code"
PIPE_BYTES = 60_000
"""Linux buffers 65,536 bytes in a pipe, so that a shorter write does not wait for the reader."""


class StandbyDrivers:
    """The standby drivers of one run, of which at most one is idle; a context manager that ends them all and removes their folder."""

    def __init__(
        self, folder: Path, command: Callable[[Path, Step], list[str]], environment: Mapping[str, str]
    ) -> None:
        """Makes the set; `start` starts a driver.

        Args:
            folder: parent of the drivers' folders.
            command: builds the command of a driver from its folder and the step for which it should be fastest.
            environment: environment variables of each driver.
        """
        self._folder, self._command, self._environment = folder, command, environment
        self._running: dict[Path, tuple[subprocess.Popen[bytes], int]] = {}
        self._started = 0
        self._disabled = False
        self._ends = ExitStack()

    def __enter__(self) -> StandbyDrivers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def another_is_needed(self) -> bool:
        """Removes the drivers that have ended, and returns whether no driver is idle, so that one should be started.

        For a driver that has ended it writes the exit code, in case the driver was killed before it could.
        """
        for folder, (process, pipe) in list(self._running.items()):
            if process.poll() is not None:
                with suppress(FileNotFoundError):
                    (folder / IDLE_MARKER).unlink()
                    self._disabled = True  # it ended before it got a step, and so would the next one
                os.write(pipe, f"{process.returncode}\n".encode())
                del self._running[folder]
        return not self._disabled and not any((folder / IDLE_MARKER).exists() for folder in self._running)

    def start(self, step: Step) -> None:
        """Starts a driver; it prepares itself for the given step, but can run any."""
        self._started += 1
        folder = self._folder / str(self._started)
        try:
            folder.mkdir(parents=True)
            for name in (STEP_PIPE, EXIT_CODE_PIPE):
                os.mkfifo(folder / name)
            log = self._ends.enter_context((folder / LOG).open("ab"))
            # A pipe opened for reading and writing does not block until its other end is opened, and keeps what was written into it.
            pipe = os.open(folder / EXIT_CODE_PIPE, os.O_RDWR)
            self._ends.callback(os.close, pipe)
            started = child_process(self._command(folder, step), output=log, environment=self._environment)
            self._running[folder] = (self._ends.enter_context(started), pipe)
            (folder / IDLE_MARKER).touch()
        except OSError:  # for example a full disk; the steps then start without a standby, and report it
            self._disabled = True


def run_in_standby(folder: Path, program_arguments: Sequence[str], log_path: Path) -> int | None:
    """Runs a step in an idle standby driver.

    Args:
        folder: the folder of the run's standby drivers.
        program_arguments: the step and its arguments.
        log_path: where the driver's log is moved to.

    Returns:
        The driver's exit code; None if no driver is idle, or the driver ended before it began with the step.
    """
    line = f"{json.dumps(list(program_arguments))}\n".encode()
    standby = _claim_idle(folder) if len(line) < PIPE_BYTES else None
    if standby is None:
        return None
    (standby / LOG).replace(log_path)
    pipe = os.open(standby / STEP_PIPE, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(pipe, line)
        with (standby / EXIT_CODE_PIPE).open(encoding="utf-8") as ended:
            code = ended.readline()
        with suppress(BlockingIOError):  # the pipe is empty, so the driver has read the step
            os.read(pipe, PIPE_BYTES)
            return None
    finally:
        os.close(pipe)
    return int(code) if code else -signal.SIGKILL


def _claim_idle(folder: Path) -> Path | None:
    """Claims an idle driver by renaming its marker; only one of several tasks succeeds."""
    for idle in sorted(folder.glob(f"*/{IDLE_MARKER}")):
        with suppress(FileNotFoundError):
            idle.rename(idle.with_name("claimed"))
            return idle.parent
    return None

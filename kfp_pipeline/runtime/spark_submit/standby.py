"""Drivers that are started before it is known for which step: while one step runs, the next one's Java and Spark start.

A standby waits in a folder of its own, at the end of a pipe. Whoever has a step to run claims it, by a rename that only one can win, and
sends it orders, the step's words. Through another pipe it tells its exit code, before its Spark has ended; if it cannot, whoever started it
does. Pipes, not files, so that a full disk cannot leave anyone waiting.
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
"""Of a run's standbys, in the run's folder."""
IDLE_MARKER, LOG, STEP_PIPE, EXIT_CODE_PIPE = "idle", "log", "orders", "exit_code"
PIPE_BYTES = 60_000
"""Orders that a pipe takes before anyone reads them."""


class StandbyDrivers:
    """The standbys of one run, of which at most one is idle; a context that ends them all and removes their folder."""

    def __init__(
        self, folder: Path, command: Callable[[Path, Step], list[str]], environment: Mapping[str, str]
    ) -> None:
        """Args: folder, theirs; command, of a standby that waits in a folder for what may be a step; environment, of all."""
        self._folder, self._command, self._environment = folder, command, environment
        self._running: dict[Path, tuple[subprocess.Popen[bytes], int]] = {}
        self._started = 0
        self._broken = False
        self._ends = ExitStack()

    def __enter__(self) -> StandbyDrivers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def another_is_needed(self) -> bool:
        """Notes which have ended; whether none is idle that a next step could have."""
        for folder, (process, pipe) in list(self._running.items()):
            if process.poll() is not None:
                with suppress(FileNotFoundError):
                    (folder / IDLE_MARKER).unlink()
                    self._broken = True  # it ended before it was of use, and so would the next
                os.write(pipe, f"{process.returncode}\n".encode())
                del self._running[folder]
        return not self._broken and not any((folder / IDLE_MARKER).exists() for folder in self._running)

    def start(self, step: Step) -> None:
        """Starts one, which is at its quickest for a step and does any."""
        self._started += 1
        folder = self._folder / str(self._started)
        try:
            folder.mkdir(parents=True)
            for name in (STEP_PIPE, EXIT_CODE_PIPE):
                os.mkfifo(folder / name)
            log = self._ends.enter_context((folder / LOG).open("ab"))
            # Opened for both, a pipe does not wait for its other end, and keeps what was written into it.
            pipe = os.open(folder / EXIT_CODE_PIPE, os.O_RDWR)
            self._ends.callback(os.close, pipe)
            started = child_process(self._command(folder, step), output=log, environment=self._environment)
            self._running[folder] = (self._ends.enter_context(started), pipe)
            (folder / IDLE_MARKER).touch()
        except OSError:  # a full disk, say; the steps start by themselves, and will tell
            self._broken = True


def run_in_standby(folder: Path, words: Sequence[str], log_path: Path) -> int | None:
    """Has a step run by an idle standby.

    Args:
        folder: of the run's standbys.
        words: the step and its arguments.
        log_path: where the standby's log is moved to.

    Returns:
        The standby's exit code; None if there is none that is idle, or it ended before it began with the step.
    """
    orders = f"{json.dumps(list(words))}\n".encode()
    standby = _claimed(folder) if len(orders) < PIPE_BYTES else None
    if standby is None:
        return None
    (standby / LOG).replace(log_path)
    pipe = os.open(standby / STEP_PIPE, os.O_RDWR | os.O_NONBLOCK)
    try:
        os.write(pipe, orders)
        with (standby / EXIT_CODE_PIPE).open(encoding="utf-8") as ended:
            code = ended.readline()
        with suppress(BlockingIOError):  # nothing is left of the orders: they were taken
            os.read(pipe, PIPE_BYTES)
            return None
    finally:
        os.close(pipe)
    return int(code) if code else -signal.SIGKILL


def _claimed(folder: Path) -> Path | None:
    for idle in sorted(folder.glob(f"*/{IDLE_MARKER}")):
        with suppress(FileNotFoundError):
            idle.rename(idle.with_name("claimed"))
            return idle.parent
    return None

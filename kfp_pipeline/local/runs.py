"""The runs on this machine: each has a folder, with its state in run.json and a lock that its process holds."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime.events import all_events
from kfp_pipeline.runtime.fingerprint import write_atomically
from spark_jobs.contract import TRAINING
from spark_jobs.errors import InputError

RUN_NAME = "run.json"
LOCK_NAME = ".lock"
LOCK_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run.

    Attributes:
        id: name of the run and of its folder.
        pipeline: name of the pipeline.
        status: `running`, `succeeded`, `failed`, `cancelled` or `killed`. A run is killed if run.json says `running` and no process holds
            the lock.
        inputs: the inputs of the pipeline.
        started: start in seconds since 1970.
        ended: end in seconds since 1970; 0 while the run is running; for a killed run the time of its last event.
        steps: last event of each step, by step.
        metrics: metrics of the last step, name to value: those on the test rows, if the pipeline evaluates a model.
        report: path of the report; empty if the pipeline makes none.
        warnings: what the steps warn of.
        message: why the run failed.
    """

    id: str
    status: str
    inputs: Mapping[str, Any]
    started: float
    pipeline: str = TRAINING.name  # a document of an earlier version does not name it
    ended: float = 0.0
    steps: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    report: str = ""
    warnings: Sequence[str] = ()
    message: str = ""

    @property
    def seconds(self) -> float:
        """Duration in seconds; until now if the run is running."""
        return max(0.0, (self.ended or time.time()) - self.started)


def new_id() -> str:
    """Makes a name for a new run; names sort by time."""
    return f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def check_id(run_id: str) -> None:
    """Checks the name of a run, which must neither lead out of the directory of the runs nor be a hidden folder in it.

    Raises:
        InputError: the name has other characters than letters, digits, `_`, `-` and `.`.
    """
    if not re.fullmatch(r"\w[\w.-]*", run_id):
        raise InputError(f"--run-id is {run_id!r}; allowed: letters, digits, _, - and . after the first")


def save(directory: Path, run: Run) -> None:
    """Writes run.json atomically."""
    write_atomically(directory / RUN_NAME, json.dumps(asdict(run), indent=2, ensure_ascii=False) + "\n")


def read(directory: Path) -> Run:
    """Reads the run of a folder.

    Raises:
        InputError: the folder has no readable run.json.
    """
    try:
        run = Run(**json.loads((directory / RUN_NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{directory} holds no run; `spark-kfp runs list` shows those there are") from error
    return _killed(directory, run) if run.status == "running" and not _is_locked(directory) else run


def _killed(directory: Path, run: Run) -> Run:
    """Returns a run whose process was killed before it could write the end of the run."""
    events = list(all_events(directory))
    ended = events[-1]["time"] if events else run.started
    message = (
        f"it was killed; `spark-kfp run` with the same arguments and --run-id={run.id} takes over what it has finished"
    )
    return replace(run, status="killed", ended=ended, steps={event["step"]: event for event in events}, message=message)


def _is_locked(directory: Path) -> bool:
    """Whether a process holds the lock of a run's folder."""
    try:
        lock = os.open(directory / LOCK_NAME, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def list_runs(runs: Path) -> list[Run]:
    """Lists the runs whose run.json can be read, oldest first."""
    found = []
    for path in runs.glob(f"*/{RUN_NAME}"):
        with suppress(InputError):
            found.append(read(path.parent))
    return sorted(found, key=lambda run: run.started)


def find(runs: Path, run_id: str) -> Run:
    """Finds a run by its name, by the beginning of its name, or the newest one by `last`.

    Raises:
        InputError: no run or more than one matches.
    """
    known = list_runs(runs)
    if not known:
        raise InputError(no_runs(runs))
    matching = known[-1:] if run_id == "last" else [run for run in known if run.id == run_id]
    matching = matching or [run for run in known if run.id.startswith(run_id)]
    if len(matching) != 1:
        raise InputError(
            f"{len(matching)} runs match {run_id!r} in {runs}; `spark-kfp runs list` shows those there are"
        )
    return matching[0]


def no_runs(runs: Path) -> str:
    """Returns the sentence about a directory that holds no run."""
    return f"there are no runs in {runs}; start one with `spark-kfp run`"


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Holds the lock of a run's folder. The kernel releases the lock when the process ends, even if it is killed.

    Raises:
        InputError: another process holds the lock, or the folder cannot be written.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{directory}: {error.strerror}; name another directory with --runs") from error
    try:
        _lock(lock, directory)
        yield
    finally:
        os.close(lock)


def _lock(lock: int, directory: Path) -> None:
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if attempt == LOCK_ATTEMPTS:
                message = f"another process is running in {directory}; wait for it, or choose another --run-id"
                raise InputError(message) from error
            time.sleep(0.05)  # `runs list` takes the lock for a moment, to see whether it is free


def with_end(run: Run, status: str, **changes: Any) -> Run:
    """Returns the run with its end: now, with this status."""
    return replace(run, status=status, ended=time.time(), **changes)

"""The events of a run on one machine: a file of JSON lines to which tasks append and which the command line follows.

Each line says which step started, succeeded, was reused or failed. Tasks are processes of their own; a file is the simplest way from them
to the terminal, and it is still there when the run is over.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS_NAME = "events.jsonl"


def emit(run: str, step: str, state: str, **facts: Any) -> None:
    """Appends an event to the run's file.

    Args:
        run: the run's directory; empty for a task on a cluster, for which no event is written.
        step: the step's name.
        state: running, done, reused or failed.
        facts: more fields of the JSON object.
    """
    if not run:
        return
    line = json.dumps({"time": time.time(), "step": step, "state": state, **facts}, ensure_ascii=False) + "\n"
    # One write in append mode, so that lines of two processes never mix.
    # One write in append mode, so that lines of two processes never mix.
    descriptor = os.open(Path(run) / EVENTS_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_events(run: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """Reads the events after a position.

    Args:
        run: the run's directory.
        position: byte offset in the file, 0 for the first call.

    Returns:
        The events of all complete lines, and the offset after them for the next call.
    """
    try:
        with (run / EVENTS_NAME).open("rb") as file:
            file.seek(position)
            content = file.read()
    except FileNotFoundError:
        return [], position
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], position + len(whole)


def all_events(run: Path) -> Iterator[dict[str, Any]]:
    """Yields every event that a run has written so far."""
    yield from read_events(run, 0)[0]

"""What happens to the steps of a run, one JSON line each: a task appends, the command line follows."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

EVENTS_NAME = "events.jsonl"


def emit(run: str, step: str, state: str, **facts: Any) -> None:
    """Appends an event to the run's file; outside a run nobody follows, and nothing is written."""
    if not run:
        return
    line = json.dumps({"time": time.time(), "step": step, "state": state, **facts}, ensure_ascii=False) + "\n"
    descriptor = os.open(Path(run) / EVENTS_NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)


def read_events(run: Path, position: int) -> tuple[list[dict[str, Any]], int]:
    """The whole lines after a position of the file, and the position after them."""
    try:
        with (run / EVENTS_NAME).open("rb") as file:
            file.seek(position)
            content = file.read()
    except FileNotFoundError:
        return [], position
    whole = content[: content.rfind(b"\n") + 1]
    return [json.loads(line) for line in whole.splitlines()], position + len(whole)


def all_events(run: Path) -> Iterator[dict[str, Any]]:
    """Every event of a run so far."""
    yield from read_events(run, 0)[0]

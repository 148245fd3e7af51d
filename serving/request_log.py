"""Writes the log as JSON, one object a line, and never a value of a customer.

A line about a request holds its id, route, status, time, number of rows and model version; what was wrong is one word of the server's
own. Messages of errors may quote a caller's value, so they go to the caller alone; of an error of the program the log has type and place.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import traceback
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}").fullmatch
encode = json.JSONEncoder(default=str).encode
log = logging.getLogger(__name__)


class JsonLines(logging.Formatter):
    """Formats a record with its extra fields as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {name: value for name, value in vars(record).items() if name not in STANDARD and name[:1] != "_"}
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **fields,
        }
        if record.exc_info and record.exc_info[1]:
            line |= error_without_values(record.exc_info[1], record.exc_info[2])
        return encode(line)


def set_up_logging() -> None:
    """Sends every log line of this process to standard output as JSON."""
    # No line names its caller, thread or process: https://docs.python.org/3/howto/logging.html#optimization. It is a tenth of a request.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.WARNING)


def request_id(headers: Mapping[bytes, bytes]) -> str:
    """Returns the caller's `X-Request-Id`, or a new one if it has none or one that is no plain id."""
    given = headers.get(b"x-request-id", b"").decode("latin-1")
    return given if REQUEST_ID(given) else secrets.token_hex(16)


def error_without_values(error: BaseException, found: TracebackType | None) -> dict[str, Any]:
    """Returns the type of an error and where it was raised, but not its message."""
    frames = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(found)[-8:]]
    return {"error": type(error).__name__, "frames": frames}

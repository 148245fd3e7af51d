"""Why a step failed: turns an exception of Python or of the JVM into a `Failure` that says what to do next.

PySpark reports a full disk, a missing S3A jar or a truncated Parquet file as a Java stack trace. A user needs the cause
in one sentence, and the caller must know whether the input is wrong (exit code 2) or the program has a fault (1).
"""

from __future__ import annotations

import logging
import re
import shutil
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from spark_jobs.errors import InputError
from spark_jobs.result import Failure

log = logging.getLogger(__name__)

STORAGE_ADVICE = {
    "No space left on device": "the disk{places} is full; free some space, then run again",
    "Disk quota exceeded": "the disk quota{places} is used up; free some space, then run again",
    "Read-only file system": "the file system is read-only; name another output directory",
    "Permission denied": "permission denied; check who may write there, or name another output directory",
    "Mkdirs failed to create": "the directory cannot be made; check who may write there, or name another output directory",
}
"""Text of an operating system's error, which is also in the JVM's stack trace, and what the user can do about it.

`{places}` stands for the directories of the step, as the error of a full disk names none.
"""
FULL_BYTES = 1 << 20
"""A disk with less free space than this is taken for the full one: the failed write has not left room for more."""
STORE_STACK_LINES = (
    "Caused by: software.amazon.awssdk",
    "Caused by: java.net.",
    "Caused by: org.apache.hadoop.fs.s3a",
)
"""Lines of a Java stack trace which show that the object store or the network failed, and not the file."""
DAMAGED_FILE = re.compile(
    r"\[FAILED_READ_FILE\.(CANNOT_READ_FILE_FOOTER|NO_HINT)\] Encountered error while reading file (.+?)\.\s+(Could not|SQLSTATE)"
)
"""Spark's error of a file that is not valid Parquet: https://spark.apache.org/docs/latest/sql-error-conditions.html."""

CANCELLED = ("[SPARK_JOB_CANCELLED]", "cancelled because SparkContext was shut down", "[OPERATION_CANCELED]")
"""Signs of Spark work that was ended from outside: by `cancelAllJobs`, the end of the session, a client of Spark Connect. The second is in
`DAGScheduler.cleanUpAfterSchedulerStop`, the others are Spark's conditions, see `DAMAGED_FILE`."""


def describe_failure(error: Exception, step: str = "", places: Sequence[Path] = ()) -> Failure:
    """Converts an exception to a `Failure`.

    Args:
        error: the exception.
        step: the step that failed; empty if none had started.
        places: the local directories that the step writes to.

    Returns:
        A failure of kind `input` if the user can mend it: an InputError, storage that refuses to write, missing S3A jars or a damaged file.
        Any other exception is a `fault`, with the last frames of its stack trace.
    """
    text = str(error)
    if advice := input_advice(error, step, places):
        return Failure(kind="input", type=type(error).__name__, message=advice)
    message = (server_away(text) or java_cause(text) or text).strip()[:2000] or repr(error)
    frames = tuple(traceback.format_exception(error)[-8:])
    return Failure(kind="fault", type=type(error).__name__, message=message, frames=frames)


def input_advice(error: Exception, step: str, places: Sequence[Path]) -> str:
    """Returns a sentence for the user if the user can mend the error; else an empty text. For the arguments see `describe_failure`."""
    text = str(error)
    if isinstance(error, InputError):
        return text
    if "S3AFileSystem not found" in text:
        return "this Spark has no S3A; add the jars of images/pom.xml to its jars/, or give local paths"
    for sign, advice in STORAGE_ADVICE.items():
        if sign in text:
            line = without_exception_classes(next(line for line in text.splitlines() if sign in line))
            full = " or ".join(map(str, full_disks(places)))
            where = f"step {step}: " if step else ""
            return f"{where}{line[:300]}: {advice.format(places=f' of {full}' if full else '')}"
    if "StatusCode.UNAUTHENTICATED" in text:
        return "the Spark Connect server refuses the token; set SPARK_CONNECT_AUTHENTICATE_TOKEN to its own"
    if path := damaged_file(text):
        return f"{path}: Spark cannot read it; it is damaged or was cut off: write it again"
    return ""


def server_away(text: str) -> str:
    """Returns a sentence about a Spark Connect server that does not answer; empty if the error is another one. It is gRPC's text."""
    if "StatusCode.UNAVAILABLE" not in text and "StatusCode.DEADLINE_EXCEEDED" not in text:
        return ""
    details = re.search(r'details = "(.*?)"\n', text)
    return f"the Spark Connect server does not answer: {details[1][:300] if details else 'its connection broke'}; see whether it runs"


def was_interrupted(error: Exception, session: Any) -> bool:
    """Whether Spark work failed because it was cancelled or its session has ended, and not for a reason of its own.

    Args:
        error: why it failed.
        session: its Spark session; it is asked whether it still works.
    """
    try:
        text = str(error)  # of an error in the JVM only the JVM knows it
        if "OutOfMemoryError" in text:  # a reason of its own, even if it has taken the session with it
            return False
        session.range(1).collect()
    except Exception:
        return True
    return any(sign in text for sign in CANCELLED)


def full_disks(places: Sequence[Path]) -> Sequence[Path]:
    """Returns the directories on a disk with hardly any free space; all of them if there are none, as Spark has cleaned up meanwhile."""
    there = {place: next(path for path in (place, *place.parents) if path.exists()) for place in places}
    return [place for place, path in there.items() if shutil.disk_usage(path).free < FULL_BYTES] or places


def damaged_file(text: str) -> str:
    """Returns the path of the file that Spark could not decode.

    Returns:
        An empty text if the error is another one, or if the object store failed while Spark read an intact file.
    """
    match = DAMAGED_FILE.search(text)
    if not match or any(line in text for line in STORE_STACK_LINES):
        return ""
    # Spark writes an encoded URI into one of the two errors and a plain path into the other.
    path = unquote(match[2]) if match[1] == "NO_HINT" else match[2]
    return re.sub("^file:/+", "/", path)


def without_exception_classes(line: str) -> str:
    """Removes the names of exception classes from the start of a line of a Java stack trace."""
    return re.sub(r"^(?:: |Caused by: |[\w.$]+\.[A-Z]\w*(?:Error|Exception): )+", "", line.strip())


def java_cause(text: str) -> str:
    """Extracts the first exception and its root cause from the text of an error that holds a Java stack trace.

    Returns:
        `EXCEPTION, caused by ROOT CAUSE`; an empty text if there is no Java stack trace.
    """
    lines = text.splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    first = [line.removeprefix(": ") for line in lines if line.startswith(": ")]
    return ", caused by ".join(dict.fromkeys((*first[:1], *causes[-1:])))

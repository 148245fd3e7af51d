"""Runs one step: `python -m spark_jobs STEP --...`, or `spark-submit .../spark_jobs/__main__.py STEP --...`.

`standby STEP PIPE PIPE` starts Spark first, likely for that step, runs the one whose words then come through the first pipe, and tells its
exit code through the second.

Whatever happens, the last thing written is the result document: the step's result, or why it failed.
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
import time
import traceback
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from spark_jobs.arguments import Role
from spark_jobs.contract import outputs_of

if __package__ in (None, ""):  # spark-submit puts this folder, not its parent, on the path
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    # It puts pyspark's archive there too, which holds no byte code: an installed pyspark is imported in three quarters of the time.
    sys.path[:] = [
        path
        for path in sys.path
        if not path.endswith("site-packages/pyspark/python/lib/pyspark.zip")
        or path.split("/pyspark/")[0] not in sys.path
    ]

from spark_jobs.arguments import StepArgs, from_argv
from spark_jobs.contract import ARGUMENTS, STANDBY, Step
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError, UnavailableError
from spark_jobs.result import RESULT_NAME, Failure, Result

log = logging.getLogger("spark_jobs")

TERMINATION_LOG = Path("/dev/termination-log")
"""Where a container leaves its last word, if this is one of a pod; at most 4,096 bytes of it are kept."""
STORAGE_FAULTS = {
    "No space left on device": "the disk is full; free some space, then run again",
    "Disk quota exceeded": "the disk quota is used up; free some space, then run again",
    "Read-only file system": "the file system is read-only; name another output directory",
    "Permission denied": "permission denied; check who may write there, or name another output directory",
    "Mkdirs failed to create": "the directory cannot be made; check who may write there, or name another output directory",
}
STORE_FAULTS = ("Caused by: software.amazon.awssdk", "Caused by: java.net.", "Caused by: org.apache.hadoop.fs.s3a")
"""What stands in Java's stack where a file could not be read because the store, or the way to it, failed."""


def main(argv: list[str]) -> int:
    """Runs a step and returns the exit code: 0, 2 for bad input, 1 for a fault."""
    return stand_by(*argv[1:]) if argv[:1] == [STANDBY] else run(argv)


def stand_by(likely: str, orders: str, ended: str) -> int:
    """Starts Spark for a likely step, waits for orders, a line of JSON in a pipe, and carries them out.

    The exit code is told through another pipe as soon as it is known: the next step need not wait until this Spark has ended.
    """
    from spark_jobs.session import build_session  # noqa: PLC0415

    session = build_session(STANDBY)
    try:
        importlib.import_module(f"spark_jobs.steps.{Step(likely)}")
        with Path(orders).open(encoding="utf-8") as pipe:
            line = pipe.readline()
        if not line:
            return EXIT_FAULT
        code = run(json.loads(line), session)
        Path(ended).write_text(f"{code}\n", encoding="utf-8")
        return code
    finally:
        session.stop()


def run(argv: list[str], session: Any = None) -> int:
    """Runs a step, in a session that is there or in one of its own."""
    began = time.perf_counter()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for name in ("py4j", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        step, args = parse(argv)
    except InputError as error:
        write_termination_message(describe_failure(error))
        print(f"spark-kfp: error: {error}", file=sys.stderr)
        return EXIT_INPUT
    try:
        result = carry_out(step, args, began, session)
    except Exception as error:  # the outermost frame: every failure becomes a document
        failure = describe_failure(error)
        log.error("step %s failed: %s: %s", step, failure.type, failure.message)
        if failure.frames:
            log.error("".join(failure.frames))
        write_termination_message(failure)
        if not isinstance(error, UnavailableError):
            leave(args, Result(step=step, status="failed", arguments=asdict(args), failure=failure))  # type: ignore[call-overload]
        print(f"spark-kfp: error: {failure.message}", file=sys.stderr)
        return EXIT_INPUT if failure.kind == "input" else EXIT_FAULT
    for warning in result.warnings:
        log.warning("%s", warning)
    log.info(
        "step %s: %d rows in, %s rows out, %.1f s", step, result.rows_in, dict(result.rows_out), result.seconds["total"]
    )
    return 0


def parse(argv: list[str]) -> tuple[Step, StepArgs]:
    """The step and its arguments.

    Raises:
        InputError: no such step, or a wrong argument.
    """
    steps = ", ".join(Step)
    if not argv or argv[0] not in list(Step):
        raise InputError(f"name a step: {steps}" + (f"; there is no {argv[0]!r}" if argv else ""))
    return Step(argv[0]), from_argv(ARGUMENTS[Step(argv[0])], argv[1:], f"python -m spark_jobs {argv[0]}")


def carry_out(step: Step, args: Any, began: float, session: Any = None) -> Result:
    """Runs the step in a session that is there, or in one of its own, which is stopped at the end."""
    from spark_jobs import storage  # noqa: PLC0415
    from spark_jobs.session import build_session  # noqa: PLC0415

    uris = [getattr(args, name) for name in args.names(Role.GIVEN, Role.FROM_STEP, Role.OUTPUT)]
    storage.check_reachable(uris)
    clear(step, args)  # until the step is done, nothing here is whole
    storage.make_directory(args.output_uri)  # where nothing can be written, say so before Spark starts
    if session:
        return perform(session, step, args, began)
    own = build_session(step, storage.session_settings(uris))
    try:
        return perform(own, step, args, began)
    finally:
        own.stop()


def perform(session: Any, step: Step, args: Any, began: float) -> Result:
    """Runs the step in a given session and writes its result, last and whole."""
    from spark_jobs import storage  # noqa: PLC0415

    module = importlib.import_module(f"spark_jobs.steps.{step}")
    started = time.perf_counter()
    result: Result = module.run(session, args)
    ended = time.perf_counter()
    uris = {
        **result.uris,
        **{name.removesuffix("_uri"): getattr(args, name) for name in outputs_of(step)},
    }
    seconds = {"startup": started - began, "work": ended - started, "total": ended - began}
    result = replace(result, arguments=asdict(args), seconds=seconds, uris=uris)
    storage.write_text(storage.join(args.output_uri, RESULT_NAME), result.to_json())
    return result


def describe_failure(error: Exception) -> Failure:
    """The failure as data; a full disk and the like are told as what they are."""
    if isinstance(error, InputError):
        return Failure(kind="input", type=type(error).__name__, message=str(error))
    text = str(error)
    if "S3AFileSystem not found" in text:
        text = "this Spark has no S3A; add the jars of images/pom.xml to its jars/, or give local paths"
        return Failure(kind="input", type=type(error).__name__, message=text)
    for sign, advice in STORAGE_FAULTS.items():
        if sign in text:
            line = next(line for line in text.splitlines() if sign in line)
            return Failure(kind="input", type=type(error).__name__, message=f"{without_classes(line)[:300]}: {advice}")
    if path := damaged_file(text):
        message = f"{path}: Spark cannot read it; it is damaged or was cut off: write it again"
        return Failure(kind="input", type=type(error).__name__, message=message)
    text = java_cause(text) or text
    frames = tuple(traceback.format_exception(error)[-8:])
    return Failure(kind="fault", type=type(error).__name__, message=text.strip()[:2000] or repr(error), frames=frames)


def damaged_file(text: str) -> str:
    """The file that Spark could not make sense of, of an error's text; empty if it was none, or if a store did not give the file."""
    wrong = r"\[FAILED_READ_FILE\.(CANNOT_READ_FILE_FOOTER|NO_HINT)\] Encountered error while reading file (.+?)\.\s+(Could not|SQLSTATE)"
    found = re.search(wrong, text)
    if not found or any(sign in text for sign in STORE_FAULTS):
        return ""
    path = unquote(found[2]) if found[1] == "NO_HINT" else found[2]  # Spark writes a URI here, and there a path
    return re.sub("^file:/+", "/", path)


def without_classes(line: str) -> str:
    """A line of a Java stack without the classes of the exceptions that begin it."""
    return re.sub(r"^(?:: |Caused by: |[\w.$]+\.[A-Z]\w*(?:Error|Exception): )+", "", line.strip())


def java_cause(text: str) -> str:
    """What went wrong in Spark, of an error's text that holds a stack of the JVM; empty if it holds none."""
    lines = text.splitlines()
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    first = [line.removeprefix(": ") for line in lines if line.startswith(": ")]
    return ", caused by ".join(dict.fromkeys((*first[:1], *causes[-1:])))


def leave(args: Any, result: Result) -> None:
    """Removes what was half-written and leaves the reason in its place."""
    from spark_jobs import storage  # noqa: PLC0415

    try:
        clear(Step(result.step), args)
        storage.write_text(storage.join(args.output_uri, RESULT_NAME), result.to_json())
    except (OSError, InputError) as error:
        log.error("the result document could not be written: %s", error)


def write_termination_message(failure: Failure) -> None:
    """Leaves the failure where whoever watches the container finds it, even if no result document could be written."""
    try:
        with TERMINATION_LOG.open("r+", encoding="utf-8") as file:
            file.write(json.dumps({**asdict(failure), "message": failure.message[:1000], "frames": []}))
    except OSError:  # not in a container
        log.debug("no %s", TERMINATION_LOG)


def clear(step: Step, args: Any) -> None:
    """Removes what an earlier or failed run of this step left in its output, and nothing else."""
    from spark_jobs import storage  # noqa: PLC0415

    storage.remove(storage.join(args.output_uri, RESULT_NAME))
    for item in ARGUMENTS[step].arguments(Role.OUTPUT):
        uri = getattr(args, item.name)
        for part in [uri] if item.file else [storage.join(uri, name) for name in item.parts]:
            storage.remove(part)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

"""Turns the error that ended a command into a message on stderr and an exit code.

An error that the user can mend (our own error classes, and the operating system's errors about files) is printed as one sentence. Any other
error is a fault of this program and is printed with its stack trace.
"""

from __future__ import annotations

import errno
import os
import sys
import traceback

from kfp_pipeline.commands.display import printable
from kfp_pipeline.runtime.errors import StepError
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, EXIT_INTERRUPTED, InputError, UnavailableError

EXIT_BROKEN_PIPE = 141
"""The shell's exit code for a program that SIGPIPE ended, because the reader of its output has exited."""
REPORT = (
    "spark-kfp: this is a fault of spark-kfp and not of your input; please report it with the lines above, the command "
    "and `pip show spark-kfp`, as an issue of the repository that your copy came from"
)
ADVICE = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space or name another place")
ADVICE |= dict.fromkeys((errno.EACCES, errno.EPERM), "let its owner give you the right, or name another place")
ADVICE |= {errno.EROFS: "name another place"}
"""What helps against an error of the operating system, by its number."""


def report_error(error: BaseException, *, debug: bool) -> int:
    """Prints on stderr why a command failed, and returns its exit code.

    Args:
        error: the error that ended the command.
        debug: whether to print the stack trace of every error.
    """
    if isinstance(error, BrokenPipeError):
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # else Python would complain once more at its end
        return EXIT_BROKEN_PIPE
    is_fault = not isinstance(error, InputError | StepError | OSError | KeyboardInterrupt)
    if debug or is_fault:
        traceback.print_exception(error)
    if is_fault:
        print(REPORT, file=sys.stderr)
        return EXIT_FAULT
    if isinstance(error, KeyboardInterrupt):
        print(
            "spark-kfp: interrupted; start it again with the same arguments, and finished steps are reused",
            file=sys.stderr,
        )
        return EXIT_INTERRUPTED
    return _report_user_error(error)


def _report_user_error(error: BaseException) -> int:
    code, message = EXIT_INPUT, str(error)
    if isinstance(error, StepError):
        if error.log:
            print(error.log, file=sys.stderr)
            message += f"; the whole log: {error.log_path}"
        code = EXIT_INPUT if error.failure.kind == "input" else EXIT_FAULT
    elif isinstance(error, UnavailableError):
        code = EXIT_FAULT  # unlike for a wrong input, a repetition may help
    elif isinstance(error, OSError):  # a full disk, a folder that is not there or may not be written
        where = error.filename or "this machine"
        message = f"{where}: {error.strerror or error}; {ADVICE.get(error.errno or 0, 'check the path')}"
    print(f"spark-kfp: error: {printable(message, keep=chr(10))}", file=sys.stderr)
    return code

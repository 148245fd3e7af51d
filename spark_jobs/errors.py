"""The exceptions and exit codes that `spark_jobs` and `kfp_pipeline` share.

The class of an exception says whether a retry can help: never after an InputError, perhaps after an UnavailableError.
"""

from __future__ import annotations

EXIT_FAULT = 1
"""Exit code of a step that failed for any reason other than its input."""
EXIT_INPUT = 2
"""Exit code of a step whose input or settings are wrong: a retry cannot help."""
EXIT_INTERRUPTED = 130
"""Exit code of a command that was interrupted: the shell's convention for SIGINT, 128 + 2."""


class InputError(ValueError):
    """The data, a specification or a setting is wrong; the message names which one and says what to do."""


def damage(error: Exception) -> str:
    """Says what is wrong with a document of which a field could not be read, without the words of Python."""
    return f"{error} is missing" if isinstance(error, KeyError) else "a field has another form than it should"


class UnavailableError(OSError):
    """A service that a step needs, such as the object store, does not answer; a retry may help."""

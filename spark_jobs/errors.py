"""What may go wrong in a step or a command, as classes and exit codes that both halves of the project know."""

from __future__ import annotations

EXIT_FAULT = 1
"""Exit code of a step that failed for any reason but its input."""
EXIT_INPUT = 2
"""Exit code of a step whose input or settings are wrong: repeating it as it is cannot help."""
EXIT_INTERRUPTED = 130
"""Exit code of a command that was interrupted: what a shell gives for SIGINT."""


class InputError(ValueError):
    """The data, a specification or a setting is wrong; the text names which one and the next thing to do."""


class UnavailableError(OSError):
    """Something that a step needs, such as the object store, does not answer; repeating the step may help."""

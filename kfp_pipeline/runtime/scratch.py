"""Folders for temporary files that do not outlive who made them: what a killed process could not remove, the next one does.

A process holds a lock on its folder, which goes with it however it ends. The lock is a file of its own name, so that nothing is removed
but what was made here.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "spark-kfp-"
LOCK_NAME = ".spark-kfp-scratch"
"""The file in a folder that is locked as long as its process lives."""


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder, removed after the block, and all those beside it whose processes have ended without doing so.

    Args:
        parent: the folder in which it lies; None: where this machine keeps temporary files.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_left(parent)
    # Locked under a name that nobody looks for: the next process must not find it before the lock is held.
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    lock = os.open(made / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
    folder = made.with_name(made.name.removeprefix("."))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made.rename(folder)
        yield folder
    finally:
        for path in (folder, made):
            shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def _remove_left(parent: Path) -> None:
    """Removes the folders that no living process holds."""
    for held in parent.glob(f"{PREFIX}*/{LOCK_NAME}"):
        try:
            lock = os.open(held, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # gone by now, or another user's
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)

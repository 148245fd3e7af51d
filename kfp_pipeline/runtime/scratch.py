"""Temporary folders that are removed even if their process is killed: the next process that makes one removes the old ones.

A process holds a file lock in its folder, and the kernel releases the lock when the process ends. A folder without the lock's file was not
made here and is never removed.
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
"""The file in a folder that its process keeps locked."""


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Makes a new folder, and removes it after the block.

    It first removes the folders beside it whose processes have ended.

    Args:
        parent: where to make the folder; None for the system's temporary directory.
    """
    folder, lock = locked_folder(parent)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def locked_folder(parent: Path | None = None) -> tuple[Path, int]:
    """Makes a folder that a later process removes once nobody holds its lock, and removes such folders beside it.

    Args:
        parent: as in `scratch_folder`.

    Returns:
        The folder, and the file descriptor of its lock. A child process that inherits the descriptor holds the lock as well.
    """
    parent = parent or Path(tempfile.gettempdir())
    _remove_abandoned(parent)
    # The folder gets its final name only once it is locked. Before that, another process would take it for abandoned.
    made = Path(tempfile.mkdtemp(prefix=f".{PREFIX}", dir=parent))
    try:
        lock = os.open(made / LOCK_NAME, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        return made.rename(made.with_name(made.name.removeprefix("."))), lock
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def _remove_abandoned(parent: Path) -> None:
    """Removes the folders whose lock no process holds."""
    for held in parent.glob(f"{PREFIX}*/{LOCK_NAME}"):
        try:
            lock = os.open(held, os.O_RDWR | os.O_NOFOLLOW)
        except OSError:  # removed meanwhile, or of another user
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(held.parent, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(lock)

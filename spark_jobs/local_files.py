"""File access for paths and `file:` URIs: the implementation of `storage.Files` for this machine's file systems."""

from __future__ import annotations

import glob
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlparse

from spark_jobs.dataset import did_you_mean_file
from spark_jobs.errors import InputError


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file completely or not at all, and makes its folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Write a temporary file and rename it: a process that is killed never leaves half a document under the final name.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # mkstemp's files are readable by their owner only
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # that of a full disk names no file
            error.filename = str(path)
        raise


def remove_path(path: Path) -> None:
    """Removes a file, or a folder with all that is in it, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class LocalFiles:
    """Implements the protocol `spark_jobs.storage.Files`, which describes the methods."""

    def read(self, uri: str) -> bytes:
        return local_path(uri).read_bytes()

    def open(self, uri: str, length: int = 0) -> IO[bytes]:  # noqa: ARG002 - a file sends no more than is read
        return local_path(uri).open("rb")

    def write(self, uri: str, content: bytes) -> None:
        write_whole(local_path(uri), content)

    def check(self, uri: str) -> None:
        local_path(uri).mkdir(parents=True, exist_ok=True)

    def remove(self, uri: str) -> None:
        remove_path(local_path(uri))

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        path = local_path(uri)
        if path.is_file():
            return [str(path)]
        if kind := _special(path):
            raise InputError(
                f"{uri} is {kind} and no file; write what it gives to a file first, as it is read more than once"
            )
        if path.is_dir():
            found = sorted(
                entry for entry in path.rglob("*") if entry.is_file() and entry.name.endswith(tuple(suffixes))
            )
            visible = [entry for entry in found if not entry.relative_to(path).as_posix().startswith((".", "_"))]
            return [str(entry) for entry in visible if not entry.name.startswith((".", "_"))]
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
        matches = sorted(match for match in names if Path(match).is_file() and not _is_hidden(match, str(path)))
        if not matches:
            raise InputError(f"{uri}: no such file{did_you_mean_file(path)}")
        return matches

    def version(self, uri: str) -> str:
        with local_path(uri).open("rb") as file:
            return "sha256 " + hashlib.file_digest(file, "sha256").hexdigest()

    def spark_uri(self, uri: str) -> str:
        return "file:" + str(local_path(uri))


def _special(path: Path) -> str:
    """Returns the kind of a special file, such as a FIFO; empty for a file, a directory or a path that does not exist."""
    kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    mode = path.stat().st_mode if path.exists() else 0
    return next((kind for test, kind in kinds.items() if test(mode)), "")


def _is_hidden(match: str, pattern: str) -> bool:
    """Returns whether a part of the path that the pattern does not name begins with an underscore, as Spark's own files do."""
    asked = {part[0] for part in pattern.split("/") if part}
    return "_" not in asked and any(part.startswith("_") for part in set(match.split("/")) - set(pattern.split("/")))


def local_path(uri: str) -> Path:
    """Converts a path or a `file:` URI to an absolute path."""
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri).absolute()

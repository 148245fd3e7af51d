"""Documents and tables on this machine's disks: paths and `file:` URIs."""

from __future__ import annotations

import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlparse

from spark_jobs.dataset import beside
from spark_jobs.errors import InputError


class LocalFiles:
    """A `Files`; see `spark_jobs.storage`."""

    def read(self, uri: str) -> bytes:
        return _path(uri).read_bytes()

    def open(self, uri: str, length: int = 0) -> IO[bytes]:  # noqa: ARG002 - a disk gives what is read
        return _path(uri).open("rb")

    def write(self, uri: str, content: bytes) -> None:
        path = _path(uri)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def check(self, uri: str) -> None:
        _path(uri).mkdir(parents=True, exist_ok=True)

    def remove(self, uri: str) -> None:
        path = _path(uri)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        path = _path(uri)
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
        names = glob.glob(str(path), recursive=True)  # noqa: PTH207 - of any root
        matches = sorted(match for match in names if Path(match).is_file() and not _is_hidden(match, str(path)))
        if not matches:
            raise InputError(f"{uri}: no such file{beside(path)}")
        return matches

    def spark_uri(self, uri: str) -> str:
        return "file:" + str(_path(uri))


def _special(path: Path) -> str:
    """What a path is that is neither a file nor a directory; empty if it is one of these or not there."""
    kinds = {stat.S_ISFIFO: "a FIFO", stat.S_ISSOCK: "a socket", stat.S_ISCHR: "a device", stat.S_ISBLK: "a device"}
    mode = path.stat().st_mode if path.exists() else 0
    return next((kind for test, kind in kinds.items() if test(mode)), "")


def _is_hidden(match: str, pattern: str) -> bool:
    """Whether a part begins with an underscore, as what Spark writes beside its data does, and the pattern does not ask for it."""
    asked = {part[0] for part in pattern.split("/") if part}
    return "_" not in asked and any(part.startswith("_") for part in set(match.split("/")) - set(pattern.split("/")))


def _path(uri: str) -> Path:
    return Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri).absolute()

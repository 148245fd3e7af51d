"""Where a registry or a finished run lies: a directory, or a folder of an object store, with the same few operations.

A pointer moves by compare-and-swap: `swap` replaces a document only if it is still the one that was read. In a directory a lock guards
the comparison and the rename; in an object store the store itself compares (`If-Match`).
"""

from __future__ import annotations

import fcntl
import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from spark_jobs import object_store
from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path, remove_path, write_whole
from spark_jobs.object_names import bucket_and_key, is_hidden, is_object_store_uri, scheme_of
from spark_jobs.object_store import ObjectStore

MODEL_LOCK = ".lock"
MOST_TRIES = 20
"""A file that others replace more often than this meanwhile is given up."""


class Source(Protocol):
    """A folder of files to read, such as an archive; names are relative to it, with slashes."""

    uri: str

    def read(self, name: str, most: int | None = None) -> bytes:
        """Reads a file.

        Raises:
            FileNotFoundError: it does not exist.
            InputError: it has more than `most` bytes; an object store may send it nevertheless.
        """

    def names(self, below: str = "") -> list[str]:
        """Lists the files below a folder, sorted, but none that Spark passes over: names that begin with `.` or `_`.

        Raises:
            FileNotFoundError: the place itself is a directory that does not exist; a folder in it that does not exist has no files.
        """


class Place(Source, Protocol):
    """A folder of files to read and write."""

    def write(self, name: str, content: bytes) -> None:
        """Writes a file completely or not at all."""

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        """Reads a file and the tag that changes with its content; both are empty if it does not exist."""

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        """Writes a file if it still has this tag (empty: if it does not exist); returns whether it did."""

    def times(self, below: str) -> dict[str, float]:
        """Returns when each file below a folder was written, in seconds since 1970; hidden files and empty folders count, too."""

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it, if it exists."""


def place_of(uri: str) -> Place:
    """Returns the place at a URI or path.

    Raises:
        InputError: the scheme is unknown, or the URI names no bucket.
    """
    if is_object_store_uri(uri):
        bucket_and_key(uri)
        return StorePlace(uri, object_store.from_environment())
    scheme_of(uri)
    return DirectoryPlace(local_path(uri))


def check_size(where: str, size: int, most: int | None) -> None:
    """Raises InputError if a file has more bytes than were announced."""
    if most is not None and size > most:
        raise InputError(f"{where} has {size:,} bytes and not {most:,}; take another copy")


def attempts(place: Place, name: str) -> Iterator[tuple[bytes, str]]:
    """Yields the content and the tag of a file again and again, to a caller that replaces it until its own content is there.

    Raises:
        InputError: others replace it all the time.
    """
    for _ in range(MOST_TRIES):
        yield place.read_tagged(name)
    raise InputError(f"{place.uri}/{name} was replaced by others {MOST_TRIES} times meanwhile; run again")


class DirectoryPlace:
    """A directory of this machine; implements `Place`."""

    def __init__(self, root: Path) -> None:
        self.root, self.uri = root, str(root)

    def read(self, name: str, most: int | None = None) -> bytes:
        with (self.root / name).open("rb") as file:
            check_size(f"{self.uri}/{name}", os.fstat(file.fileno()).st_size, most)
            return file.read()

    def write(self, name: str, content: bytes) -> None:
        path = self.root / name
        write_whole(path, content)
        _sync_folder(path.parent)

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        try:
            content = self.read(name)
        except FileNotFoundError:
            return b"", ""
        return content, hashlib.sha256(content).hexdigest()

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        with self._locked(name):
            if self.read_tagged(name)[1] != tag:
                return False
            self.write(name, content)
            return True

    def names(self, below: str = "") -> list[str]:
        def refuse(error: OSError) -> None:
            if error.filename == str(self.root) or not isinstance(error, FileNotFoundError | NotADirectoryError):
                raise error

        found = []
        for folder, folders, files in os.walk(self.root / below, onerror=refuse):
            folders[:] = [name for name in folders if not is_hidden(name)]
            found += [Path(folder, name) for name in files if not is_hidden(name)]
        return sorted(path.relative_to(self.root).as_posix() for path in found if path.is_file())

    def times(self, below: str) -> dict[str, float]:
        paths = list((self.root / below).rglob("*"))
        counted = set(paths) - {path.parent for path in paths}
        return {path.relative_to(self.root).as_posix(): _written_at(path) for path in counted}

    def remove(self, name: str) -> None:
        remove_path(self.root / name)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Holds the lock of a model; the kernel releases it when the process ends, even if it is killed."""
        folder = self.root / name.split("/", maxsplit=1)[0]
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / MODEL_LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def _written_at(path: Path) -> float:
    """Returns the time of a file's inode, as a copy may keep that of the content; infinite if the file is gone meanwhile."""
    try:
        return path.lstat().st_ctime
    except FileNotFoundError:
        return math.inf


def _sync_folder(folder: Path) -> None:
    """Makes a rename outlast a loss of power: the name is written to the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class StorePlace:
    """A folder of an object store; implements `Place`."""

    def __init__(self, uri: str, store: ObjectStore) -> None:
        self.uri, self._store, self._checked = uri.rstrip("/"), store, False

    def read(self, name: str, most: int | None = None) -> bytes:  # noqa: ARG002 - one request, which can be repeated
        return self._store.read(self._of(name))

    def write(self, name: str, content: bytes) -> None:
        self._store.write(self._of(name), content)

    def read_tagged(self, name: str) -> tuple[bytes, str]:
        return self._store.read_tagged(self._of(name))

    def swap(self, name: str, content: bytes, tag: str) -> bool:
        self._check_that_it_compares(name)
        return self._store.write_if_unchanged(self._of(name), content, tag)

    def names(self, below: str = "") -> list[str]:
        folder = self._of(below) if below else self.uri
        start = f"{bucket_and_key(folder)[1].rstrip('/')}/".lstrip("/")
        listed = [item[0] for item in self._store.list_objects(f"{folder.rstrip('/')}/")]
        inner = [name.removeprefix(start) for name in listed if not name.endswith("/")]
        prefix = f"{below}/" if below else ""
        return sorted(f"{prefix}{name}" for name in inner if not is_hidden(name))

    def times(self, below: str) -> dict[str, float]:
        start = bucket_and_key(f"{self.uri}/")[1]
        return {name.removeprefix(start): time for name, time in self._store.times(self._of(below)).items()}

    def remove(self, name: str) -> None:
        self._store.remove(self._of(name))

    def _of(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def _check_that_it_compares(self, name: str) -> None:
        """Checks once that the store compares before it writes: one that ignored the condition would let two promotions win.

        Raises:
            InputError: it does not.
        """
        if self._checked:
            return
        probe = self._of(f"{name.split('/', maxsplit=1)[0]}/.conditional-write")
        self._store.write(probe, b"")
        if self._store.write_if_unchanged(probe, b"ignored", ""):
            raise InputError(
                f"{self.uri}: this object store ignores the condition of a write (If-None-Match), so two promotions could both win; "
                "keep the registry in another store or in a directory"
            )
        self._checked = True

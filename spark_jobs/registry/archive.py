"""Copies versions between registries, and to and from an archive: a tar file of the same layout, whose checksums lie in version.json."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path
from spark_jobs.object_names import is_object_store_uri
from spark_jobs.registry import versions
from spark_jobs.registry.places import Place, Source, check_size, place_of
from spark_jobs.registry.version_document import VERSION_NAME, to_json
from spark_jobs.registry.versions import Candidate, folder_of

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")
OTHER_SUFFIXES = (".zip", ".gz", ".bz2", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".7z", ".rar")
"""Of archives that an export does not write; a folder may have any other name."""
MOST_FILES = 100_000
"""An archive with more is none of ours: a megabyte of gzip could name millions."""
MOST_HEADER_BYTES = 1 << 20
CLOCKS_DIFFER = timedelta(days=1)
"""The clock of the machine that made a version may be so much ahead."""


def is_archive(target: str) -> bool:
    """Returns whether a path names an archive; every other path or URI is a registry.

    Raises:
        InputError: it names an archive of another kind.
    """
    name = target.lower()
    if name.endswith(OTHER_SUFFIXES) and not name.endswith(ARCHIVE_SUFFIXES):
        raise InputError(
            f"{target}: an archive is {', '.join(ARCHIVE_SUFFIXES)}; give such a name, or that of a registry"
        )
    return name.endswith(ARCHIVE_SUFFIXES)


def copy(source: Source, document: Mapping[str, Any], target: Place, *, new_name: str = "") -> dict[str, Any]:
    """Copies a version into another registry and checks its files on the way; returns its document there.

    Raises:
        InputError: a file is missing or was changed.
    """
    files = {item["path"]: versions.read_file(source, document, item["path"]) for item in document["files"]}
    return versions.write(target, Candidate({**document, "name": new_name or document["name"]}, files))


def export(registry: Place, name: str, chosen: Sequence[str], target: str) -> list[dict[str, Any]]:
    """Copies versions into an archive, or into the registry at another path or URI; returns their documents.

    Raises:
        InputError: a version is not there or damaged.
        OSError: the archive cannot be written.
    """
    if not is_archive(target):
        return [copy(registry, versions.read(registry, name, version), place_of(target)) for version in chosen]
    if is_object_store_uri(target):
        raise InputError(
            f"{target}: an archive is written to a file of this machine; give a path, or a URI without .tar"
        )
    path = local_path(target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                documents = _write_archive(file, registry, name, chosen, packed=target.lower().endswith("gz"))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        error.filename = error.filename or target  # that of a full disk names no file
        raise
    return documents


def _write_archive(
    file: Any, registry: Place, name: str, chosen: Sequence[str], *, packed: bool
) -> list[dict[str, Any]]:
    documents = []
    with tarfile.open(fileobj=file, mode="w:gz" if packed else "w") as archive:
        for version in chosen:
            document = versions.read(registry, name, version)
            files = {item["path"]: versions.read_file(registry, document, item["path"]) for item in document["files"]}
            for path, content in {**files, VERSION_NAME: to_json(document)}.items():
                entry = tarfile.TarInfo(f"{folder_of(name, version)}/{path}")
                entry.size, entry.mode = len(content), 0o644
                archive.addfile(entry, io.BytesIO(content))
            documents.append(document)
    return documents


def import_versions(source: str, registry: Place, *, new_name: str = "") -> list[dict[str, Any]]:
    """Copies all versions of an archive, or of the registry at another path or URI, into a registry; returns their documents.

    Args:
        source: the archive, or the registry.
        registry: where they go; a version that is there already stays as it is.
        new_name: name of the model here; empty: the one it has there.

    Raises:
        InputError: there is none, or a version is damaged.
    """
    if not is_archive(source):
        return _import_from(place_of(source), registry, new_name)
    with _opened(source) as place:
        return _import_from(place, registry, new_name)


def _import_from(source: Source, registry: Place, new_name: str) -> list[dict[str, Any]]:
    found = [(name, version) for name in versions.names(source) for version in versions.versions_of(source, name)]
    if not found:
        raise InputError(f"{source.uri} holds no version of a model")
    if new_name and len({name for name, _ in found}) > 1:
        raise InputError(f"{source.uri} holds several models, which cannot all be named {new_name!r}")
    for name in {new_name or name for name, _ in found}:
        versions.check_name(name)
    documents = [versions.read(source, name, version) for name, version in found]
    for document in documents:
        _check_time(document, source.uri)
    return [copy(source, document, registry, new_name=new_name) for document in documents]


def _check_time(document: Mapping[str, Any], where: str) -> None:
    """Refuses a version of the future, which would be `latest` for ever."""
    if datetime.fromisoformat(document["created"]) > datetime.now(UTC) + CLOCKS_DIFFER:
        raise InputError(
            f"{where}: version {document['version']} of {document['name']!r} was made at {document['created']}, which is to come; "
            "if the clock of this machine is right, the version cannot be imported"
        )


@contextmanager
def _opened(source: str) -> Iterator[Source]:
    with _told(source):
        packed = source.lower().endswith("gz")
        archive = tarfile.open(local_path(source), "r:gz" if packed else "r:", tarinfo=_Member)  # noqa: SIM115
    with archive:
        with _told(source):
            place = _ArchiveSource(archive, source)
        yield place


@contextmanager
def _told(source: str) -> Iterator[None]:
    """Turns what the reading of an archive may raise into an InputError."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file") from error
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{source} is no archive that `spark-kfp models export` made: {reason}") from error


class _Member(tarfile.TarInfo):
    """An entry of an archive; tarfile reads those that are not files, such as long names, as a whole."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size > MOST_HEADER_BYTES and not member.isreg():
            raise tarfile.ReadError(f"it has a header of {member.size:,} bytes")
        return member


class _ArchiveSource:
    """The regular files of an archive; implements `Source`. Nothing is unpacked but what is read."""

    def __init__(self, archive: tarfile.TarFile, uri: str) -> None:
        self.uri, self._archive, self._members = uri, archive, dict[str, tarfile.TarInfo]()
        for member in archive:
            if len(self._members) == MOST_FILES:
                raise tarfile.TarError(f"it holds more than {MOST_FILES:,} files")
            if member.isreg() and not member.issparse():  # a kilobyte could be a sparse file of a terabyte
                self._members[member.name.removeprefix("./")] = member

    def read(self, name: str, most: int | None = None) -> bytes:
        if name not in self._members:
            raise FileNotFoundError(name)
        member = self._members[name]
        check_size(f"{self.uri}/{name}", member.size, most)
        with _told(self.uri):
            file = self._archive.extractfile(member)
            return file.read() if file else b""

    def names(self, below: str = "") -> list[str]:
        folder = f"{below}/" if below else ""
        return sorted(name for name in self._members if name.startswith(folder))

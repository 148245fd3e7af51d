"""Copies versions between registries, and to and from an archive: a tar file of the same layout, whose checksums lie in version.json."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path
from spark_jobs.object_names import is_object_store_uri
from spark_jobs.registry import versions
from spark_jobs.registry.places import DirectoryPlace, Place, place_of
from spark_jobs.registry.versions import VERSION_NAME, Candidate, folder_of

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def is_archive(target: str) -> bool:
    """Returns whether a path names an archive; every other path or URI is a registry."""
    return target.endswith(ARCHIVE_SUFFIXES)


def copy(source: Place, name: str, version: str, target: Place, *, new_name: str = "") -> dict[str, Any]:
    """Copies a version into another registry and checks its files on the way; returns its document there.

    Raises:
        InputError: there is no such version, or a file is missing or was changed.
    """
    versions.check_name(new_name or name)
    document, folder = versions.read(source, name, version), folder_of(name, version)
    files = {}
    for item in document["files"]:
        content = _read(source, f"{folder}/{item['path']}")
        if (len(content), hashlib.sha256(content).hexdigest()) != (item["size"], item["sha256"]):
            raise InputError(
                f"{source.uri}/{folder}/{item['path']} was changed: its SHA-256 is another one; take another copy"
            )
        files[item["path"]] = content
    return versions.write(target, Candidate({**document, "name": new_name or name}, files))


def _read(place: Place, name: str) -> bytes:
    try:
        return place.read(name)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{place.uri}/{name} is missing; take another copy") from error


def export(registry: Place, name: str, chosen: Sequence[str], target: str) -> list[dict[str, Any]]:
    """Copies versions into an archive, or into the registry at another path or URI; returns their documents.

    Raises:
        InputError: a version is not there or damaged, or the archive cannot be written.
    """
    if not is_archive(target):
        return [copy(registry, name, version, place_of(target)) for version in chosen]
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
                documents = _write_archive(file, registry, name, chosen, packed=path.name.endswith("gz"))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{target}: {error.strerror or error}") from error
    return documents


def _write_archive(
    file: Any, registry: Place, name: str, chosen: Sequence[str], *, packed: bool
) -> list[dict[str, Any]]:
    documents = []
    with tarfile.open(fileobj=file, mode="w:gz" if packed else "w") as archive:
        for version in chosen:
            document, folder = versions.verify(registry, name, version), folder_of(name, version)
            for path in [*(item["path"] for item in document["files"]), VERSION_NAME]:
                content = _read(registry, f"{folder}/{path}")
                entry = tarfile.TarInfo(f"{folder}/{path}")
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
    with tempfile.TemporaryDirectory(prefix="spark-kfp-import-") as folder:
        try:
            with tarfile.open(local_path(source)) as archive:
                archive.extractall(folder, filter="data")
        except FileNotFoundError as error:
            raise InputError(f"{source}: no such file") from error
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(f"{source} is no archive that `spark-kfp models export` made: {error}") from error
        return _import_from(DirectoryPlace(Path(folder)), registry, new_name, shown=source)


def _import_from(source: Place, registry: Place, new_name: str, *, shown: str = "") -> list[dict[str, Any]]:
    found = [(name, version) for name in versions.names(source) for version in versions.versions_of(source, name)]
    if not found:
        raise InputError(f"{shown or source.uri} holds no version of a model")
    if new_name and len({name for name, _ in found}) > 1:
        raise InputError(f"{shown or source.uri} holds several models, which cannot all be named {new_name!r}")
    return [copy(source, name, version, registry, new_name=new_name) for name, version in found]

"""Access to the object store from a task: result documents, logs and object listings, but never a table.

The S3 client is `spark_jobs.object_store`, which steps and tasks share. This module adds what a task needs: paths on this machine beside
URIs, and a `TemporaryError` if the store is unavailable, so that the task may be retried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlparse

from kfp_pipeline.runtime.errors import TemporaryError
from spark_jobs.errors import UnavailableError
from spark_jobs.object_names import ListedObject, at_or_below, bucket_and_key, is_object_store_uri
from spark_jobs.object_store import ObjectStore, from_environment
from spark_jobs.result import Failure

__all__ = [
    "Documents",
    "at_or_below",
    "bucket_and_key",
    "bucket_exists",
    "is_object_store_uri",
    "list_objects",
    "make_bucket",
    "read_text",
    "remove",
    "upload",
    "write_bytes",
]


class Documents(Protocol):
    """Reads and writes the small documents of a run; this module is one, a test puts another in its place."""

    def read_text(self, uri: str) -> str | None:
        """See `read_text` of this module."""

    def write_bytes(self, uri: str, content: bytes, *, brief: bool = False) -> None:
        """See `write_bytes` of this module."""


@contextmanager
def _store(*, brief: bool = False) -> Iterator[ObjectStore]:
    """Opens the object store that the environment names.

    Raises:
        TemporaryError: the store is unavailable.
    """
    try:
        yield from_environment(brief=brief)
    except UnavailableError as error:
        raise TemporaryError(Failure(kind="fault", type="ObjectStoreAway", message=str(error))) from error


def read_text(uri: str) -> str | None:
    """Reads a small document from a URI or from a path of this machine; returns None if it does not exist."""
    try:
        if not is_object_store_uri(uri):
            path = Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri)
            return path.read_text(encoding="utf-8")
        with _store() as store:
            return store.read(uri).decode("utf-8")
    except FileNotFoundError:
        return None


def write_bytes(uri: str, content: bytes, *, brief: bool = False) -> None:
    """Writes a small document into the object store.

    Args:
        uri: where to write.
        content: the document.
        brief: wait only seconds for a store that is unavailable, for a document that the run can do without.
    """
    with _store(brief=brief) as store:
        store.write(uri, content)


def remove(uri: str, *, brief: bool = False) -> None:
    """Removes a document from the object store if it exists; for `brief` see `write_bytes`."""
    with _store(brief=brief) as store:
        store.remove(uri)


def upload(path: Path, uri: str, on_progress: Callable[[int], None] = lambda _: None) -> str:
    """Uploads a file to the object store and returns its SHA-256; see `ObjectStore.upload`."""
    with _store() as store:
        return store.upload(path, uri, on_progress)


def list_objects(uri: str, *, whole_names: bool = True) -> list[ListedObject]:
    """Lists the objects at or below a URI, sorted by name; see `ObjectStore.list_objects`."""
    with _store() as store:
        return store.list_objects(uri, whole_names=whole_names)


def make_bucket(bucket: str) -> bool:
    """Creates a bucket; returns False if it exists already."""
    with _store() as store:
        return store.make_bucket(bucket)


def bucket_exists(bucket: str) -> bool:
    """Whether a bucket exists. It does not wait for a store that is unavailable, so it also checks the connection and the keys."""
    with _store() as store:
        return store.bucket_exists(f"s3://{bucket}", patience_seconds=0.0)

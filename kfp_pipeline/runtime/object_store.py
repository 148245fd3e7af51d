"""Small documents of a run, where the steps left them: on this disk or in the object store.

The task side's way to the one door, `spark_jobs.object_store`; it never reads a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlparse

from kfp_pipeline.runtime.errors import TemporaryError
from spark_jobs.errors import UnavailableError
from spark_jobs.object_names import Listed, at_or_below, bucket_and_key, is_stored
from spark_jobs.object_store import ObjectStore, from_environment
from spark_jobs.result import Failure

__all__ = [
    "at_or_below",
    "bucket_and_key",
    "bucket_exists",
    "is_stored",
    "list_objects",
    "make_bucket",
    "read_text",
    "remove",
    "upload",
    "write_bytes",
]


@contextmanager
def _store(*, brief: bool = False) -> Iterator[ObjectStore]:
    """The store that the environment names; its being away is an error that may pass, as a task knows it."""
    try:
        yield from_environment(brief=brief)
    except UnavailableError as error:
        raise TemporaryError(Failure(kind="fault", type="ObjectStoreAway", message=str(error))) from error


def read_text(uri: str) -> str | None:
    """A small document, or None if it is not there."""
    try:
        if not is_stored(uri):
            path = Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri)
            return path.read_text(encoding="utf-8")
        with _store() as store:
            return store.read(uri).decode("utf-8")
    except FileNotFoundError:
        return None


def write_bytes(uri: str, content: bytes, *, brief: bool = False) -> None:
    """Writes a small document into the object store; one that is an extra, `brief`, waits seconds only for a store that is away."""
    with _store(brief=brief) as store:
        store.write(uri, content)


def remove(uri: str, *, brief: bool = False) -> None:
    """Removes a small document from the object store, if it is there; see `write_bytes`."""
    with _store(brief=brief) as store:
        store.remove(uri)


def upload(path: Path, uri: str, on_progress: Callable[[int], None] = lambda _: None) -> str:
    """Puts a file into the object store and returns its SHA-256; see `ObjectStore.upload`."""
    with _store() as store:
        return store.upload(path, uri, on_progress)


def list_objects(uri: str, *, whole_names: bool = True) -> list[Listed]:
    """What lies at or below a URI, by name; see `ObjectStore.list_objects`."""
    with _store() as store:
        return store.list_objects(uri, whole_names=whole_names)


def make_bucket(bucket: str) -> bool:
    """Makes a bucket; False if it was there."""
    with _store() as store:
        return store.make_bucket(bucket)


def bucket_exists(bucket: str) -> bool:
    """Whether a bucket is there; also whether the store answers, at once, and knows the keys."""
    with _store() as store:
        return store.bucket_exists(f"s3://{bucket}", patience_seconds=0.0)

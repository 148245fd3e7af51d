"""Small documents of a run, where the steps left them: on this disk or in the object store.

The task side's own door; it never reads a table. The environment says where the store is, by the names that every S3 client knows:
AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION.
"""

from __future__ import annotations

import functools
import hashlib
import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote, urlparse

from kfp_pipeline.runtime.errors import TemporaryError
from kfp_pipeline.settings import ObjectStoreSettings
from spark_jobs.contract import OBJECT_STORE_SCHEMES, Failure, InputError

if TYPE_CHECKING:
    from minio import Minio

Answer = TypeVar("Answer")
PATIENCE_SECONDS = 60.0


def is_stored(uri: str) -> bool:
    """Whether a URI points into an object store."""
    return urlparse(uri).scheme in OBJECT_STORE_SCHEMES


def read_text(uri: str) -> str | None:
    """A small document, or None if it is not there."""
    try:
        if not is_stored(uri):
            path = Path(unquote(urlparse(uri).path)) if uri.startswith("file:") else Path(uri)
            return path.read_text(encoding="utf-8")
        answer = _ask(lambda store: store.get_object(*bucket_and_key(uri)).data)
    except FileNotFoundError:
        return None
    return bytes(answer).decode("utf-8")


def write_bytes(uri: str, content: bytes) -> None:
    """Writes a small document into the object store."""
    bucket, key = bucket_and_key(uri)
    _ask(lambda store: store.put_object(bucket, key, io.BytesIO(content), len(content)))


def remove(uri: str) -> None:
    """Removes a small document from the object store, if it is there."""
    bucket, key = bucket_and_key(uri)
    _ask(lambda store: store.remove_object(bucket, key))


def upload(path: Path, uri: str, on_progress: Callable[[int], None] = lambda _: None) -> str:
    """Puts a file into the object store and makes sure that it arrived as it is.

    Args:
        path: the file.
        uri: where it goes.
        on_progress: called with the number of bytes sent since the last call.

    Returns:
        The file's SHA-256, which is kept with the object as `x-amz-meta-sha256`.
    """
    bucket, key = bucket_and_key(uri)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    size = path.stat().st_size

    def put(store: Minio) -> None:
        with path.open("rb") as file:
            # One part of up to 5 GiB is checked as a whole by the store: the signature covers its SHA-256 or MD5.
            store.put_object(
                bucket, key, cast(BinaryIO, _Counted(file, on_progress)), size, metadata={"sha256": digest}
            )

    _ask(put)
    kept = _ask(lambda store: store.stat_object(bucket, key))
    if kept.size != size:
        raise InputError(f"{uri}: {kept.size} bytes arrived of {size}; {path} changed meanwhile? Upload it again")
    return digest


Listed = tuple[str, int, str, str]
"""An object's name, bytes, ETag and version."""


def list_objects(uri: str, *, whole_names: bool = True) -> list[Listed]:
    """What lies at or below a URI, by name.

    Args:
        uri: of an object or a folder.
        whole_names: whether its last word is a whole name; else names that begin with it count too.
    """
    bucket, prefix = bucket_and_key(uri)
    listed = _ask(lambda store: list(store.list_objects(bucket, prefix, recursive=True)))
    found = [(item.object_name, item.size or 0, item.etag or "", item.version_id or "") for item in listed]
    return at_or_below(found, prefix, whole_names=whole_names)


def at_or_below(listed: Sequence[Listed], prefix: str, *, whole_names: bool) -> list[Listed]:
    """Those of the objects that have a name or lie in its folder; without `whole_names` all whose name begins with it."""
    folder = prefix.rstrip("/") + "/"
    found = [item for item in listed if item[0].startswith(prefix)]
    return sorted(item for item in found if not whole_names or item[0] == prefix or item[0].startswith(folder))


def make_bucket(bucket: str) -> bool:
    """Makes a bucket; False if it was there."""
    if _ask(lambda store: store.bucket_exists(bucket)):
        return False
    _ask(lambda store: store.make_bucket(bucket))
    return True


def bucket_exists(bucket: str) -> bool:
    """Whether a bucket is there; also whether the store answers and knows the key."""
    return bool(_ask(lambda store: store.bucket_exists(bucket), patience_seconds=0.0))


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The bucket and the name in it.

    Raises:
        InputError: it names no bucket, or a part of it is `..`.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or ".." in key.split("/"):
        raise InputError(f"{uri}: not a URI like s3://BUCKET/NAME")
    return bucket, key


class _Counted(io.RawIOBase):
    """A file that tells how much of it was read."""

    def __init__(self, file: Any, on_read: Callable[[int], None]) -> None:
        self._file, self._on_read = file, on_read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        self._on_read(len(content))
        return content


@functools.cache
def _settings() -> ObjectStoreSettings:
    try:
        return ObjectStoreSettings.from_environment()
    except ValueError as error:
        raise InputError(str(error)) from error


@functools.cache
def _client() -> Minio:
    import urllib3  # noqa: PLC0415 - a run on one machine needs none of it
    from minio import Minio  # noqa: PLC0415

    settings = _settings()
    return Minio(
        urlparse(settings.endpoint_url).netloc,
        access_key=settings.access_key_id,
        secret_key=settings.secret_access_key,
        secure=settings.endpoint_url.startswith("https:"),
        region=settings.region,
        http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=30), retries=False),
    )


def _ask(request: Callable[[Minio], Answer], patience_seconds: float = PATIENCE_SECONDS) -> Answer:
    from minio.error import MinioException, S3Error  # noqa: PLC0415
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    give_up, pause = time.monotonic() + patience_seconds, 0.5
    while True:
        try:
            return request(_client())
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise FileNotFoundError(error.resource) from error
            if error.response.status < 500:
                where = _settings().endpoint_url
                raise InputError(f"the object store at {where} refuses: {error.code}: {error.message}") from error
            reason: Exception = error
        except (HTTPError, MinioException) as error:
            reason = error
        if time.monotonic() + pause > give_up:
            text = str(reason).split("\n")[0][:200]
            message = f"the object store at {_settings().endpoint_url} does not answer: {text}"
            raise TemporaryError(Failure(kind="fault", type="ObjectStoreAway", message=message)) from reason
        time.sleep(pause)
        pause = min(2 * pause, 5.0)

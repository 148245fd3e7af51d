"""The one door to an object store that speaks S3, such as MinIO: `s3://`, `s3a://` and `minio://` URIs.

Steps and tasks both go through it, so that they have the same patience and say the same words. Small documents go through MinIO's client,
tables and models through Spark's S3A, which `object_store_settings` sets up to find the same store and the same keys.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlparse

from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.object_names import Listed, at_or_below, bucket_and_key, start_of, tables_at
from spark_jobs.object_store_settings import CredentialsAwayError, ObjectStoreSettings

if TYPE_CHECKING:
    from minio import Minio
    from minio.error import S3Error

FIRST_CONTACT_SECONDS = 60.0
"""How long the first request may take to succeed: as long as the store's pod takes to start again, when a task begins meanwhile."""
TELL_SECONDS = 4.0
"""After so long whoever waits is told what for: it may be a wrong endpoint."""
PATIENCE_SECONDS = 120.0
"""How long a store that has answered before may be away."""
BRIEF_SECONDS = 3.0
"""How long what is an extra, such as a log that is kept, waits for the store: the verdict must not come late for it."""
REFUSED = {
    "ExpiredToken": "the temporary keys have expired; get new ones, and set AWS_SESSION_TOKEN with them",
    "InvalidToken": "it does not know the session token; check AWS_SESSION_TOKEN, which belongs to one pair of keys",
    "InvalidAccessKeyId": "it does not know the access key; check the secret behind AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the secret key is wrong; check the secret behind AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "a wrong key, or one without rights; check the secret behind AWS_ACCESS_KEY_ID",
    "RequestTimeTooSkewed": "the clock of this machine is wrong",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_REGION to it",
    "PermanentRedirect": "the bucket is in another region, or at another AWS_ENDPOINT_URL",
    "NoSuchBucket": "there is no such bucket; make it first: spark-kfp data make-bucket NAME",
    "InvalidBucketName": "that is no name of a bucket",
}
"""What to do about what a store says: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
REFUSED["InvalidTokenId"] = REFUSED["InvalidToken"]  # MinIO's name: cmd/api-errors.go
PASSING = ("SlowDown", "RequestTimeout", "OperationAborted", "TooManyRequests")
"""What a store says below 500 and takes back by itself."""
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


@functools.cache
def from_environment(*, brief: bool = False) -> ObjectStore:
    """The store that the environment names.

    Args:
        brief: whether it is for an extra; see `BRIEF_SECONDS`.

    Raises:
        InputError: it does not say where the store is, or who asks.
    """
    return ObjectStore(ObjectStoreSettings.from_environment(), brief=brief)


class ObjectStore:
    """A `Files`, see `spark_jobs.storage`, and what tasks and commands need besides."""

    def __init__(self, settings: ObjectStoreSettings, *, brief: bool = False) -> None:
        import urllib3  # noqa: PLC0415 - a run on one machine needs none of it
        from minio import Minio  # noqa: PLC0415

        self.settings = settings
        self._brief, self._answered = brief, False
        timeout = urllib3.Timeout(connect=3, read=BRIEF_SECONDS if brief else 30)
        address = urlparse(settings.endpoint_url or "https://s3.amazonaws.com")
        self._client = Minio(
            address.netloc,
            credentials=settings.provider(),
            secure=address.scheme == "https",
            region=settings.region,
            http_client=urllib3.PoolManager(timeout=timeout, retries=False),
        )

    def read(self, uri: str) -> bytes:
        def get(store: Minio) -> bytes:
            answer = store.get_object(*bucket_and_key(uri))
            try:
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()

        return self._ask(uri, get)

    def open(self, uri: str, length: int = 0) -> IO[bytes]:
        def get(store: Minio) -> IO[bytes]:
            try:
                return io.BufferedReader(_Stream(uri, store.get_object(*bucket_and_key(uri), length=length)))
            except _s3_error() as error:
                if error.code == "InvalidRange":  # S3's answer to any range of an object without bytes
                    return io.BytesIO()
                raise

        return self._ask(uri, get)

    def write(self, uri: str, content: bytes) -> None:
        bucket, key = bucket_and_key(uri)
        self._ask(uri, lambda store: store.put_object(bucket, key, io.BytesIO(content), len(content)))

    def upload(self, path: Path, uri: str, on_progress: Callable[[int], None] = lambda _: None) -> str:
        """Puts a file into the store and makes sure that it arrived as it is.

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
                content = cast(BinaryIO, _Counted(file, on_progress))
                store.put_object(bucket, key, content, size, metadata={"sha256": digest})

        self._ask(uri, put)
        kept = self._ask(uri, lambda store: store.stat_object(bucket, key))
        if kept.size != size:
            raise InputError(f"{uri}: {kept.size} bytes arrived of {size}; {path} changed meanwhile? Upload it again")
        return digest

    def check(self, uri: str) -> None:
        if not self.bucket_exists(uri):
            raise InputError(f"{uri}: {REFUSED['NoSuchBucket']}")

    def bucket_exists(self, uri: str, patience_seconds: float | None = None) -> bool:
        """Whether a URI's bucket is there; also whether the store answers and knows the keys.

        It asks for a name below the URI: that needs no more rights than to look for the bucket, and its answer says why, if it refuses.
        """
        bucket, key = bucket_and_key(uri)
        try:
            self._ask(uri, lambda store: next(store.list_objects(bucket, key or None), None), patience_seconds)
        except NoSuchBucketError:
            return False
        return True

    def make_bucket(self, bucket: str) -> bool:
        """Makes a bucket; False if it was there."""
        if self.bucket_exists(f"s3://{bucket}"):
            return False
        self._ask(f"s3://{bucket}", lambda store: store.make_bucket(bucket))
        return True

    def remove(self, uri: str) -> None:
        from minio.deleteobjects import DeleteObject  # noqa: PLC0415

        bucket, key = bucket_and_key(uri)
        base = key.rstrip("/")
        if not base:  # never a whole bucket
            return
        doomed = [DeleteObject(item[0]) for item in at_or_below(self._list(uri, base), base, whole_names=True)]
        if doomed:
            errors = self._ask(uri, lambda store: list(store.remove_objects(bucket, doomed)))
            if errors:
                raise UnavailableError(f"{uri}: {len(errors)} objects could not be removed: {errors[0].message}")

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        bucket, key = bucket_and_key(uri)
        found = tables_at([item[0] for item in self._list(uri, start_of(key))], key, suffixes)
        if found is None:
            raise InputError(f"{uri}: no such object in bucket {bucket!r}")
        return [f"{urlparse(uri).scheme}://{bucket}/{name}" for name in found]

    def list_objects(self, uri: str, *, whole_names: bool = True) -> list[Listed]:
        """What lies at or below a URI, by name.

        Args:
            uri: of an object or a folder.
            whole_names: whether its last word is a whole name; else names that begin with it count too.
        """
        key = bucket_and_key(uri)[1]
        return at_or_below(self._list(uri, key), key, whole_names=whole_names)

    def spark_uri(self, uri: str) -> str:
        return "s3a://" + "/".join(bucket_and_key(uri))

    def _list(self, uri: str, start: str) -> list[Listed]:
        bucket, _ = bucket_and_key(uri)
        listed = self._ask(uri, lambda store: list(store.list_objects(bucket, start, recursive=True)))
        return [(str(item.object_name), item.size or 0, item.etag or "", item.version_id or "") for item in listed]

    def _ask(self, uri: str, request: Callable[[Minio], Answer], patience_seconds: float | None = None) -> Answer:
        """Repeats a request while the store, or who gives the keys, is away; what it refuses is told at once."""
        from minio.error import MinioException, S3Error  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if patience_seconds is None:
            patience_seconds = self._patience_seconds()
        began, pause, told = time.monotonic(), 0.5, False
        while True:
            try:
                answer = request(self._client)
                self._answered = True
                return answer
            except S3Error as error:
                self._refuse(uri, error)
                reason: Exception = error
            except (HTTPError, MinioException, CredentialsAwayError, OSError) as error:
                reason = error
            except InputError:  # who should give the keys does not
                raise
            except ValueError as error:  # MinIO's client looks at names before it asks
                raise InputError(f"{uri}: {error}") from error
            waited = time.monotonic() - began
            if waited + pause > patience_seconds:
                raise UnavailableError(f"{uri}: {self._away(reason)}") from reason
            if waited > TELL_SECONDS and not told:
                log.warning("%s: %s; asking again for %.0f s", uri, self._away(reason), patience_seconds - waited)
                told = True
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _patience_seconds(self) -> float:
        if self._brief:
            return BRIEF_SECONDS
        return PATIENCE_SECONDS if self._answered else FIRST_CONTACT_SECONDS

    def _refuse(self, uri: str, error: S3Error) -> None:
        """Tells what a repetition cannot help."""
        code = str(error.code)
        if code == "NoSuchKey":
            raise FileNotFoundError(f"{uri}: no such object") from error
        if code == "NoSuchBucket":
            raise NoSuchBucketError(f"{uri}: {REFUSED[code]}") from error
        if error.response.status < 500 and code not in PASSING:
            advice = REFUSED.get(code, error.message)
            raise InputError(f"{uri}: the object store at {self.settings.where} refuses ({code}): {advice}") from error

    def _away(self, reason: Exception) -> str:
        if isinstance(reason, CredentialsAwayError):
            return str(reason)
        where = self.settings.where
        return (
            f"the object store at {where} does not answer ({_short(reason)}); check AWS_ENDPOINT_URL, and that it runs"
        )


class NoSuchBucketError(InputError):
    """The store has no such bucket."""


def _s3_error() -> type[S3Error]:
    from minio.error import S3Error  # noqa: PLC0415

    return S3Error


class _Stream(io.RawIOBase):
    """What is read of an object as it comes; a cut connection is the store being away."""

    def __init__(self, uri: str, answer: Any) -> None:
        self._uri, self._answer = uri, answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            content = self._answer.read(len(buffer))
        except HTTPError as error:
            raise UnavailableError(f"{self._uri}: the object store broke off ({_short(error)}); run again") from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._answer.close()
        self._answer.release_conn()
        super().close()


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


def _short(error: Exception) -> str:
    if isinstance(error, _s3_error()):
        return f"{error.code}: {error.message}"
    return str(error).split("\n")[0].rpartition(": ")[2][:200] or type(error).__name__

"""The client of an object store with the S3 API, such as SeaweedFS, MinIO or Amazon S3: `s3://`, `s3a://` and `minio://` URIs.

Steps and KFP tasks both use this client, so that they retry equally long and report the same errors. It reads and writes small documents by
the package minio. Spark reads and writes tables and models by S3A, for which `object_store_settings` derives the settings from the same
environment variables.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import math
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import urlparse

from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.object_names import (
    ListedObject,
    at_or_below,
    bucket_and_key,
    is_hidden,
    literal_prefix,
    select_tables,
)
from spark_jobs.object_store_settings import CredentialsUnavailableError, ObjectStoreSettings

if TYPE_CHECKING:
    from minio import Minio
    from minio.error import S3Error
    from urllib3 import BaseHTTPResponse

FIRST_CONTACT_SECONDS = 60.0
"""How long the first request is retried: long enough for the store's pod to restart, short enough for a wrong endpoint."""
WARN_AFTER_SECONDS = 4.0
"""After this time a warning says what the request waits for, as the endpoint may be wrong."""
PATIENCE_SECONDS = 120.0
"""How long a request is retried if the store has answered before, so that the endpoint and the keys are known to be right."""
BRIEF_SECONDS = 3.0
"""How long an optional request is retried, such as one that archives a log; it must not delay the end of a task."""
TRANSFERS = 8
"""How many files of a folder are sent or received at a time."""
REFUSAL_ADVICE = {
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
"""What the user can do about an S3 error code: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html."""
REFUSAL_ADVICE["InvalidTokenId"] = REFUSAL_ADVICE["InvalidToken"]  # MinIO's name: cmd/api-errors.go
CONDITIONAL_WRITE_EXPIRES = timedelta(minutes=5)
"""How long the signature of a conditional write is good: it is used at once."""
TRANSIENT_CODES = ("SlowDown", "RequestTimeout", "OperationAborted", "TooManyRequests", "ConditionalRequestConflict")
"""S3 error codes with an HTTP status below 500 after which a retry can succeed."""
Answer = TypeVar("Answer")
log = logging.getLogger(__name__)


@functools.cache
def from_environment(*, brief: bool = False) -> ObjectStore:
    """Returns the object store that the environment variables name.

    Args:
        brief: whether its requests are optional; see `BRIEF_SECONDS`.

    Raises:
        InputError: an environment variable is wrong, or there are no credentials.
    """
    return ObjectStore(ObjectStoreSettings.from_environment(), brief=brief)


class ObjectStore:
    """Implements the protocol `spark_jobs.storage.Files`, and adds what KFP tasks and commands need: uploads, buckets and lists."""

    def __init__(self, settings: ObjectStoreSettings, *, brief: bool = False) -> None:
        import urllib3  # noqa: PLC0415 - a run on one machine needs none of it
        from minio import Minio  # noqa: PLC0415

        self.settings = settings
        self._brief, self._answered = brief, False
        timeout = urllib3.Timeout(connect=3, read=BRIEF_SECONDS if brief else 30)
        address = urlparse(settings.endpoint_url or "https://s3.amazonaws.com")
        self._http = urllib3.PoolManager(timeout=timeout, retries=False, maxsize=TRANSFERS)
        self._client = Minio(
            address.netloc,
            credentials=settings.provider(),
            secure=address.scheme == "https",
            region=settings.region,
            http_client=self._http,
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
                if error.code == "InvalidRange":  # S3 refuses every range of an empty object
                    return io.BytesIO()
                raise

        return self._ask(uri, get)

    def write(self, uri: str, content: bytes) -> None:
        bucket, key = bucket_and_key(uri)
        self._ask(uri, lambda store: store.put_object(bucket, key, io.BytesIO(content), len(content)))

    def read_tagged(self, uri: str) -> tuple[bytes, str]:
        """Reads a small object and its ETag; both are empty if it does not exist."""

        def get(store: Minio) -> tuple[bytes, str]:
            answer = store.get_object(*bucket_and_key(uri))
            try:
                return answer.read(), answer.headers["ETag"].strip('"')
            finally:
                answer.close()
                answer.release_conn()

        try:
            return self._ask(uri, get)
        except FileNotFoundError:
            return b"", ""

    def write_if_unchanged(self, uri: str, content: bytes, etag: str) -> bool:
        """Writes a small object if it still has this ETag: compare-and-swap.

        `Minio.put_object` sends no condition, so this is a PUT of our own to a URL that the client signs:
        https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html.

        Args:
            uri: URI of the object.
            content: the new content; it should differ from every other writer's, as it is how our own write is known.
            etag: the ETag that the object must have; empty: it must not exist.

        Returns:
            Whether the object was written. If the answer to a write was lost and its repetition is refused, the content that is there
            decides.
        """
        bucket, key = bucket_and_key(uri)
        condition = {"If-Match": f'"{etag}"'} if etag else {"If-None-Match": "*"}
        attempts = 0

        def put(store: Minio) -> bool:
            nonlocal attempts
            attempts += 1
            url = store.presigned_put_object(bucket, key, expires=CONDITIONAL_WRITE_EXPIRES)
            answer = self._http.request("PUT", url, body=content, headers=condition)
            if answer.status == HTTPStatus.PRECONDITION_FAILED:
                return False
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise _error_of(answer)
            return True

        try:
            written = self._ask(uri, put)
        except FileNotFoundError:  # the object was removed, so it has this ETag no more
            return False
        return written or (attempts > 1 and self.read_tagged(uri)[0] == content)

    def upload(self, path: Path, uri: str, on_progress: Callable[[int], None] = lambda _: None) -> str:
        """Uploads a file and checks that all its bytes have arrived.

        Args:
            path: the file.
            uri: URI of the object.
            on_progress: is called with the number of bytes that were sent since its last call.

        Returns:
            The SHA-256 of the file, which is stored with the object as `x-amz-meta-sha256`.

        Raises:
            InputError: the file changed during the upload, or the store refuses it.
            UnavailableError: the store does not answer.
        """
        bucket, key = bucket_and_key(uri)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size

        def put(store: Minio) -> None:
            with path.open("rb") as file:
                # A single part of up to 5 GiB is checked as a whole by the store: the signature covers its SHA-256 or MD5.
                content = cast(BinaryIO, _ProgressReader(file, on_progress))
                store.put_object(bucket, key, content, size, metadata={"sha256": digest})

        self._ask(uri, put)
        stored = self._ask(uri, lambda store: store.stat_object(bucket, key))
        if stored.size != size:
            raise InputError(f"{uri}: {stored.size} bytes arrived of {size}; {path} changed meanwhile? Upload it again")
        return digest

    def upload_folder(self, folder: Path, uri: str, *, last: str) -> None:
        """Uploads the files of a folder, several at a time, but none that Spark passes over.

        Args:
            folder: the folder, of small files.
            uri: URI of the folder of objects.
            last: name of the subfolder that is uploaded when all else has arrived.
        """

        def put(name: str) -> None:
            self.write(f"{uri.rstrip('/')}/{name}", (folder / name).read_bytes())

        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        visible = [name for name in names if not is_hidden(name)]
        with ThreadPoolExecutor(TRANSFERS) as pool:
            for is_last in (False, True):
                list(pool.map(put, [name for name in visible if name.startswith(f"{last}/") == is_last]))

    def download_folder(self, uri: str, folder: Path) -> None:
        """Downloads the small objects below a URI, several at a time, but none that Spark passes over.

        Raises:
            FileNotFoundError: there are none.
        """

        def get(name: str) -> None:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.read(f"{uri.rstrip('/')}/{name}"))

        start = f"{bucket_and_key(uri)[1].rstrip('/')}/"
        names = [item[0].removeprefix(start) for item in self._list(uri, start) if not item[0].endswith("/")]
        visible = [name for name in names if not is_hidden(name)]
        if not visible:
            raise FileNotFoundError(f"{uri}: no such folder")
        with ThreadPoolExecutor(TRANSFERS) as pool:
            list(pool.map(get, visible))

    def check(self, uri: str) -> None:
        if not self.bucket_exists(uri):
            raise InputError(f"{uri}: {REFUSAL_ADVICE['NoSuchBucket']}")

    def bucket_exists(self, uri: str, patience_seconds: float | None = None) -> bool:
        """Returns whether the bucket of a URI exists; this also checks the connection and the keys.

        The request lists one object below the URI. That needs no more rights than HeadBucket, whose refusal would have no error code.

        Args:
            uri: any URI in the bucket.
            patience_seconds: how long to retry; None: as for other requests.

        Raises:
            InputError: the store refuses the request.
            UnavailableError: the store does not answer.
        """
        bucket, key = bucket_and_key(uri)
        try:
            self._ask(uri, lambda store: next(store.list_objects(bucket, key or None), None), patience_seconds)
        except NoSuchBucketError:
            return False
        return True

    def make_bucket(self, bucket: str) -> bool:
        """Creates a bucket; returns False if it exists already."""
        if self.bucket_exists(f"s3://{bucket}"):
            return False
        self._ask(f"s3://{bucket}", lambda store: store.make_bucket(bucket))
        return True

    def remove(self, uri: str) -> None:
        from minio.deleteobjects import DeleteObject  # noqa: PLC0415

        bucket, key = bucket_and_key(uri)
        base = key.rstrip("/")
        if not base:  # a URI of a bucket alone: never delete all its objects
            return
        objects = [DeleteObject(item[0]) for item in at_or_below(self._list(uri, base), base, whole_names=True)]
        if objects:
            errors = self._ask(uri, lambda store: list(store.remove_objects(bucket, objects)))
            if errors:
                raise UnavailableError(f"{uri}: {len(errors)} objects could not be removed: {errors[0].message}")

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        bucket, key = bucket_and_key(uri)
        found = select_tables([item[0] for item in self._list(uri, literal_prefix(key))], key, suffixes)
        if found is None:
            raise InputError(f"{uri}: no such object in bucket {bucket!r}")
        return [f"{urlparse(uri).scheme}://{bucket}/{name}" for name in found]

    def list_objects(self, uri: str, *, whole_names: bool = True) -> list[ListedObject]:
        """Lists the objects at or below a URI, sorted by name.

        Args:
            uri: URI of an object or a folder.
            whole_names: whether the URI is complete; else objects are listed too whose URIs only begin with it.
        """
        key = bucket_and_key(uri)[1]
        return at_or_below(self._list(uri, key), key, whole_names=whole_names)

    def times(self, uri: str) -> dict[str, float]:
        """Returns when each object in the folder of a URI was written, in seconds since 1970; infinite if the store does not say."""
        bucket, key = bucket_and_key(uri)
        start = f"{key.rstrip('/')}/"
        listed = self._ask(uri, lambda store: list(store.list_objects(bucket, start, recursive=True)))
        return {
            str(item.object_name): item.last_modified.timestamp() if item.last_modified else math.inf for item in listed
        }

    def version(self, uri: str) -> str:
        bucket, key = bucket_and_key(uri)
        found = self._ask(uri, lambda store: store.stat_object(bucket, key))
        return f"etag {found.etag}, {found.size} bytes, version {found.version_id or 'none'}"

    def spark_uri(self, uri: str) -> str:
        return "s3a://" + "/".join(bucket_and_key(uri))

    def _list(self, uri: str, start: str) -> list[ListedObject]:
        bucket, _ = bucket_and_key(uri)
        listed = self._ask(uri, lambda store: list(store.list_objects(bucket, start, recursive=True)))
        return [(str(item.object_name), item.size or 0, item.etag or "", item.version_id or "") for item in listed]

    def _ask(self, uri: str, request: Callable[[Minio], Answer], patience_seconds: float | None = None) -> Answer:
        """Sends a request, and retries it with growing pauses while the store or the source of the credentials is unavailable.

        Raises:
            FileNotFoundError: there is no such object.
            InputError: the store refuses the request, which a retry cannot change.
            UnavailableError: there was no answer within the time allowed.
        """
        from minio.error import MinioException, S3Error  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        if patience_seconds is None:
            patience_seconds = self._patience_seconds()
        began, pause, warned = time.monotonic(), 0.5, False
        while True:
            try:
                answer = request(self._client)
                self._answered = True
                return answer
            except S3Error as error:
                self._raise_if_refused(uri, error)
                reason: Exception = error
            except (HTTPError, MinioException, CredentialsUnavailableError, OSError) as error:
                reason = error
            except InputError:  # there are no credentials; an InputError is a ValueError, so this clause comes first
                raise
            except ValueError as error:  # the client checks bucket and object names before it sends a request
                raise InputError(f"{uri}: {error}") from error
            waited = time.monotonic() - began
            if waited + pause > patience_seconds:
                raise UnavailableError(f"{uri}: {self._unavailable(reason)}") from reason
            if waited > WARN_AFTER_SECONDS and not warned:
                log.warning(
                    "%s: %s; asking again for %.0f s", uri, self._unavailable(reason), patience_seconds - waited
                )
                warned = True
            time.sleep(pause)
            pause = min(2 * pause, 5.0)

    def _patience_seconds(self) -> float:
        if self._brief:
            return BRIEF_SECONDS
        return PATIENCE_SECONDS if self._answered else FIRST_CONTACT_SECONDS

    def _raise_if_refused(self, uri: str, error: S3Error) -> None:
        """Raises the error of ours that corresponds to an S3 error, unless a retry can help."""
        code = str(error.code)
        if code == "NoSuchKey":
            raise FileNotFoundError(f"{uri}: no such object") from error
        if code == "NoSuchBucket":
            raise NoSuchBucketError(f"{uri}: {REFUSAL_ADVICE[code]}") from error
        if error.response.status < 500 and code not in TRANSIENT_CODES:
            advice = REFUSAL_ADVICE.get(code, error.message)
            raise InputError(
                f"{uri}: the object store at {self.settings.address} refuses ({code}): {advice}"
            ) from error

    def _unavailable(self, reason: Exception) -> str:
        if isinstance(reason, CredentialsUnavailableError):
            return str(reason)
        address, why = self.settings.address, _first_line(reason)
        return f"the object store at {address} does not answer ({why}); check AWS_ENDPOINT_URL, and that it runs"


class NoSuchBucketError(InputError):
    """The object store has no such bucket."""


def _s3_error() -> type[S3Error]:
    from minio.error import S3Error  # noqa: PLC0415

    return S3Error


def _error_of(answer: BaseHTTPResponse) -> S3Error:
    """Returns the error of an answer; a proxy in between may answer with something else than the XML of S3."""
    try:
        return _s3_error().fromxml(answer)
    except (ET.ParseError, UnicodeDecodeError):
        code = f"HTTP {answer.status}"
        return _s3_error()(answer, code, answer.reason or code, None, None, None)


class _Stream(io.RawIOBase):
    """Reads an object while it arrives; a connection that breaks is an UnavailableError."""

    def __init__(self, uri: str, answer: Any) -> None:
        self._uri, self._answer = uri, answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            content = self._answer.read(len(buffer))
        except HTTPError as error:
            raise UnavailableError(
                f"{self._uri}: the object store broke off ({_first_line(error)}); run again"
            ) from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._answer.close()
        self._answer.release_conn()
        super().close()


class _ProgressReader(io.RawIOBase):
    """Reads a file and reports the number of bytes to a callback."""

    def __init__(self, file: Any, on_read: Callable[[int], None]) -> None:
        self._file, self._on_read = file, on_read

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content: bytes = self._file.read(size)
        self._on_read(len(content))
        return content


def _first_line(error: Exception) -> str:
    if isinstance(error, _s3_error()):
        return f"{error.code}: {error.message}"
    return str(error).split("\n")[0].rpartition(": ")[2][:200] or type(error).__name__

"""Documents and tables in an object store that speaks S3, such as MinIO: `s3://`, `s3a://` and `minio://` URIs.

The environment says where it is and who asks, by the names that every S3 client knows: AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID,
AWS_SECRET_ACCESS_KEY, AWS_REGION. Small documents go through MinIO's client, tables and models through Spark's S3A.
"""

from __future__ import annotations

import fnmatch
import io
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, TypeVar
from urllib.parse import urlparse

import urllib3
from minio import Minio
from minio.deleteobjects import DeleteObject
from minio.error import MinioException, S3Error

from spark_jobs.contract import InputError, UnavailableError

FIRST_CONTACT_SECONDS = 8.0
"""How long the first request may take to succeed: a wrong endpoint is told soon."""
PATIENCE_SECONDS = 120.0
"""How long a store that has answered before may be away."""
REFUSED = {
    "InvalidAccessKeyId": "the object store does not know the access key; check the secret behind AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "the object store refuses the secret key; check the secret behind AWS_SECRET_ACCESS_KEY",
    "AccessDenied": "the object store denies access: a wrong key, or one without rights; check the secret behind AWS_ACCESS_KEY_ID",
    "NoSuchBucket": "there is no such bucket; make it first: spark-kfp data make-bucket NAME",
    "InvalidBucketName": "that is no name of a bucket",
}
Answer = TypeVar("Answer")


class ObjectStore:
    """A `Files`; see `spark_jobs.storage`."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Reads the environment.

        Raises:
            InputError: it does not say where the object store is, or who asks.
        """
        environment = os.environ if environment is None else environment
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            if not environment.get(name):
                raise InputError(f"{name} is not set; an s3://, s3a:// or minio:// URI needs it")
        self.endpoint = environment["AWS_ENDPOINT_URL"]
        self.region = environment.get("AWS_REGION", "us-east-1")
        parsed = urlparse(self.endpoint)
        if parsed.scheme not in ("http", "https") or not parsed.netloc:
            raise InputError(
                f"AWS_ENDPOINT_URL is {self.endpoint!r}; it must be like http://minio-service.kubeflow:9000"
            )
        self._answered = False
        self._client = Minio(
            parsed.netloc,
            access_key=environment["AWS_ACCESS_KEY_ID"],
            secret_key=environment["AWS_SECRET_ACCESS_KEY"],
            secure=parsed.scheme == "https",
            region=self.region,
            http_client=urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=20), retries=False),
        )

    def read(self, uri: str) -> bytes:
        def get() -> bytes:
            answer = self._client.get_object(*bucket_and_key(uri))
            try:
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()

        return self._ask(uri, get)

    def open(self, uri: str) -> IO[bytes]:
        answer: Any = self._ask(uri, lambda: self._client.get_object(*bucket_and_key(uri)))
        answer.auto_close = False  # else it is closed at its last byte, and reading on is an error
        return io.BufferedReader(answer)

    def write(self, uri: str, content: bytes) -> None:
        bucket, key = bucket_and_key(uri)
        self._ask(uri, lambda: self._client.put_object(bucket, key, io.BytesIO(content), len(content)))

    def check(self, uri: str) -> None:
        bucket, _ = bucket_and_key(uri)
        if not self._ask(uri, lambda: self._client.bucket_exists(bucket)):
            raise InputError(f"{uri}: {REFUSED['NoSuchBucket']}")

    def remove(self, uri: str) -> None:
        bucket, key = bucket_and_key(uri)
        # A directory marker of S3A ends with a slash, so the prefix without one finds it too.
        names = [name for name in self._names(uri, bucket, key) if name == key or name.startswith(f"{key}/")]
        if names:
            doomed = [DeleteObject(name) for name in names]
            errors = self._ask(uri, lambda: list(self._client.remove_objects(bucket, doomed)))
            if errors:
                raise UnavailableError(f"{uri}: {len(errors)} objects could not be removed: {errors[0].message}")

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        bucket, key = bucket_and_key(uri)
        scheme = urlparse(uri).scheme
        pattern = any(sign in key for sign in "*?[")
        start = key[: min(key.find(sign) for sign in "*?[" if sign in key)] if pattern else key
        names = self._names(uri, bucket, start)
        if pattern:
            found = [name for name in names if fnmatch.fnmatchcase(name, key) and not name.endswith("/")]
        elif key in names:
            found = [key]
        else:
            below = [
                name.removeprefix(key.rstrip("/") + "/") for name in names if name.startswith(key.rstrip("/") + "/")
            ]
            visible = [name for name in below if not any(part.startswith((".", "_")) for part in name.split("/"))]
            found = [f"{key.rstrip('/')}/{name}" for name in visible if name.endswith(tuple(suffixes))]
            if below and not found:
                return []
        if not found:
            raise InputError(f"{uri}: no such object in bucket {bucket!r}")
        return sorted(f"{scheme}://{bucket}/{name}" for name in found)

    def spark_uri(self, uri: str) -> str:
        return "s3a://" + "/".join(bucket_and_key(uri))

    def s3a_settings(self) -> dict[str, str]:
        """What Spark's S3A must know; its credentials it takes from the environment.

        Source of the committer's settings: https://spark.apache.org/docs/latest/cloud-integration.html.
        """
        cloud = "org.apache.spark.internal.io.cloud"
        return {
            "spark.hadoop.fs.s3a.endpoint": self.endpoint,
            "spark.hadoop.fs.s3a.endpoint.region": self.region,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(self.endpoint.startswith("https:")).lower(),
            "spark.hadoop.fs.s3a.aws.credentials.provider": (
                "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"
            ),
            "spark.hadoop.fs.s3a.committer.name": "magic",
            "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
            "spark.sql.parquet.output.committer.class": f"{cloud}.BindingParquetOutputCommitter",
            "spark.sql.sources.commitProtocolClass": f"{cloud}.PathOutputCommitProtocol",
        }

    def _names(self, uri: str, bucket: str, start: str) -> list[str]:
        return self._ask(
            uri, lambda: [str(item.object_name) for item in self._client.list_objects(bucket, start, recursive=True)]
        )

    def _ask(self, uri: str, request: Callable[[], Answer]) -> Answer:
        """Repeats a request while the store is away."""
        give_up = time.monotonic() + (PATIENCE_SECONDS if self._answered else FIRST_CONTACT_SECONDS)
        pause = 0.5
        while True:
            try:
                answer = request()
                self._answered = True
                return answer
            except S3Error as error:
                if error.code == "NoSuchKey":
                    raise FileNotFoundError(f"{uri}: no such object") from error
                if error.code in REFUSED:
                    raise InputError(f"{uri}: {REFUSED[str(error.code)]}") from error
                reason: Exception = error
            except (urllib3.exceptions.HTTPError, MinioException, OSError) as error:
                reason = error
            if time.monotonic() + pause > give_up:
                raise UnavailableError(
                    f"{uri}: the object store at {self.endpoint} does not answer ({_short(reason)}); check AWS_ENDPOINT_URL, "
                    "and that it runs"
                ) from reason
            time.sleep(pause)
            pause = min(2 * pause, 5.0)


def bucket_and_key(uri: str) -> tuple[str, str]:
    """The bucket and the name in it.

    Raises:
        InputError: it names no bucket, or a part of it is `..`.
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    if not bucket or ".." in key.split("/"):
        raise InputError(f"{uri}: not a URI like s3://BUCKET/NAME")
    return bucket, key


def _short(error: Exception) -> str:
    return str(error).split("\n")[0].rpartition(": ")[2][:200] or type(error).__name__

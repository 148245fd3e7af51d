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


class EmptyObjectError(Exception):
    """The beginning of an object without bytes was asked for."""


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

    def open(self, uri: str, length: int = 0) -> IO[bytes]:
        try:
            answer = self._ask(uri, lambda: self._client.get_object(*bucket_and_key(uri), length=length))
        except EmptyObjectError:
            return io.BytesIO()
        return io.BufferedReader(_Stream(uri, answer))

    def write(self, uri: str, content: bytes) -> None:
        bucket, key = bucket_and_key(uri)
        self._ask(uri, lambda: self._client.put_object(bucket, key, io.BytesIO(content), len(content)))

    def check(self, uri: str) -> None:
        bucket, _ = bucket_and_key(uri)
        if not self._ask(uri, lambda: self._client.bucket_exists(bucket)):
            raise InputError(f"{uri}: {REFUSED['NoSuchBucket']}")

    def remove(self, uri: str) -> None:
        bucket, key = bucket_and_key(uri)
        base = key.rstrip("/")
        if not base:  # never a whole bucket
            return
        names = [name for name in self._names(uri, bucket, base) if name == base or name.startswith(f"{base}/")]
        if names:
            doomed = [DeleteObject(name) for name in names]
            errors = self._ask(uri, lambda: list(self._client.remove_objects(bucket, doomed)))
            if errors:
                raise UnavailableError(f"{uri}: {len(errors)} objects could not be removed: {errors[0].message}")

    def find(self, uri: str, suffixes: Sequence[str]) -> list[str]:
        bucket, key = bucket_and_key(uri)
        signs = [key.find(sign) for sign in "*?[" if sign in key]
        names = self._names(uri, bucket, key[: min(signs)] if signs else key)
        base = f"{key.rstrip('/')}/" if key.strip("/") else ""
        below = [name.removeprefix(base) for name in names if name.startswith(base) and name != base]
        if key in names and not key.endswith("/"):
            found = [key]
        elif signs:
            found = [name for name in names if matches(name, key) and not name.endswith("/")]
        else:
            visible = [name for name in below if not any(part.startswith((".", "_")) for part in name.split("/"))]
            found = [f"{base}{name}" for name in visible if name.endswith(tuple(suffixes))]
            if base in names or (below and not found):
                return sorted(f"{urlparse(uri).scheme}://{bucket}/{name}" for name in found)
        if not found:
            raise InputError(f"{uri}: no such object in bucket {bucket!r}")
        return sorted(f"{urlparse(uri).scheme}://{bucket}/{name}" for name in found)

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
            "spark.hadoop.fs.s3a.performance.flags": "create,mkdir",  # a step alone writes below its output
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
                if error.code == "InvalidRange":  # S3's answer to any range of an object without bytes
                    raise EmptyObjectError from error
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


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches as it would on a disk: a star crosses no slash, two stars do, and hidden names must be asked for."""
    return _match(name.split("/"), pattern.split("/"))


def _match(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    if not parts or not patterns:
        return not parts and all(pattern == "**" for pattern in patterns)
    if patterns[0] == "**":
        return _match(parts, patterns[1:]) or (not _hidden(parts[0], "") and _match(parts[1:], patterns))
    first = not _hidden(parts[0], patterns[0]) and fnmatch.fnmatchcase(parts[0], patterns[0])
    return first and _match(parts[1:], patterns[1:])


def _hidden(part: str, pattern: str) -> bool:
    return part.startswith((".", "_")) and not pattern.startswith(part[0])


class _Stream(io.RawIOBase):
    """What is read of an object as it comes; a cut connection is the store being away."""

    def __init__(self, uri: str, answer: Any) -> None:
        self._uri, self._answer = uri, answer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            content = self._answer.read(len(buffer))
        except urllib3.exceptions.HTTPError as error:
            raise UnavailableError(f"{self._uri}: the object store broke off ({_short(error)}); run again") from error
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._answer.close()
        self._answer.release_conn()
        super().close()


def _short(error: Exception) -> str:
    if isinstance(error, S3Error):
        return f"{error.code}: {error.message}"
    return str(error).split("\n")[0].rpartition(": ")[2][:200] or type(error).__name__

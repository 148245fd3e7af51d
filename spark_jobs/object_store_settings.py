"""Where the object store is and who asks, by the names that every S3 client knows; for Python's client and for Spark's S3A alike.

The keys are looked for in the order of the AWS SDK for Java 2, on which S3A stands, and the first place that has any is the only one that
is asked: https://docs.aws.amazon.com/sdk-for-java/latest/developer-guide/credentials-chain.html.
"""

from __future__ import annotations

import configparser
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, cast

from spark_jobs.errors import InputError

if TYPE_CHECKING:
    from minio.credentials.credentials import Credentials
    from minio.credentials.providers import Provider

CREDENTIALS_FILE = "~/.aws/credentials"


class KeysFrom(Enum):
    """The places that keys come from, in the order in which they are looked for; each with S3A's class for it.

    Hadoop 3.5.0's own list (`fs.s3a.aws.credentials.provider` in hadoop-common's core-default.xml) begins with keys in Spark's settings,
    which anybody can read in its UI, and lacks web identity and the file. All four classes are in hadoop-aws and in the SDK's `auth`;
    the web identity asks `sts`. Dockerfile.spark has these three.
    """

    ENVIRONMENT = (
        "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"  # the session token, too
    )
    WEB_IDENTITY = "software.amazon.awssdk.auth.credentials.WebIdentityTokenFileCredentialsProvider"
    FILE = "software.amazon.awssdk.auth.credentials.ProfileCredentialsProvider"
    POD_OR_INSTANCE = "org.apache.hadoop.fs.s3a.auth.IAMInstanceCredentialsProvider"


class CredentialsAwayError(Exception):
    """Who hands out temporary credentials does not answer now; the text says who."""


@dataclass(frozen=True, kw_only=True)
class ObjectStoreSettings:
    """Where the object store is and who asks, by the names that every S3 client knows.

    Attributes:
        endpoint_url: such as http://seaweedfs.kubeflow:9000; empty: Amazon S3.
        region: what the store calls its own; with Amazon S3 that of the bucket.
        access_key_id: user.
        secret_access_key: password; never printed.
        session_token: belongs to keys that are temporary; never printed.
        web_identity_token_file: token of a service account (IRSA and the like), which is changed into temporary keys.
        role_arn: the role that such keys have.
        endpoint_url_sts: who changes the token; empty: the endpoint, and without one Amazon's STS.
        shared_credentials_file: keys by profile; empty: ~/.aws/credentials, if it is there.
        profile: part of that file; empty: default.
        container_credentials_full_uri: who gives keys to a pod; set by EKS Pod Identity.
        container_credentials_relative_uri: who gives keys to a container; set by ECS.
        ec2_metadata_service_endpoint: of an instance that gives keys; empty: Amazon's.
        ec2_metadata_disabled: true: an instance is never asked.
    """

    endpoint_url: str = ""
    region: str = "us-east-1"
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)
    session_token: str = field(default="", repr=False)
    web_identity_token_file: str = ""
    role_arn: str = ""
    endpoint_url_sts: str = ""
    shared_credentials_file: str = ""
    profile: str = ""
    container_credentials_full_uri: str = ""
    container_credentials_relative_uri: str = ""
    ec2_metadata_service_endpoint: str = ""
    ec2_metadata_disabled: str = ""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> ObjectStoreSettings:
        """Reads the variables that begin with AWS_.

        Raises:
            InputError: one is missing or wrong; the text names it.
        """
        environment = os.environ if environment is None else environment
        given = {item.name: environment.get(f"AWS_{item.name.upper()}", "") for item in fields(cls)}
        for name in ("endpoint_url", "endpoint_url_sts"):
            if given[name] and not re.fullmatch(r"https?://[^/@\s]+/?", given[name]):
                example = "http://seaweedfs.kubeflow:9000"
                shown = "not a URL, or one with a user in it" if "@" in given[name] else repr(given[name])
                raise InputError(f"AWS_{name.upper()} is {shown}; it must be like {example}")
        for one, other in (
            ("access_key_id", "secret_access_key"),
            ("secret_access_key", "access_key_id"),
            ("web_identity_token_file", "role_arn"),
        ):
            if given[one] and not given[other]:
                raise InputError(f"AWS_{other.upper()} is not set, and AWS_{one.upper()} needs it")
        return cls(**{name: value.strip() for name, value in given.items() if value})

    @property
    def keys_from(self) -> KeysFrom:
        """Where the keys come from."""
        if self.access_key_id:
            return KeysFrom.ENVIRONMENT
        if self.web_identity_token_file:
            return KeysFrom.WEB_IDENTITY
        if self.profile or self.shared_credentials_file or Path(CREDENTIALS_FILE).expanduser().is_file():
            return KeysFrom.FILE
        return KeysFrom.POD_OR_INSTANCE

    @property
    def where(self) -> str:
        """The store's address, for messages."""
        return self.endpoint_url or f"https://s3.{self.region}.amazonaws.com (AWS_ENDPOINT_URL is not set)"

    def s3a_settings(self) -> dict[str, str]:
        """What Spark's S3A must know; no key is among it.

        Source of the committer's settings: https://spark.apache.org/docs/latest/cloud-integration.html.
        """
        cloud = "org.apache.spark.internal.io.cloud"
        own_store = {
            "spark.hadoop.fs.s3a.endpoint": self.endpoint_url,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(self.endpoint_url.startswith("https:")).lower(),
        }
        return {
            **(own_store if self.endpoint_url else {}),
            "spark.hadoop.fs.s3a.endpoint.region": self.region,
            "spark.hadoop.fs.s3a.aws.credentials.provider": self.keys_from.value,
            "spark.hadoop.fs.s3a.performance.flags": "create,mkdir",  # a step alone writes below its output
            "spark.hadoop.fs.s3a.committer.name": "magic",
            "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
            "spark.sql.parquet.output.committer.class": f"{cloud}.BindingParquetOutputCommitter",
            "spark.sql.sources.commitProtocolClass": f"{cloud}.PathOutputCommitProtocol",
        }

    def provider(self) -> Provider:
        """What gives Python's client its keys, and new ones before temporary ones expire."""
        import urllib3  # noqa: PLC0415 - a run on one machine needs none of it
        from minio.credentials.providers import AWSConfigProvider, IamAwsProvider, StaticProvider  # noqa: PLC0415

        seconds = (
            1 if self.keys_from == KeysFrom.POD_OR_INSTANCE else 3
        )  # an instance answers at once, or there is none
        client = urllib3.PoolManager(timeout=urllib3.Timeout(connect=seconds, read=10), retries=False)
        if self.keys_from == KeysFrom.ENVIRONMENT:
            return StaticProvider(self.access_key_id, self.secret_access_key, self.session_token or None)
        if self.keys_from == KeysFrom.WEB_IDENTITY:
            sts = self.endpoint_url_sts or self.endpoint_url
            found: Provider = IamAwsProvider(custom_endpoint=sts or None, http_client=client)
            advice = f"check AWS_ROLE_ARN, and the token in {self.web_identity_token_file}"
            return cast("Provider", _Told(found, f"STS at {sts or 'Amazon'}", advice))
        if self.keys_from == KeysFrom.FILE:
            file = self.shared_credentials_file or str(Path(CREDENTIALS_FILE).expanduser())
            found, profile = AWSConfigProvider(file, self.profile or None), self.profile or "default"
            return cast("Provider", _Told(found, f"profile {profile!r} of {file}", "check AWS_PROFILE and that file"))
        in_pod = self.container_credentials_full_uri or self.container_credentials_relative_uri
        unknown = "AWS_ENDPOINT_URL is not set, and nobody gives keys for Amazon S3"
        nobody = (
            f"{f'nobody gives keys for the object store at {self.endpoint_url}' if self.endpoint_url else unknown}: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or AWS_PROFILE"
        )
        if not in_pod and self.ec2_metadata_disabled.lower() == "true":
            raise InputError(nobody)
        instance = "" if in_pod else self.ec2_metadata_service_endpoint.rstrip("/")
        return cast("Provider", _Told(IamAwsProvider(custom_endpoint=instance or None, http_client=client), "", nobody))


class _Told:
    """A provider whose errors are told in our words: minio's own hold the URL that was asked, and with it a web identity's token.

    Attributes:
        who: gives the keys; empty if it is not known whether there is anybody.
        advice: what to do if it gives none.
    """

    def __init__(self, provider: Provider, who: str, advice: str) -> None:
        self._provider, self._who, self._advice = provider, who, advice

    def retrieve(self) -> Credentials:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            found = self._provider.retrieve()
        except (ValueError, KeyError, OSError, configparser.Error, HTTPError) as error:
            status = re.search(r"HTTP status code (\d{3})$", str(error))
            away = isinstance(error, HTTPError) or (status is not None and int(status[1]) >= 500)
            why = f" (HTTP {status[1]})" if status else f" ({type(error).__name__})" if away else ""
            if self._who and away:
                raise CredentialsAwayError(f"{self._who} does not answer{why}") from None
            raise InputError(f"{self._who} gives no keys{why}; {self._advice}" if self._who else self._advice) from None
        self._who = self._who or "the pod's or the instance's service of credentials"
        return found

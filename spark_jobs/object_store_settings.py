"""Settings of the object store, from the environment variables that all S3 clients use (`AWS_...`), for minio's client and for Spark's S3A.

Both clients must get their keys from the same source. The sources are tried in the order of the AWS SDK for Java 2, which S3A uses, and the
first one that is configured is the only one that is used:
https://docs.aws.amazon.com/sdk-for-java/latest/developer-guide/credentials-chain.html.
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


class CredentialsSource(Enum):
    """The sources of keys in the order in which they are tried; the value is the class of S3A's credentials provider.

    The default list of Hadoop 3.5.0 (`fs.s3a.aws.credentials.provider` in hadoop-common's core-default.xml) begins with keys in Spark's
    settings, which everyone can read in Spark's UI, and has neither web identity nor the credentials file. The four classes are in
    hadoop-aws and in the SDK's module `auth`; web identity also needs the module `sts`. Dockerfile.spark installs these three.
    """

    ENVIRONMENT = (
        "software.amazon.awssdk.auth.credentials.EnvironmentVariableCredentialsProvider"  # the session token, too
    )
    WEB_IDENTITY = "software.amazon.awssdk.auth.credentials.WebIdentityTokenFileCredentialsProvider"
    FILE = "software.amazon.awssdk.auth.credentials.ProfileCredentialsProvider"
    POD_OR_INSTANCE = "org.apache.hadoop.fs.s3a.auth.IAMInstanceCredentialsProvider"


class CredentialsUnavailableError(Exception):
    """The service that issues temporary credentials does not answer; the message names the service. A retry may help."""


@dataclass(frozen=True, kw_only=True)
class ObjectStoreSettings:
    """Address and credentials of the object store, from the environment variables that all S3 clients use.

    Attributes:
        endpoint_url: URL of the store, such as http://seaweedfs.kubeflow:9000; empty: Amazon S3.
        region: region of the store; for Amazon S3 that of the bucket.
        access_key_id: name of the access key.
        secret_access_key: the secret key; never printed.
        session_token: the token that belongs to temporary keys; never printed.
        web_identity_token_file: file with the token of a service account (such as IRSA on EKS), which STS exchanges for temporary keys.
        role_arn: the role of these temporary keys.
        endpoint_url_sts: URL of STS; empty: AWS_ENDPOINT_URL, or if that is empty too, Amazon's STS.
        shared_credentials_file: file with keys by profile; empty: ~/.aws/credentials, if it exists.
        profile: profile in this file; empty: default.
        container_credentials_full_uri: URL that issues keys to a pod; set by EKS Pod Identity.
        container_credentials_relative_uri: path of the URL that issues keys to a container; set by ECS.
        ec2_metadata_service_endpoint: URL of the instance metadata service; empty: that of Amazon EC2.
        ec2_metadata_disabled: `true`: the instance metadata service is not used.
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
        """Reads the settings from environment variables.

        Args:
            environment: the variables; None: those of this process.

        Raises:
            InputError: a variable is missing or wrong; the message names it.
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
    def credentials_source(self) -> CredentialsSource:
        """The source of the keys that these settings select."""
        if self.access_key_id:
            return CredentialsSource.ENVIRONMENT
        if self.web_identity_token_file:
            return CredentialsSource.WEB_IDENTITY
        if self.profile or self.shared_credentials_file or Path(CREDENTIALS_FILE).expanduser().is_file():
            return CredentialsSource.FILE
        return CredentialsSource.POD_OR_INSTANCE

    @property
    def address(self) -> str:
        """The address of the store for messages."""
        return self.endpoint_url or f"https://s3.{self.region}.amazonaws.com (AWS_ENDPOINT_URL is not set)"

    def s3a_settings(self) -> dict[str, str]:
        """Returns the Spark settings for S3A. They hold no keys, as Spark's UI and the SparkApplication show settings.

        The committer's settings are those of https://spark.apache.org/docs/latest/cloud-integration.html.
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
            "spark.hadoop.fs.s3a.aws.credentials.provider": self.credentials_source.value,
            "spark.hadoop.fs.s3a.performance.flags": "create,delete,mkdir",  # fewer checks: only this step writes below its output
            "spark.hadoop.fs.s3a.committer.name": "magic",
            # A task notes its uploads in memory until it commits them, not in objects of their own.
            "spark.hadoop.fs.s3a.committer.magic.track.commits.in.memory.enabled": "true",
            "spark.hadoop.mapreduce.outputcommitter.factory.scheme.s3a": "org.apache.hadoop.fs.s3a.commit.S3ACommitterFactory",
            "spark.sql.parquet.output.committer.class": f"{cloud}.BindingParquetOutputCommitter",
            "spark.sql.sources.commitProtocolClass": f"{cloud}.PathOutputCommitProtocol",
        }

    def provider(self) -> Provider:
        """Returns the provider of keys for minio's client; it renews temporary keys before they expire.

        Raises:
            InputError: no source of keys is configured.
        """
        import urllib3  # noqa: PLC0415 - a run on one machine does not need it
        from minio.credentials.providers import AWSConfigProvider, IamAwsProvider, StaticProvider  # noqa: PLC0415

        seconds = (
            1 if self.credentials_source == CredentialsSource.POD_OR_INSTANCE else 3
        )  # an instance answers at once, or there is none
        client = urllib3.PoolManager(timeout=urllib3.Timeout(connect=seconds, read=10), retries=False)
        if self.credentials_source == CredentialsSource.ENVIRONMENT:
            return StaticProvider(self.access_key_id, self.secret_access_key, self.session_token or None)
        if self.credentials_source == CredentialsSource.WEB_IDENTITY:
            sts = self.endpoint_url_sts or self.endpoint_url
            found: Provider = IamAwsProvider(custom_endpoint=sts or None, http_client=client)
            advice = f"check AWS_ROLE_ARN, and the token in {self.web_identity_token_file}"
            return cast("Provider", _ProviderWithAdvice(found, f"STS at {sts or 'Amazon'}", advice))
        if self.credentials_source == CredentialsSource.FILE:
            file = self.shared_credentials_file or str(Path(CREDENTIALS_FILE).expanduser())
            found, profile = AWSConfigProvider(file, self.profile or None), self.profile or "default"
            return cast(
                "Provider",
                _ProviderWithAdvice(found, f"profile {profile!r} of {file}", "check AWS_PROFILE and that file"),
            )
        in_pod = self.container_credentials_full_uri or self.container_credentials_relative_uri
        no_keys = f"there are no keys for the object store at {self.endpoint_url}"
        if not self.endpoint_url:
            no_keys = "AWS_ENDPOINT_URL is not set, and there are no keys for Amazon S3"
        advice = (
            f"{no_keys}: set "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN, or AWS_PROFILE"
        )
        if not in_pod and self.ec2_metadata_disabled.lower() == "true":
            raise InputError(advice)
        instance = "" if in_pod else self.ec2_metadata_service_endpoint.rstrip("/")
        return cast(
            "Provider",
            _ProviderWithAdvice(IamAwsProvider(custom_endpoint=instance or None, http_client=client), "", advice),
        )


class _ProviderWithAdvice:
    """Wraps a provider of keys and replaces its errors, as minio's contain the requested URL and in it the token of a web identity."""

    def __init__(self, provider: Provider, service: str, advice: str) -> None:
        """Wraps a provider.

        Args:
            provider: minio's provider.
            service: name of the service that issues the keys; empty if it is not known whether there is one.
            advice: what the user can do if it issues none.
        """
        self._provider, self._service, self._advice = provider, service, advice

    def retrieve(self) -> Credentials:
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        try:
            found = self._provider.retrieve()
        except (ValueError, KeyError, OSError, configparser.Error, HTTPError) as error:
            status = re.search(r"HTTP status code (\d{3})$", str(error))
            away = isinstance(error, HTTPError) or (status is not None and int(status[1]) >= 500)
            why = f" (HTTP {status[1]})" if status else f" ({type(error).__name__})" if away else ""
            if self._service and away:
                raise CredentialsUnavailableError(f"{self._service} does not answer{why}") from None
            message = f"{self._service} gives no keys{why}; {self._advice}" if self._service else self._advice
            raise InputError(message) from None
        # It has answered once, so from now on a failure means that it is unavailable.
        self._service = self._service or "the pod's or the instance's service of credentials"
        return found

"""The settings of the server, read once from the environment when it starts; a flag of `python -m serving` overrides its variable.

The variables are named `SPARK_KFP_SERVE_` and the setting's name. The keys of an object store come from the variables that all S3 clients
use (`AWS_...`). The API key comes from a variable or a file, never from an argument, which every user of the machine can read.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

PREFIX = "SPARK_KFP_SERVE_"


class SettingsError(Exception):
    """A setting is missing or wrong; the message names it and says what to do."""


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """What the server serves, and its limits.

    Attributes:
        model: name of the model; empty: the only one of the registry.
        registry: directory or URI (s3://BUCKET/NAME) of the registry.
        scorecard: a scorecard.json to serve instead of a registry's champion; it is read once.
        host: address to listen on.
        port: port to listen on; 0: any free one, which the log names.
        poll_seconds: pause between two looks at the pointer champion.json.
        max_body_bytes: largest body of a request.
        max_rows: most rows of one request.
        requests_per_second: most requests a second, on average over ten seconds, of all callers together; 0: no limit.
        body_seconds: how long a caller may take to send the headers of a request, and how long its body.
        max_connections: most connections at a time; one more takes the place of one that waits.
        drain_seconds: how long to answer on after SIGTERM, while callers are asked to close their connections.
        shutdown_seconds: how long requests that are being answered may take after that.
        api_key: key that callers must send as `Authorization: Bearer KEY` or `X-API-Key: KEY`; empty: everyone may call.
        api_key_file: file with that key, such as a mounted Secret.
        capture: folder for the counts of the scored rows, for the step drift; empty: none are written.
        capture_days: days whose files of counts are kept.
    """

    model: str = ""
    registry: str = ""
    scorecard: str = ""
    host: str = "127.0.0.1"
    port: int = 8080
    poll_seconds: float = 2.0
    max_body_bytes: int = 4 << 20
    max_rows: int = 10_000
    requests_per_second: float = 0.0
    body_seconds: float = 10.0
    max_connections: int = 1000
    drain_seconds: float = 0.0
    shutdown_seconds: int = 20
    api_key: str = field(default="", repr=False)
    api_key_file: str = ""
    capture: str = ""
    capture_days: int = 30

    @classmethod
    def from_environment(cls, given: Mapping[str, str], environment: Mapping[str, str] | None = None) -> ServerSettings:
        """Reads the settings.

        Args:
            given: settings by flags; an empty one was not given.
            environment: the variables; None: those of this process.

        Raises:
            SettingsError: one of them is wrong.
        """
        environment = os.environ if environment is None else environment
        texts = {item.name: environment.get(PREFIX + item.name.upper(), "") for item in fields(cls)}
        texts |= {name: text for name, text in given.items() if text}
        for name in (PREFIX + "API_KEY", PREFIX + "API_KEY_FILE"):
            if not environment.get(name, "-").strip():  # whoever sets it wants a key, so this must not open the server
                raise SettingsError(f"{name} is blank; give it a value, or unset it if everyone may call")
        values: dict[str, Any] = {
            item.name: _value(item.name, item.default, texts[item.name].strip())
            for item in fields(cls)
            if texts[item.name]
        }
        settings = cls(**values)
        if bool(settings.registry) == bool(settings.scorecard):
            raise SettingsError("give either --registry DIR_OR_URI or --scorecard FILE, and not both")
        if "://" in settings.capture:
            raise SettingsError(
                f"--capture {settings.capture} is no directory; give one of this machine or a mounted volume"
            )
        if settings.capture and settings.scorecard:
            raise SettingsError("--capture needs --registry: the bins are those of the version's reference.json")
        return settings._with_key()

    def _with_key(self) -> ServerSettings:
        if not self.api_key_file:
            return self
        try:
            key = Path(self.api_key_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"{PREFIX}API_KEY_FILE {self.api_key_file} cannot be read: {error}") from None
        if not key:
            raise SettingsError(f"{PREFIX}API_KEY_FILE {self.api_key_file} is empty; write the key into it")
        return replace(self, api_key=key)


def _value(name: str, default: object, text: str) -> str | int | float:
    if isinstance(default, str):
        return text
    kind = int if isinstance(default, int) else float
    try:
        number = kind(text)
    except ValueError:
        number = kind(-1)
    highest = 65535 if name == "port" else 1e9
    lowest = 0 if name in ("port", "requests_per_second", "drain_seconds") else kind(1) if kind is int else 0.01
    if not lowest <= number <= highest:
        raise SettingsError(f"{PREFIX}{name.upper()} is {text!r}; it must be a number from {lowest} to {highest:g}")
    return number


@dataclass(frozen=True, kw_only=True)
class StoreSettings:
    """Address of the object store, from the variables that all S3 clients use; minio's client reads the keys itself."""

    endpoint_url: str = ""
    region: str = "us-east-1"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> StoreSettings:
        """Reads the settings.

        Raises:
            SettingsError: the address is no URL.
        """
        environment = os.environ if environment is None else environment
        endpoint, region = (environment.get(f"AWS_{name}", "").strip() for name in ("ENDPOINT_URL", "REGION"))
        parts = urlparse(endpoint)
        if endpoint and (parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc):
            raise SettingsError("AWS_ENDPOINT_URL is no URL; it must be like http://seaweedfs.kubeflow:9000")
        return cls(endpoint_url=endpoint, region=region or "us-east-1")

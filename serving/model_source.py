"""Where served models come from: the versions of a registry, in a directory or an object store, or one scorecard file.

The layout of a registry:

    NAME/champion.json             the pointer: the champion's version, and a canary or none
    NAME/versions/ID/version.json  written last: a version without it is not there; names each file with size and SHA-256
    NAME/versions/ID/              scorecard.json, profile.json, examples.json, reference.json and other files, which never change

A version is taken over only if its files are whole and it scores its example rows as Spark did.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote, urlparse

from serving.columns import Columns
from serving.explanation import Explainer
from serving.scorer import RowError, ScorecardError, Scorer, damage
from serving.settings import SettingsError, StoreSettings

if TYPE_CHECKING:
    from minio import Minio

REGISTRY_VERSION = 1
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
"""Names of models and IDs of versions: each is one part of a path."""
EXAMPLE_TOLERANCE = 1e-9
"""Largest difference of a probability from Spark's for an example row."""
STORE_SCHEMES = ("s3", "s3a", "minio")
SERVED_FILES = ("scorecard.json", "profile.json", "examples.json", "reference.json")
"""The files of a version that are read; the saved Spark model beside them is not."""
MAX_FILE_BYTES = 256 << 20
"""Largest file that is read: a forest of 1,000 deep trees has about 100 MB."""


class RefusedError(Exception):
    """A version cannot be served; the message says why."""


class UnreachableError(Exception):
    """The registry cannot be read at the moment."""


@dataclass(frozen=True)
class ServedModel:
    """A version that is whole and scores its example rows as Spark did.

    Attributes:
        reference: its reference.json; None: it has none.
        created: when it was evaluated, in seconds since 1970; 0: unknown.
    """

    name: str
    version: str
    title: str
    scorer: Scorer
    columns: Columns
    explainer: Explainer
    reference: Mapping[str, Any] | None = None
    created: float = 0.0


@dataclass(frozen=True)
class Pointer:
    """What champion.json says: the champion, and a second version that gets a share of the requests, from 0 to 1."""

    version: str
    canary: str = ""
    share: float = 0.0


class Place(Protocol):
    """A folder of files; names are relative to it, with slashes."""

    def read(self, name: str) -> bytes:
        """Reads a file; raises FileNotFoundError if it is not there, UnreachableError if nobody can say."""

    def models(self) -> list[str]:
        """Lists the folders that hold a pointer."""


def place_of(uri: str) -> Place:
    """Returns the place at a path or URI.

    Raises:
        SettingsError: the directory is not there, or the URI is no place.
    """
    parts = urlparse(uri)
    if parts.scheme in STORE_SCHEMES and "://" in uri:
        if not parts.netloc:
            raise SettingsError(f"{uri} names no bucket; give a URI like s3://BUCKET/models")
        return Bucket(parts.netloc, parts.path.strip("/"), StoreSettings.from_environment())
    if "://" in uri and parts.scheme != "file":
        raise SettingsError(
            f"{uri}: {parts.scheme}:// is not supported; give a directory, or a URI like s3://BUCKET/models"
        )
    folder = Path(unquote(parts.path) if parts.scheme == "file" else uri)
    if not folder.is_dir():
        raise SettingsError(f"{uri}: there is no such directory; register a model first, or give another --registry")
    return Directory(folder)


class Directory:
    """A directory of this machine; implements `Place`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        try:
            path = self._folder / name
            if path.stat().st_size > MAX_FILE_BYTES:
                raise RefusedError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB")
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(f"{self._folder / name}: no such file") from error
        except OSError as error:
            raise UnreachableError(f"{self._folder / name} cannot be read: {error.strerror}") from error

    def models(self) -> list[str]:
        return sorted(path.parent.name for path in self._folder.glob("*/champion.json"))


class Bucket:
    """A folder of an object store; implements `Place`. Keys come from the variables, the file or the service that AWS clients use."""

    def __init__(self, bucket: str, prefix: str, settings: StoreSettings) -> None:
        import urllib3  # noqa: PLC0415 - a registry in a directory needs none of it
        from minio import Minio  # noqa: PLC0415
        from minio.credentials.providers import (  # noqa: PLC0415
            AWSConfigProvider,
            ChainedProvider,
            EnvAWSProvider,
            IamAwsProvider,
        )

        address = urlparse(settings.endpoint_url or "https://s3.amazonaws.com")
        client = urllib3.PoolManager(timeout=urllib3.Timeout(connect=3, read=20), retries=False)
        keys = ChainedProvider([EnvAWSProvider(), AWSConfigProvider(), IamAwsProvider(http_client=client)])
        self._bucket, self._prefix, self._address = bucket, prefix, settings.endpoint_url or address.netloc
        self._client: Minio = Minio(
            address.netloc,
            credentials=keys,
            secure=address.scheme == "https",
            region=settings.region,
            http_client=client,
        )

    def read(self, name: str) -> bytes:
        from minio.error import MinioException, S3Error  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        where = f"s3://{self._bucket}/{self._key(name)}"
        try:
            answer = self._client.get_object(self._bucket, self._key(name))
            try:
                if int(answer.headers.get("content-length", 0)) > MAX_FILE_BYTES:
                    raise RefusedError(f"{name} is larger than {MAX_FILE_BYTES >> 20} MiB")
                return answer.read()
            finally:
                answer.close()
                answer.release_conn()
        except S3Error as error:
            if error.code == "NoSuchKey":
                raise FileNotFoundError(f"{where}: no such object") from error
            raise UnreachableError(f"{where}: the object store at {self._address} answers {error.code}") from error
        except (HTTPError, MinioException, OSError, ValueError) as error:  # without keys minio raises a ValueError
            raise UnreachableError(f"{where}: {self._address} does not answer ({type(error).__name__})") from error

    def models(self) -> list[str]:
        from minio.error import MinioException  # noqa: PLC0415
        from urllib3.exceptions import HTTPError  # noqa: PLC0415

        start = f"{self._prefix}/" if self._prefix else ""
        try:
            listed = [str(item.object_name) for item in self._client.list_objects(self._bucket, start)]
        except (HTTPError, MinioException, OSError, ValueError) as error:
            raise UnreachableError(f"s3://{self._bucket}: {self._address} does not answer ({error})") from error
        return sorted(name.removeprefix(start).rstrip("/") for name in listed if name.endswith("/"))

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name


def read_pointer(place: Place, name: str) -> Pointer:
    """Reads the pointer of a model.

    Raises:
        FileNotFoundError: the model has no champion yet.
        RefusedError: the pointer is damaged.
        UnreachableError: the registry cannot be read at the moment.
    """
    where = f"{name}/champion.json"
    document = _document(place.read(where), where)
    try:
        canary = document.get("canary") or {}
        pointer = Pointer(document["version"], canary.get("version", ""), float(canary.get("share", 0)))
        named = [each for each in (pointer.version, pointer.canary) if each]
        if not named or not all(NAME.fullmatch(each) for each in named) or not 0 <= pointer.share <= 1:
            raise RefusedError(f"{where} is damaged (version {pointer.version!r}, canary {canary!r})")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(f"{where} is damaged ({damage(error)})") from error
    return pointer


def load_version(place: Place, name: str, version: str) -> ServedModel:
    """Reads a version, checks its files and lets it score its example rows.

    Raises:
        RefusedError: it is not whole, or scores an example row otherwise than Spark did.
        UnreachableError: the registry cannot be read at the moment.
    """
    folder = f"{name}/versions/{version}"
    try:
        document = _document(place.read(f"{folder}/version.json"), "version.json")
        if document.get("version") != version or document.get("name") != name:
            raise RefusedError(f"version.json is that of {document.get('name')!r} {document.get('version')!r}")
        _check_digest(document)
        files = {item["path"]: item for item in document["files"]}
        contents = {path: _checked(place, folder, files[path]) for path in SERVED_FILES if path in files}
    except FileNotFoundError as error:
        raise RefusedError(f"it is not whole: {error}") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise RefusedError(f"version.json is damaged ({damage(error)})") from error
    if "scorecard.json" not in contents:
        raise RefusedError("it has no scorecard.json")
    scorecard, profile, examples, reference = (
        _document(contents[path], path) if path in contents else None for path in SERVED_FILES
    )
    return replace(
        build_model(name, version, scorecard, profile, examples),
        reference=reference,
        created=_seconds(document.get("created")),
    )


def _check_digest(document: Mapping[str, Any]) -> None:
    """Compares a version.json with its own SHA-256; documents of earlier releases have none."""
    counted = json.dumps({key: value for key, value in document.items() if key != "sha256"}, sort_keys=True)
    if document.get("sha256", found := hashlib.sha256(counted.encode()).hexdigest()) != found:
        raise RefusedError("version.json was changed: its SHA-256 is another one")


def _seconds(time: Any) -> float:
    try:
        return datetime.fromisoformat(str(time)).timestamp()
    except ValueError:
        return 0.0


def load_scorecard(path: Path, name: str) -> ServedModel:
    """Reads one scorecard file. Its version is the beginning of its SHA-256.

    Raises:
        RefusedError: it is no scorecard.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error.strerror}") from error
    return build_model(name, hashlib.sha256(content).hexdigest()[:12], _document(content, str(path)))


def build_model(
    name: str, version: str, scorecard: Any, profile: Any = None, examples: Sequence[Mapping[str, Any]] | None = None
) -> ServedModel:
    """Builds a model from its parsed documents, and lets it score its example rows and its usual row.

    Args:
        name: name of the model.
        version: ID of the version.
        scorecard: the document scorecard.json.
        profile: the document profile.json; None: there is none.
        examples: rows of the test set, each `{"row": {column: value}, "probabilities": {label: Spark's probability}}`.

    Raises:
        RefusedError: the scorecard cannot be used, or gives another probability than Spark did.
    """
    try:
        scorer = Scorer(scorecard)
        columns = Columns.of(scorecard, profile)
        explainer = Explainer(scorecard, columns)
        explainer.explain(columns.example())
        _compare(Scorer(scorecard), examples or ())
    except ScorecardError as error:
        raise RefusedError(str(error)) from error
    except RowError as error:
        raise RefusedError(f"an example row cannot be scored: {error}") from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise RefusedError(f"its documents are damaged ({damage(error)})") from error
    return ServedModel(name, version, str(scorecard.get("model", "")), scorer, columns, explainer)


def _compare(scorer: Scorer, examples: Sequence[Mapping[str, Any]]) -> None:
    for number, example in enumerate(examples):
        found = scorer.score(example["row"]).probabilities
        for label, probability in example["probabilities"].items():
            if not abs(found[label] - probability) <= EXAMPLE_TOLERANCE:
                raise RefusedError(
                    f"example {number}: the probability of {label!r} is {found[label]}, Spark's is {probability}"
                )


def _checked(place: Place, folder: str, item: Mapping[str, Any]) -> bytes:
    """Reads a file of a version, and compares it with its size and SHA-256 in version.json."""
    content = place.read(f"{folder}/{item['path']}")
    if (len(content), hashlib.sha256(content).hexdigest()) != (item["size"], item["sha256"]):
        raise RefusedError(f"{item['path']} has another size or SHA-256 than version.json says")
    return content


def _document(content: bytes, where: str) -> Any:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{where} is damaged ({error})") from error
    if isinstance(document, dict) and document.get("registry_version", REGISTRY_VERSION) != REGISTRY_VERSION:
        raise RefusedError(f"{where} is of another release of spark-kfp")
    return document

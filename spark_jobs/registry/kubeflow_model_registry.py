"""The requests to a Kubeflow Model Registry, and its answers and errors in our words.

Plain requests after api/openapi/model-registry.yaml in https://github.com/kubeflow/model-registry, and not its Python client: a release of
that speaks one version of the API, and those from 0.3.15 on get 404 from every server that has v1alpha3 only. What the server does beyond
the document was tried on a real one; its files are named where the code relies on them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from spark_jobs.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

API = "/api/model_registry"
API_VERSIONS = ("v1", "v1alpha3")
"""A server has the second, or both: it says since 2026 that v1alpha3 will go."""
ANSWER_SECONDS = 30.0
MOST_FOUND = 100
MISSING, CONFLICT = 404, 409
Properties = dict[str, dict[str, Any]]
"""Custom properties by name, each as the API has it."""
Thing = dict[str, Any]
"""A RegisteredModel, ModelVersion or ModelArtifact, as the API has it; it has an `id` and a `name`."""


def text(value: str) -> dict[str, Any]:
    """Returns a text as the value of a custom property."""
    return {"metadataType": "MetadataStringValue", "string_value": value}


def number(value: float) -> dict[str, Any]:
    """Returns a number as the value of a custom property."""
    return {"metadataType": "MetadataDoubleValue", "double_value": value}


class _ConflictError(InputError):
    """What is to be made is there already."""


class ModelRegistry:
    """A Kubeflow Model Registry; each method leaves as it is what is there and right.

    All methods raise InputError if the server refuses or is none, and UnavailableError if it does not answer.

    Things are looked for by `filterQuery`. The requests that find one by its name take `_` for any character, so that of two models a_b and
    a-b they find neither: `name LIKE ?` in internal/db/service/registered_model.go.
    """

    def __init__(self, uri: str, token: str = "") -> None:
        import urllib3  # noqa: PLC0415 - a run on one machine needs none of it

        self._uri, self._version = uri, ""
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
        timeout = urllib3.Timeout(connect=5, read=ANSWER_SECONDS)
        # Without retries it follows no redirect either, which would be to the page of a login.
        self._http = urllib3.PoolManager(timeout=timeout, retries=False)

    def model(self, name: str) -> Thing:
        """Returns the RegisteredModel of a name, and makes it if it is not there."""
        return self._find_or_make("registered_models", "registered_models", {"name": name})

    def version(self, model: Thing, name: str) -> Thing:
        """Returns the ModelVersion of a name, and makes it if it is not there."""
        body = {"name": name, "registeredModelId": model["id"]}
        return self._find_or_make(f"registered_models/{model['id']}/versions", "model_versions", body)

    def artifact(self, version: Thing, body: dict[str, str]) -> Thing:
        """Returns the ModelArtifact of a ModelVersion; it is made if it is not there, and changed if it says something else."""
        artifacts = f"model_versions/{version['id']}/artifacts"
        found = self._find_or_make(artifacts, artifacts, {"artifactType": "model-artifact"} | body)
        said = {key: value for key, value in body.items() if key != "name"}
        if any(found.get(key) != value for key, value in said.items()):
            update = {"artifactType": "model-artifact"} | said | _state(found)
            return self._thing(self._ask("PATCH", f"model_artifacts/{found['id']}", update))
        return found

    def labelled(self, model: Thing, labels: Sequence[str]) -> list[Thing]:
        """Returns the ModelVersions of a model that have one of these labels."""
        query = " OR ".join(f'{label} = ""' for label in labels)
        return self._listed(f"registered_models/{model['id']}/versions", query)

    def describe_model(self, model: Thing, wanted: Properties, replaced: Collection[str]) -> None:
        """Gives a RegisteredModel these custom properties instead of the replaced ones."""
        self._describe(f"registered_models/{model['id']}", model, wanted, replaced)

    def describe_version(self, version: Thing, wanted: Properties, replaced: Collection[str]) -> None:
        """Gives a ModelVersion these custom properties instead of the replaced ones."""
        self._describe(f"model_versions/{version['id']}", version, wanted, replaced)

    def _describe(self, path: str, thing: Thing, wanted: Properties, replaced: Collection[str]) -> None:
        there = thing.get("customProperties") or {}
        changed = {name: value for name, value in there.items() if name not in replaced} | wanted
        if changed != there:
            self._ask("PATCH", path, {"customProperties": changed} | _state(thing))  # replaces all custom properties

    def _find_or_make(self, listed: str, made: str, body: Mapping[str, str]) -> Thing:
        found = self._named(listed, body["name"])
        if found is None:
            try:
                return self._thing(self._ask("POST", made, body))
            except _ConflictError:
                found = self._named(listed, body["name"])  # another process was first
                if found is None:
                    raise
        return found

    def _named(self, path: str, name: str) -> Thing | None:
        return next((found for found in self._listed(path, f'name = "{name}"') if found["name"] == name), None)

    def _listed(self, path: str, query: str) -> list[Thing]:
        page = self._ask("GET", f"{path}?{urlencode({'filterQuery': query, 'pageSize': MOST_FOUND})}")
        items = page.get("items") if isinstance(page, dict) else None
        if not isinstance(items, list):
            raise self._no_registry("an answer has no items")
        return [self._thing(item) for item in items]

    def _thing(self, answer: Any) -> Thing:
        """Checks that an answer is a thing of the registry."""
        if not isinstance(answer, dict) or not all(isinstance(answer.get(key), str) for key in ("id", "name")):
            raise self._no_registry("an answer has no ID or no name")
        if not isinstance(answer.get("customProperties") or {}, dict):
            raise self._no_registry("an answer has no custom properties")
        return answer

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Sends a request and returns the parsed answer; the first one finds out which version of the API the server has."""
        for version in (self._version,) if self._version else API_VERSIONS:
            answer = self._send(method, f"{self._uri}{API}/{version}/{path}", body)
            if answer.status != MISSING:
                self._version = version
                break
        try:
            document = json.loads(answer.data)
        except ValueError as error:
            if answer.status < 300:
                raise self._no_registry("an answer is not JSON") from error
            document = None
        if answer.status >= 300:
            said = document.get("message") if isinstance(document, dict) else None
            raise self._refusal(answer.status, f"{answer.status} {answer.reason or ''}".strip(), said)
        return document

    def _send(self, method: str, url: str, body: Mapping[str, Any] | None) -> BaseHTTPResponse:
        from urllib3.exceptions import HTTPError, LocationValueError  # noqa: PLC0415 - see __init__

        content = None if body is None else json.dumps(body).encode()
        try:
            return self._http.request(method, url, body=content, headers=self._headers)
        except LocationValueError as error:
            raise InputError(
                f"{self._uri} is no address of a server ({str(error)[:300]}); check host and port"
            ) from error
        except HTTPError as error:
            raise UnavailableError(
                f"the Kubeflow Model Registry at {self._uri} does not answer: {str(error)[:300]}"
            ) from error

    def _refusal(self, status: int, shown: str, said: object) -> InputError | UnavailableError:
        """Returns the error for an answer that is not 2xx; `said` is the message that the registry's own errors have."""
        who, why = f"the Kubeflow Model Registry at {self._uri}", f": {str(said)[:300]}" if said else ""
        if status in (401, 403):
            return InputError(
                f"{who} refuses ({shown}); name the file of a token that may write: SPARK_KFP_KUBEFLOW_REGISTRY_TOKEN_PATH"
            )
        if status == 429 or status >= 500:
            return UnavailableError(f"{who} does not answer: {shown}{why}")
        if status == CONFLICT:
            return _ConflictError(f"{who} refuses ({shown}){why}")
        return InputError(f"{who} refuses ({shown}){why}") if said else self._no_registry(shown)

    def _no_registry(self, why: str) -> InputError:
        return InputError(
            f"{self._uri} is no Kubeflow Model Registry, or is behind a login ({why}); check the address, and whether it "
            "needs a token"
        )


def _state(thing: Thing) -> dict[str, str]:
    """Returns the state as a part of a change: one that does not say it makes an archived thing live.

    See pkg/openapi/model_model_version_update.go and model_registered_model_update.go.
    """
    return {"state": thing["state"]} if "state" in thing else {}

"""Shows the champion of a model, and its canary, in a Kubeflow Model Registry: RegisteredModel, ModelVersions, ModelArtifacts.

The registry there is only told: the pointer of this one is what counts, and nothing is read back but what is there already. It gets facts
and no files: an artifact says where the folder of its version is. The champion and the canary are custom properties of the model, which
change in one request. Each version has its alias as a label besides, a custom property without a value, as the UI shows labels in lists:
clients/ui/frontend/src/concepts/modelRegistry/utils.ts in https://github.com/kubeflow/model-registry, `getLabelsFromCustomProperties`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path
from spark_jobs.object_names import is_object_store_uri
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.kubeflow_model_registry import ModelRegistry, Properties, number, text
from spark_jobs.registry.mirrored import ALIASES, metrics, origin, versions_by_alias
from spark_jobs.registry.places import Place
from spark_jobs.registry.pointer import Champion

FORMAT = "spark-kfp"
"""Name of the format of a version's folder, whose version.json names its files."""
CANARY_SHARE = "canary_share"
POINTING = (*ALIASES, CANARY_SHARE)
"""The custom properties that go when the pointer moves; all others that are there stay."""
ADDRESS = re.compile(r"https?://[^/@\s?#]+(/[^@\s?#]*)?")


def mirror(registry: Place, name: str, uri: str, token: str = "") -> dict[str, dict[str, str]]:
    """Makes the champion and the canary known to a Kubeflow Model Registry, if they are not, and says there which they are.

    Args:
        registry: the registry.
        name: name of the model, here and there.
        uri: of the server, such as http://model-registry-service.kubeflow:8080.
        token: bearer token; empty: none.

    Returns:
        For each alias the `version` here, and in `kubeflow` the ID of its ModelVersion.

    Raises:
        InputError: the model has no champion, the address is not valid, or what answers there refuses or is no such registry.
        UnavailableError: the server does not answer.
    """
    if not ADDRESS.fullmatch(uri):
        shown = "not a URL, or one with a user in it" if "@" in uri else repr(uri)
        raise InputError(
            f"the address of the Kubeflow Model Registry is {shown}; it must be like http://model-registry-service.kubeflow:8080"
        )
    champion = pointer.read(registry, name)
    wanted = versions_by_alias(champion)
    documents = {version: versions.read(registry, name, version) for version in wanted.values()}
    ids = _show(ModelRegistry(uri.rstrip("/"), token), champion, documents, _absolute(registry.uri))
    return {alias: {"version": version, "kubeflow": ids[version]} for alias, version in wanted.items()}


def _absolute(uri: str) -> str:
    return uri if is_object_store_uri(uri) else local_path(uri).resolve().as_uri()


def _show(
    there: ModelRegistry, champion: Champion, documents: Mapping[str, Mapping[str, Any]], where: str
) -> dict[str, str]:
    """Returns for each version the ID of its ModelVersion."""
    aliases = {version: alias for alias, version in versions_by_alias(champion).items()}
    model, ids = there.model(champion.name), {}
    for version, document in documents.items():
        found = there.version(model, version)
        ids[version] = str(found["id"])
        there.artifact(found, _artifact(document, where))
        there.describe_version(found, _facts(document) | {aliases[version]: text("")}, POINTING)
    there.describe_model(model, _pointer(champion), POINTING)
    for other in there.labelled(model, ALIASES):
        if other["name"] not in documents:
            there.describe_version(other, {}, POINTING)
    return ids


def _artifact(document: Mapping[str, Any], where: str) -> dict[str, str]:
    uri = f"{where}/{versions.folder_of(document['name'], document['version'])}"
    made_as = {"modelFormatName": FORMAT, "modelFormatVersion": str(document["registry_version"])}
    return {"name": document["version"], "uri": uri} | made_as


def _pointer(champion: Champion) -> Properties:
    shown = {alias: text(version) for alias, version in versions_by_alias(champion).items()}
    return shown | ({CANARY_SHARE: number(champion.canary.share)} if champion.canary else {})


def _facts(document: Mapping[str, Any]) -> Properties:
    texts = {name: text(value) for name, value in origin(document).items()}
    return texts | {name: number(value) for name, value in metrics(document).items()}

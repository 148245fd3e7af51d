"""Finds a trained model by its URI: in the output of train, or in a version of a registry.

Both hold the PipelineModel in `model/`. Its documents say which columns it reads and what it calls those that it adds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import MODEL_URI, Step
from spark_jobs.dataset import Specification, read_specification
from spark_jobs.errors import InputError
from spark_jobs.registry import pointer
from spark_jobs.registry.places import place_of
from spark_jobs.registry.pointer import POINTER_NAME
from spark_jobs.result import RESULT_NAME

MODEL = "model"
"""Folder of the PipelineModel."""
SCORECARD_NAME, FEATURES_NAME, VERSION_NAME, REFERENCE_NAME = (
    "scorecard.json",
    "features.json",
    "version.json",
    "reference.json",
)


@dataclass(frozen=True, kw_only=True)
class SavedModel:
    """A trained model.

    Attributes:
        uri: the folder that holds it, in `model/`.
        version: the name of the version in a registry, else the digest of the model.
        specification: the roles of the columns that it was trained with.
        labels: the classes in the order of the probabilities; of two, the positive one is the last.
        columns: actual name of each column that it adds, by usual name; see `features.model_columns`.
        shift: what is added to the log-odds for the population of the specification's base rate; None: no base rate is stated.
        registry: the registry that it is in; empty for the output of train.
        name: its name there.
    """

    uri: str
    version: str
    specification: Specification
    labels: tuple[str, ...]
    columns: Mapping[str, str]
    shift: float | None = None
    registry: str = ""
    name: str = ""

    @property
    def model_uri(self) -> str:
        """URI of the PipelineModel."""
        return storage.join(self.uri, MODEL)

    @property
    def reference_uri(self) -> str:
        """URI of the histograms of the train rows."""
        return storage.join(self.uri, REFERENCE_NAME)


def find_model(uri: str) -> SavedModel:
    """Reads what the documents of a model say.

    Args:
        uri: the output of train, or in a registry the folder of a version, or that of a model, which means its champion.

    Raises:
        InputError: there is no whole model.
    """
    registry, _, name = uri.rstrip("/").rpartition("/")
    if storage.read_text_if_there(storage.join(uri, POINTER_NAME)) is not None:
        champion = pointer.read(place_of(registry), name)
        uri = storage.join(uri, "versions", champion.version)
    described = version = registry = name = ""
    if storage.read_text_if_there(storage.join(uri, VERSION_NAME)) is not None:
        described = storage.join(uri, FEATURES_NAME)
        folder, _, version = uri.rstrip("/").rsplit("/", 2)
        registry, _, name = folder.rpartition("/")
    elif storage.read_text_if_there(storage.join(uri, RESULT_NAME)) is not None:
        trained = storage.read_result(uri)
        if trained.step != Step.TRAIN:
            raise InputError(
                f"{flag(MODEL_URI)}={uri} is the output of {trained.step}; name that of train, or a version in a registry"
            )
        described = storage.join(str(trained.arguments["preprocess_uri"]), FEATURES_NAME)
        version = trained.digest
    else:
        raise InputError(
            f"{flag(MODEL_URI)}={uri}: there is no model, neither {RESULT_NAME} of train nor {VERSION_NAME} of a registry"
        )
    scorecard = storage.join(uri, SCORECARD_NAME)
    text = storage.read_text_if_there(scorecard)
    document: dict[str, Any] = json.loads(text if text is not None else storage.read_text(described))
    where = scorecard if text is not None else described
    return SavedModel(
        uri=uri,
        version=version,
        specification=read_specification(document["specification"], where),
        labels=tuple(document["labels"]),
        columns=document["model_columns"],
        shift=(document.get("correction") or {}).get("shift"),
        registry=registry,
        name=name,
    )

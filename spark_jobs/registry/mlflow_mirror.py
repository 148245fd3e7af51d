"""Shows the champion of a model, and its canary, in an MLflow registry: a copy of each version, and the aliases `champion` and `canary`.

MLflow is only told: the pointer of this registry is what counts, and nothing is read back. What is there already is left as it is, so the
mirror may be repeated at any time; a copy that was cut off is no version in MLflow, as that is made last. The copy holds the files of the
version but for examples.json, whose rows are data, and the file MLmodel, so that `mlflow.spark.load_model("models:/NAME@champion")` works.

Client: `MlflowClient` of mlflow/tracking/client.py in https://github.com/mlflow/mlflow; MLmodel: `_save_model_metadata` of
mlflow/spark/__init__.py there.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.mirrored import ALIASES, metrics, origin, versions_by_alias
from spark_jobs.registry.places import Place
from spark_jobs.registry.version_document import EXAMPLES_NAME, VERSION_NAME

VERSION_TAG = "spark-kfp.version"
"""Tag of a version in MLflow with its ID here."""
LEFT_OUT = frozenset([EXAMPLES_NAME])
MODEL_FOLDER = "model"
SPARK_FOLDER = "sparkml"
"""Where MLmodel says that the saved Spark model is; MLflow's own name for it."""
RETRIES = 3
"""MLflow's own 7, with pauses that double, are four minutes before a server that is not there is told."""
UNANSWERED = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
"""`MlflowException` has INTERNAL_ERROR for a request that got no answer: mlflow/utils/rest_utils.py, `http_request`."""
MOST_IN_BATCH = 100
"""MLflow takes at most so many parameters at once: https://mlflow.org/docs/latest/api_reference/rest-api.html#request-limits."""


def mirror(registry: Place, name: str, tracking_uri: str) -> dict[str, dict[str, str]]:
    """Copies the champion and the canary to MLflow, if they are not there, and moves the aliases.

    Args:
        registry: the registry.
        name: name of the model, here and there.
        tracking_uri: of the MLflow server, such as http://mlflow:5000.

    Returns:
        For each alias the `version` here and the one in `mlflow`.

    Raises:
        InputError: the model has no champion, a file of it was changed, or MLflow refuses.
        UnavailableError: the server does not answer.
    """
    # The package of an extra, which takes two seconds to import; the command line imports this module without it.
    from mlflow.environment_variables import (  # noqa: PLC0415
        MLFLOW_HTTP_REQUEST_MAX_RETRIES,
        MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT,
    )
    from mlflow.tracking import MlflowClient  # noqa: PLC0415

    wanted = versions_by_alias(pointer.read(registry, name))
    MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT.set(True)
    if not MLFLOW_HTTP_REQUEST_MAX_RETRIES.is_set():
        MLFLOW_HTTP_REQUEST_MAX_RETRIES.set(RETRIES)
    with _told(tracking_uri):
        client = MlflowClient(tracking_uri, registry_uri=tracking_uri)
        _make_model(client, name)
        there = {each.tags.get(VERSION_TAG): each.version for each in client.search_model_versions(f"name='{name}'")}
        for version in wanted.values():
            if version not in there:
                there[version] = _copy(client, registry, name, version)
        aliases = dict(client.get_registered_model(name).aliases)
        for alias in ALIASES:
            if alias not in wanted and alias in aliases:
                client.delete_registered_model_alias(name, alias)
            elif alias in wanted and str(aliases.get(alias)) != str(there[wanted[alias]]):
                client.set_registered_model_alias(name, alias, str(there[wanted[alias]]))
    return {alias: {"version": version, "mlflow": str(there[version])} for alias, version in wanted.items()}


@contextmanager
def _told(tracking_uri: str) -> Iterator[None]:
    """Turns MLflow's errors into ours, and those of the requests by which it sends files; a password in the URI is not shown."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see mirror
    from requests import RequestException  # noqa: PLC0415

    user = urlsplit(tracking_uri).netloc.rpartition("@")[0]

    def shown(text: object) -> str:
        return str(text).replace(f"{user}@", "") if user else str(text)

    try:
        yield
    except MlflowException as error:
        first = (shown(error).strip().splitlines() or [""])[0][:300]
        if error.error_code in UNANSWERED:
            raise UnavailableError(f"MLflow at {shown(tracking_uri)} does not answer: {first}") from error
        raise InputError(f"MLflow at {shown(tracking_uri)} refuses: {first}") from error
    except RequestException as error:
        raise UnavailableError(f"MLflow at {shown(tracking_uri)} takes no files: {shown(error)[:300]}") from error


def _make_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException  # noqa: PLC0415 - see mirror

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _copy(client: Any, registry: Place, name: str, version: str) -> str:
    """Makes a run with the settings, metrics and files of a version, and of that a version in MLflow; returns its number there."""
    document = versions.verify(registry, name, version)
    experiment = client.get_experiment_by_name(name)
    where = experiment.experiment_id if experiment else client.create_experiment(name)
    tags = {VERSION_TAG: version} | {f"spark-kfp.{key}": value for key, value in origin(document).items()}
    run = client.create_run(where, run_name=version, tags=tags)
    state = "FAILED"
    try:
        _log(client, run.info.run_id, document)
        with tempfile.TemporaryDirectory(prefix="spark-kfp-mlflow-") as folder:
            _write_files(Path(folder), registry, name, document, run.info.run_id)
            client.log_artifacts(run.info.run_id, folder)
        source = f"{run.info.artifact_uri}/{MODEL_FOLDER}"
        made = client.create_model_version(name, source, run.info.run_id, tags={VERSION_TAG: version})
        state = "FINISHED"
    finally:
        client.set_terminated(run.info.run_id, state)
    return str(made.version)


def _log(client: Any, run_id: str, document: Mapping[str, Any]) -> None:
    from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415 - see mirror

    client.log_batch(
        run_id,
        metrics=[Metric(key, value, 0, 0) for key, value in metrics(document).items()],
        tags=[RunTag("mlflow.note.content", f"version {document['version']} of spark-kfp")],
    )
    settings = [
        Param(f"{step}.{name}", str(value))
        for step, found in document["parameters"].items()
        for name, value in found.items()
    ]
    for begin in range(0, len(settings), MOST_IN_BATCH):
        client.log_batch(run_id, params=settings[begin : begin + MOST_IN_BATCH])


def _write_files(folder: Path, registry: Place, name: str, document: Mapping[str, Any], run_id: str) -> None:
    """Writes what the run gets: the model as MLflow wants it, and the other files of the version beside it."""
    place = versions.folder_of(name, document["version"])
    for path in (*(item["path"] for item in document["files"] if item["path"] not in LEFT_OUT), VERSION_NAME):
        inside = (
            f"{MODEL_FOLDER}/{SPARK_FOLDER}/{path.removeprefix('model/')}"
            if path.startswith("model/")
            else f"version/{path}"
        )
        target = folder / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(registry.read(f"{place}/{path}"))
    (folder / MODEL_FOLDER / "MLmodel").write_text(json.dumps(_mlmodel(document, run_id), indent=1), encoding="utf-8")


def _mlmodel(document: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Returns the content of MLmodel, as JSON, which is YAML."""
    made_by = document["made_by"]
    spark = {
        "model_data": SPARK_FOLDER,
        "code": None,
        "pyspark_version": made_by.get("packages", {}).get("pyspark", ""),
    }
    spark["model_class"] = "pyspark.ml.pipeline.PipelineModel"
    function = {"loader_module": "mlflow.spark", "data": SPARK_FOLDER, "python_version": made_by.get("python", "")}
    return {
        "artifact_path": MODEL_FOLDER,
        "flavors": {"spark": spark, "python_function": function},
        "run_id": run_id,
        "utc_time_created": document["created"],
    }

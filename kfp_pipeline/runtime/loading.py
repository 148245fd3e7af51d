"""The task load: finds the data of a run, and takes over what an earlier run of the pipeline has made of the very same data.

KFP's cache is of no use here: it looks at a task's inputs, and neither at what lies behind a URI nor at the code in the Spark image. So
this task runs in every run. It fills in the date, asks the object store for the data's version, and starts Spark only if no earlier run
has loaded the same version with the same arguments and the same code. What it returns, a table's URI and the code's version, are inputs
of the tasks after it: KFP's cache takes those over only if both are as before.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import yaml

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date, parse_scheduled_time, version_of
from kfp_pipeline.runtime.fingerprint import digest_of_code
from kfp_pipeline.runtime.kubernetes_api import connect
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.spark_operator.manifest import STEPS_KEY, TEMPLATE_KEY, read_config
from kfp_pipeline.runtime.step import check_paths, execute_step, record_result, run_task, step_arguments
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Result

LOADED_TABLES = "loaded"
"""Folder beside the pipeline's runs that says, for each version of data, arguments and code, where its table is."""
RUN_INPUTS_NAME = "found.json"


class LoadedTable(NamedTuple):
    """What the tasks after it get.

    Attributes:
        uri: of the table.
        code_version: changes with the steps' code and with the Spark image's name.
    """

    uri: str
    code_version: str


class RunInputs(NamedTuple):
    """What a run reads, as it was when its first attempt looked.

    Attributes:
        data_uri: with its date filled in.
        data_version: changes whenever the data or the specification do.
        code_version: as in `LoadedTable`.
    """

    data_uri: str
    data_version: str
    code_version: str


def run_load(inputs: Mapping[str, Any]) -> LoadedTable:
    """Runs the task; see `run_task`."""
    return run_task(Step.LOAD, inputs, load)


def load(step: Step, inputs: Mapping[str, Any], settings: Settings) -> LoadedTable:
    """Takes a table over, or loads it and notes where it is.

    Raises:
        InputError: the data are not there, or have changed while they were read.
        StepError: the step did not end well.
    """
    output = inputs["table"].uri
    if not object_store.is_stored(output):  # on one machine a finished step is found by its fingerprint
        return LoadedTable(execute_step(step, inputs, settings), digest_of_code())
    check_paths(step_arguments(step, inputs), settings.run_id)
    found = _found(inputs, settings)
    print(f"data: {found.data_uri}, version {found.data_version}; code {found.code_version}", flush=True)  # noqa: T201
    inputs = {**inputs, "data_uri": found.data_uri}
    note = _note_of(
        step_arguments(step, inputs), found, run_folder_of(output, settings.run_id).removesuffix(settings.run_id)
    )
    earlier = _earlier(note) if settings.reuse else None
    if earlier:
        print(f"loaded by an earlier run, taken over: {earlier.reused_from}", flush=True)  # noqa: T201
        record_result(earlier, inputs)
        return LoadedTable(earlier.reused_from, found.code_version)
    uri = execute_step(step, inputs, settings)
    if found.data_version != version_of(found.data_uri, inputs["specification_uri"]):
        raise InputError(f"{found.data_uri} has changed while the run read it; start the run again")
    _write(note, {"output_uri": uri, "version": version_of(uri)})
    return LoadedTable(uri, found.code_version)


def _found(inputs: Mapping[str, Any], settings: Settings) -> RunInputs:
    """What to read; a repeated task reads what its first attempt has found, for that one's application may go on."""
    uri = f"{inputs['table'].uri}/{RUN_INPUTS_NAME}"
    if text := object_store.read_text(uri):
        return RunInputs(**json.loads(text))
    data_uri, due = (
        fill_date(inputs["data_uri"], inputs["scheduled_time"]),
        parse_scheduled_time(inputs["scheduled_time"]),
    )
    if data_uri != inputs["data_uri"] and due is None:
        told = (
            "KFP does not tell for which time this run was due (it does from 2.17 on), so the date is today's, in UTC"
        )
        print(told, flush=True)  # noqa: T201 - the log pane of KFP's UI
    data_version = version_of(data_uri, inputs["specification_uri"])
    found = RunInputs(data_uri, data_version, code_version(str(inputs["spark"]), settings))
    _write(uri, found._asdict())
    return found


def code_version(spark: str, settings: Settings) -> str:
    """A digest of the steps' code, as it is in this image, and of the images that the platform's ConfigMap names.

    The images are made from the same files at the same time (`make image`), so code that was changed is seen even if the tag stays.
    """
    images: list[str] = []
    if spark == "operator":
        config = read_config(connect(settings.namespace, settings.patience_seconds), settings.config_map)
        images = images_of(config)
    return hashlib.sha256(json.dumps([digest_of_code(), images]).encode()).hexdigest()[:32]


def images_of(config: Mapping[str, str]) -> list[str]:
    """Every image that the platform's template and its changes for single steps name."""
    return sorted({name for key in (TEMPLATE_KEY, STEPS_KEY) for name in _images(_parsed(config.get(key, ""), key))})


def _parsed(text: str, key: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{key} of the ConfigMap is not YAML: {error}") from error


def _images(part: Any) -> Iterator[str]:
    if isinstance(part, Mapping):
        for name, value in part.items():
            yield from (str(value),) if name == "image" else _images(value)
    elif isinstance(part, list):
        for item in part:
            yield from _images(item)


def _note_of(args: StepArgs, found: RunInputs, pipeline: str) -> str:
    """URI of the document that says where the table is which these arguments make of this version by this code."""
    given = {name: value for name, value in vars(args).items() if name != "output_uri"}
    key = hashlib.sha256(json.dumps([given, found], sort_keys=True).encode()).hexdigest()
    return f"{pipeline}{LOADED_TABLES}/{key}.json"


def _earlier(note: str) -> Result | None:
    """The result of the earlier load; None if there is none, or something of what it left is gone or was changed."""
    text = object_store.read_text(note)
    if not text:
        return None
    noted = json.loads(text)
    try:
        whole = noted["version"] == version_of(noted["output_uri"])
    except InputError:  # there is nothing left
        whole = False
    result = object_store.read_text(f"{noted['output_uri']}/{RESULT_NAME}") if whole else None
    return replace(Result.from_json(result), reused_from=noted["output_uri"]) if result else None


def _write(uri: str, document: Mapping[str, str]) -> None:
    object_store.write_bytes(uri, json.dumps(document).encode())

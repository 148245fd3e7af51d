"""The KFP task of the step load: it finds the data of a run, and reuses the table that an earlier run made of the same data.

KFP's cache cannot decide this: it compares the inputs of a task, but not the data behind a URI nor the code in the Spark image. So it is
turned off for this task. In every run the task fills in the date, asks the object store for the data's version, and starts Spark only if no
earlier run of the pipeline has loaded that version with the same arguments and code. It returns the URI of the table and the version of
the code. They are inputs of the later tasks, which KFP's cache therefore reuses only if both are unchanged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date, parse_scheduled_time, version_of
from kfp_pipeline.runtime.fingerprint import digest_of_code
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.runner import ON_A_CLUSTER
from kfp_pipeline.runtime.step import check_paths, execute_step, record_result, run_task, step_arguments
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Result

LOADED_TABLES = "loaded"
"""Folder beside the runs of a pipeline, with one document for each loaded version of data, arguments and code: the URI of its table."""
RUN_INPUTS_NAME = "found.json"


class LoadedTable(NamedTuple):
    """The outputs of the task, which are inputs of the later tasks.

    Attributes:
        uri: URI of the table.
        code_version: changes with the steps' code and with the Spark image's name.
    """

    uri: str
    code_version: str


class RunInputs(NamedTuple):
    """The data and the code of a run, as its first attempt found them.

    Attributes:
        data_uri: URI of the data, with the date filled in.
        data_version: changes whenever the data or the specification change.
        code_version: see `LoadedTable`.
    """

    data_uri: str
    data_version: str
    code_version: str


def run_load(inputs: Mapping[str, Any]) -> LoadedTable:
    """Runs the task load; the component calls it. See `run_task`."""
    return run_task(Step.LOAD, inputs, load)


def load(step: Step, inputs: Mapping[str, Any], settings: Settings) -> LoadedTable:
    """Reuses the table of an earlier run, or runs the step and records its table for later runs.

    Raises:
        InputError: the data do not exist, or changed while they were read.
        StepError: the step failed.
    """
    output = inputs["table"].uri
    if not object_store.is_object_store_uri(output):  # a run on one machine reuses steps by their fingerprint
        return LoadedTable(execute_step(step, inputs, settings), digest_of_code())
    check_paths(step_arguments(step, inputs), settings.run_id)
    found = _run_inputs(inputs, settings)
    print(f"data: {found.data_uri}, version {found.data_version}; code {found.code_version}", flush=True)  # noqa: T201
    inputs = {**inputs, "data_uri": found.data_uri}
    record_uri = _record_uri(
        step_arguments(step, inputs), found, run_folder_of(output, settings.run_id).removesuffix(settings.run_id)
    )
    earlier = _earlier_result(record_uri) if settings.reuse else None
    if earlier:
        print(f"loaded by an earlier run, taken over: {earlier.reused_from}", flush=True)  # noqa: T201
        record_result(earlier, inputs)
        return LoadedTable(earlier.reused_from, found.code_version)
    uri = execute_step(step, inputs, settings)
    # A table made of half-changed data must not be recorded under the version of before.
    if found.data_version != version_of(found.data_uri, inputs["specification_uri"]):
        raise InputError(f"{found.data_uri} has changed while the run read it; start the run again")
    _write(record_uri, {"output_uri": uri, "version": version_of(uri)})
    return LoadedTable(uri, found.code_version)


def _run_inputs(inputs: Mapping[str, Any], settings: Settings) -> RunInputs:
    """Finds the data and the code of the run.

    A retry of the task uses what the first attempt found, because the SparkApplication of that attempt may still run with it.
    """
    uri = f"{inputs['table'].uri}/{RUN_INPUTS_NAME}"
    if text := object_store.read_text(uri):
        return RunInputs(**json.loads(text))
    data_uri, due = (
        fill_date(inputs["data_uri"], inputs["scheduled_time"]),
        parse_scheduled_time(inputs["scheduled_time"]),
    )
    if data_uri != inputs["data_uri"] and due is None:
        notice = (
            "KFP does not tell for which time this run was due (it does from 2.17 on), so the date is today's, in UTC"
        )
        print(notice, flush=True)  # noqa: T201 - the log pane of KFP's UI
    data_version = version_of(data_uri, inputs["specification_uri"])
    found = RunInputs(data_uri, data_version, code_version(str(inputs["spark"]), settings))
    _write(uri, found._asdict())
    return found


def code_version(spark: str, settings: Settings) -> str:
    """Computes a digest of the steps' code in this image and of the image names in the platform's ConfigMap.

    `make image` builds the task image and the Spark image from the same files, so changed code is noticed even if the tag of the Spark
    image stays the same.
    """
    images: list[str] = []
    if spark in ON_A_CLUSTER:
        # Importing the client of Kubernetes takes more than half a second, and a run on one machine needs none.
        from kfp_pipeline.runtime.kubernetes_api import connect  # noqa: PLC0415
        from kfp_pipeline.runtime.spark_operator.manifest import images_of, read_config  # noqa: PLC0415

        config = read_config(connect(settings.namespace, settings.patience_seconds), settings.config_map)
        images = images_of(config)
    return hashlib.sha256(json.dumps([digest_of_code(), images]).encode()).hexdigest()[:32]


def _record_uri(args: StepArgs, found: RunInputs, pipeline: str) -> str:
    """URI of the document that records the table made by this code of this version of the data with these arguments."""
    given = {name: value for name, value in vars(args).items() if name != "output_uri"}
    key = hashlib.sha256(json.dumps([given, found], sort_keys=True).encode()).hexdigest()
    return f"{pipeline}{LOADED_TABLES}/{key}.json"


def _earlier_result(record_uri: str) -> Result | None:
    """The result of the recorded load; None if there is no record, or if its table was changed or deleted since."""
    text = object_store.read_text(record_uri)
    if not text:
        return None
    recorded = json.loads(text)
    try:
        unchanged = recorded["version"] == version_of(recorded["output_uri"])
    except InputError:  # the table was deleted
        unchanged = False
    result = object_store.read_text(f"{recorded['output_uri']}/{RESULT_NAME}") if unchanged else None
    return replace(Result.from_json(result), reused_from=recorded["output_uri"]) if result else None


def _write(uri: str, document: Mapping[str, str]) -> None:
    object_store.write_bytes(uri, json.dumps(document).encode())

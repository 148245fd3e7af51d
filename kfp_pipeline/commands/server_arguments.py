"""What the commands for a KFP server read from their arguments: the server, the platform file, and the pipeline's parameters."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_pipeline.commands.input_checks import check_places_on_a_cluster
from kfp_pipeline.kfp_server.client import Server, connect
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date
from kfp_pipeline.runtime.spark_operator.manifest import check_overrides
from kfp_pipeline.settings import KfpSettings, Settings
from kfp_pipeline.task_settings import Platform, read_platform
from spark_jobs.arguments import Role
from spark_jobs.contract import DATA_URI, SPECIFICATION_URI, Pipeline, Step
from spark_jobs.errors import InputError

DEFAULT_EXPERIMENT = "spark-kfp"


def connect_to_server(arguments: argparse.Namespace, settings: Settings) -> Server:
    """Connects to the KFP server that the flags name, or else the environment."""
    known = KfpSettings.from_environment()
    changes: dict[str, str] = {"namespace": arguments.namespace, "ca_file": arguments.ca_file}
    if arguments.kfp:
        changes["url"] = arguments.kfp.rstrip("/")
    if arguments.token_file:
        changes["token"] = Path(arguments.token_file).read_text(encoding="utf-8").strip()
    return connect(replace(known, **changes), settings.patience_seconds, lambda line: print(line, file=sys.stderr))


def platform_of(arguments: argparse.Namespace) -> Platform:
    """Reads the task settings from `--platform` and `--image`."""
    return read_platform(arguments.platform, arguments.image)


def pipeline_parameters(pipeline: Pipeline, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checks the inputs of a pipeline and returns those that differ from their defaults.

    Args:
        pipeline: the pipeline.
        given: the inputs by name, of the types that the contract declares.

    Raises:
        InputError: the cluster cannot read the data or the specification where they are, the date in the data's URI cannot be filled in,
            no label is named, a setting is out of range, or the Spark settings change something that a run may not change.
    """
    external = pipeline.inputs(Role.GIVEN)
    if DATA_URI in external and not given[DATA_URI]:
        raise InputError("name the data, in the object store: s3://BUCKET/data.csv; see: spark-kfp data upload --help")
    for name, item in external.items():
        if item.needed and not given.get(name):
            raise InputError(f"the pipeline {pipeline.name} needs {name}: {item.about}")
        if given.get(name) and not object_store.is_object_store_uri(str(given[name])):
            raise InputError(
                f"{given[name]}: the cluster cannot read this machine; first: spark-kfp data upload FILE s3://BUCKET/NAME"
            )
    fill_date(str(given.get(DATA_URI, "")), "")  # only a check: the run's first task fills in the date of the run
    if Step.LOAD in pipeline.steps and not given.get("label") and not given.get(SPECIFICATION_URI):
        raise InputError("which column is the label? Give label=NAME, or specification_uri with a data specification")
    check_overrides(given.get("spark_settings") or {})
    pipeline.check_settings(given)
    check_places_on_a_cluster(given)
    defaults = {item.name: item.default for item in pipeline.inputs().values() if not item.needed}
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}

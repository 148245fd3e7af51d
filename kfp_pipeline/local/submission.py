"""Submits steps to a cluster from a laptop, without KFP: one step, or the steps of a pipeline one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.katib.choice import is_for_katib
from kfp_pipeline.runtime.katib.tuner import KatibTuner
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.runtime.runner import Runner
from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner
from kfp_pipeline.runtime.spark_operator.session_runner import SharedSessionRunner, end_session
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Role, StepArgs
from spark_jobs.contract import SPECIFICATION_URI, Pipeline, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result


def read_overrides(path: str) -> dict[str, Any]:
    """Reads the Spark settings of a run from a YAML file; an empty path means no settings.

    Raises:
        InputError: the file is missing, is not YAML, or holds no mapping.
    """
    if not path:
        return {}
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{where} is not YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must map a step, or all, to a partial SparkApplication spec")
    return found


def submit_step(
    cluster: Cluster,
    step: Step,
    args: StepArgs,
    settings: Settings,
    *,
    run: str,
    overrides: Mapping[str, Any],
    shared: bool = False,
) -> Result:
    """Submits one step as a SparkApplication, to the session of its run, or a search to Katib, and waits for its result; see `Runner.run`.

    Raises:
        InputError: the bucket of the output does not exist or cannot be read from this machine, which must read the result there.
    """
    check_bucket(str(vars(args)["output_uri"]))
    kind = SharedSessionRunner if shared else SparkOperatorRunner
    runner: Runner = kind(
        cluster, config_name=settings.config_map, lease_seconds=settings.lease_seconds, run=run, overrides=overrides
    )
    if is_for_katib(args):
        runner = KatibTuner(cluster, partial(runner.run, Step.TRAIN), run=run, overrides=overrides)
    return runner.run(step, args, settings.runs / (run or "submitted") / "logs" / f"{step}.log")


def submit_pipeline(
    cluster: Cluster,
    pipeline: Pipeline,
    inputs: Mapping[str, Any],
    root: str,
    settings: Settings,
    *,
    run: str,
    overrides: Mapping[str, Any],
    shared: bool = False,
    print_line: Callable[[str], None],
) -> list[Result]:
    """Submits the steps of a pipeline one after another; each step writes its output below `root/run/STEP`.

    Called again with the same run name, it reuses the steps that have finished and follows an application that still runs.

    Args:
        cluster: the cluster.
        pipeline: the pipeline.
        inputs: the pipeline's inputs; a specification on this machine is uploaded to the object store.
        root: URI below which the runs lie.
        settings: the platform's settings.
        run: name of the run.
        overrides: the run's Spark settings.
        shared: whether the steps share the Spark session of one SparkApplication.
        print_line: prints a line for the user who waits.

    Returns:
        The result of each step.

    Raises:
        InputError: the data are on this machine, where the cluster cannot read them; a specification may be.
        StepError: a step failed; the later steps are not started.
    """
    if not object_store.is_object_store_uri(root):
        raise InputError(f"--output={root}: give a URI in an object store, like s3://BUCKET/runs")
    given = dict(inputs)
    for name in pipeline.inputs(Role.GIVEN):
        if name != SPECIFICATION_URI and given[name] and not object_store.is_object_store_uri(str(given[name])):
            raise InputError(
                f"{given[name]}: the cluster cannot read this machine; first: spark-kfp data upload FILE URI"
            )
    for uri in (root, str(given.get("registry_uri", ""))):
        check_bucket(uri)
    place = f"{root.rstrip('/')}/{run}"
    if SPECIFICATION_URI in given:
        given[SPECIFICATION_URI] = _upload_specification(str(given[SPECIFICATION_URI]), f"{place}/specification.toml")
    results = []
    try:
        for step in pipeline.steps_of(given):
            args = pipeline.arguments_below(place, step, given)
            result = submit_step(cluster, step, args, settings, run=run, overrides=overrides, shared=shared)
            print_line(
                f"{step}: {dict(result.rows_out)} rows, {result.seconds['work']:.1f} s of work, {result.uris['output']}"
            )
            results.append(result)
            chosen = pipeline.chosen(step, result.facts)
            if chosen is None:
                print_line(f"{step} starts no further step: {result.facts['outcome']}")
                break
            given |= chosen
    finally:
        if shared:
            end_session(cluster, object_store, place)
    return results


def check_bucket(uri: str) -> None:
    """Checks that the bucket of a URI exists, before anything is submitted.

    Raises:
        InputError: the bucket does not exist, the object store refuses access, or its endpoint is not set on this machine.
        StepError: the object store does not answer.
    """
    if not object_store.is_object_store_uri(uri):
        return
    bucket, _ = object_store.bucket_and_key(uri)
    if not object_store.bucket_exists(bucket):
        raise InputError(f"{uri}: there is no such bucket; make it first: spark-kfp data make-bucket {bucket}")


def _upload_specification(specification: str, uri: str) -> str:
    if not specification or object_store.is_object_store_uri(specification):
        return specification
    try:
        object_store.write_bytes(uri, Path(specification).read_bytes())
    except OSError as error:
        raise InputError(f"{specification}: {error.strerror}") from error
    return uri

"""The work of a KFP task: it checks the step's arguments, runs or reuses the step, and writes the result into KFP's artifacts.

A component's body is one call of `run_task`, because KFP copies the body's source into the compiled pipeline and it cannot be tested alone.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from kfp_pipeline.runtime import failures, fingerprint
from kfp_pipeline.runtime.data_version import fill_date
from kfp_pipeline.runtime.errors import StepError, exits_with_message
from kfp_pipeline.runtime.events import emit
from kfp_pipeline.runtime.katib.choice import runner_of
from kfp_pipeline.runtime.object_store import is_object_store_uri, read_text
from kfp_pipeline.runtime.processes import die_with_parent, signals_raise_interrupt
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.runner import Runner
from kfp_pipeline.runtime.summary import evaluation_summary, promotion_summary
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import OUTPUT_URI, TYPES, Role, StepArgs, flag
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result

Outcome = TypeVar("Outcome")


def execute_step(step: Step, inputs: Mapping[str, Any], settings: Settings) -> str:
    """Runs the step of a task with the runner that the task's inputs name, and writes the result into the output artifacts.

    Args:
        step: the step.
        inputs: inputs and output artifacts of the component, by name.
        settings: of this task.

    Returns:
        The URI of the step's main output, for the next task; of a step that decides whether the pipeline goes on, its decision.

    Raises:
        InputError: an input is wrong.
        StepError: the step failed.
    """
    args = step_arguments(step, inputs)
    check_paths(args, settings.run_id)
    runner = runner_of(
        args,
        inputs["spark"],
        settings,
        run=settings.run_id,
        overrides=inputs["spark_settings"],
        task_config=vars(inputs["task_config"]),
    )
    result = run_or_reuse_step(step, args, runner, settings)
    record_result(result, inputs)
    return str(result.facts[args.DECIDES] if args.DECIDES else vars(args)["output_uri"])


def run_task(
    name: str,
    inputs: Mapping[str, Any],
    task_body: Callable[[Step, Mapping[str, Any], Settings], Outcome] = execute_step,  # type: ignore[assignment]
) -> Outcome:
    """Runs one task of the pipeline: the whole body of a component.

    Args:
        name: the step's name.
        inputs: inputs and output artifacts of the component, by name; `spark` is one of them.
        task_body: the task's work.

    Returns:
        What `task_body` returns: the outputs of the task.

    Raises:
        SystemExit: the step failed; the log says why. Code 2 for bad input, else 1.
    """
    step, settings = Step(name), Settings.from_environment()
    die_with_parent()
    output_uri = inputs[main_artifact(step)].uri
    ends_with_message = exits_with_message(lambda error: emit_failure(step, settings, error))
    with ends_with_message, signals_raise_interrupt(), failures.save_on_error(step, output_uri, settings.run_id):
        return task_body(step, inputs, settings)
    raise AssertionError("exits_with_message ends the task after an error")


def step_arguments(step: Step, inputs: Mapping[str, Any]) -> StepArgs:
    """Makes the step's arguments: the component's inputs by name, and the URIs that KFP gave to the output artifacts.

    The date of the run is filled into the URIs that the user gave.

    Raises:
        InputError: a value is not of its type or out of its range.
    """
    kind = ARGUMENTS[step]
    outputs = {item.name: inputs[item.artifact].uri for item in kind.arguments(Role.OUTPUT)}
    due = str(inputs.get("scheduled_time", ""))
    inputs = {**inputs, **{name: fill_date(inputs[name], due) for name in kind.names(Role.GIVEN)}}
    given = {
        item.name: _typed(item.name, inputs[item.name], TYPES[item.type])
        for item in kind.arguments()
        if item.name not in outputs
    }
    return kind(**given, **outputs)


def main_artifact(step: Step) -> str:
    """The name of the output artifact whose URI is the step's main output, where the result document lies."""
    (argument,) = (item for item in ARGUMENTS[step].arguments(Role.OUTPUT) if item.name == OUTPUT_URI)
    return argument.artifact


def _typed(name: str, value: Any, kind: type) -> Any:
    """Converts a number to its type in the contract: KFP passes all numbers as floats, and its server accepts 42.5 for an integer."""
    if kind is int and isinstance(value, float):
        if not value.is_integer():
            raise InputError(f"{flag(name)} is {value!r}; it must be a whole number")
        return int(value)
    return float(value) if kind is float and isinstance(value, int) else value


def check_paths(args: StepArgs, run_id: str) -> None:
    """Checks that a step writes only below its run's folder and reads outputs only of its own pipeline.

    Outputs of another run of the same pipeline are allowed, because KFP's cache passes on their URIs. Data that the user named may lie
    anywhere. A run on one machine is not checked.

    Raises:
        InputError: a URI lies elsewhere, or contains `..`.
        PermanentError: the step's output does not lie in a folder named after the run.
    """
    output = str(vars(args)["output_uri"])
    if not is_object_store_uri(output):
        return
    run_folder = run_folder_of(output, run_id)
    pipeline = run_folder.removesuffix(run_id)
    for item in args.arguments(Role.GIVEN, Role.FROM_STEP, Role.OUTPUT):
        uri = str(getattr(args, item.name))
        if ".." in uri.split("/"):
            raise InputError(f"{flag(item.name)} is {uri!r}; a URI must not hold ..")
        allowed = f"{run_folder}/" if item.role == Role.OUTPUT else pipeline
        if item.role != Role.GIVEN and uri and not uri.startswith(allowed):
            raise InputError(f"{flag(item.name)} is {uri!r}, outside of {allowed}; a step stays with its own pipeline")


def run_or_reuse_step(step: Step, args: StepArgs, runner: Runner, settings: Settings) -> Result:
    """Reuses a finished step with the same fingerprint, or else runs the step; reuse by fingerprint is for runs on one machine only.

    Raises:
        StepError: the step failed.
        InputError: Spark cannot be started with these settings.
    """
    began = time.perf_counter()
    key = _reuse_key(step, args, settings)
    emit(settings.run, step, "running", uri=vars(args)["output_uri"])
    result = fingerprint.reuse_finished_step(settings.runs, key, args) if key and settings.reuse else None
    if not result:
        if key:
            fingerprint.take_over_unfinished(settings.runs, key, args)
        log_path = Path(settings.run or tempfile.gettempdir()) / "logs" / f"{step}.log"
        result = runner.run(step, args, log_path)
    if key:
        fingerprint.record_finished_step(settings.runs, key, result)
    facts = {"rows": dict(result.rows_out), "warnings": list(result.warnings), "uri": vars(args)["output_uri"]}
    emit(settings.run, step, "reused" if result.reused_from else "done", seconds=time.perf_counter() - began, **facts)
    return result


def _reuse_key(step: Step, args: StepArgs, settings: Settings) -> str:
    """Returns the key by which an earlier output of a step is found; empty if the step must run anew."""
    if settings.run and args.REUSABLE:
        return fingerprint.fingerprint(step, args)
    return fingerprint.key_in_run(step, args, Path(settings.run).name) if settings.run and args.DECIDES else ""


def emit_failure(step: Step, settings: Settings, error: StepError) -> None:
    """Writes the event that the step failed and why, for a run on one machine."""
    facts = {"kind": error.failure.kind, "message": error.failure.message, "log": error.log, "log_path": error.log_path}
    emit(settings.run, step, "failed", **facts)


def record_result(result: Result, artifacts: Mapping[str, Any]) -> None:
    """Writes a step's result into KFP's output artifacts: metadata, metrics and curves.

    Args:
        result: the result document.
        artifacts: the component's output artifacts, by name.
    """
    main = artifacts[main_artifact(Step(result.step))]
    main.metadata.update(
        rows=dict(result.rows_out),
        columns=[list(column) for column in result.columns],
        digest=result.digest,
        inputs=dict(result.inputs),
        reused_from=result.reused_from,
        warnings=list(result.warnings),
    )
    if "metrics" in artifacts:
        for name, value in result.metrics.items():
            if math.isfinite(value):  # KFP fails a task that logs a NaN or an infinity
                artifacts["metrics"].log_metric(name, value)
    if "curves" in artifacts:
        text = read_text(f"{result.uris['output']}/evaluation.json")
        assert text is not None, "evaluate has written it"
        record_curves(json.loads(text), artifacts["curves"])
        write_local(artifacts["summary"], evaluation_summary(json.loads(text)))
    if "verdict" in artifacts:
        write_local(artifacts["verdict"], promotion_summary(result.facts))


def record_curves(document: Mapping[str, Any], curves: Any) -> None:
    """Writes the ROC curve, if there is one, and the confusion matrix into a ClassificationMetrics artifact."""
    points = (document["curves"] or {}).get("roc", [])
    if points:
        false, true, thresholds = zip(*points, strict=True)
        curves.log_roc_curve(list(false), list(true), list(thresholds))
    curves.log_confusion_matrix(document["confusion"]["labels"], document["confusion"]["matrix"])


def write_local(artifact: Any, text: str) -> None:
    """Writes a small artifact to its local path, from which KFP's launcher uploads it."""
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

"""What a task does: validates the step's arguments, reuses or runs it, and records the result for Kubeflow.

The bodies of the components hold one call of `run_task`; everything that can be tested without Kubeflow is here.
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
from kfp_pipeline.runtime.errors import StepError, exits_with_message
from kfp_pipeline.runtime.events import emit
from kfp_pipeline.runtime.object_store import is_stored, read_text
from kfp_pipeline.runtime.processes import die_with_parent, signals_raise_interrupt
from kfp_pipeline.runtime.run_folder import run_folder_of
from kfp_pipeline.runtime.runner import Runner, runner_for
from kfp_pipeline.runtime.summary import evaluation_summary
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import OUTPUT_URI, TYPES, Role, StepArgs, flag
from spark_jobs.contract import ARGUMENTS, Step
from spark_jobs.errors import InputError
from spark_jobs.result import Result

Outcome = TypeVar("Outcome")


def execute_step(step: Step, inputs: Mapping[str, Any], settings: Settings) -> str:
    """Runs a task's step and records its result.

    Returns:
        The URI of the step's output, for the next task.

    Raises:
        InputError: an input is wrong.
        StepError: the step did not end well.
    """
    args = step_arguments(step, inputs)
    check_paths(args, settings.run_id)
    runner = runner_for(
        inputs["spark"],
        settings,
        run=settings.run_id,
        overrides=inputs["spark_settings"],
        task_config=vars(inputs["task_config"]),
    )
    record_result(run_or_reuse_step(step, args, runner, settings), inputs)
    return str(vars(args)["output_uri"])


def run_task(
    name: str,
    inputs: Mapping[str, Any],
    work: Callable[[Step, Mapping[str, Any], Settings], Outcome] = execute_step,  # type: ignore[assignment]
) -> Outcome:
    """Runs one task of the pipeline.

    Args:
        name: the step.
        inputs: the component's inputs and output artifacts by name, `spark` among them.
        work: what the task does.

    Returns:
        What the work returns: the URI of the step's output, for the next task.

    Raises:
        SystemExit: the step failed; the event and the log tell why. Code 2 for bad input, else 1.
    """
    step, settings = Step(name), Settings.from_environment()
    die_with_parent()
    output_uri = main_output(step, inputs).uri
    told = exits_with_message(lambda error: emit_failure(step, settings, error))
    with told, signals_raise_interrupt(), failures.save_on_error(step, output_uri, settings.run_id):
        return work(step, inputs, settings)
    raise AssertionError("an error ends the task")


def step_arguments(step: Step, inputs: Mapping[str, Any]) -> StepArgs:
    """The step's arguments: inputs by their names, outputs at the URIs that KFP gave to the artifacts.

    Raises:
        InputError: a value is out of its range.
    """
    kind = ARGUMENTS[step]
    outputs = {item.name: inputs[item.artifact].uri for item in kind.arguments(Role.OUTPUT)}
    given = {
        item.name: _typed(item.name, inputs[item.name], TYPES[item.type])
        for item in kind.arguments()
        if item.name not in outputs
    }
    return kind(**given, **outputs)


def main_output(step: Step, artifacts: Mapping[str, Any]) -> Any:
    """The artifact of a step's component whose URI is the step's main output."""
    (argument,) = (item for item in ARGUMENTS[step].arguments(Role.OUTPUT) if item.name == OUTPUT_URI)
    return artifacts[argument.artifact]


def _typed(name: str, value: Any, kind: type) -> Any:
    """A value as its type in the contract: KFP's numbers are all floats, and its server takes 42.5 for an integer."""
    if kind is int and isinstance(value, float):
        if not value.is_integer():
            raise InputError(f"{flag(name)} is {value!r}; it must be a whole number")
        return int(value)
    return float(value) if kind is float and isinstance(value, int) else value


def check_paths(args: StepArgs, run_id: str) -> None:
    """Refuses a step that would write outside its run, read outside its pipeline, or follow a path that climbs out of where it starts.

    It may read what another run of the same pipeline has made: KFP's cache hands that on.

    Raises:
        InputError: with the URI.
        PermanentError: the output does not lie in a folder named after the run.
    """
    output = str(vars(args)["output_uri"])
    if not is_stored(output):
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
    """Takes over a finished step with the same fingerprint, or runs it.

    Raises:
        StepError: the step did not end well.
        InputError: Spark cannot be started with these settings.
    """
    began = time.perf_counter()
    key = fingerprint.fingerprint(step, args) if settings.run else ""
    emit(settings.run, step, "running")
    result = fingerprint.reuse_finished_step(settings.runs, key, args) if key and settings.reuse else None
    if not result:
        log_path = Path(settings.run or tempfile.gettempdir()) / "logs" / f"{step}.log"
        result = runner.run(step, args, log_path)
    if key:
        fingerprint.record_finished_step(settings.runs, key, result)
    facts = {"rows": dict(result.rows_out), "warnings": list(result.warnings), "uri": vars(args)["output_uri"]}
    emit(settings.run, step, "reused" if result.reused_from else "done", seconds=time.perf_counter() - began, **facts)
    return result


def emit_failure(step: Step, settings: Settings, error: StepError) -> None:
    """Tells whoever follows the run on this machine why the step failed."""
    facts = {"kind": error.failure.kind, "message": error.failure.message, "log": error.log, "log_path": error.log_path}
    emit(settings.run, step, "failed", **facts)


def record_result(result: Result, artifacts: Mapping[str, Any]) -> None:
    """Writes the result into the output artifacts: metadata, metrics, curves."""
    main = main_output(Step(result.step), artifacts)
    main.metadata.update(
        {"rows": dict(result.rows_out), "columns": [list(column) for column in result.columns], "digest": result.digest}
    )
    main.metadata.update(
        {"inputs": dict(result.inputs), "reused_from": result.reused_from, "warnings": list(result.warnings)}
    )
    if "metrics" in artifacts:
        for name, value in result.metrics.items():
            if math.isfinite(value):  # KFP fails a task that logs anything else
                artifacts["metrics"].log_metric(name, value)
    if "curves" in artifacts:
        text = read_text(f"{result.uris['output']}/evaluation.json")
        assert text is not None, "evaluate has written it"
        record_curves(json.loads(text), artifacts["curves"])
        write_local(artifacts["summary"], evaluation_summary(json.loads(text)))


def record_curves(document: Mapping[str, Any], curves: Any) -> None:
    """Writes the ROC curve, if there is one, and the confusion matrix into a ClassificationMetrics artifact."""
    points = (document["curves"] or {}).get("roc", [])
    if points:
        false, true, thresholds = zip(*points, strict=True)
        curves.log_roc_curve(list(false), list(true), list(thresholds))
    curves.log_confusion_matrix(document["confusion"]["labels"], document["confusion"]["matrix"])


def write_local(artifact: Any, text: str) -> None:
    """Writes a small artifact where KFP's launcher looks for it, to upload it."""
    path = Path(artifact.path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")

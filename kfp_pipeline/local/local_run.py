"""Runs a pipeline on this machine: the same KFP graph as on a cluster, executed by KFP's local runner.

KFP's local runner blocks until the graph has ended and prints a lot. So the graph runs in a child process, whose output goes to a log file,
and this process follows the events that the tasks write to a file in the run's folder.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_pipeline.local import runs
from kfp_pipeline.runtime.events import EVENTS_NAME, all_events, read_events
from kfp_pipeline.runtime.processes import (
    child_process,
    die_with_parent,
    process_group_ends_with_block,
    signals_raise_interrupt,
)
from kfp_pipeline.runtime.runner import runner_for
from kfp_pipeline.runtime.spark_submit.java import find_java
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner, spark_home
from kfp_pipeline.runtime.spark_submit.shared_session import SESSION_NAME, SharedSession, run_session
from kfp_pipeline.settings import Settings, java_environment
from spark_jobs.arguments import Role
from spark_jobs.contract import REPORT_URI, Pipeline, Step, outputs_of
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Result

POLL_SECONDS = 0.1
LOG_NAME = "kfp.log"
INPUTS_NAME = "inputs.json"
DISK_FULL_BYTES = 64 << 10
"""With less free space than this, a step that failed without a message is taken to have failed because the disk is full."""
SESSION_LOG = "session.log"
SCRATCH = "scratch"
"""Folder for temporary files in the run's folder: KFP's local runner leaves some behind for each task."""


def run_locally(
    pipeline: Pipeline,
    run_id: str,
    inputs: Mapping[str, Any],
    settings: Settings,
    on_event: Callable[[dict[str, Any]], None],
    session: SharedSession | None = None,
) -> tuple[runs.Run, dict[str, Any]]:
    """Runs a pipeline and waits for its end.

    Args:
        pipeline: the pipeline.
        run_id: name of the run. A run of this name that failed or was killed is started again, and its finished steps are reused.
        inputs: the inputs of the pipeline.
        settings: the settings of this machine.
        on_event: called with each event of a task as it happens.
        session: a kept Spark session for the steps; None: the run starts one of its own, if that pays.

    Returns:
        The run, and the parsed evaluation.json if the run succeeded and its pipeline evaluates a model.

    Raises:
        InputError: the run cannot start: Spark or Java is missing, or the run's folder is in use or cannot be written.
        KeyboardInterrupt: the run was interrupted; no child process is left.
    """
    runner_for(inputs["spark"], settings)
    spark_home()
    find_java(java_environment())
    runs.check_id(run_id)
    directory = settings.runs.absolute() / run_id
    with runs.locked(directory):
        _refuse_finished(directory)
        _remove_scratch_of_killed_runs(settings.runs.absolute())
        run = runs.Run(id=run_id, pipeline=pipeline.name, status="running", inputs=dict(inputs), started=time.time())
        _prepare_folder(directory, run)
        try:
            with signals_raise_interrupt(), _session_of_run(directory, pipeline, inputs, settings, session):
                _run_graph_process(
                    directory, pipeline, replace(settings, runs=settings.runs.absolute(), run=str(directory)), on_event
                )
        except BaseException:  # an interrupt, or a broken pipe because the reader of the output has exited
            runs.save(directory, runs.with_end(run, "cancelled", steps=_steps(directory)))
            raise
        finally:
            _remove_temporary_files(directory)
        return _finish_run(directory, pipeline, run)


def _refuse_finished(directory: Path) -> None:
    if (directory / runs.RUN_NAME).exists() and runs.read(directory).status == "succeeded":
        raise InputError(f"run {directory.name} is finished; choose another --run-id, or remove {directory}")


def _remove_scratch_of_killed_runs(folder: Path) -> None:
    """Removes the temporary files of killed runs, which could not remove them themselves."""
    for run in runs.list_runs(folder):
        if run.status == "killed":
            _remove_temporary_files(folder / run.id)


def _remove_temporary_files(directory: Path) -> None:
    shutil.rmtree(directory / SCRATCH, ignore_errors=True)
    (directory / SESSION_NAME).unlink(missing_ok=True)


@contextmanager
def _session_of_run(
    directory: Path, pipeline: Pipeline, inputs: Mapping[str, Any], settings: Settings, kept: SharedSession | None
) -> Iterator[None]:
    """Writes into the run's folder which Spark session its steps share, and starts the session if none is kept."""
    submit = SparkSubmitRunner(inputs["spark"], settings)
    uris = [inputs[name] for name in pipeline.inputs(Role.GIVEN)]
    if not submit.may_share_session(uris):
        yield
        return
    log_path = directory / "logs" / SESSION_LOG
    with nullcontext(kept) if kept else run_session(submit, log_path, short=submit.are_small(uris)) as session:
        session.save(directory / SESSION_NAME)
        yield


def _prepare_folder(directory: Path, run: runs.Run) -> None:
    try:
        shutil.rmtree(directory / "logs", ignore_errors=True)
        for name in (EVENTS_NAME, LOG_NAME):
            (directory / name).unlink(missing_ok=True)
        runs.save(directory, run)
        (directory / SCRATCH).mkdir(exist_ok=True)
        (directory / INPUTS_NAME).write_text(json.dumps(dict(run.inputs)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{directory}: {error.strerror}; name another directory with --runs") from error


def _run_graph_process(
    directory: Path, pipeline: Pipeline, settings: Settings, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Runs the graph in a child process and passes on the events of its tasks until it ends."""
    command = [sys.executable, "-m", "kfp_pipeline.local.local_run", pipeline.name, str(directory)]
    own = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(directory / SCRATCH)}
    environment = {**os.environ, **settings.to_environment(), **own}
    position, ended = 0, False
    with (
        (directory / LOG_NAME).open("ab") as log,
        child_process(command, output=log, environment=environment, leads_group=True) as process,
    ):
        while not ended:
            ended = process.poll() is not None  # asked before the events are read, so that the last ones are not missed
            events, position = read_events(directory, position)
            for event in events:
                on_event(event)
            if not ended and not events:
                time.sleep(POLL_SECONDS)


def _steps(directory: Path) -> dict[str, Any]:
    return {event["step"]: event for event in all_events(directory)}


def _finish_run(directory: Path, pipeline: Pipeline, run: runs.Run) -> tuple[runs.Run, dict[str, Any]]:
    """Writes the end of the run. The run has failed if a step has not finished, whatever the exit code of the graph's process."""
    steps = _steps(directory)
    asked = _asked(pipeline, run.inputs, steps)
    undone = [step for step in asked if steps.get(step, {}).get("state") not in ("done", "reused")]
    if undone:
        failed = steps.get(undone[0], {})
        message = failed.get("message", f"step {undone[0]} did not end; see {directory / LOG_NAME}")
        run = runs.with_end(run, "failed", steps=steps, message=message)
        runs.save(directory, run)
        if (
            not failed.get("message") and shutil.disk_usage(directory).free < DISK_FULL_BYTES
        ):  # then no log can say it either
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
        return run, {}
    outputs = [Path(steps[step]["uri"]) for step in asked]
    evaluation: dict[str, Any] = {}
    if Step.EVALUATE in asked:
        evaluated = outputs[asked.index(Step.EVALUATE)]
        evaluation = json.loads((evaluated / "evaluation.json").read_text(encoding="utf-8"))
        found = {
            "metrics": {item["name"]: item["value"] for item in evaluation["metrics"]},
            "warnings": [
                *_metrics_and_warnings(outputs[: asked.index(Step.LOAD)])["warnings"],
                *evaluation["warnings"],
            ],
        }
    else:
        found = _metrics_and_warnings(outputs)
    reports = {
        step: uri.parent / "report" for step, uri in zip(asked, outputs, strict=True) if REPORT_URI in outputs_of(step)
    }
    for step, source in reports.items():
        is_last = step == list(reports)[-1]
        found["report"] = str(_copy_report(source, directory / ("report.html" if is_last else f"{step}.html")))
    _remove_earlier_attempts(outputs[-1].parents[1])
    run = runs.with_end(run, "succeeded", steps=steps, **found)
    runs.save(directory, run)
    return run, evaluation


def _asked(pipeline: Pipeline, inputs: Mapping[str, Any], steps: Mapping[str, Any]) -> list[Step]:
    """Returns the steps that the run should have ended: none after a step that has decided that the pipeline does not go on."""
    asked = []
    for step in pipeline.steps_of(inputs):
        asked.append(step)
        ended = steps.get(step, {}).get("state") in ("done", "reused")
        if pipeline.decides(step) and ended and pipeline.chosen(step, _result(Path(steps[step]["uri"])).facts) is None:
            break
    return asked


def _result(output: Path) -> Result:
    return Result.from_json((output / RESULT_NAME).read_text(encoding="utf-8"))


def _metrics_and_warnings(outputs: Sequence[Path]) -> dict[str, Any]:
    """Returns the metrics of the last step and the warnings of all steps; for steps that evaluate no model."""
    results = [_result(path) for path in outputs]
    warnings = dict.fromkeys(warning for result in results for warning in result.warnings)
    return {"metrics": dict(results[-1].metrics) if results else {}, "warnings": list(warnings)}


def _remove_earlier_attempts(attempt: Path) -> None:
    """Removes the outputs of earlier, killed attempts beside those of the one that succeeded and reused what it could."""
    for other in attempt.parent.iterdir():
        if other != attempt:
            shutil.rmtree(other, ignore_errors=True)


def _copy_report(source: Path, target: Path) -> Path:
    """Copies a report into the run's folder, where the user looks first."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    return target


def run_graph(pipeline: str, directory: Path) -> None:
    """Runs the graph of a pipeline with KFP's local runner; the main function of the child process."""
    die_with_parent()
    inputs = json.loads((directory / INPUTS_NAME).read_text(encoding="utf-8"))
    with process_group_ends_with_block(), signals_raise_interrupt():
        from kfp import local  # noqa: PLC0415 - takes half a second, and the module is imported by commands that do not need it
        from kfp.local import subprocess_task_handler  # noqa: PLC0415

        from kfp_pipeline.graphs import make_pipeline  # noqa: PLC0415
        from kfp_pipeline.task_settings import LOCAL_PLATFORM  # noqa: PLC0415

        subprocess_task_handler.replace_python_executable = replace_python
        runner = local.SubprocessRunner(use_venv=False)
        local.init(runner=runner, pipeline_root=str(directory / "pipeline"), raise_on_error=True)
        make_pipeline(pipeline, LOCAL_PLATFORM)(**inputs)


def replace_python(words: list[str], executable: str) -> list[str]:
    """Replaces `python3` in a task's command by this Python, but leaves the task's inputs as they are.

    KFP's own function (kfp/local/subprocess_task_handler.py, 2.16 and 2.17) replaces it in the inputs as well, so that data in a folder
    like lib/python3.11 are not found.
    """
    given = words.index("--executor_input") if "--executor_input" in words else len(words)
    return [word.replace("python3", executable) if at < given else word for at, word in enumerate(words)]


if __name__ == "__main__":
    run_graph(sys.argv[1], Path(sys.argv[2]))

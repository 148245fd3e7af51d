"""Runs a pipeline on this machine: the same graph, through KFP's local runner.

The graph runs in a process of its own, whose chatter goes to a log file; this process follows the events of its tasks.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
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
from kfp_pipeline.runtime.spark_submit.standby import FOLDER
from kfp_pipeline.settings import Settings, java_environment
from spark_jobs.contract import PIPELINES, STANDBY, Pipeline, Step
from spark_jobs.errors import InputError

POLL_SECONDS = 0.1
LOG_NAME = "kfp.log"
INPUTS_NAME = "inputs.json"
DISK_FULL_BYTES = 64 << 10
"""With less free space than this, a step that ended without a word had no room for it."""
SCRATCH = "scratch"
"""Of a run's temporary files, in the run's folder: KFP's local runner leaves some for each task."""


def run_locally(
    pipeline: Pipeline,
    run_id: str,
    inputs: Mapping[str, Any],
    settings: Settings,
    on_event: Callable[[dict[str, Any]], None],
) -> tuple[runs.Run, dict[str, Any]]:
    """Runs a pipeline to its end.

    Args:
        pipeline: which.
        run_id: name of the run; one that was killed is started again, and what it finished is taken over.
        inputs: the pipeline's inputs.
        settings: of this machine.
        on_event: called for each event of a task, as it happens.

    Returns:
        The run, and the evaluation if it succeeded and judges a model.

    Raises:
        InputError: it cannot start here: no Spark, no Java, or no place for the run.
        KeyboardInterrupt: it was interrupted; no process is left.
    """
    runner_for(inputs["spark"], settings)
    spark_home()
    find_java(java_environment())
    runs.check_id(run_id)
    directory = settings.runs.absolute() / run_id
    with runs.locked(directory):
        _refuse_finished(directory)
        _remove_scratch_of_killed_runs(settings.runs.absolute())
        run = runs.Run(id=run_id, status="running", inputs=dict(inputs), started=time.time())
        _prepare_folder(directory, run)
        try:
            with signals_raise_interrupt():
                _run_graph(
                    directory, pipeline, replace(settings, runs=settings.runs.absolute(), run=str(directory)), on_event
                )
        except BaseException:  # interrupted, or whoever read the output has gone
            runs.save(directory, runs.with_end(run, "cancelled", steps=_steps(directory)))
            raise
        finally:
            for name in (FOLDER, SCRATCH):
                shutil.rmtree(directory / name, ignore_errors=True)
        return _finish_run(directory, pipeline, run)


def _refuse_finished(directory: Path) -> None:
    if (directory / runs.RUN_NAME).exists() and runs.read(directory).status == "succeeded":
        raise InputError(f"run {directory.name} is finished; choose another --run-id, or remove {directory}")


def _remove_scratch_of_killed_runs(folder: Path) -> None:
    """Removes the temporary files of runs that were killed outright, which could not do it themselves."""
    for run in runs.list_runs(folder):
        if run.status == "killed":
            for name in (FOLDER, SCRATCH):
                shutil.rmtree(folder / run.id / name, ignore_errors=True)


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


def _run_graph(
    directory: Path, pipeline: Pipeline, settings: Settings, on_event: Callable[[dict[str, Any]], None]
) -> None:
    """Starts the graph and passes its events on until it ends."""
    command = [sys.executable, "-m", "kfp_pipeline.local.local_run", pipeline.name, str(directory)]
    own = {"PYTHONUNBUFFERED": "1", "TMPDIR": str(directory / SCRATCH)}
    environment = {**os.environ, **settings.to_environment(), **own}
    position, ended = 0, False
    with (
        (directory / LOG_NAME).open("ab") as log,
        child_process(command, output=log, environment=environment, leads_group=True) as process,
    ):
        while not ended:
            ended = process.poll() is not None  # before reading, so that the last events are read
            events, position = read_events(directory, position)
            for event in events:
                on_event(event)
            if not ended and not events:
                time.sleep(POLL_SECONDS)


def _steps(directory: Path) -> dict[str, Any]:
    return {event["step"]: event for event in all_events(directory)}


def _finish_run(directory: Path, pipeline: Pipeline, run: runs.Run) -> tuple[runs.Run, dict[str, Any]]:
    """Reads the outcome; a run in which not every step is done has failed, whatever the graph's process said."""
    steps = _steps(directory)
    undone = [step for step in pipeline.steps if steps.get(step, {}).get("state") not in ("done", "reused")]
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
    evaluation: dict[str, Any] = {}
    outcome: dict[str, Any] = {}
    if Step.EVALUATE in pipeline.steps:
        judged = Path(steps[Step.EVALUATE]["uri"])
        evaluation = json.loads((judged / "evaluation.json").read_text(encoding="utf-8"))
        outcome["report"] = str(_copy_report(directory, judged.parent / "report"))
        outcome["metrics"] = {item["name"]: item["value"] for item in evaluation["metrics"]}
    _remove_earlier_attempts(Path(steps[pipeline.steps[-1]]["uri"]).parents[1])
    run = runs.with_end(run, "succeeded", steps=steps, **outcome)
    runs.save(directory, run)
    return run, evaluation


def _remove_earlier_attempts(attempt: Path) -> None:
    """Removes what attempts that were killed have left beside the one that succeeded, which has taken over what is of use."""
    for other in attempt.parent.iterdir():
        if other != attempt:
            shutil.rmtree(other, ignore_errors=True)


def _copy_report(directory: Path, source: Path) -> Path:
    """Puts the report where a person looks first."""
    target = directory / "report.html"
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)
    return target


def run_graph(pipeline: str, directory: Path) -> None:
    """Runs the graph of a pipeline; what the child process does."""
    die_with_parent()
    inputs = json.loads((directory / INPUTS_NAME).read_text(encoding="utf-8"))
    with process_group_ends_with_block(), signals_raise_interrupt():
        subprocess.Popen([sys.executable, "-m", "kfp_pipeline.local.local_run", pipeline, str(directory), STANDBY])
        from kfp import local  # noqa: PLC0415 - takes a second, in which the first driver starts
        from kfp.local import subprocess_task_handler  # noqa: PLC0415

        from kfp_pipeline.graphs import make_pipeline  # noqa: PLC0415
        from kfp_pipeline.task_settings import LOCAL_PLATFORM  # noqa: PLC0415

        subprocess_task_handler.replace_python_executable = replace_python
        runner = local.SubprocessRunner(use_venv=False)
        local.init(runner=runner, pipeline_root=str(directory / "pipeline"), raise_on_error=True)
        make_pipeline(pipeline, LOCAL_PLATFORM)(**inputs)


def replace_python(words: list[str], executable: str) -> list[str]:
    """A task's command with this Python in place of `python3`, but in nothing that the task is given.

    KFP's own function (kfp/local/subprocess_task_handler.py, 2.16 and 2.17) replaces it in the inputs too: data in a folder like
    lib/python3.11 were not found.
    """
    given = words.index("--executor_input") if "--executor_input" in words else len(words)
    return [word.replace("python3", executable) if at < given else word for at, word in enumerate(words)]


def keep_standbys(pipeline: Pipeline, directory: Path) -> None:
    """Sees to it that a driver is idle for the next step, until it is ended; what the child process of the graph does."""
    die_with_parent()
    inputs = json.loads((directory / INPUTS_NAME).read_text(encoding="utf-8"))
    standbys = SparkSubmitRunner(inputs["spark"], Settings.from_environment()).standby_drivers(inputs["data_uri"])
    if standbys is None:
        return
    position, coming = 0, pipeline.steps
    with suppress(KeyboardInterrupt), signals_raise_interrupt(), standbys:
        while True:
            wanted = standbys.another_is_needed()
            events, position = read_events(directory, position)  # a step tells that it runs before it claims one
            if events:
                coming = pipeline.steps[pipeline.steps.index(Step(events[-1]["step"])) + 1 :]
            if wanted and coming:
                standbys.start(coming[0])
            time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    if sys.argv[3:] == [STANDBY]:
        keep_standbys(PIPELINES[sys.argv[1]], Path(sys.argv[2]))
    else:
        run_graph(sys.argv[1], Path(sys.argv[2]))

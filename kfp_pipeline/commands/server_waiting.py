"""Waits for a run on a KFP server: shows its tasks, says why a pod does not start, and prints the metrics or the error at the end."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial

from rich.console import Console
from rich.text import Text

from kfp_pipeline.commands import display
from kfp_pipeline.kfp_server import run_outcome, run_tasks, server_runs
from kfp_pipeline.kfp_server.client import Document, Server
from kfp_pipeline.kfp_server.run_outcome import Outcome
from kfp_pipeline.kfp_server.run_tasks import Task
from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.processes import signals_raise_interrupt
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, EXIT_INTERRUPTED, InputError


def wait_for_run(server: Server, run: Document, arguments: argparse.Namespace) -> int:
    """Shows a run until it ends and returns the exit code: 0 if the run succeeded. After an interrupt the run continues."""
    identity, console = run["run_id"], Console(quiet=arguments.json)
    console.print(Text(f"run {identity}\n{server_runs.link(server, identity)}"), soft_wrap=True)
    again = f"look again: spark-kfp runs show --kfp {server.url} {identity}"
    stop = f"end it: spark-kfp runs terminate --kfp {server.url} {identity}"

    def stuck() -> None:
        why = run_outcome.pending_reason(identity, server.namespace)
        minutes = server_runs.STUCK_SECONDS / 60
        print(f"spark-kfp: no pod of the run has started for {minutes:.0f} min: {why}", file=sys.stderr)

    try:
        spec = server_runs.specification(server, run)
        tasks = run_tasks.tasks_of(spec)
        with signals_raise_interrupt(), display.Progress(console, tasks_to_show(tasks, arguments)) as progress:
            show = partial(_show_changes, tasks, {}, progress)
            run = server_runs.follow(server, identity, arguments.timeout, show, stuck)
    except KeyboardInterrupt:
        print(f"spark-kfp: interrupted; the run goes on; {again}; {stop}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except server_runs.StillRunningError:
        print(f"spark-kfp: error: no end after {arguments.timeout:.0f} s; the run goes on; {again}", file=sys.stderr)
        return EXIT_FAULT
    except (StepError, InputError) as error:  # the server is unavailable, or the token has expired
        print(f"spark-kfp: error: {error}; the run goes on; {again}", file=sys.stderr)
        return EXIT_INPUT if isinstance(error, InputError) else EXIT_FAULT
    return _print_outcome(arguments, server, run, spec, console)


def tasks_to_show(tasks: Sequence[Task], arguments: argparse.Namespace) -> list[str]:
    """Returns the display names of the tasks that a run with these inputs may have: its steps in their order, then the exit task."""
    steps = {step.capitalize() for step in arguments.pipeline.steps}
    others = [task.name for task in tasks if task.name not in steps]
    return [*(step.capitalize() for step in arguments.pipeline.steps_of(vars(arguments))), *others]


def _show_changes(tasks: list[Task], shown: dict[str, str], progress: display.Progress, run: Document) -> None:
    """Shows the tasks whose state has changed since it was shown."""
    for event in run_tasks.task_events(run, tasks):
        if shown.get(event["step"]) != event["state"]:
            shown[event["step"]] = event["state"]
            progress.show(event)


def _print_outcome(
    arguments: argparse.Namespace, server: Server, run: Document, spec: Document, console: Console
) -> int:
    """Prints the state of an ended run, its metrics or why it failed, and its URL; returns the exit code."""
    ended = run_outcome.read_outcome(run, spec, arguments.pipeline_root)
    if arguments.json:
        display.show_json({**server_runs.run_document(server, run), "summary": ended.summary})
    seconds = run_tasks.seconds_between(run.get("created_at"), run.get("finished_at"))
    console.print(f"{run_outcome.displayed_state(run).lower()} after {seconds:.0f} s", highlight=False)
    link = server_runs.link(server, run["run_id"])
    if run["state"] == "SUCCEEDED":
        _print_metrics(ended, console)
        console.print(Text(link), soft_wrap=True)
        return 0
    console.print(Text(link), soft_wrap=True)
    if run_outcome.was_terminated(run):
        how = "was terminated"
    elif run["state"] == "FAILED":
        how = f"failed {failure_reason(server, run, spec, ended)}"
    else:
        how = f"is {run['state'].lower()}"
    print(f"spark-kfp: error: run {run['run_id']} {how}; {link}", file=sys.stderr)
    return EXIT_FAULT


def _print_metrics(ended: Outcome, console: Console) -> None:
    if ended.note:
        console.print(Text(ended.note), soft_wrap=True)
    if not ended.summary:
        console.print(Text(f"the metrics are behind the link ({ended.summary_problem})"), soft_wrap=True)
        return
    for name, value in (ended.summary.get("metrics") or {}).items():
        if isinstance(value, (int, float)):
            console.print(f"{name} {display.number(value)}", highlight=False, markup=False)
    if report := ended.summary.get("report"):
        console.print(Text(f"report: {report}"), soft_wrap=True)


def failure_reason(server: Server, run: Document, spec: Document, ended: Outcome) -> str:
    """Returns which tasks failed and why, or where to look if the reason is not known."""
    names = run_tasks.failed_tasks(run, run_tasks.tasks_of(spec))
    where = f"at {', '.join(names)}" if names else "before or between its tasks"
    if ended.reason:
        return f"{where}: {ended.reason}"
    unknown = ended.summary_problem or "the run's summary names no reason"
    link = server_runs.link(server, run["run_id"])
    return f"{where}; why is not known here ({unknown}); {run_outcome.log_hint(run['run_id'], link, server.namespace)}"

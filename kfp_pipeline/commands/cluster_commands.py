"""The commands of `spark-kfp` for a cluster with the Spark operator: submit, status, logs, cancel, clean, reap, doctor.

Their parser, `cluster_parser`, imports this module only when one of them is called.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kfp_pipeline.commands.input_checks import check_inputs, check_promotion, check_run_inputs
from kfp_pipeline.doctor.check_results import CheckResult
from kfp_pipeline.doctor.cluster_checks import run_checks
from kfp_pipeline.local import runs
from kfp_pipeline.local.submission import read_overrides, submit_pipeline, submit_step
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date
from kfp_pipeline.runtime.errors import StepError
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, Cluster, connect
from kfp_pipeline.runtime.processes import signals_raise_interrupt
from kfp_pipeline.runtime.scratch import scratch_folder
from kfp_pipeline.runtime.spark_operator.application import (
    TERMINAL_STATES,
    driver_pod_name,
    error_of,
    explain_failure,
    has_started,
    is_alive,
    state_of,
)
from kfp_pipeline.runtime.spark_operator.driver_log import DriverLog
from kfp_pipeline.runtime.spark_operator.lease import Reaper
from kfp_pipeline.runtime.spark_operator.manifest import (
    MANAGED_BY,
    OUTPUT_URI_ANNOTATION,
    RUN_LABEL,
    STEP_LABEL,
    label_value,
)
from kfp_pipeline.runtime.spark_operator.runner import LOG_NAME, cancel
from kfp_pipeline.runtime.spark_operator.tracking import driver_pod_of, events_of
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import StepArgs, flag
from spark_jobs.contract import ARGUMENTS, DATA_URI, REPORT_URI, LoadArgs, Pipeline
from spark_jobs.errors import EXIT_FAULT, InputError
from spark_jobs.result import Result

SELECTOR = ",".join(f"{key}={value}" for key, value in MANAGED_BY.items())


def submit_step_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Submits one step as a SparkApplication and waits for its result."""
    kind: type[StepArgs] = ARGUMENTS[arguments.step]
    args = kind(**{name: getattr(arguments, name) for name in kind.names()})
    if isinstance(args, LoadArgs):
        check_inputs(args, flag("specification_uri"), on_a_cluster=True)
    if kind.RUNS_IF and not getattr(args, kind.RUNS_IF):
        raise InputError(f"the step {arguments.step} needs {flag(kind.RUNS_IF)}")
    check_promotion(vars(args), on_a_cluster=True)
    overrides = read_overrides(arguments.spark_settings)
    with signals_raise_interrupt():
        result = submit_step(_cluster(arguments, settings), arguments.step, args, settings, run="", overrides=overrides)
    print(json.dumps({"rows": dict(result.rows_out), "metrics": dict(result.metrics), "output": result.uris["output"]}))
    return 0


def submit_pipeline_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Submits the steps of a pipeline one after another, waits for their results, and prints the metrics."""
    results = submit_steps(arguments, settings)
    print(json.dumps(dict(results[-1].metrics), indent=1))
    if report := next((uri for result in reversed(results) if (uri := result.arguments.get(REPORT_URI))), ""):
        print(f"report: {report}")
    return 0


def submit_steps(arguments: argparse.Namespace, settings: Settings) -> list[Result]:
    """Submits the steps of the pipeline of a parsed command line one after another, and returns their results."""
    pipeline: Pipeline = arguments.pipeline
    given = {name: getattr(arguments, name) for name in pipeline.inputs()}
    if DATA_URI in given:
        given[DATA_URI] = fill_date(given[DATA_URI], "")
    check_run_inputs(pipeline, given, on_a_cluster=True)
    run = arguments.run_id or runs.new_id()
    runs.check_id(run)
    overrides = read_overrides(arguments.spark_settings)
    with signals_raise_interrupt():
        return submit_pipeline(
            _cluster(arguments, settings),
            pipeline,
            given,
            arguments.output,
            settings,
            run=run,
            overrides=overrides,
            shared=arguments.spark == "shared",
            print_line=print,
        )


def status_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists the SparkApplications of the namespace, newest last."""
    cluster = _cluster(arguments, settings)
    found = _applications(cluster)
    rows = [
        {
            "name": item["metadata"]["name"],
            "step": _labels(item).get(STEP_LABEL, ""),
            "run": _labels(item).get(RUN_LABEL, ""),
            "state": state_of(item) or "NEW",
            "created": item["metadata"]["creationTimestamp"],
            "error": error_of(item).split("\n")[0],
            "output": (item["metadata"].get("annotations") or {}).get(OUTPUT_URI_ANNOTATION, ""),
        }
        for item in found
    ]
    if arguments.json:
        print(json.dumps(rows))
        return 0
    if not rows:
        print(f"no SparkApplications of spark-kfp in namespace {cluster.namespace}", file=sys.stderr)
        return 0
    table = Table(*("name", "step", "run", "state", "created", "error"), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(row[key]) for key in ("name", "step", "run", "state", "created", "error")))
    (Console() if sys.stdout.isatty() else Console(width=220)).print(table)
    return 0


def logs_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Prints a driver's log, from its pod or else from the object store, and why the application failed."""
    cluster = _cluster(arguments, settings)
    application = _find_application(cluster, arguments.name)
    driver = driver_pod_of(cluster, application)
    if driver and has_started(driver):
        with scratch_folder() as folder:
            with DriverLog(cluster, folder / LOG_NAME, print) as log:
                follows = arguments.follow and is_alive(driver)
                log.follow(
                    driver["metadata"]["name"], lambda: not follows or not is_alive(driver_pod_of(cluster, application))
                )
            log_text = log.tail
        application = cluster.get(APPLICATIONS, application["metadata"]["name"]) or application
        driver = driver_pod_of(cluster, application)
    else:
        log_text = _archived_log(application)
        print(log_text or f"no log: the driver {driver_pod_name(application)} has not started")
    if state_of(application) in ("FAILED", "FAILING") and not is_alive(driver):
        error = explain_failure(application, driver, events_of(cluster, application), log_text)
        print(f"spark-kfp: error: {error}", file=sys.stderr)
        return EXIT_FAULT
    return 0


def _archived_log(application: dict[str, Any]) -> str:
    """Reads the driver's log that was saved beside the step's output; empty if there is none or it cannot be read."""
    uri = (application["metadata"].get("annotations") or {}).get(OUTPUT_URI_ANNOTATION, "")
    try:
        return (object_store.read_text(f"{uri}/{LOG_NAME}") or "") if uri else ""
    except (InputError, StepError) as error:
        print(f"spark-kfp: the log that was kept cannot be read: {error}", file=sys.stderr)
        return ""


def cancel_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Deletes SparkApplications that run; the operator and Kubernetes then delete their driver and executor pods."""
    cluster = _cluster(arguments, settings)
    if bool(arguments.name) == bool(arguments.run):
        raise InputError("name one SparkApplication, or a run with --run; spark-kfp status lists them")
    found = (
        [_find_application(cluster, arguments.name)]
        if arguments.name
        else _applications_of_run(_applications(cluster), arguments.run)
    )
    for application in found:
        if state_of(application) not in TERMINAL_STATES or is_alive(driver_pod_of(cluster, application)):
            cancel(cluster, application["metadata"]["name"])
            print(f"cancelled {application['metadata']['name']}")
    return 0


def clean_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Deletes SparkApplications that have ended."""
    cluster = _cluster(arguments, settings)
    found = _applications(cluster)
    for application in _applications_of_run(found, arguments.run) if arguments.run else found:
        if state_of(application) in TERMINAL_STATES and not is_alive(driver_pod_of(cluster, application)):
            if not arguments.dry_run:
                cluster.delete(APPLICATIONS, application["metadata"]["name"], application["metadata"]["uid"])
            print(f"{'would delete' if arguments.dry_run else 'deleted'} {application['metadata']['name']}")
    return 0


def reap_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Deletes SparkApplications whose lease has expired, until the command is stopped."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    cluster = _cluster(arguments, replace(settings, patience_seconds=5))
    with signals_raise_interrupt():
        Reaper(cluster).run(arguments.interval)
    return 0


def doctor_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Prints one line for each check; the exit code is 1 if something is missing."""
    console, found = Console(quiet=arguments.json), list[CheckResult]()
    for finding in run_checks(_cluster(arguments, replace(settings, patience_seconds=5)), settings.config_map):
        found.append(finding)
        sign, style = {True: ("ok", "green"), False: ("missing", "red"), None: ("unsure", "yellow")}[finding.ok]
        line = Text.assemble((f"{sign:8}", style), f"{finding.name}: {finding.detail}")
        console.print(line if finding.ok else line.append(f"; {finding.fix}"), soft_wrap=True)
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in found]))
    return EXIT_FAULT if any(finding.ok is False for finding in found) else 0


def _cluster(arguments: argparse.Namespace, settings: Settings) -> Cluster:
    return connect(arguments.namespace or settings.namespace, settings.patience_seconds)


def _applications(cluster: Cluster) -> list[dict[str, Any]]:
    found = cluster.list(APPLICATIONS, labelSelector=SELECTOR)
    return sorted(found, key=lambda item: str(item["metadata"]["creationTimestamp"]))


def _labels(application: dict[str, Any]) -> dict[str, str]:
    return dict(application["metadata"].get("labels") or {})


def _applications_of_run(applications: list[dict[str, Any]], run: str) -> list[dict[str, Any]]:
    """Selects the SparkApplications of a run, by the run's id or by the label that `status` shows."""
    found = [item for item in applications if _labels(item).get(RUN_LABEL) == label_value(run)]
    if not found:
        raise InputError(f"no SparkApplication of run {run!r}; spark-kfp status lists them")
    return found


def _find_application(cluster: Cluster, name: str) -> dict[str, Any]:
    found = [item for item in _applications(cluster) if item["metadata"]["name"].endswith(name)]
    if len(found) != 1:
        several = (
            f": {', '.join(item['metadata']['name'] for item in found)}" if found else "; spark-kfp status lists them"
        )
        raise InputError(f"{len(found) or 'no'} SparkApplication in {cluster.namespace} ends with {name!r}{several}")
    return found[0]

"""The commands of `spark-kfp` for a KFP server: upload, run --kfp, runs --kfp.

Their parser, `server_parser`, imports this module only when one of them is called.
"""

from __future__ import annotations

import argparse

from kfp_pipeline.commands import display
from kfp_pipeline.commands.display import show_json, show_table
from kfp_pipeline.commands.server_arguments import (
    DEFAULT_EXPERIMENT,
    connect_to_server,
    pipeline_parameters,
    platform_of,
)
from kfp_pipeline.commands.server_waiting import failure_reason, wait_for_run
from kfp_pipeline.kfp_server import run_outcome, run_tasks, server_runs
from kfp_pipeline.kfp_server.client import Document
from kfp_pipeline.kfp_server.uploads import Package, compile_package, request_bodies, upload
from kfp_pipeline.local.submission import read_overrides
from kfp_pipeline.runtime.runner import ON_A_CLUSTER
from kfp_pipeline.settings import Settings
from spark_jobs.contract import Pipeline
from spark_jobs.errors import InputError

RUNS_LISTED = 50


def upload_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Uploads a pipeline, unless the server has the same content."""
    package = compile_package(
        arguments.pipeline, platform_of(arguments), name=arguments.name, version_name=arguments.version
    )
    if arguments.dry_run:
        return show_json(request_bodies(package))
    done = upload(connect_to_server(arguments, settings), package)
    print(f"{package.name} {done.version_name}: {'uploaded' if done.new else 'was there'}, {done.version_id}")
    return 0


def run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Creates a run, and with `--wait` follows it to its end."""
    _check_flags(arguments)
    pipeline: Pipeline = arguments.pipeline
    given = {name: getattr(arguments, name) for name in pipeline.inputs()}
    overrides = read_overrides(arguments.spark_settings)
    platform = {"spark_settings": overrides, "spark": arguments.spark if arguments.spark == "shared" else ""}
    parameters = pipeline_parameters(pipeline, given | {name: value for name, value in platform.items() if value})
    package = compile_package(pipeline, platform_of(arguments))
    config = server_runs.runtime_config(parameters, arguments.pipeline_root)
    if arguments.dry_run:
        return show_json(_body(arguments, package, server_runs.version_reference(None, package), config))
    server = connect_to_server(arguments, settings)
    reference = server_runs.version_reference(upload(server, package), package)
    experiment = server_runs.experiment_id(server, arguments.experiment or DEFAULT_EXPERIMENT)
    run = server_runs.create(server, _body(arguments, package, reference, config, experiment))
    if arguments.wait:
        return wait_for_run(server, run, arguments)
    if arguments.json:
        return show_json(server_runs.run_document(server, run))
    print(f"run {run['run_id']}\n{server_runs.link(server, run['run_id'])}")
    return 0


def list_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists the newest runs."""
    server = connect_to_server(arguments, settings)
    found = server.list_all("runs", "runs", {"sort_by": "created_at desc"}, RUNS_LISTED)
    if arguments.json:
        return show_json(found)
    rows = [
        [
            item["run_id"],
            run_outcome.displayed_state(item),
            str(item.get("created_at", ""))[:16],
            item.get("display_name", ""),
        ]
        for item in found
    ]
    show_table(("run", "state", "created (UTC)", "name"), rows)
    return 0


def show_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Shows the state, the tasks and the inputs of a run."""
    server = connect_to_server(arguments, settings)
    run = server.get(f"runs/{_check_run_id(arguments.ids[0])}")
    if arguments.json:
        return show_json(run)
    spec, link = server_runs.specification(server, run), server_runs.link(server, run["run_id"])
    facts = {"run": run["run_id"], "name": run.get("display_name", ""), "state": run_outcome.displayed_state(run)}
    if run.get("state") == "FAILED" and not run_outcome.was_terminated(run):
        facts["failed"] = failure_reason(server, run, spec, run_outcome.read_outcome(run, spec))
    for event in run_tasks.task_events(run, run_tasks.tasks_of(spec)):
        facts[f"task {event['step']}"] = f"{event['state']} {display.describe(event)}".strip()
    if not spec:
        facts["tasks"] = "not known: the pipeline's version is no longer on the server"
    facts |= (run.get("runtime_config") or {}).get("parameters") or {}
    facts["link"] = link
    show_table((), [[name, str(value)] for name, value in facts.items()])
    return 0


def terminate_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Terminates a run: the server stops its tasks, which delete their SparkApplications."""
    server = connect_to_server(arguments, settings)
    run = server_runs.terminate(server, _check_run_id(arguments.id))
    if run.get("state") in server_runs.FINAL_STATES:
        print(f"run {run['run_id']} has ended already: {run['state']}")
        return 0
    print(f"run {run['run_id']} is being ended; {server_runs.link(server, run['run_id'])}")
    return 0


def _body(
    arguments: argparse.Namespace, package: Package, reference: Document, config: Document, experiment: str = ""
) -> Document:
    experiment = experiment or f"(of {arguments.experiment or DEFAULT_EXPERIMENT})"
    return server_runs.run_body(
        package, reference, config, experiment=experiment, service_account=arguments.service_account
    )


def _check_flags(arguments: argparse.Namespace) -> None:
    for flag, given in {
        "--runs": arguments.runs,
        "--run-id": arguments.run_id,
        "--no-cache": arguments.no_cache,
        "--spark": arguments.spark not in ("local[*]", *ON_A_CLUSTER),
    }.items():
        if given:
            raise InputError(f"{flag} is for a run on this machine; leave it out, or leave out --kfp")
    if arguments.timeout < 0 or (arguments.timeout and not arguments.wait):
        raise InputError("--timeout is a number of seconds, 0 or more, and needs --wait")


def _check_run_id(text: str) -> str:
    """Checks that a run's id has only letters, digits and `-`, as it becomes part of a URL path, and returns it."""
    if not text.replace("-", "").isalnum():
        raise InputError(f"{text!r} is no run's id; spark-kfp runs list --kfp URL shows them")
    return text

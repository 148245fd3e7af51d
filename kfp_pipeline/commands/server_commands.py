"""What the commands of `spark-kfp` do on a KFP server. Their parser is `server_parser`, which imports this only when one is called."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_pipeline.commands import display
from kfp_pipeline.commands.display import show_json, show_table
from kfp_pipeline.commands.server_waiting import wait, why_failed
from kfp_pipeline.kfp_server import run_outcome, run_tasks, server_runs
from kfp_pipeline.kfp_server.client import Document, Server, connect
from kfp_pipeline.kfp_server.uploads import Package, bodies, package, upload
from kfp_pipeline.local.submission import read_overrides
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date
from kfp_pipeline.runtime.spark_operator.manifest import check_overrides
from kfp_pipeline.settings import KfpSettings, Settings
from kfp_pipeline.task_settings import Platform, read_platform
from spark_jobs.contract import TRAINING
from spark_jobs.errors import InputError

EXPERIMENT = "spark-kfp"
MOST_LISTED = 50


def upload_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Uploads the pipeline, or a version of it, unless the same content is there."""
    made = package(arguments.name, arguments.version, platform_of(arguments))
    if arguments.dry_run:
        return show_json(bodies(made))
    done = upload(server_of(arguments, settings), made)
    print(f"{made.name} {done.version_name}: {'uploaded' if done.new else 'was there'}, {done.version_id}")
    return 0


def run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Makes a run, and follows it if asked to."""
    _check_flags(arguments)
    given = {name: getattr(arguments, name) for name in TRAINING.inputs() if hasattr(arguments, name)}
    overrides = read_overrides(arguments.spark_settings)
    parameters = checked_parameters(
        {**given, "data_uri": arguments.data} | ({"spark_settings": overrides} if overrides else {})
    )
    made = package(platform=platform_of(arguments))
    config = server_runs.runtime_config(parameters, arguments.pipeline_root)
    if arguments.dry_run:
        return show_json(_body(arguments, made, server_runs.reference_of(None, made), config))
    server = server_of(arguments, settings)
    reference = server_runs.reference_of(upload(server, made), made)
    experiment = server_runs.experiment_id(server, arguments.experiment or EXPERIMENT)
    run = server_runs.create(server, _body(arguments, made, reference, config, experiment))
    if arguments.wait:
        return wait(server, run, arguments)
    if arguments.json:
        return show_json(server_runs.told(server, run))
    print(f"run {run['run_id']}\n{server_runs.link(server, run['run_id'])}")
    return 0


def list_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists the newest runs."""
    server = server_of(arguments, settings)
    found = server.collect("runs", "runs", {"sort_by": "created_at desc"}, MOST_LISTED)
    if arguments.json:
        return show_json(found)
    rows = [
        [item["run_id"], run_outcome.state(item), str(item.get("created_at", ""))[:16], item.get("display_name", "")]
        for item in found
    ]
    show_table(("run", "state", "created (UTC)", "name"), rows)
    return 0


def show_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Shows a run: its state, its tasks, its inputs."""
    server = server_of(arguments, settings)
    run = server.get(f"runs/{_id(arguments.ids[0])}")
    if arguments.json:
        return show_json(run)
    spec, link = server_runs.specification(server, run), server_runs.link(server, run["run_id"])
    facts = {"run": run["run_id"], "name": run.get("display_name", ""), "state": run_outcome.state(run)}
    if run.get("state") == "FAILED" and not run_outcome.was_terminated(run):
        facts["failed"] = why_failed(server, run, spec, run_outcome.outcome(run, spec))
    for event in run_tasks.events(run, run_tasks.tasks_of(spec)):
        facts[f"task {event['step']}"] = f"{event['state']} {display.describe(event)}".strip()
    if not spec:
        facts["tasks"] = "not known: the pipeline's version is no longer on the server"
    facts |= (run.get("runtime_config") or {}).get("parameters") or {}
    facts["link"] = link
    show_table((), [[name, str(value)] for name, value in facts.items()])
    return 0


def terminate_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Ends a run; the server then ends its tasks, and those their SparkApplications."""
    server = server_of(arguments, settings)
    run = server_runs.terminate(server, _id(arguments.id))
    if run.get("state") in server_runs.ENDED:
        print(f"run {run['run_id']} has ended already: {run['state']}")
        return 0
    print(f"run {run['run_id']} is being ended; {server_runs.link(server, run['run_id'])}")
    return 0


def platform_of(arguments: argparse.Namespace) -> Platform:
    """What every task gets, as the flags say."""
    return read_platform(arguments.platform, arguments.image)


def server_of(arguments: argparse.Namespace, settings: Settings) -> Server:
    """The server that the flags and the environment name."""
    known = KfpSettings.from_environment()
    changes: dict[str, str] = {"namespace": arguments.namespace, "ca_file": arguments.ca_file}
    if arguments.kfp:
        changes["url"] = arguments.kfp.rstrip("/")
    if arguments.token_file:
        changes["token"] = Path(arguments.token_file).read_text(encoding="utf-8").strip()
    return connect(replace(known, **changes), settings.patience_seconds, lambda line: print(line, file=sys.stderr))


def checked_parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of the pipeline that are not its defaults.

    Raises:
        InputError: the data or its specification is where the cluster cannot read it, a date in the data's URI cannot be filled in, no
            label is named, a setting is out of range, or the Spark settings ask for what a run may not have.
    """
    if not given["data_uri"]:
        raise InputError("name the data, in the object store: s3://BUCKET/data.csv; see: spark-kfp data upload --help")
    for name in ("data_uri", "specification_uri"):
        if given.get(name) and not object_store.is_stored(str(given[name])):
            raise InputError(
                f"{given[name]}: the cluster cannot read this machine; first: spark-kfp data upload FILE s3://BUCKET/NAME"
            )
    fill_date(str(given["data_uri"]), "")
    if not given.get("label") and not given.get("specification_uri"):
        raise InputError("which column is the label? Give label=NAME, or specification_uri with a data specification")
    check_overrides(given.get("spark_settings") or {})
    TRAINING.check_settings(given)  # a wrong one is told before anything is sent
    defaults = {item.name: item.default for item in TRAINING.inputs().values() if not item.needed}
    return {name: value for name, value in given.items() if name not in defaults or value != defaults[name]}


def _body(
    arguments: argparse.Namespace, made: Package, reference: Document, config: Document, experiment: str = ""
) -> Document:
    experiment = experiment or f"(of {arguments.experiment or EXPERIMENT})"
    return server_runs.run_body(
        made, reference, config, experiment=experiment, service_account=arguments.service_account
    )


def _check_flags(arguments: argparse.Namespace) -> None:
    for flag, given in {
        "--runs": arguments.runs,
        "--run-id": arguments.run_id,
        "--no-cache": arguments.no_cache,
        "--spark": arguments.spark not in ("local[*]", "operator"),
    }.items():
        if given:
            raise InputError(f"{flag} is for a run on this machine; leave it out, or leave out --kfp")
    if arguments.timeout < 0 or (arguments.timeout and not arguments.wait):
        raise InputError("--timeout is a number of seconds, 0 or more, and needs --wait")


def _id(text: str) -> str:
    """A run's id as it stands in a path; anything else could name another document."""
    if not text.replace("-", "").isalnum():
        raise InputError(f"{text!r} is no run's id; spark-kfp runs list --kfp URL shows them")
    return text

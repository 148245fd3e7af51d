"""The commands of `spark-kfp schedule`, which manage recurring runs on a KFP server.

Their parser, `server_parser`, imports this module only when one of them is called.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from typing import Any

from kfp_pipeline.commands.display import show_json, show_table
from kfp_pipeline.commands.server_arguments import (
    DEFAULT_EXPERIMENT,
    connect_to_server,
    pipeline_parameters,
    platform_of,
)
from kfp_pipeline.kfp_server import recurring, server_runs
from kfp_pipeline.kfp_server.client import Document
from kfp_pipeline.kfp_server.cron import parse
from kfp_pipeline.kfp_server.recurring import ActiveRuns, Schedule
from kfp_pipeline.kfp_server.uploads import Package, compile_package, parse_parameter, upload
from kfp_pipeline.settings import Settings
from spark_jobs.contract import DATA_URI
from spark_jobs.errors import InputError


def create_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Creates a schedule, unless one of the same name and content exists."""
    if arguments.terminate and not arguments.replace:
        raise InputError("--terminate is for --replace; give both, or leave it out")
    when = _plan(arguments)
    package = compile_package(arguments.pipeline, platform_of(arguments))
    config = server_runs.runtime_config(_parameters(arguments, package), arguments.pipeline_root)
    _print_times(when, sys.stderr if arguments.dry_run else sys.stdout)
    if arguments.dry_run:
        experiment = f"(of {arguments.experiment or DEFAULT_EXPERIMENT})"
        return show_json(_body(arguments, when, server_runs.version_reference(None, package), config, experiment))
    server = connect_to_server(arguments, settings)
    reference = server_runs.version_reference(upload(server, package), package)
    experiment = server_runs.experiment_id(server, arguments.experiment or DEFAULT_EXPERIMENT)
    wanted = _body(arguments, when, reference, config, experiment)
    kept, done = recurring.ensure(server, wanted, ActiveRuns(terminate=arguments.terminate), replace=arguments.replace)
    print(f"schedule {arguments.name} {done}, {kept['recurring_run_id']}")
    if kept.get("mode") == "DISABLE":
        print(f"it is paused; to let it go on: spark-kfp schedule resume {arguments.name}")
    return 0


def list_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists the schedules, with the next time of each schedule that is not paused."""
    zone = recurring.zone_of(arguments.time_zone)
    found = connect_to_server(arguments, settings).list_all("recurringruns", "recurringRuns", {})
    if arguments.json:
        return show_json(found)
    rows = []
    for item in found:
        schedule = (item.get("trigger") or {}).get("cron_schedule") or {}
        data = ((item.get("runtime_config") or {}).get("parameters") or {}).get(DATA_URI, "")
        paused = item.get("mode") == "DISABLE"
        coming = "" if paused else _next_time(schedule, zone)
        rows.append([item["display_name"], "paused" if paused else "on", schedule.get("cron", ""), coming, str(data)])
    show_table(("schedule", "state", "cron", f"next ({arguments.time_zone})", "data"), rows)
    return 0


def pause_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Pauses a schedule."""
    return _switch(arguments, settings, "disable", "paused")


def resume_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Resumes a paused schedule."""
    return _switch(arguments, settings, "enable", "resumed")


def delete_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Deletes a schedule. Its runs are kept; with `--terminate` an active run is terminated first."""
    server = connect_to_server(arguments, settings)
    recurring.delete(server, recurring.find_one(server, arguments.name), ActiveRuns(terminate=arguments.terminate))
    print(f"schedule {arguments.name} deleted")
    return 0


def _switch(arguments: argparse.Namespace, settings: Settings, action: str, done: str) -> int:
    server = connect_to_server(arguments, settings)
    found = recurring.find_one(server, arguments.name)
    server.call(f"recurringruns/{found['recurring_run_id']}:{action}")
    print(f"schedule {arguments.name} {done}")
    return 0


def _plan(arguments: argparse.Namespace) -> Schedule:
    return recurring.read_schedule(
        arguments.cron,
        time_zone=arguments.time_zone,
        start=arguments.start,
        end=arguments.end,
        catch_up=arguments.catch_up,
        max_concurrency=arguments.max_concurrency,
    )


def _parameters(arguments: argparse.Namespace, package: Package) -> dict[str, Any]:
    given: dict[str, Any] = {}
    for text in arguments.param:
        name, equals, value = text.partition("=")
        if not equals or name == DATA_URI or name in given:
            raise InputError(f"--param={text}: give NAME=VALUE, each name once; the data is DATA")
        given[name] = parse_parameter(package, name, value)
    if DATA_URI in arguments.pipeline.inputs():
        given[DATA_URI] = arguments.data
    return pipeline_parameters(arguments.pipeline, given)


def _body(
    arguments: argparse.Namespace, when: Schedule, reference: Document, config: Document, experiment: str
) -> Document:
    return recurring.request_body(
        arguments.name, when, reference, config, experiment=experiment, service_account=arguments.service_account
    )


def _print_times(when: Schedule, to: Any) -> None:
    times = when.next_times(datetime.now(UTC))
    for time in times:
        in_utc = "" if time.tzname() == "UTC" else f" ({time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC)"
        print(f"next: {time:%Y-%m-%d %H:%M:%S %Z}{in_utc}", file=to)
    print(f"times are in {when.zone.key}, which must be the server's CRON_SCHEDULE_TIMEZONE", file=to)
    missed = "each time that was missed is run" if when.catch_up else "of times that were missed only the last is run"
    most = "a run" if when.max_concurrency == 1 else f"{when.max_concurrency} runs"
    print(f"a time that comes while {most} of it goes on waits; {missed}", file=to)


def _next_time(schedule: Document, zone: Any) -> str:
    """Returns the next time of a schedule; `?` if another program created it with a cron expression that `cron.parse` refuses."""
    try:
        start, end = (recurring.parse_time(schedule.get(name)) for name in ("start_time", "end_time"))
        when = Schedule(cron=parse(str(schedule.get("cron", ""))), zone=zone, start=start, end=end)
    except InputError:
        return "?"
    return next((f"{time:%Y-%m-%d %H:%M:%S}" for time in when.next_times(datetime.now(UTC), 1)), "never")

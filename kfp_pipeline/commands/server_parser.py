"""The parser of the commands for a KFP server: upload, run --kfp, runs --kfp, schedule."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from kfp_pipeline.commands.parser import add_pipeline_flag, sentence
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Role
from spark_jobs.contract import DATA_URI, Pipeline
from spark_jobs.errors import InputError

SERVER_ONLY_FLAGS = {
    "experiment": "",
    "service_account": "",
    "pipeline_root": "",
    "wait": False,
    "timeout": 0.0,
    "dry_run": False,
    "token_file": "",
    "namespace": "",
    "ca_file": "",
    "image": "",
    "platform": "",
    "spark_settings": "",
}
"""The flags of `run` that only a run on a KFP server has, and their defaults."""


def add_commands(commands: Any, pipeline: Pipeline) -> None:
    """Adds the commands to the parser of `spark-kfp`; `schedule create` takes DATA if this pipeline reads data."""
    about = "upload a pipeline to a KFP server, unless it has the same content"
    upload = _command(commands, "upload", about, "upload_command")
    add_pipeline_flag(upload)
    upload.add_argument("--name", default="", help="name of the pipeline on the server (default: its own)")
    upload.add_argument(
        "--version", default="", help="name of the version (default: this program's version and the content's digest)"
    )
    add_platform_flags(upload)
    _add_dry_run(upload)
    _add_schedule(commands, pipeline)


def add_server_flags(parser: Any, kfp: str = "URL of the KFP server or its UI (default: SPARK_KFP_KFP)") -> None:
    """Adds the flags for the server's address and the credentials."""
    parser.add_argument("--kfp", default="", metavar="URL", help=kfp)
    parser.add_argument("--namespace", default="", help="profile, on a server with one namespace for each user")
    parser.add_argument("--token-file", default="", metavar="FILE", help="bearer token (default: KFP_TOKEN, if set)")
    parser.add_argument("--ca-file", default="", metavar="FILE", help="certificates to trust instead of public ones")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of `run` for a KFP server."""
    group = parser.add_argument_group("a run on a KFP server (credentials: KFP_TOKEN or KFP_COOKIES)")
    add_server_flags(group, "run there and not on this machine: URL of the KFP server or its UI")
    _add_common(group)
    add_platform_flags(group)
    group.add_argument(
        "--spark-settings",
        default="",
        metavar="FILE",
        help="resources of this run (YAML): STEP, all or session to a partial SparkApplication spec",
    )
    group.add_argument("--wait", action="store_true", help="show progress to the end; the exit code is the run's")
    group.add_argument(
        "--timeout", type=float, default=0.0, help="longest wait in seconds; the run goes on (default: none)"
    )
    _add_dry_run(group)


def add_runs_commands(actions: Any) -> None:
    """Adds the commands of `runs` that exist for a KFP server only."""
    terminate = _command(actions, "terminate", "end a run on a KFP server", "terminate_command")
    terminate.add_argument("id", metavar="ID", help="id of the run")


def is_server_run(arguments: argparse.Namespace) -> bool:
    """Whether `run` is for a KFP server.

    Raises:
        InputError: it is not, and a flag is given that only a run on a KFP server has.
    """
    if arguments.kfp:
        return True
    given = [name for name, default in SERVER_ONLY_FLAGS.items() if getattr(arguments, name) != default]
    if given:
        flag = "--" + given[0].replace("_", "-")
        raise InputError(f"{flag} is for a run on a KFP server; give --kfp URL, too, or leave it out")
    return False


def run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs the pipeline on a KFP server."""
    return _lazy_command("server_commands", "run_command")(arguments, settings)


def runs_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists or shows runs on a KFP server."""
    if arguments.action == "compare":
        raise InputError("runs compare is for runs on this machine; leave out --kfp")
    return _lazy_command("server_commands", f"{arguments.action}_command")(arguments, settings)


def _add_schedule(commands: Any, pipeline: Pipeline) -> None:
    schedule = commands.add_parser("schedule", help="recurring runs on a KFP server")
    actions = schedule.add_subparsers(required=True, metavar="COMMAND")
    create = _command(actions, "create", "create a schedule, unless it exists", "create_command", "schedule")
    create.add_argument("name", metavar="NAME", help="name of the schedule")
    if DATA_URI in pipeline.inputs(Role.GIVEN):
        create.add_argument("data", metavar="DATA", help="the table, in the object store: s3://BUCKET/data.csv")
    add_pipeline_flag(create)
    _add_when(create)
    create.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="input of the pipeline",
    )
    _add_common(create)
    add_platform_flags(create)
    create.add_argument("--replace", action="store_true", help="replace a schedule of that name with other content")
    _add_terminate(create, "with --replace: ")
    _add_dry_run(create)
    listed = _command(actions, "list", "the schedules and their next times", "list_command", "schedule")
    listed.add_argument("--json", action="store_true", help="print JSON")
    _add_time_zone(listed)
    for name, about in (
        ("pause", "pause a schedule"),
        ("resume", "resume a paused schedule"),
        ("delete", "delete a schedule, if none of its runs is in progress"),
    ):
        action = _command(actions, name, about, f"{name}_command", "schedule")
        action.add_argument("name", metavar="NAME", help="name of the schedule")
        if name == "delete":
            _add_terminate(action)


def _add_terminate(parser: argparse.ArgumentParser, when: str = "") -> None:
    about = f"{when}first end a run of the schedule that is in progress (default: then refuse to delete the schedule)"
    parser.add_argument("--terminate", action="store_true", help=about)


def _add_when(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--cron",
        required=True,
        metavar="LINE",
        help="six fields, seconds first: second minute hour day-of-month month day-of-week; '0 0 2 * * *': at 02:00",
    )
    create.add_argument(
        "--start", default="", metavar="TIME", help="no run starts before this time, such as 2026-01-31T02:00"
    )
    create.add_argument("--end", default="", metavar="TIME", help="no run starts after this time")
    _add_time_zone(create)
    create.add_argument("--catch-up", action="store_true", help="run every missed time (default: only the last one)")
    create.add_argument(
        "--max-concurrency",
        type=int,
        default=1,
        help="most runs at the same time, 1 to 10 (default 1: a run waits until the one before has ended)",
    )


def _add_time_zone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-zone",
        default="UTC",
        metavar="ZONE",
        help="time zone of all schedules of the server, as in its setting CRON_SCHEDULE_TIMEZONE; this flag does not "
        "change that setting, it is for the times printed and for --start and --end (default UTC)",
    )


def _add_common(parser: Any) -> None:
    parser.add_argument(
        "--experiment", default="", help="experiment of the runs; created if missing (default spark-kfp)"
    )
    parser.add_argument("--service-account", default="", help="service account of the tasks (default: the server's)")
    parser.add_argument(
        "--pipeline-root", default="", metavar="URI", help="URI below which outputs lie (default: the server's)"
    )


def add_platform_flags(parser: Any) -> None:
    """Adds the flags for the settings of every task of the compiled pipeline."""
    parser.add_argument(
        "--image", default="", help="image of the tasks, best by its digest (default: this version's name)"
    )
    about = "YAML file with settings of every task, such as retries: 3; docs/settings.md lists them"
    parser.add_argument("--platform", default="", metavar="FILE", help=about)


def _add_dry_run(parser: Any) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the JSON that would be sent, and send nothing")


def _command(commands: Any, name: str, about: str, run: str, module: str = "server") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{sentence(about)}. Credentials: KFP_TOKEN or KFP_COOKIES.",
        allow_abbrev=False,
    )
    add_server_flags(parser)
    parser.set_defaults(command=_lazy_command(f"{module}_commands", run))
    return parser


def _lazy_command(module: str, name: str) -> Callable[[argparse.Namespace, Settings], int]:
    """Returns a command that imports its module only when it is called: the import of KFP's client takes a second."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        from kfp_pipeline.commands import schedule_commands, server_commands  # noqa: PLC0415

        modules = {"server_commands": server_commands, "schedule_commands": schedule_commands}
        return int(getattr(modules[module], name)(arguments, settings))

    return run

"""The parser of the commands of `spark-kfp` that talk to a KFP server: upload, run --kfp, runs --kfp, schedule."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from kfp_pipeline.settings import Settings
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
"""Flags of `run` that mean nothing on this machine, and their defaults."""


def add_commands(commands: Any) -> None:
    """Adds the commands to the parser of `spark-kfp`."""
    upload = _command(commands, "upload", "put the training pipeline on a KFP server, once", "upload_command")
    upload.add_argument("--name", default="", help="of the pipeline (default: its own)")
    upload.add_argument(
        "--version", default="", help="name of the version (default: this program's version and the content's digest)"
    )
    add_platform_flags(upload)
    _add_dry_run(upload)
    _add_schedule(commands)


def add_server_flags(parser: Any, kfp: str = "URL of the KFP server or its UI (default: SPARK_KFP_KFP)") -> None:
    """Adds the flags that say where the server is and who asks."""
    parser.add_argument("--kfp", default="", metavar="URL", help=kfp)
    parser.add_argument("--namespace", default="", help="profile, on a server with one namespace for each user")
    parser.add_argument("--token-file", default="", metavar="FILE", help="bearer token (default: KFP_TOKEN, if set)")
    parser.add_argument("--ca-file", default="", metavar="FILE", help="certificates to trust instead of public ones")


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds what `run` takes for a KFP server."""
    group = parser.add_argument_group("a run on a KFP server (KFP_TOKEN or KFP_COOKIES say who asks)")
    add_server_flags(group, "run there and not on this machine: URL of the KFP server or its UI")
    _add_common(group)
    add_platform_flags(group)
    group.add_argument(
        "--spark-settings",
        default="",
        metavar="FILE",
        help="resources of this run (YAML): STEP or all to a partial SparkApplication spec",
    )
    group.add_argument("--wait", action="store_true", help="show progress to the end; the exit code is the run's")
    group.add_argument(
        "--timeout", type=float, default=0.0, help="longest wait in seconds; the run goes on (default: none)"
    )
    _add_dry_run(group)


def add_runs_commands(actions: Any) -> None:
    """Adds what `runs` does on a KFP server only."""
    terminate = _command(actions, "terminate", "end a run on a KFP server", "terminate_command")
    terminate.add_argument("id", metavar="ID", help="of the run")


def is_server_run(arguments: argparse.Namespace) -> bool:
    """Whether `run` is meant for a KFP server.

    Raises:
        InputError: it is for this machine, where a flag that was given means nothing.
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
    """Lists or shows runs of a KFP server."""
    if arguments.action == "compare":
        raise InputError("runs compare is for runs on this machine; leave out --kfp")
    return _lazy_command("server_commands", f"{arguments.action}_command")(arguments, settings)


def _add_schedule(commands: Any) -> None:
    schedule = commands.add_parser("schedule", help="runs that come again and again on a KFP server")
    actions = schedule.add_subparsers(required=True, metavar="COMMAND")
    create = _command(actions, "create", "make a schedule, or find that it is there", "create_command", "schedule")
    create.add_argument("name", metavar="NAME", help="of the schedule")
    create.add_argument("data", metavar="DATA", help="the table, in the object store: s3://BUCKET/data.csv")
    _add_when(create)
    create.add_argument(
        "--param", action="append", default=[], metavar="NAME=VALUE", help="input of the pipeline; may come again"
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
        ("pause", "let a schedule rest"),
        ("resume", "let a schedule go on"),
        ("delete", "delete a schedule, if none of its runs is in progress"),
    ):
        action = _command(actions, name, about, f"{name}_command", "schedule")
        action.add_argument("name", metavar="NAME", help="of the schedule")
        if name == "delete":
            _add_terminate(action)


def _add_terminate(parser: argparse.ArgumentParser, when: str = "") -> None:
    about = f"{when}end a run of the schedule that is in progress first (default: refuse to delete the schedule then)"
    parser.add_argument("--terminate", action="store_true", help=about)


def _add_when(create: argparse.ArgumentParser) -> None:
    create.add_argument(
        "--cron",
        required=True,
        metavar="LINE",
        help="six fields, seconds first: second minute hour day-of-month month day-of-week; '0 0 2 * * *': at 02:00",
    )
    create.add_argument("--start", default="", metavar="TIME", help="nothing comes before it, such as 2026-01-31T02:00")
    create.add_argument("--end", default="", metavar="TIME", help="nothing comes after it")
    _add_time_zone(create)
    create.add_argument(
        "--catch-up", action="store_true", help="run each time that was missed (default: only the last one)"
    )
    create.add_argument(
        "--max-concurrency",
        type=int,
        default=1,
        help="most runs at once, 1 to 10 (default 1: a time that comes while a run goes on waits for its end)",
    )


def _add_time_zone(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--time-zone",
        default="UTC",
        metavar="ZONE",
        help="in which the server counts all its schedules: its setting CRON_SCHEDULE_TIMEZONE; this flag does not "
        "change that, it is for the times printed and for --start and --end (default UTC)",
    )


def _add_common(parser: Any) -> None:
    parser.add_argument("--experiment", default="", help="of the runs; made if missing (default spark-kfp)")
    parser.add_argument("--service-account", default="", help="of the tasks (default: the server's)")
    parser.add_argument(
        "--pipeline-root", default="", metavar="URI", help="below which outputs lie (default: the server's)"
    )


def add_platform_flags(parser: Any) -> None:
    """Adds the flags that say what every task of the compiled pipeline gets."""
    parser.add_argument("--image", default="", help="of the tasks, best by its digest (default: this version's name)")
    about = "YAML file with settings of every task, such as retries: 3; docs/settings.md lists them"
    parser.add_argument("--platform", default="", metavar="FILE", help=about)


def _add_dry_run(parser: Any) -> None:
    parser.add_argument("--dry-run", action="store_true", help="print the JSON that would be sent, and send nothing")


def _command(commands: Any, name: str, about: str, run: str, module: str = "server") -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about.capitalize()}. KFP_TOKEN or KFP_COOKIES say who asks.",
        allow_abbrev=False,
    )
    add_server_flags(parser)
    parser.set_defaults(command=_lazy_command(f"{module}_commands", run))
    return parser


def _lazy_command(module: str, name: str) -> Callable[[argparse.Namespace, Settings], int]:
    """A command whose module, with KFP's client, is imported only when it is called: that takes a second."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        from kfp_pipeline.commands import schedule_commands, server_commands  # noqa: PLC0415

        modules = {"server_commands": server_commands, "schedule_commands": schedule_commands}
        return int(getattr(modules[module], name)(arguments, settings))

    return run

"""The commands `spark-kfp session start | status | stop`: a Spark session that is kept for later runs on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from kfp_pipeline.local import kept_session
from kfp_pipeline.settings import Settings
from spark_jobs.errors import InputError

IDLE_MINUTES = 30


def add_commands(commands: Any) -> None:
    """Adds `session` to the parser of `spark-kfp`."""
    parser = commands.add_parser(
        "session", help="keep a Spark session, so that the next runs on this machine start at once"
    )
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    start = actions.add_parser("start", help="start the session and wait until it is ready")
    start.add_argument("--spark", default="local[*]", help="where Spark runs (default %(default)s)")
    start.add_argument(
        "--idle-minutes",
        type=int,
        default=IDLE_MINUTES,
        help="after this time without a step the session ends (default %(default)s)",
    )
    start.set_defaults(command=start_command)
    actions.add_parser("status", help="is there a session?").set_defaults(command=status_command)
    actions.add_parser("stop", help="end the session, and a step that runs in it").set_defaults(command=stop_command)


def start_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Starts the session."""
    if not arguments.spark.startswith("local"):
        raise InputError(f"--spark={arguments.spark}: a session is kept on this machine only; use --spark='local[*]'")
    if arguments.idle_minutes < 1:
        raise InputError(f"--idle-minutes={arguments.idle_minutes}: give 1 or more")
    session = kept_session.start(settings, arguments.spark, arguments.idle_minutes)
    print(f"the session is ready; spark-kfp run uses it until no step came for {session.idle_minutes} minutes")
    return 0


def status_command(_: argparse.Namespace, settings: Settings) -> int:
    """Prints how the session is; exit code 1 if there is none."""
    session = kept_session.read(settings)
    state = session.state() if session else "ended"
    if session is None:
        print("there is no session; start one with `spark-kfp session start`")
    else:
        print(f"{state}; log: {session.log}")
    return int(state == "ended")


def stop_command(_: argparse.Namespace, settings: Settings) -> int:
    """Ends the session."""
    print("the session has ended" if kept_session.stop(settings) else "there was no session")
    return 0

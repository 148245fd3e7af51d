"""The parser of the commands for a cluster with the Spark operator: submit, status, logs, cancel, clean, reap, doctor."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from kfp_pipeline.commands.parser import add_external_inputs, add_pipeline_flag, add_settings, sentence
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import add_arguments
from spark_jobs.contract import ARGUMENTS, Pipeline


def add_commands(commands: Any, pipeline: Pipeline) -> None:
    """Adds the commands to the parser of `spark-kfp`; `submit pipeline` has the inputs of this pipeline as arguments."""
    _add_submit(commands, pipeline)
    status = _command(commands, "status", "the SparkApplications of this namespace", "status_command")
    status.add_argument("--json", action="store_true", help="print JSON")
    logs = _command(commands, "logs", "the driver's log of a SparkApplication, and why it failed", "logs_command")
    logs.add_argument("name", help="name of the SparkApplication, or its end")
    logs.add_argument("-f", "--follow", action="store_true", help="print new lines until the driver ends")
    stop = _command(commands, "cancel", "end a SparkApplication, or all of a run", "cancel_command")
    stop.add_argument("name", nargs="?", default="", help="name of the SparkApplication, or its end")
    stop.add_argument("--run", default="", help="all SparkApplications of this run")
    clean = _command(commands, "clean", "delete SparkApplications that have ended; data stays", "clean_command")
    clean.add_argument("--run", default="", help="those of this run only")
    clean.add_argument("--dry-run", action="store_true", help="only list them")
    about = "delete SparkApplications whose task is gone, until this command is stopped"
    reap = _command(commands, "reap", about, "reap_command")
    reap.add_argument("--interval", type=float, default=10.0, help="seconds between two checks (default %(default)s)")
    doctor = _command(commands, "doctor", "check what a run on a cluster needs", "doctor_command")
    doctor.add_argument("--json", action="store_true", help="print JSON")


def _command(commands: Any, name: str, about: str, run: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=about, description=sentence(about) + ".")
    parser.add_argument("--namespace", default="", help="namespace (default: the kubeconfig's)")
    parser.set_defaults(command=_lazy_command(run))
    return parser


def _add_submit(commands: Any, pipeline: Pipeline) -> None:
    about = "run a step, or a pipeline, on a cluster"
    parser = commands.add_parser("submit", help=about, description=sentence(about) + ".")
    what = parser.add_subparsers(required=True, metavar="STEP|pipeline")
    for step, kind in ARGUMENTS.items():
        one = _command(what, str(step), f"run {step} as a SparkApplication", "submit_step_command")
        add_arguments(one, kind.arguments())
        one.set_defaults(step=step)
        _add_run_flags(one)
    whole = _command(what, "pipeline", f"run {', '.join(pipeline.steps)}", "submit_pipeline_command")
    add_external_inputs(whole, pipeline, data="the table, in the object store: s3://BUCKET/data.csv")
    add_pipeline_flag(whole)
    whole.add_argument("--output", required=True, help="URI below which the run's outputs lie: s3://BUCKET/runs")
    whole.add_argument("--run-id", default="", help="name of the run (default: made from the time)")
    about_spark = (
        "operator: a SparkApplication for each step; shared: one, whose session they share (default %(default)s)"
    )
    whole.add_argument("--spark", choices=("operator", "shared"), default="operator", help=about_spark)
    _add_run_flags(whole)
    add_settings(whole, pipeline)


def _add_run_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--spark-settings",
        default="",
        help="YAML file: STEP, all or session to a partial SparkApplication spec, for resources",
    )


def _lazy_command(name: str) -> Callable[[argparse.Namespace, Settings], int]:
    """Returns a command that imports `cluster_commands` only when it is called: the import of Kubernetes' client takes a second."""

    def run(arguments: argparse.Namespace, settings: Settings) -> int:
        from kfp_pipeline.commands import cluster_commands  # noqa: PLC0415

        return int(getattr(cluster_commands, name)(arguments, settings))

    return run

"""The command `spark-kfp tune`: searches the settings of estimators, and compares algorithms of search with each other."""

from __future__ import annotations

import argparse
import json
from typing import Any

from rich.console import Console

from kfp_pipeline.commands import local_runs
from kfp_pipeline.commands.parser import add_external_inputs
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Argument, Role, add_arguments, flag
from spark_jobs.contract import ALGORITHMS, ARGUMENTS, KATIB, TUNING, Step
from spark_jobs.errors import InputError

ON_CLUSTER = ("output", "namespace", "spark_settings")
"""The flags of a search by Katib that are no settings."""


def add_commands(commands: Any) -> None:
    """Adds the command to the parser of `spark-kfp`."""
    parser = commands.add_parser(
        "tune",
        help="search the settings of estimators, and compare algorithms of search",
        description=f"{TUNING.about} Several algorithms get the same number of trials and the same seed, in one Spark session.",
    )
    add_external_inputs(parser, TUNING, data=local_runs.ABOUT_DATA, sample=True)
    parser.add_argument(
        "--algorithms",
        dest="algorithm",
        default=TUNING.inputs()["algorithm"].default,
        help=f"how the next trial is chosen: one or more of {', '.join(ALGORITHMS)}, separated by commas (default %(default)s)",
    )
    for step in TUNING.steps:
        add_arguments(parser.add_argument_group(f"settings of {step}"), settings_of(step))
    parser.add_argument(
        "--spark", default="local[*]", help="where Spark runs (default %(default)s): also sc://HOST:PORT"
    )
    local_runs.add_run_flags(parser)
    cluster = parser.add_argument_group("with --tuner=katib, on a cluster")
    cluster.add_argument("--output", default="", help="URI below which the run's outputs lie: s3://BUCKET/runs")
    cluster.add_argument("--namespace", default="", help="namespace (default: the kubeconfig's)")
    cluster.add_argument(
        "--spark-settings", default="", help="YAML file: STEP or all to a partial SparkApplication spec, for resources"
    )
    parser.set_defaults(command=tune_command, pipeline=TUNING)


def tune_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Searches on this machine, or by Katib on a cluster.

    Raises:
        InputError: a flag is missing, or is for the other place.
    """
    if arguments.tuner != KATIB:
        if given := [name for name in ON_CLUSTER if getattr(arguments, name)]:
            raise InputError(f"{flag(given[0])} is for a search by Katib: give {flag('tuner')}={KATIB} too, or leave it out")
        return local_runs.run_command(arguments, settings)
    if not (arguments.output and arguments.data_uri):
        raise InputError(
            f"{flag('tuner')}={KATIB} searches on a cluster: name the table there and --output, both like s3://BUCKET/NAME"
        )
    from kfp_pipeline.commands import cluster_commands  # noqa: PLC0415 - the import of Kubernetes' client takes a second
    from kfp_pipeline.runtime.object_store import read_text  # noqa: PLC0415

    arguments.spark = "operator"
    uri = cluster_commands.submit_steps(arguments, settings)[-1].uris["output"]
    documents = [json.loads(read_text(f"{uri}/{name}") or "") for name in ("trials.json", "best.json")]
    local_runs.print_search(Console(), documents[0], documents[1])
    print(f"output: {uri}")
    return 0


def settings_of(step: Step) -> list[Argument]:
    """Returns the settings of a step that have a flag of their own name: all but the algorithm."""
    return [item for item in ARGUMENTS[step].arguments(Role.SETTING) if item.name != "algorithm"]

"""The command `spark-kfp tune`: the training pipeline that tunes first, on this machine, with one algorithm of search or several."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich.console import Console

from kfp_pipeline.commands import local_runs
from kfp_pipeline.commands.parser import add_external_inputs, add_settings
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Role, flag
from spark_jobs.contract import KATIB, TRAINING, TUNE_FIRST, Step
from spark_jobs.errors import InputError

TUNED_TRAINING = TRAINING.for_run({TUNE_FIRST.name: True})
ON_CLUSTER = ("output", "namespace", "spark_settings")
"""The flags of a search by Katib that are no settings."""


def add_commands(commands: Any) -> None:
    """Adds the command to the parser of `spark-kfp`."""
    parser = commands.add_parser(
        "tune",
        help="search the settings of estimators, train a model with the best ones, and compare it with the untuned one",
        description="Searches the settings of a Spark ML model, trains it with the best ones, and evaluates it beside the untuned model. "
        f"Several algorithms get the same number of trials and the same seed, in one Spark session. It is `run {flag(TUNE_FIRST.name)}`.",
    )
    add_external_inputs(parser, TUNED_TRAINING, data=local_runs.ABOUT_DATA, sample=True)
    add_settings(parser, TUNED_TRAINING, grouped=True)
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
    defaults = {name: item.default for name, item in TRAINING.inputs(Role.SETTING).items()}
    parser.set_defaults(**defaults | {TUNE_FIRST.name: True}, command=tune_command, pipeline=TRAINING)


def tune_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Searches on this machine, or by Katib on a cluster.

    Raises:
        InputError: a flag is missing, or is for the other place.
    """
    if arguments.tuner != KATIB:
        if given := [name for name in ON_CLUSTER if getattr(arguments, name)]:
            raise InputError(
                f"{flag(given[0])} is for a search by Katib: give {flag('tuner')}={KATIB} too, or leave it out"
            )
        return local_runs.run_command(arguments, settings)
    if not (arguments.output and arguments.data_uri):
        raise InputError(
            f"{flag('tuner')}={KATIB} searches on a cluster: name the table there and --output, both like s3://BUCKET/NAME"
        )
    from kfp_pipeline.commands import cluster_commands  # noqa: PLC0415 - the import of Kubernetes' client takes a second
    from kfp_pipeline.runtime.object_store import read_text  # noqa: PLC0415

    arguments.spark = "operator"
    results = {result.step: result for result in cluster_commands.submit_steps(arguments, settings)}
    documents = {
        name: json.loads(read_text(f"{results[step].uris['output']}/{name}") or "{}")
        for step, name in ((Step.TUNE, "trials.json"), (Step.EVALUATE, "evaluation.json"))
    }
    console = Console(width=None if sys.stdout.isatty() else 200)
    local_runs.print_search(console, documents["trials.json"])
    local_runs.print_tuning(console, documents["evaluation.json"])
    local_runs.print_warnings(console, [warning for result in results.values() for warning in result.warnings])
    print(f"report: {results[Step.EVALUATE].arguments['report_uri']}")
    return 0

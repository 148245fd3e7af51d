"""The command `spark-kfp tune`: the pipeline that tunes and then trains, on this machine, with one algorithm of search or several."""

from __future__ import annotations

from typing import Any

from kfp_pipeline.commands import local_runs
from kfp_pipeline.commands.parser import add_external_inputs
from spark_jobs.arguments import Argument, Role, add_arguments
from spark_jobs.contract import ALGORITHMS, TUNED_TRAINING, Step


def add_commands(commands: Any) -> None:
    """Adds the command to the parser of `spark-kfp`."""
    parser = commands.add_parser(
        "tune",
        help="search the settings of estimators, train a model with the best ones, and compare it with the untuned one",
        description=f"{TUNED_TRAINING.about} Several algorithms get the same number of trials and the same seed, in one Spark session.",
    )
    add_external_inputs(parser, TUNED_TRAINING, data=local_runs.ABOUT_DATA, sample=True)
    parser.add_argument(
        "--algorithms",
        dest="algorithm",
        default=TUNED_TRAINING.inputs()["algorithm"].default,
        help=f"how the next trial is chosen: one or more of {', '.join(ALGORITHMS)}, separated by commas (default %(default)s)",
    )
    known: set[str] = set()
    for step in TUNED_TRAINING.steps:
        settings = [item for item in settings_of(step) if item.name not in known]  # two steps may share one
        add_arguments(parser.add_argument_group(f"settings of {step}"), settings)
        known |= {item.name for item in settings}
    parser.add_argument(
        "--spark", default="local[*]", help="where Spark runs (default %(default)s): also sc://HOST:PORT"
    )
    local_runs.add_run_flags(parser)
    parser.set_defaults(command=local_runs.run_command, pipeline=TUNED_TRAINING)


def settings_of(step: Step) -> list[Argument]:
    """Returns the settings of a step that have a flag of their own name: all but the algorithm."""
    return [item for item in TUNED_TRAINING.arguments_of(step, Role.SETTING) if item.name != "algorithm"]

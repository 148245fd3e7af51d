"""The command `spark-kfp tune`: searches the settings of estimators, and compares algorithms of search with each other."""

from __future__ import annotations

from typing import Any

from kfp_pipeline.commands import local_runs
from kfp_pipeline.commands.parser import add_external_inputs
from spark_jobs.arguments import Argument, Role, add_arguments
from spark_jobs.contract import ALGORITHMS, ARGUMENTS, TUNING, Step


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
    parser.set_defaults(command=local_runs.run_command, pipeline=TUNING)


def settings_of(step: Step) -> list[Argument]:
    """Returns the settings of a step that have a flag of their own name: all but the algorithm."""
    return [item for item in ARGUMENTS[step].arguments(Role.SETTING) if item.name != "algorithm"]

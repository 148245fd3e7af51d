"""The command `spark-kfp`: its parser, and the commands that run on this machine."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from kfp_pipeline.commands import (
    cluster_parser,
    data_commands,
    display,
    gate_commands,
    local_runs,
    models_commands,
    server_parser,
    serving_commands,
    session_commands,
    tune_commands,
)
from kfp_pipeline.commands.bundled import write_manifests
from kfp_pipeline.commands.exit_codes import report_error
from kfp_pipeline.commands.parser import (
    Parser,
    add_external_inputs,
    add_pipeline_flag,
    add_settings,
    chosen_pipeline,
)
from kfp_pipeline.local import runs
from kfp_pipeline.runtime.spark_submit.class_archive import make_archive
from kfp_pipeline.settings import Settings
from spark_jobs.comparison import compare
from spark_jobs.contract import TRAINING, Pipeline, Step
from spark_jobs.errors import InputError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0; 2 for bad input; 130 after an interrupt; 1 for any other failure.

    `gate` has its own codes; see `gate_commands`.
    """
    settings = Settings()
    try:
        arguments = make_parser(chosen_pipeline(argv)).parse_args(argv)
        settings = Settings.from_environment()
        if getattr(arguments, "runs", None):
            settings = replace(settings, runs=Path(arguments.runs))
        code = int(arguments.command(arguments, settings))
        sys.stdout.flush()  # so that a broken pipe raises its error here and not while Python shuts down
        return code
    except (Exception, KeyboardInterrupt) as error:
        return report_error(error, debug=settings.debug)


def make_parser(pipeline: Pipeline = TRAINING) -> argparse.ArgumentParser:
    """Builds the parser with all commands; those that run a pipeline have the inputs of this one as arguments."""
    parser = Parser(prog="spark-kfp", description="Spark ML pipelines on Kubeflow, and on one machine.")
    parser.add_argument(
        "--version", action="version", version=f"%(prog)s {version('spark-kfp')}", help="print the version"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_run(commands, pipeline)
    compiled = commands.add_parser("compile", help="compile a pipeline into the YAML file that KFP accepts")
    compiled.add_argument("-o", "--output", default="", help="file to write (default PIPELINE_pipeline.yaml)")
    add_pipeline_flag(compiled)
    server_parser.add_platform_flags(compiled)
    compiled.set_defaults(command=compile_command)
    data_commands.add_commands(commands)
    _add_runs(commands)
    gate_commands.add_commands(commands)
    models_commands.add_commands(commands)
    cluster_parser.add_commands(commands, pipeline)
    server_parser.add_commands(commands, pipeline)
    session_commands.add_commands(commands)
    tune_commands.add_commands(commands)
    serving_commands.add_commands(commands)
    archive = commands.add_parser(
        "archive", help="make the archive of Spark's classes that lets every step start faster"
    )
    archive.set_defaults(command=archive_command)
    manifests = commands.add_parser(
        "manifests", help="write the manifests of a cluster, spark-operator/, into a folder"
    )
    manifests.add_argument("folder", metavar="DIR", help="where; it is made if it is not there, and must be empty")
    manifests.add_argument("--force", action="store_true", help="replace files of the same name in it")
    manifests.set_defaults(command=manifests_command)
    return parser


def _add_run(commands: Any, pipeline: Pipeline) -> None:
    parser = commands.add_parser(
        "run",
        help="run a pipeline on this machine, or with --kfp on a KFP server",
        description=f"{pipeline.about} Steps: {', '.join(pipeline.steps)}. Another --pipeline has other steps and inputs.",
    )
    add_external_inputs(parser, pipeline, data=local_runs.ABOUT_DATA, sample=True)
    add_pipeline_flag(parser)
    parser.add_argument(
        "--spark",
        default="local[*]",
        help="where Spark runs (default %(default)s): also sc://HOST:PORT; with --kfp operator, or shared: one session for the run",
    )
    local_runs.add_run_flags(parser)
    server_parser.add_run_flags(parser)
    add_settings(parser, pipeline, grouped=True)
    parser.set_defaults(command=run_command)


def _add_runs(commands: Any) -> None:
    parser = commands.add_parser("runs", help="the runs on this machine, or with --kfp on a KFP server")
    actions = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, ids, text in (
        ("list", 0, "one line each"),
        ("show", 1, "all of one run"),
        ("compare", 2, "two runs side by side"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
        action.add_argument("--json", action="store_true", help="print JSON")
        if ids:
            action.add_argument("ids", nargs=ids, metavar="ID", help="name of a run, its beginning, or `last`")
        server_parser.add_server_flags(
            action, "the runs there and not on this machine: URL of the KFP server or its UI"
        )
        action.set_defaults(command=runs_command, ids=[], action=name)
    server_parser.add_runs_commands(actions)


def run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs a pipeline and shows its progress and what it found: its metrics and, if it evaluates a model, its report."""
    if server_parser.is_server_run(arguments):
        return server_parser.run_command(arguments, settings)
    return local_runs.run_command(arguments, settings)


def compile_command(arguments: argparse.Namespace, _: Settings) -> int:
    """Compiles a pipeline and writes the YAML file that KFP accepts: its intermediate representation (IR)."""
    from kfp.compiler import Compiler  # noqa: PLC0415

    from kfp_pipeline.graphs import make_pipeline  # noqa: PLC0415
    from kfp_pipeline.task_settings import read_platform  # noqa: PLC0415

    if arguments.output and not arguments.output.endswith((".yaml", ".yml")):
        raise InputError(f"--output is {arguments.output}; KFP writes YAML only: give a name that ends in .yaml")
    target = arguments.output or f"{arguments.pipeline.name}_pipeline.yaml"
    made = make_pipeline(arguments.pipeline.name, read_platform(arguments.platform, arguments.image))
    Compiler().compile(made, target)
    print(target)
    return 0


def runs_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Lists, shows or compares runs.

    Raises:
        InputError: `--runs` names no directory, or there is no such run.
    """
    if arguments.kfp:
        return server_parser.runs_command(arguments, settings)
    if arguments.runs and not settings.runs.is_dir():
        raise InputError(f"--runs {arguments.runs}: there is no such directory")
    found = [runs.find(settings.runs, name) for name in arguments.ids] or runs.list_runs(settings.runs)
    if arguments.action == "compare":
        compare_runs(found[0], found[1], arguments, settings)
    elif arguments.json:
        print(json.dumps([asdict(run) for run in found], ensure_ascii=False))
    elif arguments.action == "show":
        show_run(found[0], settings)
    elif found:
        wide_console().print(display.runs_table(found))
    else:
        print(runs.no_runs(settings.runs))
    return 0


def show_run(run: runs.Run, settings: Settings) -> None:
    """Prints all facts of a run, and if its evaluation is still there the metrics with their intervals and the warnings."""
    console, path = wide_console(), None
    if run.status == "succeeded" and Step.EVALUATE in run.steps:
        path = gate_commands.find_evaluation(run.id, settings.runs)
    if not path or not path.exists():
        console.print(display.run_lines(run))
        return
    evaluation = gate_commands.read_json(path)
    console.print(display.run_lines(replace(run, metrics={})))
    console.print()
    console.print(display.metrics_table(evaluation))
    local_runs.print_warnings(console, evaluation["warnings"])


def wide_console() -> Console:
    """Returns a console; without a terminal it is 200 columns wide, as rich would squeeze tables into 80 columns."""
    return Console() if sys.stdout.isatty() else Console(width=200)


def compare_runs(one: runs.Run, other: runs.Run, arguments: argparse.Namespace, settings: Settings) -> None:
    """Shows two runs side by side, with intervals of the differences if both were evaluated on the same rows.

    Raises:
        InputError: the runs have different labels or classes, or an evaluation cannot be read.
    """
    compared = None
    if all(run.status == "succeeded" and Step.EVALUATE in run.steps for run in (one, other)):
        paths = [gate_commands.find_evaluation(run.id, settings.runs) for run in (one, other)]
        compared = compare(*map(gate_commands.read_json, paths))
    if arguments.json:
        document = {"runs": [asdict(one), asdict(other)], "comparison": compared and asdict(compared)}
        print(json.dumps(document, ensure_ascii=False))
        return
    console = wide_console()
    console.print(display.comparison_table(one, other, compared))
    if compared:
        console.print(Text(f"\n{compared.note}"), soft_wrap=True)


def archive_command(_: argparse.Namespace, settings: Settings) -> int:
    """Makes the class-data archive that lets Spark start faster."""
    path = make_archive(settings)
    print(f"{path}: {path.stat().st_size / 1e6:.0f} MB")
    return 0


def manifests_command(arguments: argparse.Namespace, _: Settings) -> int:
    """Writes the manifests into a folder and prints the next command."""
    write_manifests(Path(arguments.folder), force=arguments.force)
    print(f"{arguments.folder}: read README.md in it, then: kubectl apply -k {arguments.folder}/overlays/minikube")
    return 0

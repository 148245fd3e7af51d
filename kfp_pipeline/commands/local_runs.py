"""Runs a pipeline on this machine for a command: its inputs from the command line, its progress, and how it ended."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from kfp_pipeline.commands import data_commands, display, gate_commands, models_commands
from kfp_pipeline.commands.bundled import bundled
from kfp_pipeline.commands.input_checks import check_run_inputs
from kfp_pipeline.local import kept_session, runs
from kfp_pipeline.local.local_run import LOG_NAME, run_locally
from kfp_pipeline.runtime.data_version import fill_date
from kfp_pipeline.runtime.spark_submit.runner import SparkSubmitRunner
from kfp_pipeline.settings import Settings
from spark_jobs.arguments import Role, flag
from spark_jobs.contract import (
    ARGUMENTS,
    DATA_URI,
    KATIB,
    MODEL_URI,
    RULES_URI,
    SPECIFICATION_URI,
    TRAIN_DATA_URI,
    VERDICT_NAME,
    Pipeline,
    Step,
)
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, InputError
from spark_jobs.registry import pointer
from spark_jobs.registry.places import place_of

SAMPLE, SAMPLE_SPECIFICATION = "data/bank_sample.csv", "data/bank.toml"
ABOUT_DATA = f"the table; without it the sample, {SAMPLE} with {SAMPLE_SPECIFICATION}"


def add_run_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of a run on this machine that are no inputs of its pipeline, but where Spark runs."""
    parser.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
    parser.add_argument("--run-id", default="", help="name of the run (default: made from the time)")
    parser.add_argument(
        "--no-cache", action="store_true", help="run every step, even if its inputs, data and code are as before"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")


def run_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Runs a pipeline and shows its progress and what it found: its metrics, its trials, its report."""
    # Without a terminal rich would squeeze tables into 80 columns.
    console = Console(quiet=arguments.json, width=None if sys.stdout.isatty() else 200)
    try:
        run, evaluation = run_on_this_machine(arguments, settings, console)
    except KeyboardInterrupt:
        if Step.TUNE in arguments.pipeline.steps_of(vars(arguments)):
            console.print("\nfinished trials are kept: the same command goes on after the last one")
        raise
    if run.status != "succeeded":
        return print_failure(run, settings)
    console.print()
    if Step.TUNE in run.steps:
        print_trials(console, Path(run.steps[Step.TUNE]["uri"]), trained=bool(evaluation))
    if evaluation and evaluation.get("tuning"):
        print_tuning(console, evaluation)
    elif Step.TUNE not in run.steps:
        console.print(display.metrics_table(evaluation) if evaluation else display.results_table(run.metrics))
    print_warnings(console, run.warnings)
    console.print(f"\n{run.seconds:.0f} s, run {run.id}", highlight=False)
    where = f"report: {run.report}" if run.report else f"output: {run.steps[arguments.pipeline.steps[-1]]['uri']}"
    console.print(Text(where), soft_wrap=True)
    if (search := settings.runs.absolute() / run.id / f"{Step.TUNE}.html").exists():
        console.print(Text(f"report of the search: {search}"), soft_wrap=True)
    if Step.PROMOTE in run.steps:
        models_commands.print_verdict(gate_commands.read_json(Path(run.steps[Step.PROMOTE]["uri"]) / VERDICT_NAME))
    return 0


def print_trials(console: Console, tuned: Path, *, trained: bool) -> None:
    """Prints what the step tune found: each algorithm's result if there are several, the best trials, and how to train the winner.

    Args:
        console: where to print.
        tuned: the output of tune.
        trained: whether the run has trained the winner itself.
    """
    print_search(console, gate_commands.read_json(tuned / "trials.json"))
    if trained:
        return
    console.print("to train the best and judge it on the test rows, run the same table with these flags:")
    console.print(Text(display.train_flags(gate_commands.read_json(tuned / "best.json"))), soft_wrap=True)


def print_search(console: Console, document: Mapping[str, Any]) -> None:
    """Prints a parsed trials.json: each algorithm's result if there are several, and the best trials."""
    if len(document["algorithms"]) > 1:
        console.print(display.algorithms_table(document))
        console.print()
    console.print(display.trials_table(document))
    console.print()


def print_tuning(console: Console, evaluation: Mapping[str, Any]) -> None:
    """Prints the tuned and the untuned model of a parsed evaluation.json on the same test rows, and whether tuning paid."""
    console.print(display.tuning_table(evaluation["tuning"]))
    console.print(Text(f"\n{evaluation['tuning']['verdict']}"), soft_wrap=True)


def run_on_this_machine(
    arguments: argparse.Namespace, settings: Settings, console: Console
) -> tuple[runs.Run, dict[str, Any]]:
    """Runs the pipeline of a parsed command line and shows its progress; with --json it prints the run.

    Returns:
        The run, and the parsed evaluation.json if it succeeded and its pipeline evaluates a model.

    Raises:
        InputError: an input is wrong, or Spark shall run elsewhere.
    """
    pipeline: Pipeline = arguments.pipeline
    inputs = {name: getattr(arguments, name) for name in pipeline.inputs(Role.SETTING)} | external_inputs(
        arguments, settings
    )
    if not arguments.spark.startswith(("local", "sc://")):
        raise InputError(
            f"--spark={arguments.spark}: this command is for this machine; for a cluster use: spark-kfp submit pipeline"
        )
    if inputs.get("tuner") == KATIB:
        raise InputError(
            f"{flag('tuner')}={KATIB} needs a cluster: spark-kfp tune {flag('tuner')}={KATIB}, or spark-kfp submit pipeline"
        )
    inputs |= {"spark": arguments.spark, "spark_settings": {}}
    if inputs.get(ARGUMENTS[Step.PROMOTE].RUNS_IF):
        inputs |= models_commands.promotion_inputs(inputs, settings)
        if inputs[RULES_URI] and not arguments.rules_uri:
            console.print(Text(f"rules of the gate: {inputs[RULES_URI]}"), soft_wrap=True)
    check_run_inputs(pipeline, inputs)
    if inputs.get(ARGUMENTS[Step.PROMOTE].RUNS_IF):
        pointer.read(place_of(inputs["registry_uri"]), inputs["model_name"])  # tells a registry that cannot be read
    settings = replace(settings, reuse=settings.reuse and not arguments.no_cache)
    submit = SparkSubmitRunner(arguments.spark, settings)
    uris = [inputs[name] for name in pipeline.inputs(Role.GIVEN)]
    # A kept session compiles by the fast compiler only, and large data are to leave its memory free.
    may_be_kept = submit.may_share_session(uris) and submit.are_small(uris)
    session, about_session = kept_session.find(settings, arguments.spark) if may_be_kept else (None, "")
    if about_session:
        console.print(Text(about_session), soft_wrap=True)
    with display.Progress(console, pipeline.steps_of(inputs)) as progress:
        run, evaluation = run_locally(
            pipeline, arguments.run_id or runs.new_id(), inputs, settings, progress.show, session
        )
    if arguments.json:
        print(json.dumps({**asdict(run), "evaluation": evaluation}, ensure_ascii=False))
    return run, evaluation


def model_of_run(name: str, settings: Settings) -> str:
    """Returns the URI of the model that a run on this machine has trained; a URI or a path of a model as it is.

    Args:
        name: a URI, a path, the name of a run or its beginning, or `last`: the last run that has trained a model.
        settings: of this machine.

    Raises:
        InputError: there is neither such a folder nor such a run, or the run has trained no model.
    """
    if "/" in name or ":" in name or Path(name).exists():
        return name
    trained = [run for run in runs.list_runs(settings.runs) if run.status == "succeeded" and Step.TRAIN in run.steps]
    if name == "last" and trained:
        return str(trained[-1].steps[Step.TRAIN]["uri"])
    run = runs.find(settings.runs, name)
    if Step.TRAIN not in run.steps or run.status != "succeeded":
        raise InputError(f"run {run.id} has trained no model; name another, or the folder of a model")
    return str(run.steps[Step.TRAIN]["uri"])


def external_inputs(arguments: argparse.Namespace, settings: Settings) -> dict[str, str]:
    """Returns the inputs of the pipeline that come from outside; without data those of the bundled sample.

    Raises:
        InputError: the user names no data, and this installation has no sample.
    """
    given = {name: str(getattr(arguments, name)) for name in arguments.pipeline.inputs(Role.GIVEN)}
    if given.get(DATA_URI):
        given |= {name: fill_date(given[name], "") for name in (DATA_URI, TRAIN_DATA_URI) if name in given}
    elif SPECIFICATION_URI in given and MODEL_URI not in given:
        given |= sample_inputs(arguments)
    elif DATA_URI in given:
        raise InputError(f"name the table: spark-kfp run DATA --pipeline {arguments.pipeline.name}")
    if MODEL_URI in given:
        given[MODEL_URI] = model_of_run(given[MODEL_URI], settings)
    return {name: data_commands.absolute(value) for name, value in given.items()}


def sample_inputs(arguments: argparse.Namespace) -> dict[str, str]:
    """Returns the paths of the bundled sample and of its specification, unless the user names another or a label."""
    sample, specification = (
        path if (path := Path(name)).exists() else bundled(name) for name in (SAMPLE, SAMPLE_SPECIFICATION)
    )
    if not Path(SAMPLE).exists():
        print(f"no data is named: the synthetic sample is taken, {sample}", file=sys.stderr)
    chosen = arguments.specification_uri or ("" if arguments.label else str(specification))
    return {DATA_URI: str(sample), SPECIFICATION_URI: chosen}


def print_failure(run: runs.Run, settings: Settings) -> int:
    """Prints why a run failed, and for a fault also the driver's last lines and the path of the log; returns the exit code."""
    failed: dict[str, Any] = next((event for event in run.steps.values() if event["state"] == "failed"), {})
    if failed.get("log"):
        print(failed["log"], file=sys.stderr)
    print(f"spark-kfp: error: {run.message}", file=sys.stderr)
    if failed.get("kind") == "input":
        return EXIT_INPUT
    print(f"the whole log: {failed.get('log_path') or settings.runs / run.id / LOG_NAME}", file=sys.stderr)
    return EXIT_FAULT


def print_warnings(console: Console, warnings: Sequence[str]) -> None:
    """Prints the warnings of a run, one line each."""
    for warning in warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)

"""The command `spark-kfp gate`: reads a run's evaluation and the rules in a TOML file, and prints whether the model passes.

`spark_jobs.gate` decides; this module reads files and prints.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kfp_pipeline.commands.parser import sentence
from kfp_pipeline.local import runs
from kfp_pipeline.settings import Settings
from spark_jobs import gate
from spark_jobs.contract import Step
from spark_jobs.errors import InputError
from spark_jobs.local_files import local_path
from spark_jobs.object_names import is_object_store_uri

RULES_NAME = "gate.toml"
EVALUATION_NAME = "evaluation.json"
EXIT_CODES = {gate.Decision.PASSES: 0, gate.Decision.FAILS: 1, gate.Decision.TOO_FEW_ROWS: 3}


def add_commands(commands: Any) -> None:
    """Adds `gate` to the parser of `spark-kfp`."""
    about = "check whether a run's metrics are good enough"
    codes = "exit code 0: passes; 1: fails; 3: too few test rows to tell, which does not pass either; 2: wrong input"
    parser = commands.add_parser("gate", help=about, description=f"{sentence(about)}; {codes}.")
    parser.add_argument(
        "candidate", metavar="RUN|last|FILE", help=f"name of a run, its beginning, `last`, or an {EVALUATION_NAME}"
    )
    parser.add_argument(
        "--rules",
        default="",
        metavar="FILE",
        help=f"TOML file with the bounds of the metrics (default: {RULES_NAME} beside the run's data, else in this folder)",
    )
    parser.add_argument(
        "--allow-too-few-rows", action="store_true", help="let a run pass for which the test rows are too few to tell"
    )
    parser.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command=gate_command)


def gate_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Checks a model: prints a line for each leak and each bound, and returns the decision as exit code.

    Raises:
        InputError: the evaluation or the rules are missing or wrong.
    """
    path = find_evaluation(arguments.candidate, settings.runs)
    # The rules are read first: they are what the user has just written, so a mistake in them is reported before one in the evaluation.
    rules = read_rules(arguments.rules) if arguments.rules else None
    evaluation = read_json(path)
    metrics = gate.read_metrics(evaluation, str(path))
    data_uri = data_uri_of(evaluation)
    rules_path = arguments.rules or find_rules(data_uri)
    if not rules_path:
        beside = f"in {_folder_of(data_uri)} or " if _folder_of(data_uri) else ""
        raise InputError(
            f"no {RULES_NAME} lies {beside}in this folder; name a file with bounds: --rules FILE. "
            "It holds what you ask for, such as a line [minimum] and below it areaUnderROC = 0.8"
        )
    rules = rules or read_rules(rules_path)
    if arguments.allow_too_few_rows:
        rules = replace(rules, allow_too_few_rows=True)
    checks, leaks = gate.check_bounds(metrics, rules, rules_path), gate.leaks(evaluation, rules)
    forbidden = gate.forbidden_columns(evaluation, rules)
    warnings = gate.unknown_columns(evaluation, rules)
    decision = gate.decide(checks, [*leaks, *forbidden])
    passed = gate.accepts(decision, rules)
    if arguments.json:
        listed = [{**asdict(check), "decision": check.decision, "miss": check.miss} for check in checks]
        document = {"decision": decision, "passed": passed, "evaluation": str(path), "rules": rules_path}
        print(
            json.dumps(
                {**document, "leaks": leaks, "forbidden": forbidden, "warnings": warnings, "checks": listed},
                ensure_ascii=False,
            )
        )
    else:
        lines = [gate.describe_leak(column, rules_path) for column in leaks]
        lines += [gate.describe_forbidden(column, rules_path) for column in forbidden]
        lines += [f"warning: {warning} ({rules_path})" for warning in warnings]
        for line in (*lines, *map(gate.describe, checks)):
            print(line)
        print(decision_line(decision, rules.allow_too_few_rows, rules_path))
    return 0 if passed else EXIT_CODES[decision]


def decision_line(decision: gate.Decision, allow_too_few_rows: bool, rules_path: str) -> str:
    """The decision on the model in one line, with what to do if the rows are too few."""
    if decision is not gate.Decision.TOO_FEW_ROWS:
        return f"the run {'passes' if decision is gate.Decision.PASSES else 'does not pass'} ({rules_path})"
    if allow_too_few_rows:
        return f"the run passes, as too few rows to tell are allowed ({rules_path})"
    return (
        f"the run does not pass ({rules_path}): judge it on more test rows, lower the bound, or let such runs pass with "
        "--allow-too-few-rows or allow_too_few_rows = true in that file"
    )


def find_rules(data_uri: str) -> str:
    """Finds the file of the rules for the data of a run: beside the data, else in the working folder; empty if there is none."""
    beside = _folder_of(data_uri)
    paths = [folder / RULES_NAME for folder in (beside, Path()) if folder]
    return next((str(path) for path in paths if path.is_file()), "")


def data_uri_of(evaluation: Any) -> str:
    """Returns the URI of the data of a parsed evaluation.json; empty if it names none."""
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    return str(data.get("uri", "")) if isinstance(data, dict) else ""


def _folder_of(data_uri: str) -> Path | None:
    """Returns the folder of data on this machine; None for others."""
    return local_path(data_uri).parent if data_uri and not is_object_store_uri(data_uri) else None


def read_rules(path: str) -> gate.Rules:
    """Reads the rules from a TOML file."""
    return gate.parse_rules(_read(Path(path), "name the file with the bounds: --rules FILE"), path)


def find_evaluation(candidate: str, directory: Path) -> Path:
    """Finds the evaluation.json: the candidate itself if it is a path, else the file that the run of this name wrote.

    Raises:
        InputError: there is no run of this name, or the run did not succeed.
    """
    if "/" in candidate or candidate.endswith(".json"):
        return Path(candidate)
    run = runs.find(directory, candidate)
    if run.status != "succeeded":
        raise InputError(f"run {run.id} is {run.status}, so it has no evaluation; run it again, or name another")
    uri = run.steps.get(Step.EVALUATE, {}).get("uri")
    if not uri:
        raise InputError(
            f"run {run.id} of the pipeline {run.pipeline} has no evaluation; name another run, or an {EVALUATION_NAME}"
        )
    return Path(uri) / EVALUATION_NAME


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        InputError: the file is missing or not JSON.
    """
    try:
        return json.loads(_read(path, "`spark-kfp runs list` shows the runs there are"))
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON: {error}; name a run, or the {EVALUATION_NAME} of one") from error


def _read(path: Path, advice: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {advice}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text in UTF-8; {advice}") from error

"""The command `spark-kfp gate`: judges a run, or an evaluation.json, by the bounds of a TOML file. Reads, prints; `gate` judges."""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kfp_pipeline.local import gate, runs
from kfp_pipeline.settings import Settings
from spark_jobs.contract import Step
from spark_jobs.errors import InputError

FLOORS_NAME = "floors.toml"
EVALUATION_NAME = "evaluation.json"
EXIT_CODES = {gate.Answer.PASSES: 0, gate.Answer.FAILS: 1, gate.Answer.TOO_FEW_ROWS: 3}


def add_commands(commands: Any) -> None:
    """Adds the command to the parser of `spark-kfp`."""
    about = "judge a run by the quality that its metrics must have"
    codes = "exit code 0: passes; 1: fails; 3: too few test rows to tell, which does not pass either; 2: wrong input"
    parser = commands.add_parser("gate", help=about, description=f"{about.capitalize()}; {codes}.")
    parser.add_argument(
        "candidate", metavar="RUN|last|FILE", help=f"name of a run, its beginning, `last`, or an {EVALUATION_NAME}"
    )
    parser.add_argument(
        "--floors",
        default="",
        help=f"TOML file with the bounds (default: {FLOORS_NAME} beside the run's data, else in this folder)",
    )
    parser.add_argument(
        "--allow-too-few-rows", action="store_true", help="let a run pass for which the test rows are too few to tell"
    )
    parser.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command=gate_command)


def gate_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Judges a candidate: a line for each bound and each leak, and the answer as exit code."""
    path = find_evaluation(arguments.candidate, settings.runs)
    # Wrong bounds are told before a wrong evaluation: they are what a person has just written.
    rules = read_rules(arguments.floors) if arguments.floors else None
    evaluation = read_json(path)
    metrics = gate.read_metrics(evaluation, str(path))
    floors = arguments.floors or find_floors(evaluation)
    rules = rules or read_rules(floors)
    if arguments.allow_too_few_rows:
        rules = replace(rules, allow_too_few_rows=True)
    verdicts, leaks = gate.judge(metrics, rules, floors), gate.leaks(evaluation, rules)
    answer = gate.overall(verdicts, leaks)
    passed = answer is gate.Answer.PASSES or (answer is gate.Answer.TOO_FEW_ROWS and rules.allow_too_few_rows)
    if arguments.json:
        listed = [{**asdict(each), "answer": each.answer, "miss": each.miss} for each in verdicts]
        document = {"answer": answer, "passed": passed, "evaluation": str(path), "floors": floors}
        print(json.dumps({**document, "leaks": leaks, "verdicts": listed}, ensure_ascii=False))
    else:
        for line in [gate.describe_leak(column, floors) for column in leaks] + list(map(gate.describe, verdicts)):
            print(line)
        print(closing(answer, rules.allow_too_few_rows, floors))
    return 0 if passed else EXIT_CODES[answer]


def closing(answer: gate.Answer, allow_too_few_rows: bool, floors: str) -> str:
    """The answer for all bounds in one line, and what to do."""
    if answer is not gate.Answer.TOO_FEW_ROWS:
        return f"the run {'passes' if answer is gate.Answer.PASSES else 'does not pass'} ({floors})"
    if allow_too_few_rows:
        return f"the run passes, as too few rows to tell are allowed ({floors})"
    return (
        f"the run does not pass ({floors}): judge it on more test rows, lower the bound, or let such runs pass with --allow-too-few-rows "
        "or allow_too_few_rows = true in that file"
    )


def find_floors(evaluation: Any) -> str:
    """The bounds for a run's data: beside the data, else in the working folder.

    Raises:
        InputError: there is none.
    """
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    uri = str(data.get("uri", "")) if isinstance(data, dict) else ""
    beside = [] if "://" in uri or not uri else [Path(uri.removeprefix("file:")).parent / FLOORS_NAME]
    for path in (*beside, Path(FLOORS_NAME)):
        if path.is_file():
            return str(path)
    raise InputError(
        f"no {FLOORS_NAME} lies {f'in {beside[0].parent} or ' if beside else ''}in this folder; name a file with bounds: --floors FILE. "
        "It holds what you ask for, such as a line [floors] and below it areaUnderROC = 0.8"
    )


def read_rules(floors: str) -> gate.Rules:
    """The rules of a TOML file."""
    return gate.read_rules(read_toml(Path(floors)), floors)


def find_evaluation(candidate: str, directory: Path) -> Path:
    """The file to judge: the candidate itself if it is a path, else the evaluation that the run of this name has left.

    Raises:
        InputError: no run has this name, or it did not succeed.
    """
    if "/" in candidate or candidate.endswith(".json"):
        return Path(candidate)
    run = runs.find(directory, candidate)
    if run.status != "succeeded":
        raise InputError(f"run {run.id} is {run.status}, so it has no evaluation; run it again, or name another")
    uri = run.steps.get(Step.EVALUATE, {}).get("uri")
    if not uri:
        raise InputError(f"run {run.id} does not say where its evaluation is; name the {EVALUATION_NAME} itself")
    return Path(uri) / EVALUATION_NAME


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        InputError: it is not there, or not TOML.
    """
    try:
        return tomllib.loads(_read(path, "name the file with the bounds: --floors FILE"))
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{path} is not TOML: {error}; correct that line") from error


def read_json(path: Path) -> Any:
    """A JSON file.

    Raises:
        InputError: it is not there, or not JSON.
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

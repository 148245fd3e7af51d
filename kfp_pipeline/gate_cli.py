"""The command `spark-kfp gate`: judges a run, or an evaluation.json, by the bounds of a TOML file. Reads, prints; `gate` judges."""

from __future__ import annotations

import argparse
import json
import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_pipeline import gate, runs
from kfp_pipeline.settings import Settings
from spark_jobs.contract import InputError, Step

FLOORS = "data/floors.toml"
EVALUATION_NAME = "evaluation.json"
EXIT_NOT_PASSED = 1


def add_commands(commands: Any) -> None:
    """Adds the command to the parser of `spark-kfp`."""
    about = "judge a run by the quality that its metrics must have; exit code 1 if it does not pass"
    parser = commands.add_parser("gate", help=about, description=about.capitalize() + ".", allow_abbrev=False)
    parser.add_argument(
        "candidate", metavar="RUN|last|FILE", help=f"name of a run, its beginning, `last`, or an {EVALUATION_NAME}"
    )
    parser.add_argument("--floors", default=FLOORS, help="TOML file with the bounds (default %(default)s)")
    parser.add_argument("--runs", default="", help="directory that holds the runs (default runs)")
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.set_defaults(command=gate_command)


def gate_command(arguments: argparse.Namespace, settings: Settings) -> int:
    """Judges a candidate: a line for each bound; 0 if it passes all, else 1."""
    bounds = gate.read_bounds(read_toml(Path(arguments.floors)), arguments.floors)
    path = find_evaluation(arguments.candidate, settings.runs)
    verdicts = gate.judge(gate.read_metrics(read_json(path), str(path)), bounds, arguments.floors)
    passed = all(verdict.passed for verdict in verdicts)
    if arguments.json:
        listed = [{**asdict(each), "passed": each.passed, "miss": each.miss} for each in verdicts]
        document = {"passed": passed, "evaluation": str(path), "floors": arguments.floors, "verdicts": listed}
        print(json.dumps(document, ensure_ascii=False))
    else:
        for verdict in verdicts:
            print(gate.describe(verdict))
    return 0 if passed else EXIT_NOT_PASSED


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

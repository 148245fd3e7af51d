"""When two runs of a step would end the same: what decides whether a finished step is taken over.

KFP's own caches look neither at a file's contents nor at the code that a step runs; this looks at both.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from kfp_pipeline.runtime.spark_submit.runner import files_of, local_path, read_result, step_program
from spark_jobs.arguments import Role, StepArgs
from spark_jobs.contract import Step, outputs_of
from spark_jobs.result import CONTRACT_VERSION, RESULT_NAME, Result

FINISHED_STEPS = ".finished"
"""Folder of the runs directory that says where each fingerprint's finished step is."""
FINGERPRINT_FACT = "fingerprint"
"""Name of the fingerprint among the facts of a result document."""
NOT_SOURCE = re.compile(r"(^|/)(\.|__pycache__/)|\.pyc$")


def fingerprint(step: Step, args: StepArgs) -> str:
    """A digest of all that a step's outcome depends on.

    What an earlier step left counts by that step's own fingerprint. The digest of its rows would be too little: a later step also reads
    the specification, which columns are known only afterwards, what was rejected, and the name of the data.

    Returns:
        The digest; empty if an input is not there, so that the step itself can say so, or was made outside a run.
    """
    inputs: dict[str, str] = {}
    plain: dict[str, object] = {}
    for item in args.arguments(Role.SETTING, Role.GIVEN, Role.FROM_STEP):
        value = getattr(args, item.name)
        if item.role == Role.SETTING:
            plain[item.name] = value
        elif value:
            inputs[item.name] = _digest_of_data(value) if item.role == Role.GIVEN else _fingerprint_of(value)
    if "" in inputs.values():
        return ""
    depends = [str(step), plain, inputs, digest_of_code(), version("pyspark"), CONTRACT_VERSION]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _fingerprint_of(uri: str) -> str:
    result = read_result(local_path(uri))
    return str(result.facts.get(FINGERPRINT_FACT, "")) if result and result.status == "succeeded" else ""


def _digest_of_data(uri: str) -> str:
    # The paths are part of the outcome: the report and the rejected rows name them, and a folder may name a partition.
    found = {str(file.absolute()): file for file in files_of(uri)}
    return _digest_of_files(found, str(local_path(uri).absolute())) if found else ""


def digest_of_code() -> str:
    """A digest of the steps' own code: the name and the content of every file of `spark_jobs`, in its subfolders too.

    Left out is what Python and editors make there: bytecode and hidden files.
    """
    folder = step_program().parent
    found = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    own = {name: file for name, file in sorted(found.items()) if not NOT_SOURCE.search(name)}
    return _digest_of_files(own, "")


def _digest_of_files(files: Mapping[str, Path], start: str) -> str:
    digest = hashlib.sha256(start.encode())
    for name, file in files.items():
        with file.open("rb") as content:
            digest.update(name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def record_finished_step(runs: Path, key: str, result: Result) -> None:
    """Notes where a finished step is, and in its result document under which fingerprint."""
    noted = replace(result, facts={**result.facts, FINGERPRINT_FACT: key})
    write_atomically(local_path(result.arguments["output_uri"]) / RESULT_NAME, noted.to_json())
    write_atomically(
        runs / FINISHED_STEPS / f"{key}.json",
        json.dumps({name: result.arguments[name] for name in outputs_of(result.step)}),
    )


def reuse_finished_step(runs: Path, key: str, args: StepArgs) -> Result | None:
    """Gives the step the outputs of an earlier one with the same fingerprint.

    The files are linked, not moved, and copied where the file system cannot link: each run's directory is whole by itself.

    Returns:
        The result, or None if there is no such step or its outputs are gone.
    """
    try:
        earlier: dict[str, str] = json.loads((runs / FINISHED_STEPS / f"{key}.json").read_text())
        result = read_result(local_path(earlier["output_uri"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not result or result.status != "succeeded" or not all(local_path(uri).exists() for uri in earlier.values()):
        return None
    moved = {local_path(uri): local_path(vars(args)[name]) for name, uri in earlier.items()}
    for source, target in moved.items():
        if source != target:
            _link(source, target)
    uris = dict(result.uris)
    for source, target in moved.items():
        uris = {
            name: str(target) + uri.removeprefix(str(source)) if f"{uri}/".startswith(f"{source}/") else uri
            for name, uri in uris.items()
        }
    taken = replace(result, arguments=dict(vars(args)), uris=uris, reused_from=earlier["output_uri"], seconds={})
    write_atomically(local_path(vars(args)["output_uri"]) / RESULT_NAME, taken.to_json())
    return taken


def _link(source: Path, target: Path) -> None:
    """Links a file, or all files of a directory but its result document."""
    if source.is_dir():
        for entry in sorted(source.iterdir()):
            if entry.name != RESULT_NAME:
                shutil.rmtree(target / entry.name, ignore_errors=True)  # what a killed attempt left there
                _link(entry, target / entry.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise

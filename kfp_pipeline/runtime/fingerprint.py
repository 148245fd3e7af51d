"""The step cache of runs on one machine: a finished step with the same fingerprint is reused instead of run again.

The fingerprint is a digest of the settings, the input data and the code of a step. KFP's own cache compares neither the contents of a file
nor the code that a step runs.
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
"""Folder of the runs directory with one file for each fingerprint, which says where the outputs of its step are."""
FINGERPRINT_FACT = "fingerprint"
"""Name of the fingerprint among the facts of a result document."""
NOT_SOURCE = re.compile(r"(^|/)(\.|__pycache__/)|\.pyc$")
"""Files of the code's folder that Python and editors write: bytecode and hidden files."""


def fingerprint(step: Step, args: StepArgs) -> str:
    """Computes a digest of everything that the outcome of a step depends on.

    The output of an earlier step is represented by the fingerprint of that step. A digest of its rows would not be enough: a later step
    also reads the specification, the columns known only afterwards, the rejected rows and the name of the data.

    Returns:
        The digest, 64 hexadecimal digits. It is empty if an input does not exist, which the step itself reports, or if the input was
        made outside a run and has no fingerprint.
    """
    inputs: dict[str, str] = {}
    settings: dict[str, object] = {}
    for item in args.arguments(Role.SETTING, Role.GIVEN, Role.FROM_STEP):
        value = getattr(args, item.name)
        if item.role == Role.SETTING:
            settings[item.name] = value
        elif value:
            inputs[item.name] = _digest_of_data(value) if item.role == Role.GIVEN else _fingerprint_of(value)
    if "" in inputs.values():
        return ""
    depends = [str(step), settings, inputs, digest_of_code(), version("pyspark"), CONTRACT_VERSION]
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def key_in_run(step: Step, args: StepArgs, run: str) -> str:
    """Computes a key by which a run that is started again under its name finds what a step decided in its earlier attempt."""
    given = {item.name: getattr(args, item.name) for item in args.arguments(Role.SETTING, Role.GIVEN, Role.FROM_STEP)}
    return hashlib.sha256(json.dumps([str(step), run, given], sort_keys=True).encode()).hexdigest()


def _fingerprint_of(uri: str) -> str:
    result = read_result(local_path(uri))
    return str(result.facts.get(FINGERPRINT_FACT, "")) if result and result.status == "succeeded" else ""


def _digest_of_data(uri: str) -> str:
    # The paths count too: the report and the rejected rows name them, and a folder's name may be the value of a partition column.
    found = {str(file.absolute()): file for file in files_of(uri)}
    return _digest_of_files(found, str(local_path(uri).absolute())) if found else ""


def digest_of_code() -> str:
    """Computes a digest of the names and contents of all source files of `spark_jobs`, subfolders included."""
    folder = step_program().parent
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    source = {name: file for name, file in sorted(files.items()) if not NOT_SOURCE.search(name)}
    return _digest_of_files(source, "")


def _digest_of_files(files: Mapping[str, Path], prefix: str) -> str:
    digest = hashlib.sha256(prefix.encode())
    for name, file in files.items():
        with file.open("rb") as content:
            digest.update(name.encode() + b"\0" + hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


def record_finished_step(runs: Path, key: str, result: Result) -> None:
    """Records where the outputs of a finished step are, so that a later run can reuse them; writes the fingerprint into the result."""
    with_fingerprint = replace(result, facts={**result.facts, FINGERPRINT_FACT: key})
    write_atomically(local_path(result.arguments["output_uri"]) / RESULT_NAME, with_fingerprint.to_json())
    write_atomically(
        runs / FINISHED_STEPS / f"{key}.json",
        json.dumps({name: result.arguments[name] for name in outputs_of(result.step)}),
    )


def take_over_unfinished(runs: Path, key: str, args: StepArgs) -> None:
    """Copies what an earlier attempt of the same step, which was killed or interrupted, has kept of its work into this attempt's output.

    Args:
        runs: the directory of all runs.
        key: the step's fingerprint.
        args: the step's arguments, which name the output paths.
    """
    for item in args.arguments(Role.OUTPUT):
        if not item.unfinished:
            continue
        record, output = runs / FINISHED_STEPS / f"{key}.unfinished", str(getattr(args, item.name))
        try:
            kept = (local_path(record.read_text(encoding="utf-8")) / item.unfinished).read_text(encoding="utf-8")
            write_atomically(local_path(output) / item.unfinished, kept)
        except OSError:  # there was none, it was removed, or the step has ended
            pass
        write_atomically(record, output)


def reuse_finished_step(runs: Path, key: str, args: StepArgs) -> Result | None:
    """Reuses the outputs of an earlier step with the same fingerprint.

    The files are hard-linked into this run's directory, or copied where the file system has no hard links. So each run's directory is
    complete, and an old run can be deleted.

    Args:
        runs: the directory of all runs.
        key: the step's fingerprint.
        args: the step's arguments, which name the output paths.

    Returns:
        The result document, already written; None if there is no such step or its outputs were deleted.
    """
    try:
        earlier: dict[str, str] = json.loads((runs / FINISHED_STEPS / f"{key}.json").read_text())
        result = read_result(local_path(earlier["output_uri"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not result or result.status != "succeeded" or not all(local_path(uri).exists() for uri in earlier.values()):
        return None
    targets = {local_path(uri): local_path(vars(args)[name]) for name, uri in earlier.items()}
    for source, target in targets.items():
        if source != target:
            _link(source, target)
    uris = dict(result.uris)
    for source, target in targets.items():
        uris = {
            name: str(target) + uri.removeprefix(str(source)) if f"{uri}/".startswith(f"{source}/") else uri
            for name, uri in uris.items()
        }
    reused = replace(result, arguments=dict(vars(args)), uris=uris, reused_from=earlier["output_uri"], seconds={})
    write_atomically(local_path(vars(args)["output_uri"]) / RESULT_NAME, reused.to_json())
    return reused


def _link(source: Path, target: Path) -> None:
    """Hard-links a file, or all files of a directory except its result document, which names the earlier run's paths."""
    if source.is_dir():
        for entry in sorted(source.iterdir()):
            if entry.name != RESULT_NAME:
                shutil.rmtree(target / entry.name, ignore_errors=True)  # from an attempt that was killed
                _link(entry, target / entry.name)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def write_atomically(path: Path, text: str) -> None:
    """Writes a small file under a temporary name and renames it, so that a killed process never leaves half a file."""
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

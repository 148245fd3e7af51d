"""Checks the inputs of a run before Spark starts, so that a simple mistake is reported at once.

Of the data it reads only the first bytes of one local file; the rules of the gate it reads wherever they are. The step `load` checks
everything; its messages cannot name the flags of the command that the user typed, these can.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime.spark_submit.runner import files_of, local_path
from spark_jobs import gate
from spark_jobs.arguments import flag
from spark_jobs.contract import DATA_URI, METRICS, RULES_URI, TRAIN_DATA_URI, LoadArgs, Pipeline, Step
from spark_jobs.dataset import Specification, did_you_mean, did_you_mean_file, read_specification
from spark_jobs.dialect import HEAD_BYTES, PARQUET_MAGIC, TEXT_SUFFIXES, check_order_by, find_dialect
from spark_jobs.errors import InputError
from spark_jobs.object_names import is_object_store_uri, scheme_of


def check_run_inputs(pipeline: Pipeline, inputs: Mapping[str, Any], *, on_a_cluster: bool = False) -> None:
    """Checks the inputs of a run: the settings of all steps, and the table if the pipeline loads one.

    Args:
        pipeline: the pipeline.
        inputs: the inputs of the run by name.
        on_a_cluster: see `check_inputs`.

    Raises:
        InputError: an input is wrong; see `Pipeline.check_settings` and `check_inputs`.
    """
    pipeline.check_settings(inputs)
    if Step.LOAD in pipeline.steps:
        given = {name: inputs[name] for name in LoadArgs.names() if name in inputs}
        args = LoadArgs(**given | {DATA_URI: inputs.get(TRAIN_DATA_URI) or given[DATA_URI]}, output_uri="")
        check_inputs(args, order_by=str(inputs.get("order_by", "")), on_a_cluster=on_a_cluster)
    check_promotion(inputs, on_a_cluster=on_a_cluster)


def check_promotion(inputs: Mapping[str, Any], *, on_a_cluster: bool) -> None:
    """Checks where the registry and the rules of the gate are, if they are among the inputs, and reads the rules.

    Raises:
        InputError: see `check_places_on_a_cluster` and `check_rules`.
    """
    if on_a_cluster:
        check_places_on_a_cluster(inputs)
    if inputs.get(RULES_URI):
        check_rules(str(inputs[RULES_URI]))


def check_places_on_a_cluster(inputs: Mapping[str, Any]) -> None:
    """Refuses a registry and rules that lie where a step on a cluster cannot reach them.

    Raises:
        InputError: one of them is not in an object store.
    """
    for name in ("registry_uri", RULES_URI):
        if inputs.get(name) and not is_object_store_uri(str(inputs[name])):
            advice = "; first: spark-kfp data upload FILE URI" if name == RULES_URI else ""
            raise InputError(
                f"{flag(name)}={inputs[name]}: the cluster cannot reach this machine; give a URI like s3://BUCKET/NAME{advice}"
            )


def check_rules(uri: str) -> None:
    """Checks the file with the rules of the gate.

    Raises:
        InputError: it is missing or wrong, or has a bound for a metric that no evaluation has.
    """
    rules = gate.parse_rules(_read(uri, flag(RULES_URI), "the file with the rules of the gate"), uri)
    for bound in rules.bounds:
        if bound.metric not in METRICS:
            raise InputError(f"{uri}: there is no metric {bound.metric!r}{did_you_mean(bound.metric, METRICS)}")


def check_inputs(args: LoadArgs, spec_flag: str = "--spec", order_by: str = "", *, on_a_cluster: bool = False) -> None:
    """Raises the errors that `load` would raise after Spark has started, as far as they can be found without Spark.

    Args:
        args: the arguments of `load`.
        spec_flag: the command's flag for the specification.
        order_by: the argument of this name of `preprocess`.
        on_a_cluster: whether the steps run on a cluster, where they can read an object store.

    Raises:
        InputError: no label is named, the specification is wrong, the data are missing or lie where the steps cannot read them, or a
            column is missing from the header.
    """
    _check_places((args.data_uri, args.specification_uri), on_a_cluster=on_a_cluster)
    specification = _specification(args, spec_flag)
    columns = _columns(args, specification.label if specification else args.label)
    if not args.specification_uri and not args.label:
        listed = f": {', '.join(columns)}" if columns else ""
        raise InputError(
            f"which column is the label? Give --label NAME, with one of the columns{listed}, or {spec_flag} FILE"
        )
    if not columns:
        return
    check_order_by(order_by, columns)
    if specification:
        specification.check(columns, args.data_uri)
    elif not args.specification_uri and args.label not in columns:
        raise InputError(f"{args.data_uri}: no label column {args.label!r}{did_you_mean(args.label, columns)}")


def _check_places(uris: Sequence[str], *, on_a_cluster: bool) -> None:
    """Refuses URIs of an object store for a run on this machine, where the steps cannot read them."""
    for uri in uris:
        if scheme_of(uri) != "file" and not on_a_cluster:
            raise InputError(
                f"{uri}: this command reads files of this machine only; copy it here, or run on a cluster: spark-kfp run --kfp URL, or "
                "spark-kfp submit pipeline"
            )


def _specification(args: LoadArgs, spec_flag: str) -> Specification | None:
    """Reads the specification; None if there is none, or if it is in an object store, where only the step reads it."""
    uri = args.specification_uri
    if not uri or scheme_of(uri) != "file":
        return None
    found = read_specification(_read(uri, spec_flag, "the data specification"), uri)
    return replace(found, label=args.label) if args.label else found


def _read(uri: str, given: str, what: str) -> str:
    """Reads a file that a flag names.

    Args:
        uri: of the file, on this machine or in an object store.
        given: the flag.
        what: what the file is meant to be, for the error message.
    """
    try:
        if not is_object_store_uri(uri):
            return local_path(uri).read_text(encoding="utf-8")
        from kfp_pipeline.runtime.object_store import read_text  # noqa: PLC0415 - most runs need none of it

        text = read_text(uri)
    except FileNotFoundError as error:
        raise InputError(f"{given} {uri}: no such file{did_you_mean_file(local_path(uri))}") from error
    except IsADirectoryError as error:
        raise InputError(f"{given} {uri} is a directory; name a file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{given} {uri} is not UTF-8 text; is it {what}?") from error
    if text is None:
        raise InputError(f"{given} {uri}: no such object")
    return text


def _columns(args: LoadArgs, label: str) -> tuple[str, ...]:
    """Reads the column names from the header of the first file; empty if the data are not local, not CSV, or the header is unclear."""
    if scheme_of(args.data_uri) != "file":
        return ()
    path = local_path(args.data_uri)
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{args.data_uri} is no file but a pipe or a device, which can be read only once; write it to a file first"
        )
    files = files_of(args.data_uri)
    if not files:
        empty = path.is_dir()
        raise InputError(
            f"{args.data_uri}: " + ("no file in this directory" if empty else f"no such file{did_you_mean_file(path)}")
        )
    for file in files:
        below = file.relative_to(path).parts if path in file.parents else file.parts[-1:]
        hidden = any(part.startswith(("_", ".")) for part in below)
        if file == path or (file.name.endswith(TEXT_SUFFIXES) and not hidden):
            return _header(file, args, label)
    return ()


def _header(file: Path, args: LoadArgs, label: str) -> tuple[str, ...]:
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as content:
            head = content.read(HEAD_BYTES + 1)
    except (gzip.BadGzipFile, EOFError, PermissionError):  # the step load reports this error
        return ()
    if head.startswith(PARQUET_MAGIC) or not head.strip():
        return ()
    given = {name: getattr(args, name) for name in ("encoding", "delimiter", "quote", "header")}
    whole = len(head) <= HEAD_BYTES
    return find_dialect(head[:HEAD_BYTES], str(file), whole=whole, given=given, label=label).names

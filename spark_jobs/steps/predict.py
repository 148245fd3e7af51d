"""The step predict: scores a table with a trained model (batch scoring).

    spark-submit spark_jobs/__main__.py predict --data-uri=data/bank_sample.csv --model-uri=out/train --output-uri=out/predict

The table needs no label. Its cells are read as load reads them, and rows that load would reject are kept apart with their reasons. The
predictions of each input file are a folder of their own, which holds `_scored.json` when it is whole: what was scored, by which model. A
file whose content, model and settings are as that document says is not scored again.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.ml import PipelineModel
from pyspark.ml.functions import vector_to_array
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import Role, flag
from spark_jobs.contract import PredictArgs, Step
from spark_jobs.dataset import Specification, did_you_mean
from spark_jobs.errors import InputError
from spark_jobs.features import PREDICTED_LABEL
from spark_jobs.result import Result
from spark_jobs.saved_model import SavedModel, find_model
from spark_jobs.table.source import Source, check_not_nested, open_source, quoted
from spark_jobs.table.typed_cells import CellArrays, count_reasons, rejected_rows, type_rows

PREDICTIONS, REJECTED = "predictions", "rejected"
INPUT_FILE = "input_file"
"""Partition column of the predictions and of the rejected rows: the name of the input file and a digest of its URI."""
SCORED_NAME = "_scored.json"
"""The document that makes a folder of predictions whole; Spark passes over names with an underscore."""
PROBABILITY, PREDICTION, MODEL_VERSION, PROBABILITIES = (
    "probability",
    "prediction",
    "model_version",
    "probabilities",
)
"""Columns of the predictions: the probability of the positive class, or for more than two of the predicted one; the predicted label; the
version of the model; and on request a map from each label to its probability."""
CORRECTED_PROBABILITY, CORRECTED_PROBABILITIES = "corrected_probability", "corrected_probabilities"
"""The same two of the population whose base rate the specification states; without a base rate they are not there."""
FORMAT = 2
"""Is raised when the predictions of the same file, model and settings become others, so that files are scored again."""


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file of the table.

    Attributes:
        uri: its URI.
        folder: name of the folder of its predictions; the same for any run.
        made_from: what its predictions depend on, as `SCORED_NAME` records it.
    """

    uri: str
    folder: str
    made_from: Mapping[str, str]


def list_files(args: PredictArgs, model: SavedModel) -> list[InputFile]:
    """Lists the files of the table with what their predictions depend on."""
    settings = {name: getattr(args, name) for name in args.names(Role.SETTING) if name != "max_rejected_fraction"}
    common = {"model": model.version, "settings": json.dumps(settings, sort_keys=True), "format": str(FORMAT)}
    return [
        InputFile(
            uri=uri, folder=folder_name(uri), made_from={"file": uri, "version": storage.version_of_file(uri), **common}
        )
        for uri in storage.data_files(args.data_uri)
    ]


def folder_name(uri: str) -> str:
    """Returns the name of the folder for a file's predictions: the file's name, and a digest of its whole URI."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", uri.rsplit("/", 1)[-1])[:60]
    return f"{name}-{hashlib.sha256(uri.encode()).hexdigest()[:12]}"


def record_uri(root: str, file: InputFile) -> str:
    """Returns the URI of the document that makes a file's predictions whole."""
    return storage.join(root, PREDICTIONS, f"{INPUT_FILE}={file.folder}", SCORED_NAME)


def read_record(root: str, file: InputFile) -> dict[str, Any] | None:
    """Reads the record of a file's predictions; None if they are not whole or were made of something else."""
    text = storage.read_text_if_there(record_uri(root, file))
    record: dict[str, Any] = json.loads(text) if text else {}
    return record if record.get("made_from") == file.made_from else None


def scoring_specification(specification: Specification, source: Source, where: str) -> Specification:
    """Returns the specification of a table to be scored: its features, without a label and without the dropped columns.

    Raises:
        InputError: the table lacks a feature, or one is nested.
    """
    missing = [name for name in specification.features if name not in source.columns]
    if missing:
        known = (
            f" ({missing[0]!r} is known only after the outcome)" if missing[0] in specification.known_afterwards else ""
        )
        raise InputError(
            f"{where}: the model reads column {missing[0]!r}, which is not there{known}{did_you_mean(missing[0], source.columns)}"
        )
    check_not_nested(source, specification.features, where)
    return replace(specification, label="", dropped=())


def kept_columns(keep: str, source: Source) -> list[str]:
    """Returns the names of the columns that the predictions keep.

    Raises:
        InputError: there is no such column.
    """
    if keep.strip() == "*":
        return list(source.columns)
    names = [name.strip() for name in keep.split(",") if name.strip()]
    for name in names:
        if name not in source.columns:
            raise InputError(f"{flag('keep_columns')}: there is no column {name!r}{did_you_mean(name, source.columns)}")
    return list(dict.fromkeys(names))


def score_rows(
    typed: DataFrame,
    cells: CellArrays,
    model: SavedModel,
    scorer: PipelineModel,
    kept: Sequence[str],
    args: PredictArgs,
) -> DataFrame:
    """Scores the good rows.

    Args:
        typed: the rows, as `type_rows` returns them, with the kept columns in one struct.
        cells: the names of the columns of `typed`.
        model: the model's description.
        scorer: the model.
        kept: names of the columns to keep.
        args: the arguments of predict.

    Returns:
        The kept columns and those of the prediction. One of the prediction whose name a kept column has gets a prefix.
    """
    prefix = cells.source.prefix
    good = typed.where(F.col(cells.reason).isNull()).selectExpr(f"{prefix}kept", *cells.column_expressions())
    vector = vector_to_array(F.col(model.columns["probability"]))
    columns = {
        PROBABILITY: vector[1] if len(model.labels) == 2 else F.array_max(vector),
        PREDICTION: F.col(model.columns[PREDICTED_LABEL]),
        MODEL_VERSION: F.lit(model.version),
    }
    labels = F.array(*map(F.lit, model.labels))
    if args.all_probabilities:
        columns[PROBABILITIES] = F.map_from_arrays(labels, vector)
    if model.shift is not None:
        corrected = corrected_probabilities(vector, model.shift)
        columns[CORRECTED_PROBABILITY] = corrected[1]
        if args.all_probabilities:
            columns[CORRECTED_PROBABILITIES] = F.map_from_arrays(labels, corrected)
    taken = {name.lower() for name in kept}
    added = [column.alias(prefix + name if name in taken else name) for name, column in columns.items()]
    fields = [F.col(f"{prefix}kept").getField(f"kept_{place}").alias(name) for place, name in enumerate(kept)]
    return scorer.transform(good).select(*fields, *added)


def corrected_probabilities(probabilities: Column, shift: float) -> Column:
    """Returns the probabilities of two classes, the positive one second, after their log-odds are shifted; see `population_shift`."""
    negative, positive = probabilities[0], probabilities[1] * math.exp(shift)
    return F.array(negative / (negative + positive), positive / (negative + positive))


def kept_struct(kept: Sequence[str], prefix: str) -> Column:
    """Returns the kept columns as one column; the names of its fields hold no characters of the user's."""
    fields = [quoted(name).alias(f"kept_{place}") for place, name in enumerate(kept)]
    return F.struct(*(fields or [F.lit(None).cast("string").alias("none")])).alias(f"{prefix}kept")


def score_file(
    session: SparkSession, file: InputFile, args: PredictArgs, model: SavedModel, scorer: PipelineModel, root: str
) -> dict[str, Any]:
    """Scores one file and writes its predictions, its rejected rows and, last, the record that makes them whole.

    Returns:
        The record.

    Raises:
        InputError: the file cannot be read, lacks a column, or has too many bad rows; then nothing of it is left.
    """
    places = {name: storage.join(root, name, f"{INPUT_FILE}={file.folder}") for name in (PREDICTIONS, REJECTED)}
    for uri in places.values():
        storage.remove(uri)  # the record goes first or with the rest: what is left of a killed run has none
    source = open_source(session, args, model.specification.features[0], [file.uri])
    cells = CellArrays(source, scoring_specification(model.specification, source, file.uri))
    kept = kept_columns(args.keep_columns, source)
    observation, reason = Observation(), F.col(cells.reason)
    typed = type_rows(cells, [kept_struct(kept, source.prefix)])
    counts = F.count(F.lit(1)).alias("read"), F.count(reason).alias("rejected")
    storage.write_table(
        score_rows(typed.observe(observation, *counts), cells, model, scorer, kept, args), places[PREDICTIONS]
    )
    read, rejected = int(observation.get["read"]), int(observation.get["rejected"])
    reasons: list[tuple[str, int]] = []
    if rejected:
        rows = rejected_rows(cells, typed, list(cells.index))
        storage.write_table(rows, places[REJECTED])
        reasons = count_reasons(rows)
    if rejected > read * args.max_rejected_fraction:
        storage.remove(places[PREDICTIONS])
        raise InputError(
            f"{file.uri}: {rejected:,} of {read:,} rows rejected, more than {args.max_rejected_fraction:.2%}: {reasons[0][0]} "
            f"({reasons[0][1]:,} rows), see {places[REJECTED]}; mend the file, or raise {flag('max_rejected_fraction')}"
        )
    record = {"made_from": dict(file.made_from), "read": read, "rejected": rejected, "reasons": reasons}
    storage.write_text(record_uri(root, file), json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return record


def score_files(
    session: SparkSession, args: PredictArgs, model: SavedModel, root: str
) -> dict[str, list[dict[str, Any]]]:
    """Scores the files that are not scored yet; a bad file does not keep the others from being scored.

    Returns:
        The records of the files, under `scored` and `found`: those that were scored now, and before.

    Raises:
        InputError: files could not be scored.
    """
    records: dict[str, list[dict[str, Any]]] = {"scored": [], "found": []}
    failures: list[str] = []
    scorer: PipelineModel | None = None
    for file in list_files(args, model):
        if (record := read_record(root, file)) is not None:
            records["found"].append(record)
            continue
        scorer = scorer or storage.read_model(model.model_uri)
        try:
            records["scored"].append(score_file(session, file, args, model, scorer, root))
        except InputError as error:
            failures.append(str(error))
    if failures:
        others = f"; {len(failures) - 1:,} more files could not be scored" if len(failures) > 1 else ""
        raise InputError(f"{failures[0]}{others}; {sum(map(len, records.values())):,} files are scored")
    return records


def run(session: SparkSession, args: PredictArgs) -> Result:
    """Scores the table; for the arguments see `PredictArgs`."""
    model = find_model(args.model_uri)
    root = args.predictions_uri or args.output_uri
    records = score_files(session, args, model, root)
    every = records["scored"] + records["found"]
    read, rejected = (sum(record[name] for record in every) for name in ("read", "rejected"))
    if not read:
        raise InputError(f"{args.data_uri} has a header but no rows")
    warnings = [
        f"{record['rejected']:,} of {record['read']:,} rows of {record['made_from']['file']} were rejected, see {REJECTED}/: "
        f"{record['reasons'][0][0]} ({record['reasons'][0][1]:,})"
        for record in every
        if record["rejected"]
    ]
    made_from = sorted(json.dumps(record["made_from"], sort_keys=True) for record in every)
    uris = {PREDICTIONS: storage.join(root, PREDICTIONS)}
    return Result(
        step=Step.PREDICT,
        status="succeeded",
        rows_in=read,
        rows_out={"rows": read - rejected, "rejected": rejected},
        metrics={
            "files": float(len(every)),
            "files_scored_before": float(len(records["found"])),
            "rows": float(read - rejected),
            "rejected": float(rejected),
        },
        digest=hashlib.sha256("\n".join(made_from).encode()).hexdigest(),
        uris=uris,
        warnings=tuple(warnings),
        facts={"model": model.version, "files": [record["made_from"]["file"] for record in records["scored"]]},
    )

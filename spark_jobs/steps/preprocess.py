"""Preprocess: splits the rows into train, validation and test, and turns each into one vector of features.

    spark-submit spark_jobs/__main__.py preprocess --load-uri=out/load --output-uri=out/preprocess

The split is a function of the row (or of an order), never of the cluster: equal rows fall on one side, on any machine. Everything that
is fitted is fitted on the train rows only.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import partial
from typing import Any

from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, StringType, StructField, StructType

from spark_jobs import storage
from spark_jobs.beside import Beside
from spark_jobs.cells import how_typed_values_are_written
from spark_jobs.contract import PreprocessArgs, Step
from spark_jobs.dataset import Specification, read_specification
from spark_jobs.features import (
    FEATURES,
    Encoding,
    NumericColumn,
    fit_encoding,
    model_columns,
)
from spark_jobs.result import Result
from spark_jobs.split import (
    LABEL,
    ROW_HASH,
    SET,
    Split,
    assign_sets,
    is_small,
    summarise,
    write_sets,
)
from spark_jobs.table.source import POSITION, quoted


def class_labels(specification: Specification, classes: set[str]) -> list[str]:
    """The label values in the order of their index: the positive one last for two classes, else the order of the alphabet."""
    return sorted(classes, key=lambda value: (value == specification.positive, value))


def index_label(label: str, labels: list[str]) -> Column:
    """The label's index as double; a value that is not among `labels` raises an error, so that no class is gained in silence."""
    place = F.array_position(F.array(*map(F.lit, labels)), quoted(label))
    return F.when(
        place == 0, F.raise_error(F.lit(f"label {label!r} has a value that is not one of {labels}"))
    ).otherwise((place - 1).cast("double"))


def write_features(split: Split, encoding: Encoding, label: Column, uri: str) -> None:
    """Writes features, label and row_hash, one directory for each set: nothing of the user's is in this table."""
    encoded = encoding.model.transform(split.table.withColumn(split.prefix + LABEL, label))
    columns = [F.col(split.prefix + name).alias(name) for name in (FEATURES, LABEL, ROW_HASH, SET)]
    write_sets(encoded.select(*columns), sum(split.rows.values()), uri)


def rows_schema(loaded: Result) -> StructType:
    """The schema of the rows that load wrote; one that is given costs no job to find."""
    known = {"double": DoubleType(), "string": StringType()}
    users = [StructField(name, known[kind]) for name, kind in loaded.columns]
    return StructType([*users, *(StructField(loaded.facts["prefix"] + name, kind) for name, kind in POSITION.items())])


def run(session: SparkSession, args: PreprocessArgs) -> Result:
    """Splits and encodes; see `PreprocessArgs`."""
    loaded = storage.read_result(args.load_uri)
    where = storage.join(args.load_uri, "specification.toml")
    specification = read_specification(storage.read_text(where), where)
    table = storage.read_table(session, storage.join(args.load_uri, "rows"), rows_schema(loaded))
    prefix = loaded.facts["prefix"]
    split = summarise(assign_sets(table, args, prefix), specification, prefix)
    numeric = [
        NumericColumn(name=name, mean=split.means[name], indicator=split.missing[name] > 0)
        for name in specification.numeric
    ]
    train = split.table.where(F.col(prefix + SET) == "train")
    encoding = fit_encoding(
        train,
        numeric,
        specification.categorical,
        args.max_categories,
        prefix,
        rare_as_other=specification.rare_as_other,
    )
    labels = class_labels(specification, set(split.counts["train"]))
    model_uri = storage.join(args.output_uri, "features_model")
    saved = Beside(partial(storage.write_model, encoding.model, model_uri), small=is_small(sum(split.rows.values())))
    write_features(split, encoding, index_label(specification.label, labels), storage.join(args.output_uri, "features"))
    saved.value()
    document = describe(args, specification, labels, split, encoding)
    document["model_columns"] = model_columns((name for name, _ in loaded.columns), prefix)
    meaning = json.dumps(document, ensure_ascii=False)
    profile = json.loads(storage.read_text(storage.join(args.load_uri, "profile.json")))
    document["data"] = {"uri": loaded.arguments["data_uri"], "warnings": list(loaded.warnings), **profile}
    storage.write_text(
        storage.join(args.output_uri, "features.json"), json.dumps(document, indent=1, ensure_ascii=False) + "\n"
    )
    return Result(
        step=Step.PREPROCESS,
        status="succeeded",
        rows_in=sum(split.rows.values()),
        rows_out=split.rows,
        columns=((FEATURES, f"vector of {len(encoding.features)}"), (LABEL, "double"), (ROW_HASH, "bigint")),
        inputs={"load_uri": loaded.digest},
        digest=hashlib.sha256((loaded.digest + meaning).encode()).hexdigest(),
        uris={
            "features": storage.join(args.output_uri, "features"),
            "features_model": model_uri,
        },
        warnings=tuple(
            f"column {name!r}: its {args.max_categories} commonest values are features, {count:,} rarer ones count as one; "
            "--max-categories changes that"
            for name, count in encoding.rare.items()
        ),
        facts={"labels": labels, "features": len(encoding.features), "class_counts": split.counts},
    )


def describe(
    args: PreprocessArgs, specification: Specification, labels: list[str], split: Split, encoding: Encoding
) -> dict[str, Any]:
    """What later steps and the report must know of the features, as plain values."""
    return {
        "labels": labels,
        "split": {"method": args.split, "seed": args.seed, "order_by": args.order_by, "counts": split.counts},
        "numeric": [asdict(column) for column in encoding.numeric],
        "categorical": [
            {"name": name, "values": list(values), **how_typed_values_are_written(values)}
            for name, values in encoding.vocabularies.items()
        ],
        "features": [{**asdict(feature), "name": feature.name} for feature in encoding.features],
        "deviations": split.deviations,
        "specification": specification.to_toml(),
    }

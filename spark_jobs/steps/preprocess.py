"""The step preprocess: splits the rows into train, validation and test rows, and computes the feature vector of each row.

    spark-submit spark_jobs/__main__.py preprocess --load-uri=out/load --output-uri=out/preprocess

The encoding is fitted on the train rows only, so that nothing of the validation and test rows reaches the model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.background import BackgroundWork
from spark_jobs.cells import typed_value_format
from spark_jobs.contract import QUANTILE_BINS, STANDARDISED, PreprocessArgs, Step
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
    index_label,
    is_small,
    rows_schema,
    summarise,
    write_sets,
)
from spark_jobs.table.source import quoted

QUANTILE_ACCURACY = 10_000
"""A quantile is exact to one row in so many."""


def class_labels(specification: Specification, classes: set[str]) -> list[str]:
    """Returns the label values in the order of their index: alphabetical, but of two classes the positive one is the last."""
    return sorted(classes, key=lambda value: (value == specification.positive, value))


def numeric_columns(train: DataFrame, split: Split, names: Sequence[str], args: PreprocessArgs) -> list[NumericColumn]:
    """Returns how each numeric column becomes features, in the form that `numeric_form` asks for.

    A column with one value in the train rows has no deviation and no quantiles to divide it, and stays as it is.

    Args:
        train: the train rows.
        split: the split, with means and deviations of the train rows.
        names: names of the numeric columns.
        args: the arguments of preprocess.
    """
    columns = [NumericColumn(name=name, mean=split.means[name], indicator=split.missing[name] > 0) for name in names]
    if args.numeric_form == STANDARDISED:
        return [
            replace(column, center=column.mean, scale=split.deviations[column.name])
            if split.deviations[column.name] > 0
            else column
            for column in columns
        ]
    if args.numeric_form == QUANTILE_BINS and columns:
        shares = [k / args.numeric_bins for k in range(args.numeric_bins)]
        quantiles = [F.percentile_approx(quoted(name), shares, QUANTILE_ACCURACY) for name in names]
        found = train.agg(*(column.alias(f"quantiles_{i}") for i, column in enumerate(quantiles))).collect()[0]
        # The first quantile is the smallest value: no row is below it.
        return [
            replace(column, splits=tuple(sorted({value for value in values if value > values[0]})))
            for column, values in zip(columns, found, strict=True)
        ]
    return columns


def write_features(split: Split, encoding: Encoding, label: Column, uri: str) -> None:
    """Writes the feature table, with the columns features, label and row_hash, partitioned by set."""
    encoded = encoding.model.transform(split.table.withColumn(split.prefix + LABEL, label))
    columns = [F.col(split.prefix + name).alias(name) for name in (FEATURES, LABEL, ROW_HASH, SET)]
    write_sets(encoded.select(*columns), sum(split.rows.values()), uri)


def run(session: SparkSession, args: PreprocessArgs) -> Result:
    """Splits the rows, fits the encoding and writes the feature table; for the arguments see `PreprocessArgs`."""
    loaded = storage.read_result(args.load_uri)
    where = storage.join(args.load_uri, "specification.toml")
    specification = read_specification(storage.read_text(where), where)
    table = storage.read_table(session, storage.join(args.load_uri, "rows"), rows_schema(loaded))
    prefix = loaded.facts["prefix"]
    split = summarise(assign_sets(table, args, prefix), specification, prefix)
    train = split.table.where(F.col(prefix + SET) == "train")
    numeric = numeric_columns(train, split, specification.numeric, args)
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
    saved = BackgroundWork(
        partial(storage.write_model, encoding.model, model_uri), small=is_small(sum(split.rows.values()))
    )
    write_features(split, encoding, index_label(specification.label, labels), storage.join(args.output_uri, "features"))
    saved.value()
    document = describe(args, specification, labels, split, encoding)
    document["model_columns"] = model_columns((name for name, _ in loaded.columns), prefix)
    # The digest covers what the features mean, but not the URI of the data: equal data in another place give an equal digest.
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
    """Returns features.json without the profile of the data: what the later steps and the report need to know of the features."""
    return {
        "labels": labels,
        "split": {"method": args.split, "seed": args.seed, "order_by": args.order_by, "counts": split.counts},
        "numeric": [asdict(column) for column in encoding.numeric],
        "categorical": [
            {"name": name, "values": list(values), **typed_value_format(values)}
            for name, values in encoding.vocabularies.items()
        ],
        "features": [{**asdict(feature), "name": feature.name} for feature in encoding.features],
        "deviations": split.deviations,
        "specification": specification.to_toml(),
    }

"""Train, validation and test rows: which row is in which set, and what each set holds.

The split is a function of the row (or of an order), never of the cluster: equal rows fall on one side, on any machine. Knows nothing of
features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, LongType, StructField, StructType

from spark_jobs import storage
from spark_jobs.contract import PreprocessArgs
from spark_jobs.dataset import Specification
from spark_jobs.errors import InputError
from spark_jobs.features import FEATURES
from spark_jobs.ordering import order_key
from spark_jobs.table.profiling import row_hash
from spark_jobs.table.source import position_columns, quoted

SETS = ("train", "validation", "test")
SET, LABEL, ROW_HASH = "set", "label", "row_hash"
"""Columns of the features' tables, which hold nothing of the user's; beside the user's columns they have the table's own prefix."""
ONE_TASK_ROWS = 200_000
"""Up to so many rows, one task sorts and writes all: sums over them are then the same to the last bit on any machine."""


@dataclass(frozen=True)
class Split:
    """The rows of `table` with the columns `row_hash` and `set`.

    Attributes:
        prefix: with it begin the names of the columns that are not the user's.
        counts: rows by set and label value.
        means: mean of each numeric column over the train rows.
        deviations: standard deviation of each numeric column over the train rows, missing values left out.
        missing: train rows in which a numeric column is missing.
    """

    table: DataFrame
    prefix: str
    counts: dict[str, dict[str, int]]
    means: dict[str, float]
    deviations: dict[str, float]
    missing: dict[str, int]

    @property
    def rows(self) -> dict[str, int]:
        """Rows by set."""
        return {name: sum(by_label.values()) for name, by_label in self.counts.items()}


def assign_sets(table: DataFrame, args: PreprocessArgs, prefix: str) -> DataFrame:
    """Adds `row_hash` (long) and `set` (train, validation or test), their names behind the prefix.

    Args:
        table: the typed rows with the columns of `POSITION`.
        prefix: with it begin the names of the columns that are not the user's.

    Raises:
        InputError: the column of an ordered split is not there or has no value in some rows.
    """
    columns = [name for name in table.columns if name not in position_columns(prefix)]
    hashed = table.withColumn(prefix + ROW_HASH, row_hash(columns, args.seed))
    if args.split == "hash":
        # 53 bits of the hash as a number from 0 to 1.
        place = F.shiftrightunsigned(prefix + ROW_HASH, 11) / F.lit(float(1 << 53))
        return hashed.withColumn(
            prefix + SET, _set_of(place < args.train_fraction, place < args.train_fraction + args.validation_fraction)
        )
    key = order_key(table, args.order_by, prefix)
    train_end, validation_end = _cuts(table.select(key.alias("key")), args)
    return hashed.withColumn(prefix + SET, _set_of(key <= train_end, key <= validation_end))


def _cuts(keys: DataFrame, args: PreprocessArgs) -> tuple[Column, Column]:
    """The largest keys of the train and of the validation rows; rows of one key stay together."""
    running = F.sum("count").over(Window.orderBy("key")) / F.sum("count").over(Window.partitionBy())
    cumulated = keys.groupBy("key").count().select("key", running.alias("share"))
    last = [
        F.max(F.when(F.col("share") <= F.lit(share + 1e-12), F.col("key")))
        for share in (args.train_fraction, args.train_fraction + args.validation_fraction)
    ]
    found = cumulated.agg(last[0].alias("train"), last[1].alias("validation")).first()
    assert found is not None
    if found["train"] is None or found["validation"] is None or found["train"] == found["validation"]:
        raise InputError(
            "an ordered split needs more distinct values in its column; name another --order-by, or use --split=hash"
        )
    return _literal(found["train"]), _literal(found["validation"])


def _literal(value: Any) -> Column:
    return (
        F.struct(*[F.lit(part).alias(name) for name, part in value.asDict().items()])
        if hasattr(value, "asDict")
        else F.lit(value)
    )


def _set_of(is_train: Column, is_train_or_validation: Column) -> Column:
    return F.when(is_train, SETS[0]).when(is_train_or_validation, SETS[1]).otherwise(SETS[2])


def summarise(table: DataFrame, specification: Specification, prefix: str) -> Split:
    """Counts the classes of each set and averages the numbers of the train rows, in one pass.

    Raises:
        InputError: a set is empty, or the train rows lack a class or every value of a numeric column.
    """
    sums = [F.sum(quoted(name)).alias(f"sum_{i}") for i, name in enumerate(specification.numeric)]
    squares = [F.sum(quoted(name) ** 2).alias(f"square_{i}") for i, name in enumerate(specification.numeric)]
    present = [F.count(quoted(name)).alias(f"values_{i}") for i, name in enumerate(specification.numeric)]
    grouped = table.groupBy(F.col(prefix + SET).alias(SET), quoted(specification.label).alias(LABEL)).agg(
        F.count(F.lit(1)).alias("rows"), *sums, *squares, *present
    )
    groups = sorted(grouped.collect(), key=lambda row: (row[SET], row[LABEL]))
    counts: dict[str, dict[str, int]] = {name: {} for name in SETS}
    for row in groups:
        counts[row[SET]][row[LABEL]] = row["rows"]
    _check_counts(counts, specification.label)
    train = [row for row in groups if row[SET] == "train"]
    rows = sum(row["rows"] for row in train)
    means, deviations, missing = {}, {}, {}
    for i, name in enumerate(specification.numeric):
        values = sum(row[f"values_{i}"] for row in train)
        if not values:
            raise InputError(
                f"column {name!r} has no value in the train rows; list it under columns.dropped of the specification"
            )
        means[name] = sum(row[f"sum_{i}"] or 0.0 for row in train) / values
        square = sum(row[f"square_{i}"] or 0.0 for row in train) / values
        deviations[name] = math.sqrt(max(square - means[name] ** 2, 0.0))
        missing[name] = rows - values
    return Split(table, prefix, counts, means, deviations, missing)


def _check_counts(counts: dict[str, dict[str, int]], label: str) -> None:
    classes = {value for by_label in counts.values() for value in by_label}
    for name in SETS:
        if not counts[name]:
            raise InputError(f"the split leaves no {name} rows; change its fractions or give more rows")
    # The decision threshold is chosen on validation rows of both classes; with more than two there is none to choose.
    needed = {"train": len(classes), "validation": 2, "test": len(classes)}
    for name in SETS:
        if len(counts[name]) < needed[name]:
            lacking = ", ".join(map(repr, sorted(classes - set(counts[name]))[:5]))
            raise InputError(
                f"no {name} row has {label} = {lacking}; give more rows of that class, another --seed or another --split"
            )


def is_small(rows: int) -> bool:
    """Whether a table of so many rows is one task's work."""
    return rows <= ONE_TASK_ROWS


def write_sets(table: DataFrame, rows: int, uri: str) -> None:
    """Writes one directory for each set; small tables in one file, in the order of their hashes."""
    if is_small(rows):
        table = table.coalesce(1).sortWithinPartitions(SET, ROW_HASH)
    storage.write_table(table, uri, partition_by=[SET])


def read_set(session: SparkSession, uri: str, name: str, rows: int) -> DataFrame:
    """The rows of one set, as `write_sets` left them; a schema that is given costs no job to find."""
    schema = StructType(
        [StructField(FEATURES, VectorUDT()), StructField(LABEL, DoubleType()), StructField(ROW_HASH, LongType())]
    )
    table = storage.read_table(session, storage.join(uri, f"{SET}={name}"), schema)
    return table.coalesce(1) if is_small(rows) else table

"""The split into train, validation and test rows: assigns each row to a set, and counts the classes of each set.

A row's set depends on its values and the seed, or on its place in an order, and never on partitions or on the number of executors, as it
would with `DataFrame.randomSplit`. So a split can be repeated on any cluster, and equal rows are always in the same set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pyspark.ml.linalg import VectorUDT
from pyspark.sql import Column, DataFrame, SparkSession, Window
from pyspark.sql import functions as F
from pyspark.sql.types import DoubleType, LongType, StringType, StructField, StructType

from spark_jobs import storage
from spark_jobs.contract import PreprocessArgs
from spark_jobs.dataset import Specification
from spark_jobs.errors import InputError
from spark_jobs.features import FEATURES
from spark_jobs.ordering import order_key
from spark_jobs.result import Result
from spark_jobs.table.profiling import row_hash
from spark_jobs.table.source import POSITION, position_columns, quoted

SETS = ("train", "validation", "test")
SET, LABEL, ROW_HASH = "set", "label", "row_hash"
"""Columns of the feature tables. In a table with the user's columns, these names get a prefix that no column of the user has."""
ONE_TASK_ROWS = 200_000
"""Tables of at most this many rows are kept in one partition, as floating-point sums depend on the order of addition: the result of a fit
is then the same to the last bit on any machine."""


@dataclass(frozen=True)
class Split:
    """The split rows and their statistics.

    Attributes:
        table: the rows, with the added columns `row_hash` and `set`.
        prefix: prefix of the names of columns that steps add; no column of the user has it.
        counts: number of rows by set and label value.
        means: mean of each numeric column over the train rows, without missing values.
        deviations: standard deviation of each numeric column over the train rows, without missing values.
        missing: number of train rows in which a numeric column is missing.
    """

    table: DataFrame
    prefix: str
    counts: dict[str, dict[str, int]]
    means: dict[str, float]
    deviations: dict[str, float]
    missing: dict[str, int]

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows by set."""
        return {name: sum(by_label.values()) for name, by_label in self.counts.items()}


def assign_sets(table: DataFrame, args: PreprocessArgs, prefix: str) -> DataFrame:
    """Adds the columns `row_hash` (long) and `set` (train, validation or test); the prefix precedes both names.

    Args:
        table: the typed rows, with the columns of `POSITION`.
        args: the arguments of preprocess: the kind of split, the seed and the fractions.
        prefix: prefix of the names of columns that steps add; no column of the user has it.

    Raises:
        InputError: the column of an ordered split does not exist, has missing values or too few distinct values.
    """
    columns = [name for name in table.columns if name not in position_columns(prefix)]
    hashed = table.withColumn(prefix + ROW_HASH, row_hash(columns, args.seed))
    if args.split == "hash":
        # The upper 53 bits of the hash, which a double holds exactly, as a number from 0 to 1.
        share = F.shiftrightunsigned(prefix + ROW_HASH, 11) / F.lit(float(1 << 53))
        return hashed.withColumn(
            prefix + SET, _set_of(share < args.train_fraction, share < args.train_fraction + args.validation_fraction)
        )
    key = order_key(table, args.order_by, prefix)
    train_end, validation_end = _last_keys(table.select(key.alias("key")), args)
    return hashed.withColumn(prefix + SET, _set_of(key <= train_end, key <= validation_end))


def _last_keys(keys: DataFrame, args: PreprocessArgs) -> tuple[Column, Column]:
    """Returns the largest sort key of the train rows and of the validation rows; rows of equal keys are in the same set."""
    running = F.sum("count").over(Window.orderBy("key")) / F.sum("count").over(Window.partitionBy())
    cumulated = keys.groupBy("key").count().select("key", running.alias("share"))
    last = [
        F.max(F.when(F.col("share") <= F.lit(share + 1e-12), F.col("key")))
        for share in (args.train_fraction, args.train_fraction + args.validation_fraction)
    ]
    ends = cumulated.agg(last[0].alias("train"), last[1].alias("validation")).first()
    assert ends is not None
    if ends["train"] is None or ends["validation"] is None or ends["train"] == ends["validation"]:
        raise InputError(
            "an ordered split needs more distinct values in its column; name another --order-by, or use --split=hash"
        )
    return _literal(ends["train"]), _literal(ends["validation"])


def _literal(value: Any) -> Column:
    return (
        F.struct(*[F.lit(part).alias(name) for name, part in value.asDict().items()])
        if hasattr(value, "asDict")
        else F.lit(value)
    )


def _set_of(is_train: Column, is_train_or_validation: Column) -> Column:
    return F.when(is_train, SETS[0]).when(is_train_or_validation, SETS[1]).otherwise(SETS[2])


def summarise(table: DataFrame, specification: Specification, prefix: str) -> Split:
    """Counts the classes of each set and computes means and deviations over the train rows, in one Spark job.

    Args:
        table: the rows, with the columns that `assign_sets` has added.
        specification: names the label and the numeric columns.
        prefix: prefix of the names of columns that steps add.

    Raises:
        InputError: a set is empty or lacks a class, or a numeric column has no value in the train rows.
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


def rows_schema(loaded: Result) -> StructType:
    """Returns the schema of the rows that load has written; with an explicit schema, Spark needs no job to infer one."""
    known = {"double": DoubleType(), "string": StringType()}
    users = [StructField(name, known[kind]) for name, kind in loaded.columns]
    return StructType([*users, *(StructField(loaded.facts["prefix"] + name, kind) for name, kind in POSITION.items())])


def index_label(label: str, labels: list[str]) -> Column:
    """Returns the label's index as double; the Spark job fails on a value that is not in `labels`, as it would become a new class."""
    position = F.array_position(F.array(*map(F.lit, labels)), quoted(label))
    return F.when(
        position == 0, F.raise_error(F.lit(f"label {label!r} has a value that is not one of {labels}"))
    ).otherwise((position - 1).cast("double"))


def is_small(rows: int) -> bool:
    """Returns whether a table of so many rows is kept in one partition; see `ONE_TASK_ROWS`."""
    return rows <= ONE_TASK_ROWS


def write_sets(table: DataFrame, rows: int, uri: str) -> None:
    """Writes a table partitioned by set; a small table as one file per set, sorted by row hash.

    Args:
        table: the columns of the feature tables, with `set`.
        rows: number of rows.
        uri: where to write.
    """
    if is_small(rows):
        table = table.coalesce(1).sortWithinPartitions(SET, ROW_HASH)
    storage.write_table(table, uri, partition_by=[SET])


def read_set(session: SparkSession, uri: str, name: str, rows: int) -> DataFrame:
    """Reads the rows of one set that `write_sets` has written.

    Args:
        session: the Spark session.
        uri: the URI of the table.
        name: the set.
        rows: number of rows in all sets.
    """
    # With an explicit schema, Spark needs no job to infer one.
    schema = StructType(
        [StructField(FEATURES, VectorUDT()), StructField(LABEL, DoubleType()), StructField(ROW_HASH, LongType())]
    )
    table = storage.read_table(session, storage.join(uri, f"{SET}={name}"), schema)
    return table.coalesce(1) if is_small(rows) else table

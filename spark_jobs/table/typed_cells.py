"""Converts the text cells of a table to numbers and categories, and gives each bad row the reason why load rejects it.

It only builds DataFrames; `load` writes them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.cells import MAX_NUMBER, MISSING_LABELS
from spark_jobs.dataset import Specification
from spark_jobs.table.source import Source, is_missing_number, quoted_name, raw_texts, to_double, trimmed


@dataclass(frozen=True)
class CellArrays:
    """Names of the array columns that hold the cells of a row while load types them; the arrays are in alphabetical order of the columns.

    With arrays, one expression types all cells, so Spark's plan stays small however many columns the table has. With an expression for each
    of a thousand columns, Spark would take longer to plan the query than to process a thousand rows.
    """

    source: Source
    specification: Specification

    @functools.cached_property
    def index(self) -> Mapping[str, int]:
        """By column of the specification its index in the arrays; rows to be scored have no label."""
        named = {self.specification.label, *self.specification.features, *self.specification.dropped} - {""}
        return {name: index for index, name in enumerate(sorted(named))}

    @property
    def texts(self) -> str:
        """The array of the trimmed texts; null where a cell is empty."""
        return f"{self.source.prefix}texts"

    @property
    def numbers(self) -> str:
        """The array of the numbers; null where the cell is not a number or the column is not numeric."""
        return f"{self.source.prefix}numbers"

    @property
    def label(self) -> str:
        """The column with the label; null if it is missing."""
        return f"{self.source.prefix}label"

    @property
    def reason(self) -> str:
        """The column with the reason why a row is rejected; null in a good row."""
        return f"{self.source.prefix}reason"

    def numeric_positions(self) -> Column:
        """Returns a constant array with the position of each column in `specification.numeric`, null if it is not numeric."""
        positions = {name: position for position, name in enumerate(self.specification.numeric)}
        return _constant_array([positions.get(name) for name in self.index], "int")

    def column_expressions(self) -> list[str]:
        """Returns the SQL expressions that make the table's columns from the arrays.

        SQL, because a thousand column expressions of PySpark would take ten thousand calls into the JVM.
        """
        numeric, columns = set(self.specification.numeric), []
        for name in filter(self.index.__contains__, self.source.columns):
            array = self.numbers if name in numeric else self.texts
            cell = self.label if name == self.specification.label else f"get({array}, {self.index[name]})"
            columns.append(f"{cell} AS {quoted_name(name)}")
        return columns


def _constant_array(values: Sequence[Any], kind: str) -> Column:
    """Returns a constant array from one literal; one literal for each value would make the plan grow with the columns."""
    return F.from_json(F.lit(json.dumps(values)), f"array<{kind}>")


def type_rows(cells: CellArrays, kept: Sequence[Column] = ()) -> DataFrame:
    """Types the cells of each row by the role of their column, and finds out whether the row is good.

    Args:
        cells: the names of the columns to make; without a label in its specification, rows need none.
        kept: further columns of the source to keep as they are.

    Returns:
        One row for each row of the source, with the columns of `cells`, those of `POSITION`, the corrupt record and `kept`.
    """
    source, label = cells.source, cells.specification.label
    text = F.get(cells.texts, F.lit(cells.index[label])) if label else F.lit(None).cast("string")
    positions = cells.numeric_positions()
    # Several selects, each of which uses the columns of the one before: in a single one, Spark would compute shared values again.
    return (
        source.rows.select(
            F.transform(raw_texts(source, cells.index), trimmed).alias(cells.texts),
            *source.position,
            source.corrupt_record,
            *kept,
        )
        .withColumns(
            {
                cells.numbers: F.transform(
                    cells.texts, lambda cell, index: F.when(F.get(positions, index).isNotNull(), to_double(cell))
                ),
                cells.label: F.when(~F.lower(text).isin(*MISSING_LABELS), text),
            }
        )
        .withColumn(cells.reason, _rejection_reason(cells))
    )


def _rejection_reason(cells: CellArrays) -> Column:
    """Returns the first reason to reject a row, null if there is none."""
    source, label = cells.source, cells.specification.label
    reasons = [
        F.when(F.col(source.corrupt_record).isNotNull(), F.lit(f"row does not have {len(source.columns)} columns")),
    ]
    if label:
        reasons.append(F.when(F.col(cells.label).isNull(), F.lit(missing_label_reason(label))))
    if cells.specification.numeric:
        reasons.append(_bad_number_reason(cells))
    if source.dialect and source.dialect.encoding.upper() in ("UTF-8", "UTF8"):
        # Spark replaces bytes that are not UTF-8 by U+FFFD.
        wrong_encoding = F.contains(F.concat_ws("", cells.texts), F.lit("\ufffd"))
        reasons.append(F.when(wrong_encoding, F.lit("not UTF-8; give --encoding, perhaps ISO-8859-1")))
    return F.coalesce(*reasons)


def _bad_number_reason(cells: CellArrays) -> Column:
    """Returns what is wrong with the first bad cell of a numeric column, in the order of the specification; null if no cell is bad."""
    limits, numeric = cells.specification.limits, cells.specification.numeric
    positions = cells.numeric_positions()
    lows, highs = (
        _constant_array([limits[name][end] if name in limits else None for name in cells.index], "double")
        for end in (0, 1)
    )

    reasons = []
    for name in numeric:
        low, high = limits.get(name, (0, 0))
        reasons += [
            f"column {name!r} is not a number",
            f"column {name!r} is infinite or beyond {MAX_NUMBER:g}",
            f"column {name!r} is outside {low:g} to {high:g}",
        ]

    def reason_index(number: Column, index: Column) -> Column:
        text = F.get(cells.texts, index)
        not_a_number = number.isNull() & text.isNotNull() & ~is_missing_number(text)
        kind = F.when(not_a_number, 0).when(F.abs(number) > MAX_NUMBER, 1)
        if limits:
            kind = kind.when((number < F.get(lows, index)) | (number > F.get(highs, index)), 2)
        return F.get(positions, index) * 3 + kind  # three reasons for each numeric column

    # array_min skips the nulls of good cells.
    return F.get(_constant_array(reasons, "string"), F.array_min(F.transform(cells.numbers, reason_index)))


def rejected_rows(cells: CellArrays, typed: DataFrame, names: Sequence[str], kept: Sequence[Column] = ()) -> DataFrame:
    """Returns the rejected rows with the columns line (the text of the row) and reason.

    Args:
        cells: the names of the columns of `typed`.
        typed: the rows, as `type_rows` returns them.
        names: the columns whose cells are the line, in their order, where Spark could parse the row.
        kept: columns that come before those two.
    """
    texts = [F.get(cells.texts, F.lit(cells.index[name])).alias(f"_{index}") for index, name in enumerate(names)]
    line = F.coalesce(F.col(cells.source.corrupt_record), F.to_csv(F.struct(*texts)))
    reason = F.col(cells.reason)
    return typed.where(reason.isNotNull()).select(*kept, line.alias("line"), reason.alias("reason"))


def count_reasons(rejected: DataFrame) -> list[tuple[str, int]]:
    """Returns the reasons of rejected rows with their number of rows, most frequent first."""
    counts = rejected.groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
    return [(row["reason"], row["count"]) for row in counts]


def missing_label_reason(label: str) -> str:
    """Returns the reason for a row without a label."""
    return f"label {label!r} is missing"


def row_hash(cells: CellArrays) -> Column:
    """Returns the same hash as `profiling.row_hash`, computed on the arrays by one expression instead of one for each column."""
    positions, label = cells.numeric_positions(), cells.index[cells.specification.label]

    def cell(number: Column, index: Column) -> Column:
        text = F.when(F.get(positions, index).isNull(), F.get(cells.texts, index))
        value = F.when(index == label, F.col(cells.label)).otherwise(text)
        return F.struct(value, number, value.isNull() & number.isNull())

    return F.xxhash64(F.transform(cells.numbers, cell))

"""Types the cells of a table, and says of a row why it is rejected.

Knows nothing of where the rows go.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.cells import LARGEST, MISSING_LABELS
from spark_jobs.dataset import Specification
from spark_jobs.table.source import Source, cell_text, escaped, is_missing_number, number_from, raw_text


@dataclass(frozen=True)
class Cells:
    """Where the cells of a row stand while they are typed: in arrays, by the order of the columns' names.

    One expression then types all of them, and Spark's plan stays small however many columns there are: what Spark does with the plan
    of a thousand columns takes longer than a thousand rows.
    """

    source: Source
    specification: Specification

    @functools.cached_property
    def places(self) -> Mapping[str, int]:
        return {name: place for place, name in enumerate(sorted(self.source.columns))}

    @property
    def texts(self) -> str:
        """The column with the trimmed texts, null where a cell is empty."""
        return f"{self.source.prefix}texts"

    @property
    def numbers(self) -> str:
        """The column with the numbers, null where a cell is none or its column is not numeric."""
        return f"{self.source.prefix}numbers"

    @property
    def label(self) -> str:
        """The column with the label."""
        return f"{self.source.prefix}label"

    @property
    def reason(self) -> str:
        """The column that says why a row is rejected, null for a good one."""
        return f"{self.source.prefix}reason"

    def order(self) -> Column:
        """By place the position among the numeric columns, null for any other column."""
        order = {name: position for position, name in enumerate(self.specification.numeric)}
        return _constants([order.get(name) for name in self.places], "int")

    def spread(self) -> list[str]:
        """The columns of the table again, as SQL: a thousand of Python's expressions would be ten thousand calls into Java."""
        numeric, columns = set(self.specification.numeric), []
        for name in self.source.columns:
            of = self.numbers if name in numeric else self.texts
            cell = self.label if name == self.specification.label else f"get({of}, {self.places[name]})"
            columns.append(f"{cell} AS {escaped(name)}")
        return columns


def _constants(values: Sequence[Any], kind: str) -> Column:
    """An array that is one literal, not one for each value."""
    return F.from_json(F.lit(json.dumps(values)), f"array<{kind}>")


def type_rows(cells: Cells) -> DataFrame:
    """Gives each cell the type of its column's role.

    Several selects rather than one, as Spark then computes each value once.

    Returns:
        One row for each row of the source: the columns of `cells`, those of `POSITION`, and the line's text.
    """
    source, label = cells.source, cells.specification.label
    raw = F.array(*[raw_text(source, name) for name in cells.places])
    text = F.get(cells.texts, F.lit(cells.places[label]))
    order = cells.order()
    return (
        source.rows.select(F.transform(raw, cell_text).alias(cells.texts), *source.position, source.line)
        .withColumns(
            {
                cells.numbers: F.transform(
                    cells.texts, lambda cell, place: F.when(F.get(order, place).isNotNull(), number_from(cell))
                ),
                cells.label: F.when(~F.lower(text).isin(*MISSING_LABELS), text),
            }
        )
        .withColumn(cells.reason, _reason(cells))
    )


def _reason(cells: Cells) -> Column:
    source, label = cells.source, cells.specification.label
    reasons = [
        F.when(F.col(source.line).isNotNull(), F.lit(f"row does not have {len(source.columns)} columns")),
        F.when(F.col(cells.label).isNull(), F.lit(no_label(label))),
    ]
    if cells.specification.numeric:
        reasons.append(_number_reason(cells))
    if source.dialect and source.dialect.encoding.upper() in ("UTF-8", "UTF8"):
        broken = F.contains(F.concat_ws("", cells.texts), F.lit("\ufffd"))
        reasons.append(F.when(broken, F.lit("not UTF-8; give --encoding, perhaps ISO-8859-1")))
    return F.coalesce(*reasons)


def _number_reason(cells: Cells) -> Column:
    """What is wrong with the first numeric column, by the order of the specification, in which something is."""
    limits, numeric = cells.specification.limits, cells.specification.numeric
    order = cells.order()
    lows, highs = (
        _constants([limits[name][end] if name in limits else None for name in cells.places], "double") for end in (0, 1)
    )

    def fault(number: Column, place: Column) -> Column:
        text = F.get(cells.texts, place)
        word = number.isNull() & text.isNotNull() & ~is_missing_number(text)
        kind = F.when(word, 0).when(F.abs(number) > LARGEST, 1)
        if limits:
            kind = kind.when((number < F.get(lows, place)) | (number > F.get(highs, place)), 2)
        return F.get(order, place) * 3 + kind

    told = []
    for name in numeric:
        low, high = limits.get(name, (0, 0))
        told += [
            f"column {name!r} is not a number",
            f"column {name!r} is infinite or beyond {LARGEST:g}",
            f"column {name!r} is outside {low:g} to {high:g}",
        ]
    return F.get(_constants(told, "string"), F.array_min(F.transform(cells.numbers, fault)))


def no_label(label: str) -> str:
    """Why a row without a label is rejected."""
    return f"label {label!r} is missing"


def row_hash(cells: Cells) -> Column:
    """The hash of `profiling.row_hash` without its plan of an expression for each column."""
    order, label = cells.order(), cells.places[cells.specification.label]

    def cell(number: Column, place: Column) -> Column:
        text = F.when(F.get(order, place).isNull(), F.get(cells.texts, place))
        value = F.when(place == label, F.col(cells.label)).otherwise(text)
        return F.struct(value, number, value.isNull() & number.isNull())

    return F.xxhash64(F.transform(cells.numbers, cell))

"""What is in a table: one line of statistics for each column, and the columns that a person should look at.

Statistics are taken of the melted table, one row for each cell: Spark's plan then stays as small for 5,000 columns as for five, where an
aggregate with some expressions for each column takes time that grows faster than the columns. Knows nothing of how the table was read or
of what is done with it.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs.contract import LEAK
from spark_jobs.dataset import Specification
from spark_jobs.table.source import quoted

EXACT_ROWS = 1_000_000
"""Below so many rows distinct values are counted; from there on they are estimated, as counting would sort every value of the table."""
SAMPLE_ROWS = 5_000
"""Rows, about, that the search for suspicious columns looks at, unless these are more than `SAMPLE_CELLS` cells."""
SAMPLE_CELLS = 1_000_000
FEW_VALUES = 20
"""With no more distinct values than this a text column is a category, however few rows there are."""
IDENTIFIER = "has another value in most rows, like an identifier or free text"
TELLS_THE_LABEL = "all but tells the label"


def row_hash(columns: Sequence[str], seed: int | None = None) -> Column:
    """A 64-bit hash of the row's values: equal rows have equal hashes wherever they stand."""
    start = [] if seed is None else [F.lit(seed)]
    # A null is hashed as a word of its own: xxhash64 alone skips it, so that (null, "a") would equal ("a", null).
    return F.xxhash64(*start, *[F.struct(quoted(name), quoted(name).isNull()) for name in sorted(columns)])


def melt(rows: DataFrame, cells: Column) -> DataFrame:
    """One row for each cell: `place`, the position in the array `cells`, and `cell`."""
    # The array is a column of its own first, as the code that Spark generates for it must not grow into the rest.
    return rows.select(cells.alias("cells")).select(F.posexplode("cells").alias("place", "cell"))


def describe(table: DataFrame, specification: Specification, rows: int) -> dict[str, Any]:
    """Describes a typed table.

    Args:
        table: one row for each good row; the columns of the specification.
        rows: how many rows it has.

    Returns:
        `columns` (name, role, type, missing, distinct, and for numbers min, max, mean), `class_counts` (label value to rows)
        and `suspicious` (column, kind and reason). `distinct` is exact below `EXACT_ROWS` rows, else a HyperLogLog estimate, 1.6 %
        standard error.
    """
    found = _statistics(table, specification, exact=rows < EXACT_ROWS)
    columns = _columns(found, rows, specification)
    counts = table.groupBy(quoted(specification.label).alias("label")).count().collect()
    return {
        "columns": columns,
        "class_counts": {row["label"]: row["count"] for row in sorted(counts, key=lambda row: str(row["label"]))},
        "suspicious": _suspicious(table, columns, specification.label, rows),
    }


def _statistics(table: DataFrame, specification: Specification, *, exact: bool) -> Mapping[str, Row]:
    """By column: `values`, `distinct`, `min`, `max` and `mean`; a column without any value is not there."""
    label, numeric = [specification.label], specification.numeric
    others = (*specification.categorical, *specification.dropped)
    cells = F.concat(_text_cells(label), _number_cells(numeric), _text_cells(others))
    cell = melt(table, cells).select("place", "cell.text", "cell.number")
    present = cell.where(F.col("text").isNotNull() | F.col("number").isNotNull())
    weight, number = F.col("count"), F.col("number")
    counted = present.groupBy("place", "text", "number").count() if exact else present.withColumn("count", F.lit(1))
    statistics = counted.groupBy("place").agg(
        F.sum(weight).alias("values"),
        (F.count(F.lit(1)) if exact else distinct(F.coalesce("text", number.cast("string")))).alias("distinct"),
        F.min(number).alias("min"),
        F.max(number).alias("max"),
        (F.sum(number * weight) / F.sum(weight)).alias("mean"),
    )
    names = (*label, *numeric, *others)
    return {names[row["place"]]: row for row in statistics.collect()}


def _text_cells(names: Sequence[str]) -> Column:
    no_number = F.lit(None).cast("double")
    return F.transform(_array(names, "string"), lambda text: F.struct(text.alias("text"), no_number.alias("number")))


def _number_cells(names: Sequence[str]) -> Column:
    no_text = F.lit(None).cast("string")
    return F.transform(_array(names, "double"), lambda number: F.struct(no_text.alias("text"), number.alias("number")))


def _array(names: Sequence[str], kind: str) -> Column:
    return F.array(*map(quoted, names)).cast(f"array<{kind}>")


def distinct(column: Column) -> Column:
    """An estimate of the distinct values of a text column, which may be above the rows by its error."""
    return F.coalesce(F.hll_sketch_estimate(F.hll_sketch_agg(column, 12)), F.lit(0))


def _columns(found: Mapping[str, Row], rows: int, specification: Specification) -> list[dict[str, Any]]:
    roles = {
        specification.label: "label",
        **dict.fromkeys(specification.numeric, "numeric"),
        **dict.fromkeys(specification.categorical, "categorical"),
        **dict.fromkeys(specification.dropped, "dropped"),
    }
    known_afterwards = frozenset(specification.known_afterwards)
    return [
        _column(name, role, found.get(name), rows) | {"known_afterwards": name in known_afterwards}
        for name, role in roles.items()
    ]


def _column(name: str, role: str, found: Row | None, rows: int) -> dict[str, Any]:
    numeric, values = role == "numeric", found["values"] if found else 0
    return {
        "name": name,
        "role": role,
        "type": "double" if numeric else "string",
        "missing": rows - values,
        "distinct": min(found["distinct"], values) if found else 0,
        **({key: found[key] if found else None for key in ("min", "max", "mean")} if numeric else {}),
    }


def _suspicious(table: DataFrame, columns: Sequence[Mapping[str, Any]], label: str, rows: int) -> list[dict[str, str]]:
    """Features that a person should look at: constant, unlike in most rows, nearly the label itself."""
    found: list[dict[str, str]] = []
    features = [column for column in columns if column["role"] in ("numeric", "categorical")]
    for column in features:
        if column["distinct"] <= 1 and not column["missing"]:
            found.append({"column": column["name"], "kind": "constant", "reason": "has one value in all rows"})
    varied = [column for column in features if column["distinct"] > 1]
    numeric, texts = (
        [column["name"] for column in varied if column["role"] == role] for role in ("numeric", "categorical")
    )
    cells = F.concat(_array(numeric, "double").cast("array<string>"), _array(texts, "string"))
    labels, sampled = sample(table, quoted(label), cells, len(varied), rows)
    for column, values in zip(varied, sampled, strict=True):
        if column["role"] == "numeric":
            numbers = [None if value is None else float(value) for value in values]
            identifier, leak = _counts_rows(numbers), determines(numbers, labels)
        else:
            identifier = is_identifier(column["distinct"], rows - column["missing"])
            leak = not identifier and determines(values, labels)
        if identifier:
            found.append({"column": column["name"], "kind": "identifier", "reason": IDENTIFIER})
        elif leak:
            found.append(
                {
                    "column": column["name"],
                    "kind": LEAK,
                    "reason": f"{TELLS_THE_LABEL}; is it known before the outcome?",
                }
            )
    return found


def is_identifier(distinct: float, present: int) -> bool:
    """Whether a text column has so many values that what is learned of one says nothing of other rows."""
    return distinct > FEW_VALUES and 2 * distinct > present


def _counts_rows(numbers: Sequence[float | None]) -> bool:
    """Whether a number is whole and another one in each row."""
    whole = all(number is not None and number == int(number) for number in numbers)
    return whole and len(numbers) > 1 and len(set(numbers)) == len(numbers)


def sample(
    table: DataFrame, label: Column, cells: Column, columns: int, rows: int
) -> tuple[list[str], list[tuple[str | None, ...]]]:
    """Labels, and the texts of some columns, of rows that are chosen by their hash: the same ones however the table is cut and ordered.

    Args:
        table: the rows.
        label: the label.
        cells: the texts of the columns as an array.
        columns: how many they are.
        rows: how many rows the table has.

    Returns:
        The labels, and for each column its texts, in the order of the labels.
    """
    wanted = max(100, min(SAMPLE_ROWS, SAMPLE_CELLS // max(1, columns)))
    chosen = table.select(label.alias("label"), cells.alias("cells"))
    every = max(1, rows // wanted)
    if every > 1:
        chosen = chosen.where(F.pmod(F.xxhash64("label", "cells"), F.lit(every)) == 0)
    # A row as one text: Spark hands over a million texts in as many steps.
    found = chosen.select("label", F.to_json("cells").alias("cells")).limit(2 * wanted).collect()
    texts = [json.loads(row["cells"]) for row in found]
    return [row["label"] for row in found], list(zip(*texts, strict=True)) if texts else [()] * columns


def determines(values: Sequence[Any], labels: Sequence[str]) -> bool:
    """Whether a column alone tells nearly every label.

    Text is judged by its values, numbers by a hundred equal parts of their order. The labels told by the commonest one of each group
    must be above 0.98 of what the commonest of all leaves open.
    """
    common = max(Counter(labels).values(), default=0)
    if len(labels) < 20 or common == len(labels):
        return False
    most: dict[Any, int] = defaultdict(int)
    for (group, _), rows in Counter(zip(_grouped(values), labels, strict=True)).items():
        most[group] = max(most[group], rows)
    return len(most) <= len(labels) / 10 and sum(most.values()) - common > 0.98 * (len(labels) - common)


def _grouped(values: Sequence[Any]) -> Sequence[Any]:
    if not any(isinstance(value, float) for value in values):
        return values
    parts = min(100, len(values) // 10)
    ordered = sorted(value for value in values if value is not None)
    first = dict(zip(reversed(ordered), range(len(ordered) - 1, -1, -1), strict=True))
    groups = {value: position * parts // len(ordered) for value, position in first.items()}
    return [groups.get(value) for value in values]

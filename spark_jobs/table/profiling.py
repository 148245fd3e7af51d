"""Computes the profile of a typed table: statistics of each column, and the columns that a person should check before training.

Statistics are computed on the melted table, with one row for each cell. Spark's plan then is as small for 5,000 columns as for five; with a
few aggregates for each column, the time to plan and compile the query would grow faster than the number of columns. The cells of a small
table are collected instead; see `sampling`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence, Set
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from spark_jobs.cells import to_number
from spark_jobs.contract import LEAK
from spark_jobs.dataset import Specification
from spark_jobs.table.sampling import collect_cells, most_rows, sample_by_hash
from spark_jobs.table.source import array_of, quoted, quoted_name

MAX_EXACT_ROWS = 1_000_000
"""From this number of rows on, distinct values are estimated, because an exact count would sort every value of the table."""
FEW_DISTINCT_VALUES = 20
"""A text column with at most this many distinct values is never an identifier, however few rows the table has."""
IDENTIFIER_REASON = "has another value in most rows, like an identifier or free text"
LEAK_REASON = "all but tells the label"
CONSTANT_REASON = "has one value in all rows"
ROUNDED_REASON = ", as a double rounds whole numbers beyond 2^53"
LARGEST_EXACT = 2.0**53
"""Up to this number a double holds every whole number; beyond it, different numbers in the file can become one."""


def row_hash(columns: Sequence[str], seed: int | None = None) -> Column:
    """Returns a 64-bit hash of a row's values, which does not depend on the position of the row or the order of the columns."""
    start = [] if seed is None else [F.lit(seed)]
    # xxhash64 skips nulls, so (null, "a") would have the hash of ("a", null); the flag for null tells them apart.
    return F.xxhash64(*start, *[F.struct(quoted(name), quoted(name).isNull()) for name in sorted(columns)])


def melt(rows: DataFrame, cells: Column) -> DataFrame:
    """Returns one row for each cell, with the columns `place`, its index in the array `cells`, and `cell`."""
    # The array is selected first on its own, so that Spark does not generate its code and that of posexplode as one method, which may
    # get too large to compile.
    return rows.select(cells.alias("cells")).select(F.posexplode("cells").alias("place", "cell"))


def describe(
    table: DataFrame,
    specification: Specification,
    rows: int,
    nested: Mapping[str, str] | None = None,
    *,
    leaks_are_out: bool = False,
    cells: Mapping[str, Sequence[str | None]] | None = None,
) -> dict[str, Any]:
    """Computes the profile of a typed table.

    Args:
        table: the rows that load accepted, with the columns of the specification.
        specification: the roles of the columns.
        rows: the number of rows of the table.
        nested: by nested column of the source its type; load writes such a column without its values.
        leaks_are_out: whether no feature of the specification tells the label, because its inference has searched for those already.
        cells: by column the trimmed texts of the same rows, if they are known already; else the table is read.

    Returns:
        `columns` (name, role, type, missing, distinct, and for numeric columns min, max, mean), `class_counts` (rows by label value) and
        `suspicious` (column, kind and reason). `distinct` is exact below `MAX_EXACT_ROWS` rows, else a HyperLogLog estimate with a
        standard error of 1.6 %. `missing` and `distinct` are None for a nested column.
    """
    values = _typed(cells, specification) if cells else _collect(table, specification, rows)
    if values is None:
        statistics = _statistics(table, specification, exact=rows < MAX_EXACT_ROWS)
        counts = table.groupBy(quoted(specification.label).alias("label")).count().collect()
        class_counts = {row["label"]: row["count"] for row in counts}
    else:
        statistics = {name: _count_values(cells) for name, cells in values.items()}
        class_counts = Counter(values[specification.label])
    columns = _columns(statistics, rows, specification)
    whole = {name for name, row in statistics.items() if row["whole"]}
    for column in columns:
        if kind := (nested or {}).get(column["name"]):
            column |= {"type": kind, "missing": None, "distinct": None}
    return {
        "columns": columns,
        "class_counts": {label: class_counts[label] for label in sorted(class_counts, key=str)},
        "suspicious": _suspicious(
            table, columns, specification.label, rows, whole, values, leaks_are_out=leaks_are_out
        ),
    }


def _collect(table: DataFrame, specification: Specification, rows: int) -> dict[str, Sequence[Any]] | None:
    """Collects the values of each column, doubles for a numeric one and texts for any other; None if the table is not small."""
    numeric = specification.numeric
    texts = (specification.label, *specification.categorical, *specification.dropped)
    if rows > most_rows(len(numeric) + len(texts)):
        return None
    cells = F.concat(_array(numeric, "double").cast("array<string>"), _array(texts, "string"))
    collected = collect_cells(table, cells, len(numeric) + len(texts))
    if collected is None:
        return None
    numbers = dict(zip(numeric, map(_numbers, collected[: len(numeric)]), strict=True))
    return {**numbers, **dict(zip(texts, collected[len(numeric) :], strict=True))}


def _typed(cells: Mapping[str, Sequence[str | None]], specification: Specification) -> dict[str, Sequence[Any]]:
    """Returns what `_collect` does, from the texts of rows of which load has rejected none."""
    texts = (specification.label, *specification.categorical, *specification.dropped)
    numbers = {
        name: [None if text is None else to_number(text) for text in cells[name]] for name in specification.numeric
    }
    return {**numbers, **{name: cells[name] for name in texts}}


def _numbers(texts: Sequence[str | None]) -> list[float | None]:
    return [None if text is None else float(text) for text in texts]


def _count_values(values: Sequence[Any]) -> dict[str, Any]:
    """Computes the statistics of one collected column; the mean is made from the exact sum."""
    present = [value for value in values if value is not None]
    statistics: dict[str, Any] = {"values": len(present), "distinct": len(set(present))}
    if not present or isinstance(present[0], str):
        return statistics | dict.fromkeys(("min", "max", "mean", "whole"))
    mean, whole = math.fsum(present) / len(present), all(map(float.is_integer, present))
    return statistics | {"min": min(present), "max": max(present), "mean": mean, "whole": whole}


def _statistics(table: DataFrame, specification: Specification, *, exact: bool) -> dict[str, dict[str, Any]]:
    """Computes `values`, `distinct`, `min`, `max`, `mean` and `whole`, whether all numbers are whole, of each column.

    The result lacks columns without any value.
    """
    label, numeric = [specification.label], specification.numeric
    others = (*specification.categorical, *specification.dropped)
    cells = F.concat(_text_cells(label), _number_cells(numeric), _text_cells(others))
    cell = melt(table, cells).select("place", "cell.text", "cell.number")
    present = cell.where(F.col("text").isNotNull() | F.col("number").isNotNull())
    weight, number = F.col("count"), F.col("number")
    counted = present.groupBy("place", "text", "number").count() if exact else present.withColumn("count", F.lit(1))
    distinct = F.count(F.lit(1)) if exact else approximate_distinct(F.coalesce("text", number.cast("string")))
    by_place = counted.groupBy("place").agg(
        F.sum(weight).alias("values"),
        distinct.alias("distinct"),
        F.min(number).alias("min"),
        F.max(number).alias("max"),
        (F.sum(number * weight) / F.sum(weight)).alias("mean"),
        F.bool_and(number == F.rint(number)).alias("whole"),
    )
    names = (*label, *numeric, *others)
    return {names[row["place"]]: row.asDict() for row in by_place.collect()}


def _text_cells(names: Sequence[str]) -> Column:
    no_number = F.lit(None).cast("double")
    return F.transform(_array(names, "string"), lambda text: F.struct(text.alias("text"), no_number.alias("number")))


def _number_cells(names: Sequence[str]) -> Column:
    no_text = F.lit(None).cast("string")
    return F.transform(_array(names, "double"), lambda number: F.struct(no_text.alias("text"), number.alias("number")))


def _array(names: Sequence[str], kind: str) -> Column:
    return array_of(map(quoted_name, names)).cast(f"array<{kind}>")


def approximate_distinct(column: Column) -> Column:
    """Estimates the number of distinct values of a text column; the error can make it exceed the number of rows."""
    return F.coalesce(F.hll_sketch_estimate(F.hll_sketch_agg(column, 12)), F.lit(0))


def _columns(
    statistics: Mapping[str, Mapping[str, Any]], rows: int, specification: Specification
) -> list[dict[str, Any]]:
    roles = {
        specification.label: "label",
        **dict.fromkeys(specification.numeric, "numeric"),
        **dict.fromkeys(specification.categorical, "categorical"),
        **dict.fromkeys(specification.dropped, "dropped"),
    }
    known_afterwards = frozenset(specification.known_afterwards)
    return [
        _column(name, role, statistics.get(name), rows) | {"known_afterwards": name in known_afterwards}
        for name, role in roles.items()
    ]


def _column(name: str, role: str, statistics: Mapping[str, Any] | None, rows: int) -> dict[str, Any]:
    numeric, values = role == "numeric", statistics["values"] if statistics else 0
    return {
        "name": name,
        "role": role,
        "type": "double" if numeric else "string",
        "missing": rows - values,
        "distinct": min(statistics["distinct"], values) if statistics else 0,
        **({key: statistics[key] if statistics else None for key in ("min", "max", "mean")} if numeric else {}),
    }


def _suspicious(
    table: DataFrame,
    columns: Sequence[Mapping[str, Any]],
    label: str,
    rows: int,
    whole: Set[str],
    collected: Mapping[str, Sequence[Any]] | None,
    *,
    leaks_are_out: bool,
) -> list[dict[str, str]]:
    """Finds features that a person should check: constant ones, identifiers, and ones that nearly determine the label (target leakage).

    Args:
        table: the typed table.
        columns: what is known of its columns, see `_columns`.
        label: the label column.
        rows: the number of rows of the table.
        whole: the numeric columns that hold whole numbers alone.
        collected: by column the values of a small table; None for any other table, of which a sample is collected here.
        leaks_are_out: see `describe`.
    """
    suspicious: list[dict[str, str]] = []
    features = [column for column in columns if column["role"] in ("numeric", "categorical")]
    for column in features:
        if column["distinct"] <= 1 and not column["missing"]:
            rounded = abs(column.get("min") or 0.0) > LARGEST_EXACT
            reason = CONSTANT_REASON + (ROUNDED_REASON if rounded else "")
            suspicious.append({"column": column["name"], "kind": "constant", "reason": reason})
    varied = [column for column in features if column["distinct"] > 1]
    # Reading the sample of a wide table takes seconds, so it holds only columns whose values decide something.
    sought = [
        column["name"]
        for column in varied
        if not leaks_are_out or (column["name"] in whole and is_identifier(column["distinct"], rows))
    ]
    if collected is not None:
        labels, values = collected[label], {name: collected[name] for name in sought}
    else:
        labels, values = _sample(table, varied, sought, label, rows) if sought else ([], {})
    for column in varied:
        found = values.get(column["name"], ())
        has_other_values = is_identifier(column["distinct"], rows - column["missing"])
        identifier = _is_row_number(found) if column["role"] == "numeric" else has_other_values
        leak = not leaks_are_out and not identifier and is_leak(found, labels)
        if identifier:
            suspicious.append({"column": column["name"], "kind": "identifier", "reason": IDENTIFIER_REASON})
        elif leak:
            suspicious.append(
                {
                    "column": column["name"],
                    "kind": LEAK,
                    "reason": f"{LEAK_REASON}; is it known before the outcome?",
                }
            )
    return suspicious


def _sample(
    table: DataFrame, columns: Sequence[Mapping[str, Any]], names: Sequence[str], label: str, rows: int
) -> tuple[Sequence[str], dict[str, Sequence[Any]]]:
    """Returns the labels of a sample of rows, and by column its numbers or texts in their order."""
    numeric, texts = (
        [column["name"] for column in columns if column["role"] == role and column["name"] in names]
        for role in ("numeric", "categorical")
    )
    cells = F.concat(_array(numeric, "double").cast("array<string>"), _array(texts, "string"))
    labels, sampled = sample_by_hash(table, quoted(label), cells, len(names), rows)
    found: dict[str, Sequence[Any]] = dict(zip([*numeric, *texts], sampled, strict=True))
    return labels, found | {name: _numbers(found[name]) for name in numeric}


def is_identifier(distinct: float, present: int) -> bool:
    """Returns whether a text column has too many distinct values for a model to learn from: most rows have a value of their own."""
    return distinct > FEW_DISTINCT_VALUES and 2 * distinct > present


def _is_row_number(numbers: Sequence[float | None]) -> bool:
    """Returns whether all numbers are whole and no two are equal, as in a column of row numbers or keys."""
    all_whole = all(number is not None and number == int(number) for number in numbers)
    return all_whole and len(numbers) > 1 and len(set(numbers)) == len(numbers)


def is_leak(values: Sequence[Any], labels: Sequence[str]) -> bool:
    """Returns whether a column alone predicts nearly every label (target leakage).

    Rows are grouped by the value of a text column, or by a hundred quantiles of a numeric one, and each group predicts its most frequent
    label. The column is a leak if that corrects more than 98 % of the errors of always predicting the most frequent label of all.
    """
    common = max(Counter(labels).values(), default=0)
    if len(labels) < 20 or common == len(labels):
        return False
    correct: dict[Any, int] = defaultdict(int)
    for (group, _), rows in Counter(zip(_quantile_groups(values), labels, strict=True)).items():
        correct[group] = max(correct[group], rows)
    # With fewer than ten rows a group on average, groups would predict their few labels by chance.
    return len(correct) <= len(labels) / 10 and sum(correct.values()) - common > 0.98 * (len(labels) - common)


def _quantile_groups(values: Sequence[Any]) -> Sequence[Any]:
    """Replaces numbers by the index of their quantile, equal numbers by the same one; texts and nulls stay as they are."""
    if not any(isinstance(value, float) for value in values):
        return values
    parts = min(100, len(values) // 10)
    ordered = sorted(value for value in values if value is not None)
    first = dict(zip(reversed(ordered), range(len(ordered) - 1, -1, -1), strict=True))
    groups = {value: position * parts // len(ordered) for value, position in first.items()}
    return [groups.get(value) for value in values]

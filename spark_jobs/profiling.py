"""What is in a table: infers a specification from its values, and describes a typed table.

Knows nothing of how the table was read or of what is done with it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from spark_jobs.contract import InputError
from spark_jobs.dataset import Specification, nearest
from spark_jobs.source import (
    Source,
    is_missing_number,
    number_from,
    quoted,
    text_of,
)


def infer_specification(source: Source, label: str, max_rejected_fraction: float) -> tuple[Specification, list[str]]:
    """A specification from the values: a column is numeric if all but a rejectable share of its values are numbers.

    Returns:
        The specification without a positive value, and warnings.

    Raises:
        InputError: no such label column, or nothing is left to learn from.
    """
    if label not in source.columns:
        raise InputError(f"no label column {label!r}{nearest(label, source.columns)}")
    names = [name for name in source.columns if name != label]
    counts: list[Column] = []
    for index, name in enumerate(names):
        counts.append(F.count(text_of(source, name)).alias(f"values_{index}"))
        counts.append(F.count(number_from(text_of(source, name))).alias(f"numbers_{index}"))
        counts.append(F.count_if(is_missing_number(text_of(source, name))).alias(f"missing_{index}"))
    found = source.rows.where(F.col(source.line).isNull()).agg(*counts).first()
    assert found is not None
    numeric, categorical, dropped, warnings = [], [], [], []
    for index, name in enumerate(names):
        present = found[f"values_{index}"] - found[f"missing_{index}"]
        if not present:
            dropped.append(name)
            warnings.append(f"column {name!r} has no value in any row; it is dropped")
        elif found[f"numbers_{index}"] >= present * (1 - max_rejected_fraction):
            numeric.append(name)
        else:
            categorical.append(name)
    if not numeric + categorical:
        raise InputError(f"no column but the label {label!r} has values; check the file or give --delimiter")
    return Specification(
        label=label, numeric=tuple(numeric), categorical=tuple(categorical), dropped=tuple(dropped)
    ), warnings


SAMPLE_ROWS = 5_000
"""Rows, about, that the search for suspicious columns looks at."""


def row_hash(columns: Sequence[str], seed: int | None = None) -> Column:
    """A 64-bit hash of the row's values: equal rows have equal hashes wherever they stand."""
    start = [] if seed is None else [F.lit(seed)]
    # A null is hashed as a word of its own: xxhash64 alone skips it, so that (null, "a") would equal ("a", null).
    return F.xxhash64(*start, *[F.struct(quoted(name), quoted(name).isNull()) for name in sorted(columns)])


def describe(table: DataFrame, specification: Specification) -> dict[str, Any]:
    """Describes a typed table.

    Args:
        table: one row for each good row; the columns of the specification.

    Returns:
        `columns` (name, role, type, missing, distinct, and for numbers min, max, mean), `class_counts` (label value to rows),
        `suspicious` (column and reason) and `digest`, which is equal for equal rows in any order. `distinct` is
        a HyperLogLog estimate, 1.6 % standard error.
    """
    names = (specification.label, *specification.features, *specification.dropped)
    total = table.agg(
        F.count(F.lit(1)).alias("rows"), _digest(names).alias("digest"), *_statistics(names, specification)
    ).first()
    assert total is not None
    columns = [_column(total, index, name, specification) for index, name in enumerate(names)]
    counts = table.groupBy(quoted(specification.label).alias("label")).count().collect()
    rows = int(total["rows"])
    return {
        "columns": columns,
        "class_counts": {row["label"]: row["count"] for row in sorted(counts, key=lambda row: str(row["label"]))},
        "suspicious": _suspicious(table, columns, specification, rows),
        "digest": f"{rows}-{total['digest']}",
    }


def _digest(names: Sequence[str]) -> Column:
    return F.sum(row_hash(names).cast("decimal(38,0)"))


def _statistics(names: Sequence[str], specification: Specification) -> list[Column]:
    found: list[Column] = []
    for index, name in enumerate(names):
        column = quoted(name)
        found += [
            F.count(column).alias(f"values_{index}"),
            _distinct(column).alias(f"distinct_{index}"),
        ]
        if name in specification.numeric:
            found += [how(column).alias(f"{how.__name__}_{index}") for how in (F.min, F.max, F.mean)]
    return found


def _distinct(column: Column) -> Column:
    # One small sketch a column; approx_count_distinct spreads its registers over hundreds of columns of the aggregation.
    return F.coalesce(F.hll_sketch_estimate(F.hll_sketch_agg(column.cast("string"), 12)), F.lit(0))


def _column(total: Row, index: int, name: str, specification: Specification) -> dict[str, Any]:
    numeric = name in specification.numeric
    role = "label" if name == specification.label else "numeric" if numeric else "categorical"
    return {
        "name": name,
        "role": "dropped" if name in specification.dropped else role,
        "type": "double" if numeric else "string",
        "missing": total["rows"] - total[f"values_{index}"],
        "distinct": total[f"distinct_{index}"],
        **({key: total[f"{key}_{index}"] for key in ("min", "max", "mean")} if numeric else {}),
        "known_afterwards": name in specification.known_afterwards,
    }


def _suspicious(
    table: DataFrame, columns: Sequence[Mapping[str, Any]], specification: Specification, rows: int
) -> list[dict[str, str]]:
    """Columns that a person should look at: constant, unique in each row, nearly the label itself."""
    found: list[dict[str, str]] = []
    features = [column for column in columns if column["name"] in specification.features]
    for column in features:
        if column["distinct"] <= 1 and not column["missing"]:
            found.append({"column": column["name"], "reason": "has one value in all rows"})
    names = [column["name"] for column in features if column["distinct"] > 1]
    every = max(1, rows // SAMPLE_ROWS)
    sampled = table.where(F.pmod(row_hash(specification.features), F.lit(every)) == 0)
    sample = sampled.select(quoted(specification.label), *map(quoted, names)).limit(4 * SAMPLE_ROWS).collect()
    labels = [row[0] for row in sample]
    for index, name in enumerate(names):
        values = [row[index + 1] for row in sample]
        whole = all(value is not None and (isinstance(value, str) or value == int(value)) for value in values)
        if whole and len(values) > 1 and len(set(values)) == len(values):
            found.append({"column": name, "reason": "has another value in each row, like an identifier"})
        elif determines(values, labels):
            found.append({"column": name, "reason": "all but tells the label; is it known before the outcome?"})
    return found


def determines(values: Sequence[Any], labels: Sequence[str]) -> bool:
    """Whether a column alone tells nearly every label.

    Text is judged by its values, numbers by a hundred equal parts of their order. The labels told by the commonest one of each group
    must be above 0.98 of what the commonest of all leaves open.
    """
    common = max(Counter(labels).values(), default=0)
    if len(labels) < 20 or common == len(labels):
        return False
    groups: dict[Any, Counter[str]] = defaultdict(Counter)
    for value, label in zip(_grouped(values), labels, strict=True):
        groups[value][label] += 1
    told = sum(max(group.values()) for group in groups.values())
    return len(groups) <= len(labels) / 10 and told - common > 0.98 * (len(labels) - common)


def _grouped(values: Sequence[Any]) -> list[Any]:
    if not any(isinstance(value, float) for value in values):
        return list(values)
    parts = min(100, len(values) // 10)
    ordered = sorted(value for value in values if value is not None)
    first = {value: position for position, value in reversed(list(enumerate(ordered)))}
    return [None if value is None else first[value] * parts // len(ordered) for value in values]

"""The step load: converts a CSV or Parquet table to typed Parquet and writes bad rows apart, each with the reason.

    spark-submit spark_jobs/__main__.py load --data-uri=data/bank_sample.csv --specification-uri=data/bank.toml --output-uri=out/load

A CSV is read as text and typed here, because Spark's own conversion would turn a bad cell into a silent null. Without a specification, load
infers one from the values. It also writes a profile of the table; feature engineering is the work of preprocess.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.dataset import (
    MAX_CLASSES,
    Specification,
    did_you_mean,
    guess_positive_value,
    names_equal_ignoring_case,
    read_specification,
)
from spark_jobs.dialect import Dialect
from spark_jobs.errors import InputError
from spark_jobs.result import Result
from spark_jobs.table.inference import InferredSpecification, infer_specification
from spark_jobs.table.profiling import describe
from spark_jobs.table.source import Source, check_not_nested, open_source, quoted_name
from spark_jobs.table.typed_cells import (
    CellArrays,
    count_reasons,
    missing_label_reason,
    rejected_rows,
    row_hash,
    type_rows,
)

MIN_CLASS_ROWS = 3
"""Minimum number of rows of a class: one each for the train, validation and test rows."""
OTHER_CLASS = "other"
"""The class into which small classes are merged."""


@dataclass(frozen=True)
class RowCounts:
    """How many rows load read and rejected.

    Attributes:
        read: rows of the input table.
        rejected: rows that load rejected for any reason.
        of_small_classes: rejected rows that are bad only because their class is small; `--max-rejected-fraction` does not count them.
        reasons: the reasons with their number of rows, most frequent first.
    """

    read: int
    rejected: int
    of_small_classes: int
    reasons: Sequence[tuple[str, int]]


def write_rows(cells: CellArrays, typed: DataFrame, uri: str) -> tuple[int, int, str]:
    """Writes the good rows to `rows/`, and counts all rows in the same pass.

    Args:
        cells: the names of the columns of `typed`.
        typed: the rows, as `type_rows` returns them.
        uri: the output folder of load.

    Returns:
        The number of rows read, the number of rows rejected, and a digest of the good rows that does not depend on their order.
    """
    observation, reason = Observation(), F.col(cells.reason)
    counts = F.count(F.lit(1)).alias("read"), F.count(reason).alias("rejected")
    digest = F.sum(F.when(reason.isNull(), row_hash(cells).cast("decimal(38,0)"))).alias("digest")
    observed = typed.observe(observation, *counts, digest)
    columns = [*cells.column_expressions(), *map(quoted_name, cells.source.position)]
    storage.write_table(observed.where(reason.isNull()).selectExpr(*columns), storage.join(uri, "rows"))
    read, rejected = int(observation.get["read"]), int(observation.get["rejected"])
    return read, rejected, f"{read - rejected}-{observation.get['digest']}"


def write_rejected(cells: CellArrays, typed: DataFrame, uri: str) -> list[tuple[str, int]]:
    """Writes the rejected rows with the columns file, line (the text of the row) and reason.

    Args:
        cells: the names of the columns of `typed`.
        typed: the rows, as `type_rows` returns them.
        uri: the folder to write.

    Returns:
        The reasons with their number of rows, most frequent first.
    """
    source = cells.source
    rejected = rejected_rows(cells, typed, source.columns, [F.col(source.position[0]).alias("file")])
    storage.write_table(rejected, uri)
    return count_reasons(rejected)


def _rejection_advice(unlabelled: int, rejected: int, share: float) -> str:
    """Returns what the user can do about rejected rows; rows without a label are often in the table to be scored later.

    Args:
        unlabelled: rejected rows without a label.
        rejected: all rejected rows.
        share: the share of rejected rows, 0 to 1.
    """
    mend = "mend the data or the specification"
    if share == 1:
        return mend
    if not unlabelled:
        return f"{mend}, or raise {flag('max_rejected_fraction')}"
    others = ", and mend the others" if unlabelled < rejected else ""
    return (
        f"leave out the {unlabelled:,} rows without a label, which no model learns from{others}, or accept that with "
        f"{flag('max_rejected_fraction')}={math.ceil(share * 100) / 100:g}"
    )


def _check_class_sizes(label: str, class_counts: Mapping[str, int]) -> None:
    """Refuses classes with too few rows for the train, validation and test rows."""
    few = [
        f"{value!r} ({class_counts[value]})" for value in sorted(class_counts) if class_counts[value] < MIN_CLASS_ROWS
    ]
    if few:
        raise InputError(
            f"classes of label {label!r} with too few rows, as train, validation and test rows need one each: {', '.join(few)}; give "
            f"--min-class-rows=N: classes of fewer than N rows become one class, {OTHER_CLASS!r}, or with --small-classes=drop are left out"
        )


def _check_class_names(label: str, class_counts: Mapping[str, int]) -> None:
    """Refuses classes whose names differ only in case or spaces, as they probably mean the same."""
    alike = defaultdict(list)
    for value in sorted(class_counts):
        alike[" ".join(value.casefold().split())].append(f"{value!r} ({class_counts[value]:,} rows)")
    for values in alike.values():
        if len(values) > 1:
            raise InputError(
                f"label {label!r} has values that differ in case or spaces only: {', '.join(values)}; write them alike"
            )


def check_label(specification: Specification, class_counts: dict[str, int]) -> tuple[Specification, list[str]]:
    """Checks the classes of the label and decides which one is positive.

    Args:
        specification: the specification, perhaps without a positive value.
        class_counts: rows by label value.

    Returns:
        The specification with its positive value, if there are two classes; and warnings.

    Raises:
        InputError: there is one class or there are too many, two differ only in case or spaces, one has too few rows for the train,
            validation and test rows, or the positive value of the specification is not a class.
    """
    label, classes = specification.label, sorted(class_counts)
    _check_class_names(label, class_counts)
    if len(classes) < 2:
        raise InputError(f"label {label!r} has one class, {classes[0]!r}; a classifier needs rows of at least two")
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"label {label!r} has {len(classes)} values, at most {MAX_CLASSES} are classes; name another label column"
        )
    _check_class_sizes(label, class_counts)
    if len(classes) > 2:
        if specification.positive or specification.base_rate is not None:
            raise InputError(
                f"label {label!r} has {len(classes)} classes; positive and base_rate are for two: leave them out"
            )
        return specification, []
    if not specification.positive:
        chosen = guess_positive_value(class_counts)
        return replace(specification, positive=chosen), [
            f"{chosen!r} is taken as the positive value of {label!r}; --positive changes it"
        ]
    if specification.positive not in classes:
        raise InputError(
            f"label {label!r} has no value {specification.positive!r}{did_you_mean(specification.positive, classes)}"
        )
    return specification, []


def merge_or_reject_small_classes(
    cells: CellArrays, typed: DataFrame, args: LoadArgs
) -> tuple[DataFrame, int, list[str]]:
    """Merges or rejects the classes of fewer than `--min-class-rows` rows.

    Args:
        cells: the names of the columns of `typed`.
        typed: the rows, as `type_rows` returns them.
        args: the arguments of load.

    Returns:
        The rows, the number of rows rejected only because their class is small, and warnings.
    """
    if args.min_class_rows == 1:
        return typed, 0, []
    label, value, reason = cells.specification.label, F.col(cells.label), F.col(cells.reason)
    classes = typed.where(reason.isNull()).groupBy(value.alias("value")).count().collect()
    small = {row["value"]: row["count"] for row in classes if row["count"] < args.min_class_rows}
    if not small:
        return typed, 0, []
    rows = sum(small.values())
    listed = ", ".join(f"{value!r} ({small[value]:,})" for value in sorted(small)[:10])
    description = f"{len(small):,} classes of {label!r} with fewer than --min-class-rows={args.min_class_rows} rows, {rows:,} rows in all"
    is_small = value.isin(*small)
    if args.small_classes == "merge":
        merged = F.when(is_small, F.lit(OTHER_CLASS)).otherwise(value)
        return typed.withColumn(cells.label, merged), 0, [f"{description}, are one class, {OTHER_CLASS!r}: {listed}"]
    left_out = F.when(is_small, F.lit(f"its class has fewer than {args.min_class_rows} rows"))
    typed = typed.withColumn(cells.reason, F.coalesce(reason, left_out))
    return typed, rows, [f"{description}, are left out: {listed}"]


def find_specification(source: Source, args: LoadArgs) -> tuple[Specification, list[str], InferredSpecification | None]:
    """Reads and checks the given specification, or infers one from the values.

    Returns:
        The specification, warnings, and what was inferred, if no specification is given.

    Raises:
        InputError: the table lacks the label or a feature, one of them is nested, or no column is left as a feature.
    """
    warnings: list[str] = []
    inferred = None
    if not args.specification_uri:
        if not args.label:
            raise InputError(
                f"give --specification-uri, or {flag('label')} with one of the columns: {', '.join(source.columns)}"
            )
        check_not_nested(source, [args.label], args.data_uri)
        inferred = infer_specification(source, args.label, args.max_rejected_fraction)
        specification, warnings = inferred.specification, inferred.warnings
    else:
        specification = read_given_specification(args)
        checked = specification.check(source.columns, args.data_uri)
        ignored = [name for name in checked.dropped if name not in specification.dropped]
        warnings = [f"column {name!r} is not in the specification; it is no feature" for name in ignored]
        specification = checked
    check_not_nested(source, (specification.label, *specification.features), args.data_uri)
    return replace(specification, positive=args.positive or specification.positive), warnings, inferred


def read_given_specification(args: LoadArgs) -> Specification:
    """Reads the specification that the arguments name; `--label` replaces its label."""
    specification = read_specification(storage.read_text(args.specification_uri), args.specification_uri)
    return replace(specification, label=args.label) if args.label else specification


def check_rejected(counts: RowCounts, label: str, args: LoadArgs) -> None:
    """Refuses a table of which load has no good rows, or rejected too many.

    Raises:
        InputError: there are no rows, none is good, or more than `--max-rejected-fraction` of them are rejected.
    """
    read, rejected, reasons = counts.read, counts.rejected, counts.reasons
    if not read:
        raise InputError(f"{args.data_uri} has a header but no rows")
    counted = rejected - counts.of_small_classes
    if counted > read * args.max_rejected_fraction:
        examples = "; ".join(f"{reason} ({count:,} rows)" for reason, count in reasons[:3])
        unlabelled = dict(reasons).get(missing_label_reason(label), 0)
        raise InputError(
            f"{args.data_uri}: {rejected:,} of {read:,} rows rejected, more than {args.max_rejected_fraction:.2%}: {examples}; "
            + _rejection_advice(unlabelled, rejected, counted / read)
        )
    if read == rejected:
        raise InputError(f"{args.data_uri}: all {read:,} rows were rejected: {reasons[0][0]}")


def run(session: SparkSession, args: LoadArgs) -> Result:
    """Carries out the step; see `LoadArgs`."""
    label = read_given_specification(args).label if args.specification_uri else args.label
    source = open_source(session, args, label)
    specification, warnings, inferred = find_specification(source, args)
    warnings += [
        f"columns {first!r} and {second!r} differ in case only; set spark.sql.caseSensitive=true where you use the saved model"
        for first, second in names_equal_ignoring_case(source.columns)
    ]
    cells = CellArrays(source, specification)
    typed, of_small_classes, class_warnings = merge_or_reject_small_classes(cells, type_rows(cells), args)
    read, rejected, digest = write_rows(cells, typed, args.output_uri)
    reasons = write_rejected(cells, typed, storage.join(args.output_uri, "rejected")) if rejected else []
    counts = RowCounts(read, rejected, of_small_classes, reasons)
    check_rejected(counts, specification.label, args)
    table = storage.read_table(session, storage.join(args.output_uri, "rows"))
    # A class that is merged or left out may turn a column that is no leak into one.
    leaks_are_out = inferred is not None and args.min_class_rows == 1
    known_cells = inferred.cells if inferred and leaks_are_out and not rejected else None
    profile = describe(
        table, specification, read - rejected, source.nested, leaks_are_out=leaks_are_out, cells=known_cells
    )
    empty = [column["name"] for column in profile["columns"] if column["missing"] == read - rejected]
    if any(name in specification.features for name in empty):
        raise InputError(f"{args.data_uri}: column {empty[0]!r} has no value in any row; list it under columns.dropped")
    specification, label_warnings = check_label(specification, profile["class_counts"])
    warnings += class_warnings + label_warnings
    document = _profile_document({**profile, "digest": digest}, counts, source.dialect)
    storage.write_text(
        storage.join(args.output_uri, "specification.toml"), specification.to_toml(inferred.reasons if inferred else {})
    )
    storage.write_text(
        storage.join(args.output_uri, "profile.json"), json.dumps(document, indent=2, ensure_ascii=False)
    )
    if rejected:
        warnings.append(
            f"{rejected:,} of {read:,} rows were rejected, see rejected/: {reasons[0][0]} ({reasons[0][1]:,})"
        )
    return Result(
        step=Step.LOAD,
        status="succeeded",
        rows_in=read,
        rows_out={"rows": read - rejected, "rejected": rejected},
        columns=tuple(
            (field.name, field.dataType.simpleString()) for field in table.schema if field.name not in source.position
        ),
        digest=digest,
        uris={"rows": storage.join(args.output_uri, "rows")},
        warnings=tuple(warnings),
        facts={
            "label": specification.label,
            "positive": specification.positive,
            "suspicious": profile["suspicious"],
            "prefix": source.prefix,
        },
    )


def _profile_document(profile: dict[str, Any], counts: RowCounts, dialect: Dialect | None) -> dict[str, Any]:
    return {
        "rows": counts.read - counts.rejected,
        "rejected": counts.rejected,
        "rejected_reasons": [list(item) for item in counts.reasons],
        "delimiter": dialect.delimiter if dialect else "",
        "encoding": dialect.encoding if dialect else "",
        **profile,
    }

"""Load: a CSV or Parquet table becomes typed Parquet; rows that do not parse are kept apart, with the reason.

    spark-submit spark_jobs/__main__.py load --data-uri=data/bank_sample.csv --specification-uri=data/bank.toml --output-uri=out/load

Reads the rows as text and types them itself, so that a bad cell is a rejected row with a reason and never a silent null.
Knows nothing of features.
"""

from __future__ import annotations

import json
import logging
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.dataset import (
    MAX_CLASSES,
    Specification,
    equal_but_for_case,
    nearest,
    positive_value,
    read_specification,
)
from spark_jobs.dialect import Dialect
from spark_jobs.errors import InputError
from spark_jobs.result import Result
from spark_jobs.table.inference import infer_specification
from spark_jobs.table.profiling import describe
from spark_jobs.table.source import Source, escaped, open_source
from spark_jobs.table.typed_cells import Cells, no_label, row_hash, type_rows

log = logging.getLogger(__name__)

LEAST_CLASS_ROWS = 3
"""With fewer rows a class cannot be in train, validation and test rows."""
OTHER_CLASS = "other"
"""The class that small classes become."""


def write_rows(cells: Cells, typed: DataFrame, uri: str) -> tuple[int, int, str]:
    """Writes the good rows to `rows/`.

    Returns:
        Rows read, rows rejected, and a digest of the good ones, which is equal for equal rows in any order.
    """
    observation, reason = Observation(), F.col(cells.reason)
    counts = F.count(F.lit(1)).alias("read"), F.count(reason).alias("rejected")
    digest = F.sum(F.when(reason.isNull(), row_hash(cells).cast("decimal(38,0)"))).alias("digest")
    counted = typed.observe(observation, *counts, digest)
    columns = [*cells.spread(), *map(escaped, cells.source.position)]
    storage.write_table(counted.where(reason.isNull()).selectExpr(*columns), storage.join(uri, "rows"))
    read, rejected = int(observation.get["read"]), int(observation.get["rejected"])
    return read, rejected, f"{read - rejected}-{observation.get['digest']}"


def write_rejected(cells: Cells, typed: DataFrame, uri: str) -> list[tuple[str, int]]:
    """Writes the rejected rows to `rejected/`: their file, their text and the reason.

    Returns:
        Reasons and how often each was met, commonest first.
    """
    source, reason = cells.source, F.col(cells.reason)
    texts = [
        F.get(cells.texts, F.lit(cells.places[name])).alias(f"_{place}") for place, name in enumerate(source.columns)
    ]
    line = F.coalesce(F.col(source.line), F.to_csv(F.struct(*texts)))
    columns = (F.col(source.position[0]).alias("file"), line.alias("line"), reason.alias("reason"))
    rejected = typed.where(reason.isNotNull()).select(*columns)
    storage.write_table(rejected, uri)
    counts = rejected.groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
    return [(row["reason"], row["count"]) for row in counts]


def _advice(unlabelled: int, rejected: int, share: float) -> str:
    """What to do when a share of the rows, 0 to 1, is rejected and some of them have no label: they are often there to be scored later."""
    if not unlabelled or share == 1:
        return "mend the data or the specification, or raise --max-rejected-fraction"
    others = ", and mend the others" if unlabelled < rejected else ""
    return (
        f"leave out the {unlabelled:,} rows without a label, which no model learns from{others}, or accept that with "
        f"{flag('max_rejected_fraction')}={math.ceil(share * 100) / 100:g}"
    )


def _check_rows(label: str, class_counts: Mapping[str, int]) -> None:
    """Refuses classes with too few rows for three sets."""
    few = [
        f"{value!r} ({class_counts[value]})" for value in sorted(class_counts) if class_counts[value] < LEAST_CLASS_ROWS
    ]
    if few:
        raise InputError(
            f"classes of label {label!r} with too few rows, as train, validation and test rows need one each: {', '.join(few)}; give "
            f"--min-class-rows=N: classes of fewer than N rows become one class, {OTHER_CLASS!r}, or with --small-classes=drop are left out"
        )


def check_label(specification: Specification, class_counts: dict[str, int]) -> tuple[Specification, list[str]]:
    """Checks the classes and settles which is positive.

    Raises:
        InputError: one class, too many classes, two that differ in case or spaces only, one with too few rows for three sets, or the
            positive value is not among them.
    """
    label, classes = specification.label, sorted(class_counts)
    alike = defaultdict(list)
    for value in classes:
        alike[" ".join(value.casefold().split())].append(f"{value!r} ({class_counts[value]:,} rows)")
    for values in alike.values():
        if len(values) > 1:
            raise InputError(
                f"label {label!r} has values that differ in case or spaces only: {', '.join(values)}; write them alike"
            )
    if len(classes) < 2:
        raise InputError(f"label {label!r} has one class, {classes[0]!r}; a classifier needs rows of at least two")
    if len(classes) > MAX_CLASSES:
        raise InputError(
            f"label {label!r} has {len(classes)} values, at most {MAX_CLASSES} are classes; name another label column"
        )
    _check_rows(label, class_counts)
    if len(classes) > 2:
        if specification.positive or specification.base_rate is not None:
            raise InputError(
                f"label {label!r} has {len(classes)} classes; positive and base_rate are for two: leave them out"
            )
        return specification, []
    if not specification.positive:
        chosen = positive_value(class_counts)
        return replace(specification, positive=chosen), [
            f"{chosen!r} is taken as the positive value of {label!r}; --positive changes it"
        ]
    if specification.positive not in classes:
        raise InputError(
            f"label {label!r} has no value {specification.positive!r}{nearest(specification.positive, classes)}"
        )
    return specification, []


def treat_small_classes(cells: Cells, typed: DataFrame, args: LoadArgs) -> tuple[DataFrame, int, list[str]]:
    """Merges or rejects the classes of fewer than `--min-class-rows` rows.

    Args:
        cells: where the cells of a row stand.
        typed: as `type_rows` gives it.
        args: the settings.

    Returns:
        The rows, how many are rejected only because their class is small, and warnings.
    """
    if args.min_class_rows == 1:
        return typed, 0, []
    label, value, reason = cells.specification.label, F.col(cells.label), F.col(cells.reason)
    counted = typed.where(reason.isNull()).groupBy(value.alias("value")).count().collect()
    small = {row["value"]: row["count"] for row in counted if row["count"] < args.min_class_rows}
    if not small:
        return typed, 0, []
    rows = sum(small.values())
    listed = ", ".join(f"{value!r} ({small[value]:,})" for value in sorted(small)[:10])
    told = f"{len(small):,} classes of {label!r} with fewer than --min-class-rows={args.min_class_rows} rows, {rows:,} rows in all"
    is_small = value.isin(*small)
    if args.small_classes == "merge":
        merged = F.when(is_small, F.lit(OTHER_CLASS)).otherwise(value)
        return typed.withColumn(cells.label, merged), 0, [f"{told}, are one class, {OTHER_CLASS!r}: {listed}"]
    left_out = F.when(is_small, F.lit(f"its class has fewer than {args.min_class_rows} rows"))
    typed = typed.withColumn(cells.reason, F.coalesce(reason, left_out))
    return typed, rows, [f"{told}, are left out: {listed}"]


def prepare(source: Source, args: LoadArgs) -> tuple[Specification, list[str], Mapping[str, str]]:
    """The specification that was given, or one inferred from the values; warnings; and why an inferred one drops columns.

    Raises:
        InputError: the label or a feature is not there or is nested, or nothing is left to learn from.
    """
    warnings: list[str] = []
    reasons: Mapping[str, str] = {}
    if not args.specification_uri:
        if not args.label:
            raise InputError(
                f"give --specification-uri, or {flag('label')} with one of the columns: {', '.join(source.columns)}"
            )
        check_flat(source, [args.label], args.data_uri)
        inferred = infer_specification(source, args.label, args.max_rejected_fraction)
        specification, reasons, warnings = inferred.specification, inferred.reasons, inferred.warnings
    else:
        specification = given_specification(args)
        checked = specification.check(source.columns, args.data_uri)
        ignored = [name for name in checked.dropped if name not in specification.dropped]
        warnings = [f"column {name!r} is not in the specification; it is no feature" for name in ignored]
        specification = checked
    check_flat(source, (specification.label, *specification.features), args.data_uri)
    return replace(specification, positive=args.positive or specification.positive), warnings, reasons


def check_flat(source: Source, names: Iterable[str], where: str) -> None:
    """Refuses nested columns.

    Raises:
        InputError: one of the names is a nested column.
    """
    for name in names:
        if name in source.nested:
            raise InputError(
                f"{where}: column {name!r} is nested ({source.nested[name][:60]}); give its fields columns of their own, or drop it"
            )


def given_specification(args: LoadArgs) -> Specification:
    """The specification of the arguments, whose label `--label` replaces."""
    specification = read_specification(storage.read_text(args.specification_uri), args.specification_uri)
    return replace(specification, label=args.label) if args.label else specification


def run(session: SparkSession, args: LoadArgs) -> Result:
    """Loads the table; see `LoadArgs`."""
    label = given_specification(args).label if args.specification_uri else args.label
    source = open_source(session, args, label)
    specification, warnings, dropped = prepare(source, args)
    warnings += [
        f"columns {first!r} and {second!r} differ in case only; set spark.sql.caseSensitive=true where you use the saved model"
        for first, second in equal_but_for_case(source.columns)
    ]
    cells = Cells(source, specification)
    typed, left_out, more = treat_small_classes(cells, type_rows(cells), args)
    read, rejected, digest = write_rows(cells, typed, args.output_uri)
    reasons = write_rejected(cells, typed, storage.join(args.output_uri, "rejected")) if rejected else []
    if not read:
        raise InputError(f"{args.data_uri} has a header but no rows")
    if rejected - left_out > read * args.max_rejected_fraction:
        common = "; ".join(f"{reason} ({count:,} rows)" for reason, count in reasons[:3])
        unlabelled = dict(reasons).get(no_label(specification.label), 0)
        raise InputError(
            f"{args.data_uri}: {rejected:,} of {read:,} rows rejected, more than {args.max_rejected_fraction:.2%}: {common}; "
            + _advice(unlabelled, rejected, (rejected - left_out) / read)
        )
    table = storage.read_table(session, storage.join(args.output_uri, "rows"))
    if read == rejected:
        raise InputError(f"{args.data_uri}: all {read:,} rows were rejected: {reasons[0][0]}")
    profile = describe(table, specification, read - rejected)
    empty = [column["name"] for column in profile["columns"] if column["missing"] == read - rejected]
    if any(name in specification.features for name in empty):
        raise InputError(f"{args.data_uri}: column {empty[0]!r} has no value in any row; list it under columns.dropped")
    specification, chosen = check_label(specification, profile["class_counts"])
    more += chosen
    document = _profile_document({**profile, "digest": digest}, read - rejected, reasons, source.dialect)
    storage.write_text(storage.join(args.output_uri, "specification.toml"), specification.to_toml(dropped))
    storage.write_text(
        storage.join(args.output_uri, "profile.json"), json.dumps(document, indent=2, ensure_ascii=False)
    )
    if rejected:
        more.append(f"{rejected:,} of {read:,} rows were rejected, see rejected/: {reasons[0][0]} ({reasons[0][1]:,})")
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
        warnings=tuple(warnings + more),
        facts={
            "label": specification.label,
            "positive": specification.positive,
            "suspicious": profile["suspicious"],
            "prefix": source.prefix,
        },
    )


def _profile_document(
    profile: dict[str, Any], rows: int, reasons: Sequence[tuple[str, int]], dialect: Dialect | None
) -> dict[str, Any]:
    return {
        "rows": rows,
        "rejected": sum(count for _, count in reasons),
        "rejected_reasons": [list(item) for item in reasons],
        "delimiter": dialect.delimiter if dialect else "",
        "encoding": dialect.encoding if dialect else "",
        **profile,
    }

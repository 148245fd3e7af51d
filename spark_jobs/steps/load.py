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

from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.cells import LARGEST, MISSING_LABELS
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.dataset import (
    MAX_CLASSES,
    Dialect,
    Specification,
    equal_but_for_case,
    nearest,
    positive_value,
    read_specification,
)
from spark_jobs.errors import InputError
from spark_jobs.result import Result
from spark_jobs.table.inference import infer_specification
from spark_jobs.table.profiling import describe
from spark_jobs.table.source import (
    Source,
    is_missing_number,
    number_from,
    open_source,
    quoted,
    text_of,
)

log = logging.getLogger(__name__)

LEAST_CLASS_ROWS = 3
"""With fewer rows a class cannot be in train, validation and test rows."""
OTHER_CLASS = "other"
"""The class that small classes become."""


def type_rows(source: Source, specification: Specification) -> DataFrame:
    """Gives each column the type of its role.

    Three selects rather than one: Spark computes each value once, and Java compiles the code of a select only if it is not too long.

    Returns:
        One row for each row of the source: numeric columns as double, the others as string. Behind the source's prefix: the columns
        of `POSITION`, the line's text, `reason` (null for a good row, else why it is rejected) and the cells' texts (`text_` and a number).
    """
    texts = dict(zip(source.columns, _texts(source), strict=True))
    own = (*source.position, source.line)
    cells = source.rows.select(*[text_of(source, name).alias(text) for name, text in texts.items()], *own)
    typed = [_typed(name, F.col(text), specification).alias(name) for name, text in texts.items()]
    reasons = [
        F.when(F.col(source.line).isNotNull(), F.lit(f"row does not have {len(source.columns)} columns")),
        F.when(quoted(specification.label).isNull(), F.lit(_no_label(specification.label))),
    ]
    for name in specification.numeric:
        reasons += _number_reasons(name, F.col(texts[name]), specification)
    if source.dialect and source.dialect.encoding.upper() in ("UTF-8", "UTF8"):
        broken = F.contains(F.concat_ws("", *texts.values()), F.lit("\ufffd"))
        reasons.append(F.when(broken, F.lit("not UTF-8; give --encoding, perhaps ISO-8859-1")))
    return cells.select(*typed, *texts.values(), *own).withColumn(_reason(source), F.coalesce(*reasons))


def _typed(name: str, text: Column, specification: Specification) -> Column:
    if name == specification.label:
        return F.when(~F.lower(text).isin(*MISSING_LABELS), text)
    return number_from(text) if name in specification.numeric else text


def _number_reasons(name: str, text: Column, specification: Specification) -> list[Column]:
    number = quoted(name)
    word = number.isNull() & text.isNotNull() & ~is_missing_number(text)
    reasons = [
        F.when(word, F.lit(f"column {name!r} is not a number")),
        F.when(F.abs(number) > LARGEST, F.lit(f"column {name!r} is infinite or beyond {LARGEST:g}")),
    ]
    if name in specification.limits:
        low, high = specification.limits[name]
        outside = (number < low) | (number > high)
        reasons.append(F.when(outside, F.lit(f"column {name!r} is outside {low:g} to {high:g}")))
    return reasons


def write_rows(source: Source, typed: DataFrame, uri: str) -> tuple[int, int]:
    """Writes the good rows to `rows/`.

    Returns:
        Rows read and rows rejected.
    """
    observation, reason = Observation(), _reason(source)
    counted = typed.observe(observation, F.count(F.lit(1)).alias("read"), F.count(reason).alias("rejected"))
    columns = map(quoted, (*source.columns, *source.position))
    storage.write_table(counted.where(F.col(reason).isNull()).select(*columns), storage.join(uri, "rows"))
    return int(observation.get["read"]), int(observation.get["rejected"])


def write_rejected(source: Source, typed: DataFrame, uri: str) -> list[tuple[str, int]]:
    """Writes the rejected rows to `rejected/`: their file, their text and the reason.

    Returns:
        Reasons and how often each was met, commonest first.
    """
    line = F.coalesce(F.col(source.line), F.to_csv(F.struct(*_texts(source))))
    columns = (F.col(source.position[0]).alias("file"), line.alias("line"), F.col(_reason(source)).alias("reason"))
    rejected = typed.where(F.col(_reason(source)).isNotNull()).select(*columns)
    storage.write_table(rejected, uri)
    counts = rejected.groupBy("reason").count().orderBy(F.desc("count"), "reason").collect()
    return [(row["reason"], row["count"]) for row in counts]


def _reason(source: Source) -> str:
    return f"{source.prefix}reason"


def _texts(source: Source) -> list[str]:
    return [f"{source.prefix}text_{place}" for place in range(len(source.columns))]


def _no_label(label: str) -> str:
    """Why a row without a label is rejected."""
    return f"label {label!r} is missing"


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


def treat_small_classes(
    source: Source, typed: DataFrame, label: str, args: LoadArgs
) -> tuple[DataFrame, int, list[str]]:
    """Merges or rejects the classes of fewer than `--min-class-rows` rows.

    Args:
        source: the table.
        typed: as `type_rows` gives it.
        label: the label column.
        args: the settings.

    Returns:
        The rows, how many are rejected only because their class is small, and warnings.
    """
    if args.min_class_rows == 1:
        return typed, 0, []
    counted = typed.where(F.col(_reason(source)).isNull()).groupBy(quoted(label).alias("value")).count().collect()
    small = {row["value"]: row["count"] for row in counted if row["count"] < args.min_class_rows}
    if not small:
        return typed, 0, []
    rows = sum(small.values())
    listed = ", ".join(f"{value!r} ({small[value]:,})" for value in sorted(small)[:10])
    told = f"{len(small):,} classes of {label!r} with fewer than --min-class-rows={args.min_class_rows} rows, {rows:,} rows in all"
    is_small = quoted(label).isin(*small)
    if args.small_classes == "merge":
        value = F.when(is_small, F.lit(OTHER_CLASS)).otherwise(quoted(label))
        columns = [value.alias(name) if name == label else quoted(name) for name in typed.columns]
        return typed.select(*columns), 0, [f"{told}, are one class, {OTHER_CLASS!r}: {listed}"]
    reason = F.lit(f"its class has fewer than {args.min_class_rows} rows")
    return (
        typed.withColumn(_reason(source), F.coalesce(F.col(_reason(source)), F.when(is_small, reason))),
        rows,
        [f"{told}, are left out: {listed}"],
    )


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
    typed, left_out, more = treat_small_classes(source, type_rows(source, specification), specification.label, args)
    read, rejected = write_rows(source, typed, args.output_uri)
    reasons = write_rejected(source, typed, storage.join(args.output_uri, "rejected")) if rejected else []
    if not read:
        raise InputError(f"{args.data_uri} has a header but no rows")
    if rejected - left_out > read * args.max_rejected_fraction:
        common = "; ".join(f"{reason} ({count:,} rows)" for reason, count in reasons[:3])
        unlabelled = dict(reasons).get(_no_label(specification.label), 0)
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
    document = _profile_document(profile, read - rejected, reasons, source.dialect)
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
        digest=profile["digest"],
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

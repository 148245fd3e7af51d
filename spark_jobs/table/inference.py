"""Infers a data specification from the values of a table: which columns are numeric or categorical features, and which are dropped.

A column is dropped if a model cannot learn from it (identifiers, free text, dates, no values) or if it leaks the label. Each dropped column
gets a warning with the reason, and the specification that load writes says how to use the column all the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import functions as F

from spark_jobs.cells import MISSING_NUMBERS, is_number, to_number
from spark_jobs.dataset import Specification, did_you_mean, quoted
from spark_jobs.errors import InputError
from spark_jobs.table.number_hints import (
    count_hints,
    hint_aggregates,
    is_formatted_number,
    is_formatted_text,
    number_hints,
)
from spark_jobs.table.profiling import (
    IDENTIFIER_REASON,
    LEAK_REASON,
    approximate_distinct,
    is_identifier,
    is_leak,
    melt,
)
from spark_jobs.table.sampling import collect_cells, sample_by_hash
from spark_jobs.table.source import Source, is_missing_number, raw_text, raw_texts, to_double, trimmed

_DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
_DATE += r"|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?"
DATES = rf"^(({_DATE})([T ]+{_TIME})?|{_TIME})( ?(Z|UTC|[+-]\d{{2}}:?\d{{2}}))?$"
"""Pattern of a date, a time of day, or both, as a regular expression of Java."""
_DATES = re.compile(DATES, re.ASCII)  # in Java, too, \d is an ASCII digit
_DIGIT = re.compile("[0-9]")
NO_VALUE = "has no value in any row"
NESTED, NESTED_ADVICE = "is nested", "give its fields columns of their own"


@dataclass(frozen=True)
class InferredSpecification:
    """An inferred specification and what the user should know about it.

    Attributes:
        specification: the specification; its positive value is not set.
        reasons: by dropped column, why it is not a feature.
        hints: warnings about columns with numbers that load cannot read; see `number_hints`.
        cells: by column the trimmed texts of all rows, for a small table, so that no other pass needs to read them again; else None.
    """

    specification: Specification
    reasons: Mapping[str, str]
    hints: Sequence[str]
    cells: Mapping[str, Sequence[str | None]] | None

    @property
    def warnings(self) -> list[str]:
        dropped = []
        for name, reason in self.reasons.items():
            use = "name it in a specification (`spark-kfp data check` writes one)"
            if reason.startswith(NESTED):
                use = NESTED_ADVICE
            dropped.append(f"column {name!r} {reason}; it is dropped. To use it, {use}")
        return [*dropped, *self.hints]


def infer_specification(source: Source, label: str, max_rejected_fraction: float) -> InferredSpecification:
    """Infers a specification from the values of a table.

    A column is numeric if so many of its values are numbers that load would reject at most the allowed share of its rows. Any other column
    is categorical, unless it holds identifiers, free text, dates or times. Columns that nearly determine the label are dropped.

    Args:
        source: the table.
        label: the name of the label column.
        max_rejected_fraction: the largest share of rows, 0 to 1, that load may reject.

    Raises:
        InputError: the table has no column `label`, or no column is left as a feature.
    """
    if label not in source.columns:
        raise InputError(f"no label column {label!r}{did_you_mean(label, source.columns)}")
    names = [name for name in source.columns if name != label]
    collected = _collect(source, [*names, label])
    if collected is None:
        statistics = _statistics(source, [*names, label])
    else:
        counted = {name: _count_texts(texts) for name, texts in collected.items()}
        statistics = {name: counts for name, counts in counted.items() if counts["values"]}
    label_statistics = statistics.pop(label, None)
    reasons, kinds = _column_kinds(source, names, statistics, max_rejected_fraction)
    features = [name for name in names if name in kinds]
    if not features and not any(reason != NO_VALUE for reason in reasons.values()):
        raise InputError(f"no column but the label {label!r} has values; check the file or give --delimiter")
    if collected is None:
        labelled_rows = label_statistics["values"] if label_statistics else 0
        labels, sampled = _sample(source, label, features, labelled_rows)
    else:
        labels, sampled = _labelled_rows(collected, label, features)
    leaks = _find_leaks(labels, dict(zip(features, sampled, strict=True)), kinds)
    reasons |= dict.fromkeys(leaks, f"{LEAK_REASON}, as if it were made from it")
    features = [name for name in features if name not in reasons]
    if not features:
        examples = "; ".join(f"{name!r} {reason}" for name, reason in list(reasons.items())[:3])
        raise InputError(
            f"no column is left as a feature: {examples}; {_advice_without_features(source, label, kinds, reasons)}"
        )
    dropped = tuple(name for name in names if name in reasons)
    specification = Specification(
        label=label,
        numeric=tuple(name for name in features if kinds[name] == "numeric"),
        categorical=tuple(name for name in features if kinds[name] == "categorical"),
        dropped=dropped,
        rare_as_other=True,
    )
    numeric = [name for name, kind in kinds.items() if kind == "numeric"]
    hints = number_hints({name: row for name, row in statistics.items() if name not in leaks}, numeric)
    return InferredSpecification(specification, {name: reasons[name] for name in dropped}, hints, collected)


def _advice_without_features(source: Source, label: str, kinds: Mapping[str, str], reasons: Mapping[str, str]) -> str:
    """Returns how to use the dropped columns nevertheless: the lines of a specification, of the leaks alone if there are any."""
    others = [name for name, reason in reasons.items() if reason != NO_VALUE and name not in source.nested]
    roles = {name: kinds[name] for name in reasons if name in kinds} or dict.fromkeys(others, "categorical")
    if not roles:
        return NESTED_ADVICE
    lines = [f"label.name = {quoted(label)}"]
    for role in ("numeric", "categorical"):
        if names := [quoted(name) for name in roles if roles[name] == role]:
            lines.append(f"columns.{role} = [{', '.join(names)}]")
    return "\n".join(["to use them nevertheless, give a specification (TOML) with these lines:", *lines])


def _statistics(source: Source, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Counts the kinds of cells of each column, in the order of `names`; the result lacks columns without any value."""
    cell, number = F.col("cell"), F.col("number")
    raw = melt(source.rows.where(F.col(source.corrupt_record).isNull()), raw_texts(source, names))
    cells = raw.select("place", trimmed(cell).alias("cell")).where(cell.isNotNull())
    numbers = cells.select("place", cell, to_double(cell).alias("number"))
    # The conditions are columns, because Spark would evaluate a condition again for each aggregate that uses it. The slow patterns are
    # tried only on texts with a digit.
    has_digit = number.isNull() & cell.rlike("[0-9]")
    present = numbers.withColumns(
        {"date": has_digit & cell.rlike(DATES), "formatted": has_digit & is_formatted_number(cell)}
    )
    counted = present.groupBy("place").agg(
        F.count(cell).alias("values"),
        F.count(number).alias("numbers"),
        F.count_if(number.isNull() & is_missing_number(cell)).alias("missing"),
        F.count_if("date").alias("dates"),
        approximate_distinct(F.when(number.isNull(), cell)).alias("distinct"),
        *hint_aggregates(cell, number, F.col("formatted")),
    )
    return {names[row["place"]]: row.asDict() for row in sorted(counted.collect(), key=lambda row: row["place"])}


def _collect(source: Source, names: Sequence[str]) -> dict[str, Sequence[str | None]] | None:
    """Collects the trimmed texts of each column, None where a cell is empty; returns None if the table is not small."""
    parsed = source.rows.where(F.col(source.corrupt_record).isNull())
    columns = collect_cells(parsed, raw_texts(source, names), len(names))
    return None if columns is None else dict(zip(names, map(_trimmed_texts, columns), strict=True))


def _trimmed_texts(cells: Sequence[str | None]) -> list[str | None]:
    return [(cell or "").strip() or None for cell in cells]


def _count_texts(cells: Sequence[str | None]) -> dict[str, Any]:
    """Counts in Python what `_statistics` counts, for one column of trimmed texts; `distinct` is exact here, and estimated there."""
    texts = Counter(text for text in cells if text is not None)
    numbers = {text: to_number(text) for text in texts}
    words = [text for text, number in numbers.items() if number is None]
    with_digit = [text for text in words if _DIGIT.search(text)]

    def rows(chosen: Sequence[str]) -> int:
        return sum(texts[text] for text in chosen)

    return {
        "values": texts.total(),
        "numbers": texts.total() - rows(words),
        "missing": rows([text for text in words if text.lower() in MISSING_NUMBERS]),
        "dates": rows([text for text in with_digit if _DATES.search(text)]),
        "distinct": len(words),
        **count_hints(texts, numbers, [text for text in with_digit if is_formatted_text(text)]),
    }


def _column_kinds(
    source: Source, names: Sequence[str], statistics: Mapping[str, Mapping[str, Any]], max_rejected_fraction: float
) -> tuple[dict[str, str], dict[str, str]]:
    """Decides for each column, from its statistics, whether it is a feature.

    Returns:
        By dropped column the reason, and by any other column `numeric` or `categorical`.
    """
    reasons: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in names:
        row = statistics.get(name)
        present = row["values"] - row["missing"] if row else 0
        required = present * (1 - max_rejected_fraction)
        if name in source.nested:
            reasons[name] = f"{NESTED} ({source.nested[name][:60]})"
        elif row is None or not present:
            reasons[name] = NO_VALUE
        elif row["numbers"] >= required:
            kinds[name] = "numeric"
        elif row["dates"] >= required:
            reasons[name] = "holds dates or times, of which no features are made yet"
        elif is_identifier(row["distinct"], row["values"]):
            reasons[name] = IDENTIFIER_REASON
        else:
            kinds[name] = "categorical"
    return reasons, kinds


def _sample(source: Source, label: str, features: Sequence[str], rows: int) -> tuple[list[str], list[list[str | None]]]:
    """Collects the labels and the trimmed texts of the features from a sample of the `rows` rows that have a label."""
    truth = trimmed(raw_text(source, label))
    good = source.rows.where(F.col(source.corrupt_record).isNull() & truth.isNotNull())
    labels, sampled = sample_by_hash(good, truth, raw_texts(source, features), len(features), rows)
    return labels, [_trimmed_texts(cells) for cells in sampled]


def _labelled_rows(
    collected: Mapping[str, Sequence[str | None]], label: str, features: Sequence[str]
) -> tuple[list[str], list[list[str | None]]]:
    """Returns the labels and the texts of the features of all rows that have a label."""
    labels = [text for text in collected[label] if text is not None]
    return labels, [
        [cell for cell, truth in zip(collected[name], collected[label], strict=True) if truth is not None]
        for name in features
    ]


def _find_leaks(
    labels: Sequence[str], features: Mapping[str, Sequence[str | None]], kinds: Mapping[str, str]
) -> list[str]:
    """Finds the columns that nearly determine the label.

    Args:
        labels: the labels of some rows.
        features: by column its trimmed texts in those rows.
        kinds: by column `numeric` or `categorical`.
    """
    leaks = []
    for name, texts in features.items():
        values: Sequence[Any] = texts
        if kinds[name] == "numeric":
            values = [float(text) if text and is_number(text) else None for text in texts]
        if is_leak(values, labels):
            leaks.append(name)
    return leaks

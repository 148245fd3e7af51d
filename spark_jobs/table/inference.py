"""Infers a specification from the values of a table: which columns are features, and of what kind.

Takes for a feature only what a model can learn from and may know. What it leaves out it says, with the reason, and the written
specification says how to bring it back. Knows nothing of files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark.sql import Row
from pyspark.sql import functions as F

from spark_jobs.cells import is_number
from spark_jobs.dataset import Specification, nearest
from spark_jobs.errors import InputError
from spark_jobs.table.number_hints import clues, is_spelt_number, number_hints
from spark_jobs.table.profiling import IDENTIFIER, TELLS_THE_LABEL, determines, distinct, is_identifier, melt, sample
from spark_jobs.table.source import Source, cell_text, is_missing_number, number_from, raw_text, text_of

_DATE = r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
_DATE += r"|\d{1,2}[- ][A-Za-z]{3,9}[- ]\d{2,4}|[A-Za-z]{3,9} \d{1,2},? \d{4}"
_TIME = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?( ?[AaPp][Mm])?"
DATES = rf"^(({_DATE})([T ]+{_TIME})?|{_TIME})( ?(Z|UTC|[+-]\d{{2}}:?\d{{2}}))?$"
"""Java's pattern of a date, a time of day, or both."""


@dataclass(frozen=True)
class Inferred:
    """What was found.

    Attributes:
        specification: without a positive value.
        reasons: why a dropped column is no feature, by its name.
        hints: columns whose cells look like numbers and are not, or not all.
    """

    specification: Specification
    reasons: Mapping[str, str]
    hints: Sequence[str]

    @property
    def warnings(self) -> list[str]:
        dropped = [
            f"column {name!r} {reason}; it is dropped. To use it, name it in a specification (`spark-kfp data check` writes one)"
            for name, reason in self.reasons.items()
        ]
        return [*dropped, *self.hints]


def infer_specification(source: Source, label: str, max_rejected_fraction: float) -> Inferred:
    """A specification from the values: a column is numeric if all but a rejectable share of its values are numbers.

    Text is categorical, but for identifiers, free text, dates and times; whatever all but tells the label is no feature.

    Raises:
        InputError: no such label column, or nothing is left to learn from.
    """
    if label not in source.columns:
        raise InputError(f"no label column {label!r}{nearest(label, source.columns)}")
    names = [name for name in source.columns if name != label]
    found = _statistics(source, [*names, label])
    of_label = found.pop(label, None)
    reasons, kinds = _kinds(source, names, found, max_rejected_fraction)
    features = [name for name in names if name in kinds]
    if not features and not any(reason != NO_VALUE for reason in reasons.values()):
        raise InputError(f"no column but the label {label!r} has values; check the file or give --delimiter")
    leaks = _leaks(source, label, features, kinds, of_label["values"] if of_label else 0)
    reasons |= dict.fromkeys(leaks, f"{TELLS_THE_LABEL}, as if it were made from it")
    features = [name for name in features if name not in reasons]
    if not features:
        told = "; ".join(f"{name!r} {reason}" for name, reason in list(reasons.items())[:3])
        raise InputError(
            f"no column is left as a feature: {told}; write a specification that names those to use, see data/bank.toml"
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
    hints = number_hints({name: row for name, row in found.items() if name not in leaks}, numeric)
    return Inferred(specification, {name: reasons[name] for name in dropped}, hints)


NO_VALUE = "has no value in any row"


def _statistics(source: Source, names: Sequence[str]) -> dict[str, Row]:
    """Counts of what the cells of each column are, by its name and in the order of `names`; a column without any value is not there."""
    cell, number = F.col("cell"), F.col("number")
    raw = melt(source.rows.where(F.col(source.line).isNull()), F.array(*[raw_text(source, name) for name in names]))
    cells = raw.select("place", cell_text(cell).alias("cell")).where(cell.isNotNull())
    numbers = cells.select("place", cell, number_from(cell).alias("number"))
    # Columns of their own, as Spark would compute a condition of several aggregates for each of them; most texts have no digit.
    word = number.isNull() & cell.rlike("[0-9]")
    present = numbers.withColumns({"date": word & cell.rlike(DATES), "spelt": word & is_spelt_number(cell)})
    counted = present.groupBy("place").agg(
        F.count(cell).alias("values"),
        F.count(number).alias("numbers"),
        F.count_if(number.isNull() & is_missing_number(cell)).alias("missing"),
        F.count_if("date").alias("dates"),
        distinct(F.when(number.isNull(), cell)).alias("distinct"),
        *clues(cell, number, F.col("spelt")),
    )
    return {names[row["place"]]: row for row in sorted(counted.collect(), key=lambda row: row["place"])}


def _kinds(
    source: Source, names: Sequence[str], found: Mapping[str, Row], max_rejected_fraction: float
) -> tuple[dict[str, str], dict[str, str]]:
    """Why columns are no features, and which others are `numeric` or `categorical`."""
    reasons: dict[str, str] = {}
    kinds: dict[str, str] = {}
    for name in names:
        row = found.get(name)
        present = row["values"] - row["missing"] if row else 0
        enough = present * (1 - max_rejected_fraction)
        if name in source.nested:
            reasons[name] = f"is nested ({source.nested[name][:60]})"
        elif row is None or not present:
            reasons[name] = NO_VALUE
        elif row["numbers"] >= enough:
            kinds[name] = "numeric"
        elif row["dates"] >= enough:
            reasons[name] = "holds dates or times, of which no features are made yet"
        elif is_identifier(row["distinct"], row["values"]):
            reasons[name] = IDENTIFIER
        else:
            kinds[name] = "categorical"
    return reasons, kinds


def _leaks(source: Source, label: str, features: Sequence[str], kinds: Mapping[str, str], rows: int) -> list[str]:
    """The columns that alone tell nearly every label, in a sample of the `rows` that have one."""
    truth = text_of(source, label)
    good = source.rows.where(F.col(source.line).isNull() & truth.isNotNull())
    raw = F.array(*[raw_text(source, name) for name in features])
    labels, sampled = sample(good, truth, raw, len(features), rows)
    leaks = []
    for name, cells in zip(features, sampled, strict=True):
        texts = [(cell or "").strip() or None for cell in cells]
        if kinds[name] == "numeric":
            values: list[Any] = [float(text) if text and is_number(text) else None for text in texts]
        else:
            values = list(texts)
        if determines(values, labels):
            leaks.append(name)
    return leaks

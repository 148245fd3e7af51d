"""Warnings about columns whose cells look like numbers and could not be read as numbers alone, when a specification is inferred."""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_jobs.cells import EXACT, PLACEHOLDERS, SPELT_OTHERWISE, whole
from spark_jobs.dataset import Specification
from spark_jobs.source import Source, number_from, text_of

OFTEN = 0.5
"""A column with so large a share of numbers was probably meant to be one of numbers."""


BATCH = 100
"""So many columns are looked at in one pass over the rows: Spark's time for a plan grows faster than its columns."""


def number_hints(source: Source, specification: Specification) -> list[str]:
    """Sentences that name the column, an example and the next thing to do.

    Told are, in columns that are not numeric: numbers with separators, a decimal comma, a currency or per cent, and texts among
    numbers; in numeric ones: placeholders such as `?`, which are taken as missing, and whole numbers that a double cannot tell apart.
    """
    names = [name for name in source.columns if name != specification.label]
    batches = [names[start : start + BATCH] for start in range(0, len(names), BATCH)]
    return [hint for batch in batches for hint in _hints(source, specification, batch)]


def _hints(source: Source, specification: Specification, names: Sequence[str]) -> list[str]:
    found: list[Column] = []
    for place, name in enumerate(names):
        text = text_of(source, name)
        number = number_from(text)
        if name in specification.numeric:
            odd = text.isin(*PLACEHOLDERS)
            large = text.rlike(whole("[+-]?[0-9]+")) & (F.abs(number) > EXACT)
        else:
            odd = number.isNull() & text.rlike(whole(SPELT_OTHERWISE))
            large = number.isNull() & ~text.rlike(whole(SPELT_OTHERWISE))
        for key, condition in (("odd", odd), ("other", large)):
            found.append(F.count_if(condition).alias(f"{key}_{place}"))
            found.append(F.min(F.when(condition, text)).alias(f"{key}_example_{place}"))
        found += [F.count(number).alias(f"numbers_{place}"), F.count(text).alias(f"texts_{place}")]
    counted = source.rows.where(F.col(source.line).isNull()).agg(*found).first()
    assert counted is not None
    hints = []
    for place, name in enumerate(names):
        keys = ("odd", "odd_example", "other", "other_example", "numbers", "texts")
        values = {key: counted[f"{key}_{place}"] for key in keys}
        hints += _of_numbers(name, values) if name in specification.numeric else _of_texts(name, values)
    return hints


def _of_numbers(name: str, found: dict[str, object]) -> list[str]:
    hints = []
    if found["odd"]:
        hints.append(
            f"column {name!r}: {found['odd']:,} cells such as {found['odd_example']!r} are taken as missing numbers"
        )
    if found["other"]:
        hints.append(
            f"column {name!r} has whole numbers such as {found['other_example']!r}, which a double rounds; if it is an identifier, list it "
            "under columns.dropped of the specification, else give its difference from a fixed number"
        )
    return hints


def _of_texts(name: str, found: dict[str, object]) -> list[str]:
    odd, numbers, texts = (int(str(found[key])) for key in ("odd", "numbers", "texts"))
    if not texts or odd + numbers < OFTEN * texts:
        return []
    if odd:
        how = f"numbers that are written like {found['odd_example']!r}; write them like 1000.5"
    else:
        how = f"numbers, and {found['other']:,} texts such as {found['other_example']!r}; leave such cells empty"
    return [f"column {name!r} is no numeric column: it holds {how} if they shall count as numbers"]

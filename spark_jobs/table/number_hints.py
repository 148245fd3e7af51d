"""Warns about numbers that load cannot read, or reads in a way that may surprise, when it infers a specification.

A column of `$1,000.50` or `12 %` is inferred as text. Without a warning the user would not notice that the model lost a number.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyspark.sql import Column, Row
from pyspark.sql import functions as F

from spark_jobs.cells import FORMATTED_NUMBER, MAX_EXACT_INTEGER, PLACEHOLDERS, full_match

MOSTLY_NUMBERS = 0.5
"""Share of numbers, 0 to 1, from which a text column was probably meant to be numeric."""


def is_formatted_number(cell: Column) -> Column:
    """Returns whether a text is a number as people write it, such as 1,000.5 or 12 %."""
    return cell.rlike(full_match(FORMATTED_NUMBER))


def hint_aggregates(cell: Column, number: Column, formatted: Column) -> list[Column]:
    """Builds the aggregates over the cells of one column from which `number_hints` writes its warnings.

    Args:
        cell: the trimmed texts, none of them null.
        number: the same texts as doubles; null if a text is not a number.
        formatted: whether a text is not a number for load, but `is_formatted_number`.

    Returns:
        For each kind of cell its count (column KIND) and its alphabetically first text (column KIND_example). The kinds are `placeholder`,
        such as `?`; `large`, whole numbers that a double rounds; `formatted`, numbers not written like 1000.5; and `word`, any other text.
    """
    kinds = {
        "placeholder": number.isNull() & cell.isin(*PLACEHOLDERS),
        "large": (F.abs(number) > MAX_EXACT_INTEGER) & cell.rlike(full_match("[+-]?[0-9]+")),
        "formatted": formatted,
        "word": number.isNull() & ~formatted,
    }
    counts = [F.count_if(condition).alias(kind) for kind, condition in kinds.items()]
    return counts + [F.min(F.when(condition, cell)).alias(f"{kind}_example") for kind, condition in kinds.items()]


def number_hints(statistics: Mapping[str, Row], numeric: Collection[str]) -> list[str]:
    """Writes the warnings; each names the column, an example and what the user can do.

    For text columns they are about numbers with separators, a decimal comma, a currency or a per cent sign, and about texts among numbers.
    For numeric columns they are about placeholders such as `?`, which count as missing, and whole numbers that a double rounds.

    Args:
        statistics: by column, its `hint_aggregates` and the counts `values` and `numbers`.
        numeric: the columns that were inferred as numeric.
    """
    return [
        hint
        for name, counts in statistics.items()
        for hint in (_numeric_column_hints(name, counts) if name in numeric else _text_column_hints(name, counts))
    ]


def _numeric_column_hints(name: str, counts: Row) -> list[str]:
    hints = []
    if counts["placeholder"]:
        hints.append(
            f"column {name!r}: {counts['placeholder']:,} cells such as {counts['placeholder_example']!r} are taken as missing numbers"
        )
    if counts["large"]:
        hints.append(
            f"column {name!r} has whole numbers such as {counts['large_example']!r}, which a double rounds; if it is an identifier, list "
            "it under columns.dropped of the specification, else give its difference from a fixed number"
        )
    return hints


def _text_column_hints(name: str, counts: Row) -> list[str]:
    if counts["formatted"] + counts["numbers"] < MOSTLY_NUMBERS * counts["values"]:
        return []
    if counts["formatted"]:
        how = f"numbers that are written like {counts['formatted_example']!r}; write them like 1000.5"
    else:
        how = f"numbers, and {counts['word']:,} texts such as {counts['word_example']!r}; leave such cells empty"
    return [f"column {name!r} is no numeric column: it holds {how} if they shall count as numbers"]

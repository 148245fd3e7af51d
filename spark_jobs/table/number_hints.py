"""Warns about numbers that load cannot read, or reads in a way that may surprise, when it infers a specification.

A column of `$1,000.50` or `12 %` is inferred as text. Without a warning the user would not notice that the model lost a number.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from spark_jobs.cells import FORMATTED_NUMBER, MAX_EXACT_INTEGER, PLACEHOLDERS, full_match

MOSTLY_NUMBERS = 0.5
"""Share of numbers, 0 to 1, from which a text column was probably meant to be numeric."""
_FORMATTED_NUMBER = re.compile(FORMATTED_NUMBER)
_WHOLE_NUMBER = "[+-]?[0-9]+"


def is_formatted_number(cell: Column) -> Column:
    """Returns whether a text is a number as people write it, such as 1,000.5 or 12 %."""
    return cell.rlike(full_match(FORMATTED_NUMBER))


def is_formatted_text(text: str) -> bool:
    """Returns the same as `is_formatted_number`, of a text in Python."""
    return _FORMATTED_NUMBER.fullmatch(text) is not None


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
        "large": (F.abs(number) > MAX_EXACT_INTEGER) & cell.rlike(full_match(_WHOLE_NUMBER)),
        "formatted": formatted,
        "word": number.isNull() & ~formatted,
    }
    counts = [F.count_if(condition).alias(kind) for kind, condition in kinds.items()]
    return counts + [F.min(F.when(condition, cell)).alias(f"{kind}_example") for kind, condition in kinds.items()]


def count_hints(
    texts: Mapping[str, int], numbers: Mapping[str, float | None], formatted: Collection[str]
) -> dict[str, Any]:
    """Returns what `hint_aggregates` computes, from the different texts of one column.

    Args:
        texts: by trimmed text its number of cells.
        numbers: the same texts as doubles; None if a text is not a number.
        formatted: the texts that are not a number for load, but `is_formatted_text`.
    """
    words = [text for text, number in numbers.items() if number is None]
    large = [text for text, number in numbers.items() if number is not None and abs(number) > MAX_EXACT_INTEGER]
    kinds = {
        "placeholder": [text for text in words if text in PLACEHOLDERS],
        "large": [text for text in large if re.fullmatch(_WHOLE_NUMBER, text)],
        "formatted": formatted,
        "word": [text for text in words if text not in formatted],
    }
    counts: dict[str, Any] = {kind: sum(texts[text] for text in found) for kind, found in kinds.items()}
    return counts | {f"{kind}_example": min(found, default=None) for kind, found in kinds.items()}


def number_hints(statistics: Mapping[str, Mapping[str, Any]], numeric: Collection[str]) -> list[str]:
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


def _numeric_column_hints(name: str, counts: Mapping[str, Any]) -> list[str]:
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


def _text_column_hints(name: str, counts: Mapping[str, Any]) -> list[str]:
    if counts["formatted"] + counts["numbers"] < MOSTLY_NUMBERS * counts["values"]:
        return []
    if counts["formatted"]:
        how = f"numbers that are written like {counts['formatted_example']!r}; write them like 1000.5"
    else:
        how = f"numbers, and {counts['word']:,} texts such as {counts['word_example']!r}; leave such cells empty"
    return [f"column {name!r} is no numeric column: it holds {how} if they shall count as numbers"]

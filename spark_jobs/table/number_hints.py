"""Warnings about columns whose cells look like numbers and could not be read as numbers alone, when a specification is inferred."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from pyspark.sql import Column, Row
from pyspark.sql import functions as F

from spark_jobs.cells import EXACT, PLACEHOLDERS, SPELT_OTHERWISE, whole

OFTEN = 0.5
"""A column with so large a share of numbers was probably meant to be one of numbers."""


def is_spelt_number(cell: Column) -> Column:
    """Whether a text is a number as people write it, such as 1,000.5 or 12 %."""
    return cell.rlike(whole(SPELT_OTHERWISE))


def clues(cell: Column, number: Column, spelt: Column) -> list[Column]:
    """What the hints about one column are made of, as aggregates over its cells.

    Args:
        cell: the trimmed texts, none of them null.
        number: the same as numbers, null where a text is none.
        spelt: whether a text that is none `is_spelt_number`.

    Returns:
        For each kind of cell how many there are and the first by the alphabet: `placeholder` such as `?`, `large` whole numbers that a
        double rounds, `spelt` numbers that are not written like 1000.5, and `word`, every other text.
    """
    kinds = {
        "placeholder": number.isNull() & cell.isin(*PLACEHOLDERS),
        "large": (F.abs(number) > EXACT) & cell.rlike(whole("[+-]?[0-9]+")),
        "spelt": spelt,
        "word": number.isNull() & ~spelt,
    }
    counts = [F.count_if(condition).alias(kind) for kind, condition in kinds.items()]
    return counts + [F.min(F.when(condition, cell)).alias(f"{kind}_example") for kind, condition in kinds.items()]


def number_hints(found: Mapping[str, Row], numeric: Collection[str]) -> list[str]:
    """Sentences that name the column, an example and the next thing to do.

    Told are, in columns that are not numeric: numbers with separators, a decimal comma, a currency or per cent, and texts among
    numbers; in numeric ones: placeholders such as `?`, which are taken as missing, and whole numbers that a double cannot tell apart.

    Args:
        found: by column, its `clues`, and how many `values` and `numbers` it has.
        numeric: the columns that are taken for numbers.
    """
    return [
        hint
        for name, clue in found.items()
        for hint in (_of_numbers(name, clue) if name in numeric else _of_texts(name, clue))
    ]


def _of_numbers(name: str, clue: Row) -> list[str]:
    hints = []
    if clue["placeholder"]:
        hints.append(
            f"column {name!r}: {clue['placeholder']:,} cells such as {clue['placeholder_example']!r} are taken as missing numbers"
        )
    if clue["large"]:
        hints.append(
            f"column {name!r} has whole numbers such as {clue['large_example']!r}, which a double rounds; if it is an identifier, list it "
            "under columns.dropped of the specification, else give its difference from a fixed number"
        )
    return hints


def _of_texts(name: str, clue: Row) -> list[str]:
    if clue["spelt"] + clue["numbers"] < OFTEN * clue["values"]:
        return []
    if clue["spelt"]:
        how = f"numbers that are written like {clue['spelt_example']!r}; write them like 1000.5"
    else:
        how = f"numbers, and {clue['word']:,} texts such as {clue['word_example']!r}; leave such cells empty"
    return [f"column {name!r} is no numeric column: it holds {how} if they shall count as numbers"]

"""Defines how the text of a table cell is read: which texts are numbers, which mean a missing value, and which characters are trimmed.

Load and the saved model (Spark SQL) and the scorer (Python) must read every cell alike, so the regular expressions match the same texts
in Java and in Python. The scorer imports nothing from this package; it reads the definitions from the scorecard, under `cells`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

BLANKS = "".join(chr(code) for code in range(0x10000) if chr(code).isspace())
"""Characters trimmed from both ends of a cell: the same as Python's `str.strip` removes, which includes no-break spaces."""
NUMBER = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
"""Pattern of a number. Java's own parser would also accept `1F`, `2d` and `0x1p3`, Python's also `1_000` and digits of other scripts."""
INFINITE = "[+-]?([iI][nN][fF]|[iI][nN][fF][iI][nN][iI][tT][yY])"
"""Pattern of an infinite number; no model can use one."""
MAX_NUMBER = 1e100
"""Largest absolute value of a number. A larger one is rejected like an infinite one: the sum of its squares would overflow a double."""
MISSING_NUMBERS = ("na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "--")
"""Texts, in lower case, that mean a missing value in a numeric column; in a categorical column only an empty cell is missing."""
PLACEHOLDERS = ("?", "-", "--")
"""The `MISSING_NUMBERS` that are punctuation. They may have another meaning, so a warning names the columns that hold them."""
MISSING_LABELS = ("na", "n/a", "#n/a", "nan", "null")
"""Texts, in lower case, that mean a missing label. `None` and `-` are not among them, as they may be classes."""
_CURRENCY = "([$\u20ac\u00a3\u00a5\u20b9]|USD|EUR|GBP|CHF)"
_SPACE = "[ \u00a0\u202f]?"
FORMATTED_NUMBER = (
    f"[+-]?{_CURRENCY}?{_SPACE}"
    f"[+-]?([0-9]{{1,3}}([,. '\u00a0\u202f][0-9]{{3}})+|[0-9]+)"
    f"([.,][0-9]+)?{_SPACE}(%|{_CURRENCY})?"
)
"""Pattern of a number as people write it: thousands separators, decimal comma, currency, per cent sign. Plain numbers match too."""
MAX_EXACT_INTEGER = 2**53
"""Largest whole number up to which a double holds every whole number exactly; above, neighbours are rounded to the same double."""


_NUMBER = re.compile(NUMBER)
_NUMBER_OR_INFINITE = re.compile(f"{NUMBER}|{INFINITE}")


def full_match(pattern: str) -> str:
    """Returns a pattern that matches only if the given pattern matches the text from beginning to end."""
    return f"^({pattern})$"


def is_number(text: str) -> bool:
    """Returns whether a trimmed text is a number."""
    return _NUMBER.fullmatch(text) is not None


def to_number(text: str) -> float | None:
    """Converts a trimmed text to a double as `table.source.to_double` does in Spark; None if it is not a number."""
    return float(text) + 0.0 if _NUMBER_OR_INFINITE.fullmatch(text) else None


def typed_value_format(texts: Iterable[str]) -> dict[str, Any]:
    """Finds how to format a typed number or boolean as text, so that it equals one of a column's categories.

    Categories learnt from a CSV are texts such as 1 or 1.0, True or true. JSON from a caller and Parquet columns hold typed numbers and
    booleans instead, which the model must map to the same categories.

    Args:
        texts: the categories of a column.

    Returns:
        `numbers`: `whole` to format both 1 and 1.0 as 1; `fraction` to format both as 1.0, as the categories are; `own` to format each in
        its own way, as there are categories of both kinds. `booleans`: the texts for false and for true.
    """
    texts = list(texts)
    whole_numbers = any(re.fullmatch("[+-]?[0-9]+", text) for text in texts)
    fractions = any(re.fullmatch("[+-]?[0-9]+[.]0|[+-]?[0-9][.][0-9]+E[0-9]+", text) for text in texts)
    numbers = "own" if whole_numbers and fractions else "fraction" if fractions else "whole"
    booleans = []
    for word in ("false", "true"):
        found = [text for text in texts if text.lower() == word]
        booleans.append(found[0] if len(found) == 1 else word)
    return {"numbers": numbers, "booleans": booleans}


def definition() -> dict[str, Any]:
    """Returns the part `cells` of a scorecard, from which the scorer learns how to read a cell."""
    return {"number": NUMBER, "infinite": INFINITE, "largest": MAX_NUMBER, "missing_numbers": list(MISSING_NUMBERS)}

"""What the text of a cell means, once for all who read cells: the loader and the saved model (Spark SQL), and the scorer (Python).

The patterns mean the same to Java and to Python. The scorer stands alone and finds them in the scorecard, under `cells`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

BLANKS = "".join(chr(code) for code in range(0x10000) if chr(code).isspace())
"""What is cut off a cell's ends: all that Python's `str.strip` cuts off, no-break spaces among it."""
NUMBER = "[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?"
"""A number. Java alone would also take `1F`, `2d` and `0x1p3`, Python alone `1_000` and digits of other scripts."""
INFINITE = "[+-]?([iI][nN][fF]|[iI][nN][fF][iI][nN][iI][tT][yY])"
"""Not a number that a model can take."""
LARGEST = 1e100
"""A number beyond this is refused like an infinite one: sums of its squares would be infinite."""
MISSING_NUMBERS = ("na", "n/a", "#n/a", "nan", "null", "none", "?", "-", "--")
"""Texts, in lower case, that mean "no value" in a numeric column; in a categorical column only the empty text does."""
PLACEHOLDERS = ("?", "-", "--")
"""Those of `MISSING_NUMBERS` that are no word; people are told where they were met."""
MISSING_LABELS = ("na", "n/a", "#n/a", "nan", "null")
"""Texts, in lower case, that mean "no value" in the label; `None` and `-` are answers there."""
_CURRENCY = "([$\u20ac\u00a3\u00a5\u20b9]|USD|EUR|GBP|CHF)"
_SPACE = "[ \u00a0\u202f]?"
SPELT_OTHERWISE = f"[+-]?{_CURRENCY}?{_SPACE}[+-]?([0-9]{{1,3}}([,. '\u00a0\u202f][0-9]{{3}})+|[0-9]+)([.,][0-9]+)?{_SPACE}(%|{_CURRENCY})?"
"""A number as people write it, with separators, a decimal comma, a currency or per cent. Plain numbers match too."""
EXACT = 2**53
"""Whole numbers up to this are doubles; above, several fall together."""


_NUMBER = re.compile(NUMBER)


def whole(pattern: str) -> str:
    """The pattern for a text that it matches from its beginning to its end."""
    return f"^({pattern})$"


def is_number(text: str) -> bool:
    """Whether a text without blanks at its ends is a number."""
    return _NUMBER.fullmatch(text) is not None


def how_typed_values_are_written(texts: Iterable[str]) -> dict[str, Any]:
    """How a number or a truth value that comes with a type of its own is written, so that it meets a category.

    A table of text says 1 or 1.0, True or true; a caller's JSON, or a table with types, has numbers and truth values.

    Args:
        texts: the categories of a column.

    Returns:
        `numbers`: `whole` if 1 and 1.0 are both written 1; `fraction` if both are written 1.0, because the categories are;
        `own` if each is written as it is, because there are categories of both kinds. `booleans`: the texts of false and true.
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
    """What a scorecard says of cells."""
    return {"number": NUMBER, "infinite": INFINITE, "largest": LARGEST, "missing_numbers": list(MISSING_NUMBERS)}

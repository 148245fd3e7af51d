"""Scores rows with a scorecard, the model as plain numbers, in pure Python: without a JVM, numpy or any other package.

A row maps column names to values. A numeric cell may be a number, its text, or missing (None, NaN, a text like NA). A categorical cell may
be text, a number or a boolean; a value that the train rows did not have counts as missing. The scorecard holds the rules for reading cells,
so that this scorer reads a row as the saved Spark model does.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

READABLE_VERSION = 2
"""Version of the scorecards that this scorer can read."""
MAX_EXACT_INTEGER = 2**53
"""Up to this number every whole number is exactly a double."""


class ScorecardError(ValueError):
    """The document is not a scorecard, or has another version than this scorer can read."""


class RowError(ValueError):
    """A column is missing from the row, or a cell has a wrong value; the message names the column."""


@dataclass(frozen=True)
class Score:
    """The prediction for one row: the predicted label value, and the probability of each label value."""

    label: str
    probabilities: Mapping[str, float]


class Scorer:
    """Scores rows with one scorecard."""

    def __init__(self, scorecard: Mapping[str, Any]) -> None:
        """Makes a scorer.

        Args:
            scorecard: the parsed `scorecard.json`.

        Raises:
            ScorecardError: the document is not a scorecard, or has another version.
        """
        if not isinstance(scorecard, Mapping):
            raise ScorecardError(f"a scorecard is an object, and this is {type(scorecard).__name__}")
        if scorecard.get("scorecard_version") != READABLE_VERSION:
            raise ScorecardError(f"scorecard_version is {scorecard.get('scorecard_version')!r}, not {READABLE_VERSION}")
        self.labels: list[str] = scorecard["labels"]
        self.threshold: float | None = scorecard["threshold"]
        self._intercepts: list[float] = scorecard["intercepts"]
        self._means = {column["name"]: column["mean"] for column in scorecard["numeric"]}
        self._cells: dict[str, Any] = scorecard["cells"]
        self._categorical: list[dict[str, Any]] = scorecard["categorical"]
        self._known = {column["name"]: frozenset(column["values"]) for column in scorecard["categorical"]}
        weights = list(zip(*scorecard["coefficients"], strict=True)) if scorecard["features"] else []
        self._weights = {
            (feature["column"], feature["kind"], feature["category"]): weight
            for feature, weight in zip(scorecard["features"], weights, strict=True)
        }

    @classmethod
    def from_json(cls, text: str) -> Scorer:
        return cls(json.loads(text))

    def margins(self, row: Mapping[str, Any]) -> list[float]:
        """Computes the margins, intercept plus weighted features: one number for two classes, else one for each class.

        Raises:
            RowError: the row is not a mapping, a column is missing, or a cell has a wrong value.
        """
        if not isinstance(row, Mapping):
            raise RowError(f"a row maps column names to values, and this is {type(row).__name__}")
        margins = list(self._intercepts)
        for name, mean in self._means.items():
            value = _number(row, name, self._cells)
            if value is None:
                self._add(margins, (name, "missing", ""), 1.0)
                value = mean
            self._add(margins, (name, "numeric", ""), value)
        for column in self._categorical:
            name = column["name"]
            text = _category(row, column)
            known = text in self._known[name]
            # The most frequent category is the reference of the encoding: it has no feature, so its weight is 0.
            self._add(margins, (name, "category", text) if known else (name, "other", ""), 1.0)
        return margins

    def score(self, row: Mapping[str, Any]) -> Score:
        """Scores one row; see `margins` for the errors."""
        margins = self.margins(row)
        if self.threshold is not None:
            positive = _logistic(margins[0])
            label = self.labels[1] if positive > self.threshold else self.labels[0]
            return Score(label, dict(zip(self.labels, (1.0 - positive, positive), strict=True)))
        largest = max(margins)
        powers = [math.exp(margin - largest) for margin in margins]
        probabilities = [power / sum(powers) for power in powers]
        return Score(self.labels[margins.index(largest)], dict(zip(self.labels, probabilities, strict=True)))

    def _add(self, margins: list[float], feature: tuple[str, str, str], value: float) -> None:
        for place, weight in enumerate(self._weights.get(feature, ())):
            margins[place] += weight * value


def _number(row: Mapping[str, Any], name: str, cells: Mapping[str, Any]) -> float | None:
    value = _cell(row, name)
    if isinstance(value, str):
        text = value.strip()
        if not text or text.lower() in cells["missing_numbers"]:
            return None
        value = float(text) if re.fullmatch(f"{cells['number']}|{cells['infinite']}", text) else value
    if value is None or value != value:
        return None
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RowError(f"column {name!r}: {value!r} is not a number")
    if abs(value) > cells["largest"]:
        raise RowError(f"column {name!r} is infinite or beyond {cells['largest']:g}")
    return float(value)


def _category(row: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    """Returns the text of a category as the saved Spark model makes it; empty for a missing value."""
    value = _cell(row, column["name"])
    if value is None:
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(column["booleans"][value])
    if isinstance(value, Integral):
        as_double = column["numbers"] == "fraction" and abs(int(value)) < 10**300
        return _double_text(float(value)) if as_double else str(int(value))
    if isinstance(value, Real):
        number = float(value)
        if column["numbers"] == "whole" and number.is_integer() and abs(number) <= MAX_EXACT_INTEGER:
            return str(int(number))
        return _double_text(number)
    raise RowError(f"column {column['name']!r}: {value!r} is neither text, number nor truth value")


def _double_text(number: float) -> str:
    """Formats a double as Spark does, which is Java's format: 1.0, 1.0E7, 1.5E-4; empty for NaN."""
    if math.isnan(number):
        return ""
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    if number == 0 or 1e-3 <= abs(number) < 1e7:
        return repr(number)
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    shown = "".join(map(str, digits))
    return f"{'-' * sign}{shown[0]}.{shown[1:] or '0'}E{int(exponent) + len(digits) - 1}"


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise RowError(f"column {name!r} is missing from the row; give null where there is no value")
    return row[name]


def _logistic(margin: float) -> float:
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    return math.exp(margin) / (1.0 + math.exp(margin))

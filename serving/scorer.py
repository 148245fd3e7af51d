"""Scores rows with a scorecard, in plain Python: no JVM, no numpy, nothing to install.

A row is a mapping from column name to value. A number may be missing (None, NaN, an empty text); a category that the train rows did not
have counts as missing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SCORECARD_VERSION = 1


class ScorecardError(ValueError):
    """The document is not a scorecard that this scorer understands."""


class RowError(ValueError):
    """A row lacks a column, or a number is no number; the text names the column."""


@dataclass(frozen=True)
class Score:
    """What the model says of one row: the predicted label value, and the probability of each."""

    label: str
    probabilities: Mapping[str, float]


class Scorer:
    """A scorecard made ready to score."""

    def __init__(self, scorecard: Mapping[str, Any]) -> None:
        """Args: scorecard, as `scorecard.json` holds it.

        Raises:
            ScorecardError: it has another version.
        """
        if scorecard.get("scorecard_version") != SCORECARD_VERSION:
            raise ScorecardError(
                f"scorecard_version is {scorecard.get('scorecard_version')!r}, not {SCORECARD_VERSION}"
            )
        self.labels: list[str] = scorecard["labels"]
        self.threshold: float | None = scorecard["threshold"]
        self._intercepts: list[float] = scorecard["intercepts"]
        self._means = {column["name"]: column["mean"] for column in scorecard["numeric"]}
        self._categorical = [column["name"] for column in scorecard["categorical"]]
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
        """Intercept plus weighted features: one number for two classes, else one for each class.

        Raises:
            RowError: a column is not there, or a number is no number.
        """
        margins = list(self._intercepts)
        for name, mean in self._means.items():
            value = _number(row, name)
            if value is None:
                self._add(margins, (name, "missing", ""), 1.0)
                value = mean
            self._add(margins, (name, "numeric", ""), value)
        for name in self._categorical:
            text = _text(row, name)
            known = text in self._known[name]
            # The commonest value has no weight of its own: it is the reference.
            self._add(margins, (name, "category", text) if known else (name, "other", ""), 1.0)
        return margins

    def score(self, row: Mapping[str, Any]) -> Score:
        """Probabilities and the predicted label value of one row; see `margins` for the errors."""
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


def _number(row: Mapping[str, Any], name: str) -> float | None:
    value = _cell(row, name)
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise RowError(f"column {name!r}: {value!r} is not a number") from error
    if math.isinf(number):
        raise RowError(f"column {name!r} is infinite")
    return None if math.isnan(number) else number


def _text(row: Mapping[str, Any], name: str) -> str:
    value = _cell(row, name)
    return "" if value is None else str(value).strip()


def _cell(row: Mapping[str, Any], name: str) -> Any:
    if name not in row:
        raise RowError(f"column {name!r} is missing from the row; give null where there is no value")
    return row[name]


def _logistic(margin: float) -> float:
    if margin >= 0:
        return 1.0 / (1.0 + math.exp(-margin))
    return math.exp(margin) / (1.0 + math.exp(margin))

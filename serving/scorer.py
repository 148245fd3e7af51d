"""Scores rows with a scorecard, the model as plain numbers, in pure Python: without a JVM, numpy or any other package.

A row maps column names to values. A numeric cell may be a number, its text, or missing (None, NaN, a text like NA). A categorical cell may
be text, a number or a boolean; a value that the train rows did not have counts as missing. The scorecard holds the rules for reading cells,
so that this scorer reads a row as the saved Spark model does.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from numbers import Integral, Real
from operator import mul
from typing import Any

READABLE_VERSION = 3
"""Version of the scorecards that this scorer can read."""
MAX_EXACT_INTEGER = 2**53
"""Up to this number every whole number is exactly a double."""
Elements = Iterator[tuple[int, float]]
"""The elements of a feature vector that are not 0: place and value."""


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
        if scorecard["form"] not in FORMS:
            raise ScorecardError(f"the form is {scorecard['form']!r}; this scorer knows {', '.join(FORMS)}")
        self._probabilities = FORMS[scorecard["form"]](scorecard)
        self._numeric: list[dict[str, Any]] = scorecard["numeric"]
        self._cells: dict[str, Any] = scorecard["cells"]
        self._categorical: list[dict[str, Any]] = scorecard["categorical"]
        self._known = {column["name"]: frozenset(column["values"]) for column in scorecard["categorical"]}
        self._places = {
            (feature["column"], feature["kind"], feature["category"]): place
            for place, feature in enumerate(scorecard["features"])
        }
        self._values: dict[str, list[int]] = {}
        for place, feature in enumerate(scorecard["features"]):
            if feature["kind"] in ("numeric", "standardised", "interval"):
                self._values.setdefault(feature["column"], []).append(place)

    @classmethod
    def from_json(cls, text: str) -> Scorer:
        return cls(json.loads(text))

    def features(self, row: Mapping[str, Any]) -> list[float]:
        """Computes the feature vector of a row.

        Raises:
            RowError: the row is not a mapping, a column is missing, or a cell has a wrong value.
        """
        return _vector(self._elements(row), len(self._places))

    def score(self, row: Mapping[str, Any]) -> Score:
        """Scores one row; see `features` for the errors."""
        probabilities = self._probabilities(self._elements(row))
        if self.threshold is not None:
            label = self.labels[1] if probabilities[1] > self.threshold else self.labels[0]
        else:
            label = self.labels[probabilities.index(max(probabilities))]
        return Score(label, dict(zip(self.labels, probabilities, strict=True)))

    def _elements(self, row: Mapping[str, Any]) -> Elements:
        if not isinstance(row, Mapping):
            raise RowError(f"a row maps column names to values, and this is {type(row).__name__}")
        places = self._places
        for column in self._numeric:
            name = column["name"]
            value = _number(row, name, self._cells)
            if value is None:
                if (name, "missing", "") in places:
                    yield places[name, "missing", ""], 1.0
                value = column["mean"]
            if not column["splits"]:
                yield self._values[name][0], (value - column["center"]) / column["scale"]
            elif interval := bisect_right(
                column["splits"], value
            ):  # the first interval is the reference, without a feature
                yield self._values[name][interval - 1], 1.0
        for column in self._categorical:
            name = column["name"]
            text = _category(row, column)
            place = places.get((name, "category", text) if text in self._known[name] else (name, "other", ""))
            if place is not None:  # the most frequent category is the reference of the encoding: it has no feature
                yield place, 1.0


def _vector(elements: Elements, length: int) -> list[float]:
    vector = [0.0] * length
    for place, value in elements:
        vector[place] = value
    return vector


def _linear(scorecard: Mapping[str, Any]) -> Callable[[Elements], list[float]]:
    """Returns the probabilities of a linear model: the logistic function of its one margin, or the softmax of a margin for each class."""
    intercepts: list[float] = scorecard["intercepts"]
    weights = list(zip(*scorecard["coefficients"], strict=True))

    def probabilities(elements: Elements) -> list[float]:
        margins = list(intercepts)
        for place, value in elements:
            for row, weight in enumerate(weights[place]):
                margins[row] += weight * value
        return _logistic(margins[0]) if len(margins) == 1 else _softmax(margins)

    return probabilities


def _averaged_trees(scorecard: Mapping[str, Any]) -> Callable[[Elements], list[float]]:
    """Returns the probabilities of a tree or a forest: the mean of those in the leaves."""
    trees, length = scorecard["trees"], len(scorecard["features"])

    def probabilities(elements: Elements) -> list[float]:
        vector = _vector(elements, length)
        sums = [sum(shares) for shares in zip(*(_leaf(tree, vector) for tree in trees), strict=True)]
        return [value / sum(sums) for value in sums]

    return probabilities


def _boosted_trees(scorecard: Mapping[str, Any]) -> Callable[[Elements], list[float]]:
    """Returns the probabilities of boosted trees: the log-odds are the sum of the leaves."""
    trees, length = scorecard["trees"], len(scorecard["features"])

    def probabilities(elements: Elements) -> list[float]:
        vector = _vector(elements, length)
        return _logistic(sum(_leaf(tree, vector) for tree in trees))

    return probabilities


def _network(scorecard: Mapping[str, Any]) -> Callable[[Elements], list[float]]:
    """Returns the probabilities of a multilayer perceptron: hidden units are logistic, the outputs a softmax."""
    length = len(scorecard["features"])
    layers = [list(zip(layer["weights"], layer["intercepts"], strict=True)) for layer in scorecard["layers"]]

    def probabilities(elements: Elements) -> list[float]:
        values = _vector(elements, length)
        for place, layer in enumerate(layers):
            sums = [intercept + sum(map(mul, weights, values)) for weights, intercept in layer]
            values = sums if place == len(layers) - 1 else [_logistic(unit)[1] for unit in sums]
        return _softmax(values)

    return probabilities


FORMS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Elements], list[float]]]] = {
    "linear": _linear,
    "averaged_trees": _averaged_trees,
    "boosted_trees": _boosted_trees,
    "network": _network,
}
"""How the numbers of a scorecard give the probabilities of the classes, by the scorecard's form."""


def _leaf(tree: Mapping[str, Any], vector: Sequence[float]) -> Any:
    """Returns the value of the leaf to which a tree sends a feature vector."""
    node, left = 0, tree["left"]
    while left[node] >= 0:
        goes_left = vector[tree["feature"][node]] <= tree["threshold"][node]
        node = left[node] if goes_left else tree["right"][node]
    return tree["value"][node]


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


def _logistic(margin: float) -> list[float]:
    """Returns the probabilities of the negative and of the positive class."""
    power = math.exp(-abs(margin))
    positive = (1.0 if margin >= 0 else power) / (1.0 + power)
    return [1.0 - positive, positive]


def _softmax(margins: Sequence[float]) -> list[float]:
    largest = max(margins)
    powers = [math.exp(margin - largest) for margin in margins]
    return [power / sum(powers) for power in powers]

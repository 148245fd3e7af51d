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
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from math import exp
from numbers import Integral, Real
from operator import mul
from typing import Any, NamedTuple

READABLE_VERSION = 3
"""Version of the scorecards that this scorer can read."""
MAX_EXACT_INTEGER = 2**53
"""Up to this number every whole number is exactly a double."""
MOST_SHIFT = 100.0
"""Largest shift of log-odds; a base rate of 1e-40 has it."""
NUMBER_KINDS = ("numeric", "standardised", "interval")
"""The kinds of features that hold a number, or the interval that it lies in."""
UNKNOWN = -1
"""In place of a place: the text is not in the column's table."""
Elements = list[tuple[int, float]]
"""The elements of a feature vector that are not 0: place and value."""


class ScorecardError(ValueError):
    """The document is not a scorecard, or has another version than this scorer can read."""


def damage(error: Exception) -> str:
    """Says what is wrong with a document of which a field could not be read, without the words of Python: callers see it."""
    return f"{error} is missing" if isinstance(error, KeyError) else "a field has another form than it should"


class RowError(ValueError):
    """A column is missing from the row, or a cell has a wrong value; the message names the column.

    Attributes:
        column: name of the column; empty: the row is no row.
        reason: what is wrong, without the name.
    """

    def __init__(self, column: str, reason: str) -> None:
        self.column, self.reason = column, reason
        separator = " " if reason.startswith("is ") else ": "
        super().__init__(f"column {column!r}{separator}{reason}" if column else reason)


class Score(NamedTuple):
    """The prediction for one row: the predicted label value, and the probability of each label value."""

    label: str
    probabilities: Mapping[str, float]


class Scorer:
    """Scores rows with one scorecard.

    Attributes:
        labels: the label values; of two the second is the positive one.
        threshold: for two classes, the probability above which the positive class is predicted; None for more classes.
        correction: the `base_rate` of the population and the `sample_rate` of the fit, if the specification states the first; else None.
        columns: the names of the columns that a row must have: the numeric ones, then the categorical ones.
        missing: for each column, how many of the scored cells were missing.
        unseen: for each categorical column, how many of the scored cells held a value that the train rows did not have.
    """

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
        if scorecard.get("form") not in FORMS:
            raise ScorecardError(f"the form is {scorecard.get('form')!r}; this scorer knows {', '.join(FORMS)}")
        try:
            self._read(scorecard)
        except (KeyError, IndexError, TypeError, AttributeError, re.error) as error:
            raise ScorecardError(f"the scorecard is damaged ({damage(error)})") from error

    def _read(self, scorecard: Mapping[str, Any]) -> None:
        self.labels: list[str] = scorecard["labels"]
        self.threshold: float | None = scorecard["threshold"]
        self.correction: Mapping[str, float] | None = scorecard.get("correction")
        if self.correction and (len(self.labels) != 2 or not abs(self.correction["shift"]) < MOST_SHIFT):
            raise ScorecardError("its correction to a base rate is not one of two classes by a finite shift")
        self._odds_factor = exp(self.correction["shift"]) if self.correction else 1.0
        self._probabilities = FORMS[scorecard["form"]](scorecard)
        self._length = len(scorecard["features"])
        cells = scorecard["cells"]
        self._largest = float(cells["largest"])
        self._is_number = re.compile(f"{cells['number']}|{cells['infinite']}").fullmatch
        self._missing_numbers = frozenset(cells["missing_numbers"])
        places = _places(scorecard["features"])
        self._numeric = [_NumericColumn.of(column, places[column["name"]]) for column in scorecard["numeric"]]
        # A number of a plain column takes a short way: its name, its place, and how it is standardised.
        self._plain = [
            (each.name, each.places[0], each.center, each.scale, each) for each in self._numeric if not each.splits
        ]
        self._in_intervals = [each for each in self._numeric if each.splits]
        self._categorical = [
            _CategoricalColumn.of(column, places[column["name"]]) for column in scorecard["categorical"]
        ]
        # So does a text that is one of the column's categories: the table holds its place, or None for the reference of the encoding.
        self._tables = [(each.name, each.table, each) for each in self._categorical]
        self.columns = [*(each.name for each in self._numeric), *(each.name for each in self._categorical)]
        self.missing: Counter[str] = Counter()
        self.unseen: Counter[str] = Counter()

    @classmethod
    def from_json(cls, text: str) -> Scorer:
        return cls(json.loads(text))

    def features(self, row: Mapping[str, Any]) -> list[float]:
        """Computes the feature vector of a row.

        Raises:
            RowError: the row is not a mapping, a column is missing, or a cell has a wrong value.
        """
        return _vector(self.elements(row), self._length)

    def score(self, row: Mapping[str, Any]) -> Score:
        """Scores one row; see `features` for the errors."""
        probabilities = self._probabilities(self.elements(row))
        labels, threshold = self.labels, self.threshold
        if threshold is not None:
            negative, positive = probabilities
            label = labels[1] if positive > threshold else labels[0]
            return Score(label, {labels[0]: negative, labels[1]: positive})
        label = labels[probabilities.index(max(probabilities))]
        return Score(label, dict(zip(labels, probabilities, strict=True)))

    def corrected(self, score: Score) -> dict[str, float]:
        """Corrects the probabilities of two classes for the population: its odds are those of the score times a factor."""
        negative, positive = score.probabilities.values()
        positive *= self._odds_factor
        whole = negative + positive
        return {self.labels[0]: negative / whole, self.labels[1]: positive / whole}

    def elements(self, row: Mapping[str, Any]) -> Elements:
        """Computes the elements of a row's feature vector that are not 0; see `features` for the errors."""
        if type(row) is not dict and not isinstance(row, Mapping):
            raise RowError("", f"a row maps column names to values, and this is {type(row).__name__}")
        elements: Elements = []
        largest, smallest = self._largest, -self._largest
        try:
            for name, place, center, scale, column in self._plain:
                value = row[name]
                kind = type(value)
                if (kind is int or kind is float) and smallest <= value <= largest:
                    elements.append((place, (value - center) / scale))
                else:
                    elements += column.elements(self._number(value, name))
            for binned in self._in_intervals:
                elements += binned.elements(self._number(row[binned.name], binned.name))
            for name, table, categories in self._tables:
                value = row[name]
                found = table.get(value, UNKNOWN) if type(value) is str else UNKNOWN
                if found is UNKNOWN:
                    elements += self._category(value, categories)
                elif found is not None:
                    elements.append((found, 1.0))
        except KeyError as error:
            missing = str(error.args[0])
            raise RowError(missing, "is missing from the row; give null where there is no value") from None
        return elements

    def cells(self, row: Mapping[str, Any]) -> list[float | str | None]:
        """Reads the cells of a row as `score` does, in the order of `columns`; None: it is missing. For the errors see `features`."""
        numbers = [self._read_number(row[each.name], each.name) for each in self._numeric]
        return [*numbers, *(each.text_of(row[each.name]) or None for each in self._categorical)]

    def _number(self, value: Any, name: str) -> float | None:
        """Reads a numeric cell, and counts a missing one."""
        number = self._read_number(value, name)
        if number is None:
            self.missing[name] += 1
        return number

    def _read_number(self, value: Any, name: str) -> float | None:
        """Reads a numeric cell; None: it is missing."""
        if isinstance(value, str):
            text = value.strip()
            if not text or text.lower() in self._missing_numbers:
                value = None
            elif self._is_number(text):
                value = float(text)
        if value is None or value != value:
            return None
        if isinstance(value, bool) or not isinstance(value, Real):
            raise RowError(name, f"{value!r} is not a number")
        try:
            number = float(value)
        except OverflowError:  # a whole number of JSON may have any size
            number = math.inf
        if abs(number) > self._largest:
            raise RowError(name, f"is infinite or beyond {self._largest:g}")
        return number

    def _category(self, value: Any, column: _CategoricalColumn) -> Elements:
        """Reads a categorical cell that is not one of the column's texts as it stands."""
        text = column.text_of(value)
        if text in column.table:
            place = column.table[text]
        else:
            (self.unseen if text else self.missing)[column.name] += 1
            place = column.other
        return [] if place is None else [(place, 1.0)]


@dataclass(frozen=True)
class _NumericColumn:
    """How the number of a column becomes elements of the feature vector.

    Attributes:
        places: that of the number itself, or one for each interval but the first.
        missing: place of the indicator of a missing value; None: the column has none.
        splits: between the intervals; empty: the number itself is the feature.
    """

    name: str
    places: Sequence[int]
    missing: int | None
    mean: float
    center: float
    scale: float
    splits: Sequence[float]

    @classmethod
    def of(cls, column: Mapping[str, Any], places: Mapping[tuple[str, str], list[int]]) -> _NumericColumn:
        own = [each for (kind, _), found in places.items() if kind in NUMBER_KINDS for each in found]
        indicator = places.get(("missing", ""), [None])[0]
        return cls(column["name"], own, indicator, *(column[name] for name in ("mean", "center", "scale", "splits")))

    def elements(self, number: float | None) -> Elements:
        elements: Elements = []
        if number is None:
            if self.missing is not None:
                elements.append((self.missing, 1.0))
            number = self.mean
        if not self.splits:
            elements.append((self.places[0], (number - self.center) / self.scale))
        elif interval := bisect_right(self.splits, number):  # the first interval is the reference, without a feature
            elements.append((self.places[interval - 1], 1.0))
        return elements


@dataclass(frozen=True)
class _CategoricalColumn:
    """How the value of a column becomes elements of the feature vector.

    Attributes:
        table: the place of each category; None for the most frequent one, which is the reference of the encoding and has no feature.
        other: the place of missing and unseen values; None: they count as the reference.
        numbers: how a typed number is written as text; see `spark_jobs.cells.typed_value_format`.
        booleans: the texts for false and true.
    """

    name: str
    table: Mapping[str, int | None]
    other: int | None
    numbers: str
    booleans: Sequence[str]

    @classmethod
    def of(cls, column: Mapping[str, Any], places: Mapping[tuple[str, str], list[int]]) -> _CategoricalColumn:
        table = {value: places.get(("category", value), [None])[0] for value in column["values"]}
        other = places.get(("other", ""), [None])[0]
        return cls(column["name"], table, other, column["numbers"], column["booleans"])

    def text_of(self, value: Any) -> str:
        """Returns the text of a category as the saved Spark model makes it; empty for a missing value."""
        if value is None:
            return ""
        if isinstance(value, str):
            return value.strip()
        if isinstance(value, bool):
            return str(self.booleans[value])
        if isinstance(value, Integral):
            as_double = self.numbers == "fraction" and abs(int(value)) < 10**300
            return _double_text(float(value)) if as_double else _whole_text(int(value), self.name)
        if isinstance(value, Real):
            number = float(value)
            if self.numbers == "whole" and number.is_integer() and abs(number) <= MAX_EXACT_INTEGER:
                return str(int(number))
            return _double_text(number)
        raise RowError(self.name, f"{value!r} is neither text, number nor truth value")


def _places(features: Sequence[Mapping[str, Any]]) -> dict[str, dict[tuple[str, str], list[int]]]:
    """Returns for each column the places of its features by kind and category."""
    places: dict[str, dict[tuple[str, str], list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, feature in enumerate(features):
        places[feature["column"]][feature["kind"], feature["category"]].append(place)
    return defaultdict(dict, {name: dict(found) for name, found in places.items()})


def _vector(elements: Elements, length: int) -> list[float]:
    vector = [0.0] * length
    for place, value in elements:
        vector[place] = value
    return vector


def _linear(scorecard: Mapping[str, Any]) -> Callable[[Elements], Sequence[float]]:
    """Returns the probabilities of a linear model: the logistic function of its one margin, or the softmax of a margin for each class."""
    intercepts: list[float] = scorecard["intercepts"]
    coefficients: list[list[float]] = scorecard["coefficients"]

    def of_one_margin(elements: Elements) -> Sequence[float]:
        margin = intercept
        for place, value in elements:
            margin += weights[place] * value
        return _logistic(margin)

    def of_margins(elements: Elements) -> Sequence[float]:
        return _softmax(
            [
                intercept + sum(weights[place] * value for place, value in elements)
                for intercept, weights in zip(intercepts, coefficients, strict=True)
            ]
        )

    intercept, weights = intercepts[0], coefficients[0]
    return of_one_margin if len(intercepts) == 1 else of_margins


def _averaged_trees(scorecard: Mapping[str, Any]) -> Callable[[Elements], Sequence[float]]:
    """Returns the probabilities of a tree or a forest: the mean of those in the leaves."""
    trees, length = [_nodes(tree) for tree in scorecard["trees"]], len(scorecard["features"])

    def probabilities(elements: Elements) -> Sequence[float]:
        vector = _vector(elements, length)
        sums = [sum(shares) for shares in zip(*(_leaf(tree, vector) for tree in trees), strict=True)]
        whole = sum(sums)
        return [value / whole for value in sums]

    return probabilities


def _boosted_trees(scorecard: Mapping[str, Any]) -> Callable[[Elements], Sequence[float]]:
    """Returns the probabilities of boosted trees: the log-odds are the sum of the leaves."""
    trees, length = [_nodes(tree) for tree in scorecard["trees"]], len(scorecard["features"])

    def probabilities(elements: Elements) -> Sequence[float]:
        vector = _vector(elements, length)
        log_odds = 0.0
        for tree in trees:
            node = tree[0]
            while node[2] is not None:  # as `_leaf` does, without its call
                node = node[2] if vector[node[0]] <= node[1] else node[3]
            log_odds += node[4]
        return _logistic(log_odds)

    return probabilities


def _network(scorecard: Mapping[str, Any]) -> Callable[[Elements], Sequence[float]]:
    """Returns the probabilities of a multilayer perceptron: hidden units are logistic, the outputs a softmax."""
    length = len(scorecard["features"])
    layers = [list(zip(layer["weights"], layer["intercepts"], strict=True)) for layer in scorecard["layers"]]

    def probabilities(elements: Elements) -> Sequence[float]:
        values = _vector(elements, length)
        for place, layer in enumerate(layers):
            sums = [intercept + sum(map(mul, weights, values)) for weights, intercept in layer]
            values = sums if place == len(layers) - 1 else [_logistic(unit)[1] for unit in sums]
        return _softmax(values)

    return probabilities


FORMS: Mapping[str, Callable[[Mapping[str, Any]], Callable[[Elements], Sequence[float]]]] = {
    "linear": _linear,
    "averaged_trees": _averaged_trees,
    "boosted_trees": _boosted_trees,
    "network": _network,
}
"""How the numbers of a scorecard give the probabilities of the classes, by the scorecard's form."""


Node = list[Any]
"""A node of a tree: feature, threshold, left child (None in a leaf), right child, and the value of a leaf."""


def _nodes(tree: Mapping[str, Any]) -> list[Node]:
    """Returns the nodes of a tree, each of which holds its children themselves; the first is the root."""
    nodes = [
        [feature, threshold, None, None, value]
        for feature, threshold, value in zip(tree["feature"], tree["threshold"], tree["value"], strict=True)
    ]
    for node, left, right in zip(nodes, tree["left"], tree["right"], strict=True):
        if left >= 0:
            node[2], node[3] = nodes[left], nodes[right]
    return nodes


def _leaf(nodes: list[Node], vector: Sequence[float]) -> Any:
    """Returns the value of the leaf to which a tree sends a feature vector."""
    node = nodes[0]
    while node[2] is not None:
        node = node[2] if vector[node[0]] <= node[1] else node[3]
    return node[4]


def _whole_text(number: int, name: str) -> str:
    try:
        return str(number)
    except ValueError as error:  # Python writes no number of more than 4,300 digits
        raise RowError(name, "is a number of more than 4,300 digits") from error


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


def _logistic(margin: float) -> tuple[float, float]:
    """Returns the probabilities of the negative and of the positive class."""
    power = exp(-abs(margin))
    positive = (1.0 if margin >= 0 else power) / (1.0 + power)
    return 1.0 - positive, positive


def _softmax(margins: Sequence[float]) -> list[float]:
    largest = max(margins)
    powers = [exp(margin - largest) for margin in margins]
    whole = sum(powers)
    return [power / whole for power in powers]

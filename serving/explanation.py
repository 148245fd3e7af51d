"""Which values of a row pushed its probability up or down, compared with a usual row.

The usual row has the train rows' mean in each numeric column and the most frequent category in each categorical one.

For a linear model of two classes the answer is exact: the log-odds of a row are those of the usual row plus one contribution for each
column. For any other model it is an ablation: how far the probability changes if this one value alone is replaced by the usual one. Values
that work together are then counted in each of their columns or in none, so the changes do not add up to the difference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from serving.columns import Columns
from serving.scorer import Scorer

EXACT, ABLATION = "exact", "ablation"


@dataclass(frozen=True)
class Explanation:
    """What pushed a probability.

    Attributes:
        method: `exact`: contributions to the log-odds, which add up; `ablation`: changes of the probability, which do not.
        label: the label value whose probability is explained.
        usual: that probability for the usual row.
        columns: for each column its contribution or change; above 0 it pushed the probability up.
    """

    method: str
    label: str
    usual: float
    columns: Mapping[str, float]


class Explainer:
    """Explains the scores of one scorecard. It has a scorer of its own, so that the served one counts only the rows of callers."""

    def __init__(self, scorecard: Mapping[str, Any], columns: Columns) -> None:
        self._scorer = Scorer(scorecard)
        self._usual = {column.name: column.usual for column in columns.columns}
        linear = scorecard["form"] == "linear" and len(scorecard["coefficients"]) == 1
        self._weights: list[float] | None = scorecard["coefficients"][0] if linear else None
        self._columns_of_features = [feature["column"] for feature in scorecard["features"]]

    def explain(self, row: Mapping[str, Any]) -> Explanation:
        """Explains the probability of the positive class, or for more than two classes that of the predicted one.

        Raises:
            RowError: see `Scorer.features`.
        """
        score = self._scorer.score(row)
        label = self._scorer.labels[1] if self._scorer.threshold is not None else score.label
        usual = self._scorer.score(self._usual).probabilities[label]
        if self._weights is not None:
            return Explanation(EXACT, label, usual, self._contributions(row, self._weights))
        here = score.probabilities[label]
        changes = {
            name: here - self._scorer.score({**row, name: value}).probabilities[label]
            for name, value in self._usual.items()
        }
        return Explanation(ABLATION, label, usual, changes)

    def _contributions(self, row: Mapping[str, Any], weights: list[float]) -> dict[str, float]:
        contributions = dict.fromkeys(self._usual, 0.0)
        for sign, each in ((1, row), (-1, self._usual)):
            for place, value in self._scorer.elements(each):
                contributions[self._columns_of_features[place]] += sign * weights[place] * value
        return contributions

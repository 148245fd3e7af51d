"""The scorer on a scorecard made by hand: what it computes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from serving.scorer import RowError, ScorecardError, Scorer
from spark_jobs import cells

SCORECARD: dict[str, Any] = {
    "scorecard_version": 2,
    "labels": ["no", "yes"],
    "threshold": 0.5,
    "intercepts": [0.5],
    "coefficients": [[2.0, 1.0, -1.0, 0.25]],
    "numeric": [{"name": "x", "mean": 3.0, "indicator": True}],
    "cells": cells.definition(),
    "categorical": [{"name": "kind", "values": ["common", "rare"], "numbers": "whole", "booleans": ["false", "true"]}],
    "features": [
        {"column": "x", "kind": "numeric", "category": ""},
        {"column": "x", "kind": "missing", "category": ""},
        {"column": "kind", "kind": "category", "category": "rare"},
        {"column": "kind", "kind": "other", "category": ""},
    ],
}


@pytest.mark.parametrize(
    ("row", "margin"),
    [
        ({"x": 1, "kind": "common"}, 2.5),
        ({"x": " -1.5 ", "kind": "rare"}, -3.5),
        ({"x": None, "kind": "common"}, 7.5),
        ({"x": "", "kind": "common"}, 7.5),
        ({"x": float("nan"), "kind": None}, 7.75),
        ({"x": 0, "kind": "never met"}, 0.75),
        ({"x": 0, "kind": " rare "}, -0.5),
    ],
)
def test_margin_is_intercept_plus_weighted_features(row: dict[str, Any], margin: float) -> None:
    assert Scorer(SCORECARD).margins(row) == [margin]
    score = Scorer(SCORECARD).score(row)
    assert score.probabilities["yes"] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-15)
    assert sum(score.probabilities.values()) == 1.0
    assert score.label == ("yes" if margin > 0 else "no")


def test_a_margin_of_any_size_overflows_nothing() -> None:
    assert Scorer(SCORECARD).score({"x": 1e99, "kind": "common"}).probabilities["yes"] == 1.0
    assert Scorer(SCORECARD).score({"x": -1e99, "kind": "common"}).probabilities["yes"] == 0.0


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"kind": "common"}, "column 'x' is missing from the row"),
        ({"x": "old", "kind": "common"}, "column 'x': 'old' is not a number"),
        ({"x": "inf", "kind": "common"}, "column 'x' is infinite or beyond 1e\\+100"),
        ({"x": True, "kind": "common"}, "column 'x': True is not a number"),
        ({"x": [1], "kind": "common"}, r"column 'x': \[1\] is not a number"),
        ({"x": 10**400, "kind": "common"}, "column 'x' is infinite or beyond"),
        ({"x": 1, "kind": {"a": 1}}, r"column 'kind': \{'a': 1\} is neither text, number nor truth value"),
        ({"x": 1}, "column 'kind' is missing from the row"),
    ],
)
def test_a_row_that_cannot_be_scored_names_its_column(row: dict[str, Any], text: str) -> None:
    with pytest.raises(RowError, match=text):
        Scorer(SCORECARD).score(row)


def test_another_version_is_refused() -> None:
    with pytest.raises(ScorecardError, match="scorecard_version is 3, not 2"):
        Scorer({**SCORECARD, "scorecard_version": 3})


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_document_that_is_no_scorecard_is_told(text: str) -> None:
    with pytest.raises(ScorecardError, match="a scorecard is an object, and this is"):
        Scorer.from_json(text)


@pytest.mark.parametrize("row", [None, [1, 2], "x=1"])
def test_a_row_that_maps_nothing_is_told(row: Any) -> None:
    with pytest.raises(RowError, match="a row maps column names to values"):
        Scorer(SCORECARD).score(row)

"""The scorer on a scorecard made by hand: what it computes, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import pytest

from serving.scorer import RowError, ScorecardError, Scorer
from spark_jobs import cells

SCORECARD: dict[str, Any] = {
    "scorecard_version": 3,
    "form": "linear",
    "labels": ["no", "yes"],
    "threshold": 0.5,
    "intercepts": [0.5],
    "coefficients": [[2.0, 1.0, -1.0, 0.25]],
    "numeric": [{"name": "x", "mean": 3.0, "indicator": True, "center": 0.0, "scale": 1.0, "splits": []}],
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
    score = Scorer(SCORECARD).score(row)
    assert score.probabilities["yes"] == pytest.approx(1 / (1 + math.exp(-margin)), abs=1e-15)
    assert sum(score.probabilities.values()) == 1.0
    assert score.label == ("yes" if margin > 0 else "no")


def tree(*, at_most_two: Any, above: Any) -> dict[str, list[Any]]:
    """One split: x is at most 2, or above."""
    leaves = [None, at_most_two, above]
    return {
        "feature": [0, -1, -1],
        "threshold": [2.0, None, None],
        "left": [1, -1, -1],
        "right": [2, -1, -1],
        "value": leaves,
    }


@pytest.mark.parametrize(("x", "positive"), [(1, 0.3), (2.0, 0.3), (2.0000001, 0.7), (None, 0.7)])
def test_averaged_trees_give_the_mean_of_their_leaves(x: Any, positive: float) -> None:
    trees = [tree(at_most_two=[0.8, 0.2], above=[0.4, 0.6]), tree(at_most_two=[0.6, 0.4], above=[0.2, 0.8])]
    score = Scorer({**SCORECARD, "form": "averaged_trees", "trees": trees}).score({"x": x, "kind": "common"})
    assert score.probabilities == pytest.approx({"no": 1 - positive, "yes": positive}, abs=1e-15)
    assert score.label == ("yes" if positive > 0.5 else "no")


def test_boosted_trees_add_up_to_log_odds() -> None:
    trees = [tree(at_most_two=-2.0, above=3.0), tree(at_most_two=0.5, above=0.25)]
    scorer = Scorer({**SCORECARD, "form": "boosted_trees", "trees": trees})
    for x, log_odds in ((2, -1.5), (3, 3.25)):
        score = scorer.score({"x": x, "kind": "rare"})
        assert score.probabilities["yes"] == pytest.approx(1 / (1 + math.exp(-log_odds)), abs=1e-15)


def test_a_network_is_logistic_inside_and_a_softmax_at_its_end() -> None:
    layers = [
        {"weights": [[1.0, 0.0, 0.0, 2.0]], "intercepts": [-1.0]},
        {"weights": [[1.0], [3.0]], "intercepts": [0.0, 0.5]},
    ]
    score = Scorer({**SCORECARD, "form": "network", "layers": layers}).score({"x": 2, "kind": None})
    hidden = 1 / (1 + math.exp(-3))
    assert score.probabilities["yes"] == pytest.approx(1 / (1 + math.exp(-(2 * hidden + 0.5))), abs=1e-15)


def test_more_than_two_classes_take_the_most_probable() -> None:
    shares = tree(at_most_two=[0.2, 0.5, 0.3], above=[0.2, 0.3, 0.5])
    more = {"labels": ["a", "b", "c"], "threshold": None, "form": "averaged_trees", "trees": [shares]}
    scorer = Scorer({**SCORECARD, **more})
    assert [scorer.score({"x": x, "kind": "rare"}).label for x in (1, 3)] == ["b", "c"]


@pytest.mark.parametrize(
    ("column", "features", "expected"),
    [
        ({"center": 3.0, "scale": 2.0}, ["standardised"], {1: [-1.0], 7.5: [2.25], None: [0.0]}),
        (
            {"splits": [2.0, 5.0]},
            ["interval", "interval"],
            {1.9: [0, 0], 2: [1, 0], "4.99": [1, 0], 5: [0, 1], None: [1, 0]},
        ),
    ],
)
def test_a_number_is_standardised_or_put_into_its_interval(
    column: dict[str, Any], features: list[str], expected: dict[Any, list[float]]
) -> None:
    numeric = [{**SCORECARD["numeric"][0], **column}]
    described = [{"column": "x", "kind": kind, "category": str(place)} for place, kind in enumerate(features)]
    scorer = Scorer(
        {
            **SCORECARD,
            "numeric": numeric,
            "features": described,
            "categorical": [],
            "coefficients": [[1.0] * len(features)],
        }
    )
    assert {x: scorer.features({"x": x}) for x in expected} == expected


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
    with pytest.raises(ScorecardError, match="scorecard_version is 2, not 3"):
        Scorer({**SCORECARD, "scorecard_version": 2})


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(
        ScorecardError, match="the form is 'cubic'; this scorer knows linear, averaged_trees, boosted_trees, network"
    ):
        Scorer({**SCORECARD, "form": "cubic"})


@pytest.mark.parametrize("text", ["[]", "null", "3"])
def test_a_document_that_is_no_scorecard_is_told(text: str) -> None:
    with pytest.raises(ScorecardError, match="a scorecard is an object, and this is"):
        Scorer.from_json(text)


@pytest.mark.parametrize("row", [None, [1, 2], "x=1"])
def test_a_row_that_maps_nothing_is_told(row: Any) -> None:
    with pytest.raises(RowError, match="a row maps column names to values"):
        Scorer(SCORECARD).score(row)


def test_missing_and_unseen_cells_are_counted_by_column() -> None:
    scorer = Scorer(SCORECARD)
    for row in (
        {"x": None, "kind": "rare"},
        {"x": "n/a", "kind": " "},
        {"x": 1, "kind": "never met"},
        {"x": 2, "kind": 7},
    ):
        scorer.score(row)
    assert (dict(scorer.missing), dict(scorer.unseen)) == ({"x": 2, "kind": 1}, {"kind": 2})


@pytest.mark.parametrize(
    "damage", [{"features": []}, {"coefficients": []}, {"numeric": None}, {"cells": {}}, {"form": "averaged_trees"}]
)
def test_a_damaged_scorecard_is_told_before_it_scores(damage: dict[str, Any]) -> None:
    with pytest.raises(ScorecardError, match="the scorecard is damaged"):
        Scorer({**SCORECARD, **damage})


@pytest.mark.parametrize("correction", [{"shift": 1e9}, {"shift": float("nan")}, {}, {"shift": "1"}, [1]])
def test_a_correction_that_is_none_is_told(correction: Any) -> None:
    with pytest.raises(ScorecardError):
        Scorer({**SCORECARD, "correction": correction or {"base_rate": 0.1}})


def test_a_number_too_long_to_be_written_is_told() -> None:
    with pytest.raises(RowError, match="column 'kind' is a number of more than 4,300 digits"):
        Scorer(SCORECARD).score({"x": 1, "kind": 10**5000})

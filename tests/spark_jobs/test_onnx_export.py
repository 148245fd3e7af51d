"""A model as ONNX gives in onnxruntime the probabilities and labels of the scorer, in all forms."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from serving.scorer import Scorer
from spark_jobs import cells, onnx_export
from spark_jobs.errors import InputError

pytest.importorskip("onnx", reason="the extra onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

TOLERANCE = 1e-12
ROWS = 500
NUMERIC = [
    {"name": "plain", "mean": 3.25, "indicator": False, "center": 0.0, "scale": 1.0, "splits": []},
    {"name": "standard", "mean": -7.5, "indicator": True, "center": -7.5, "scale": 3.7, "splits": []},
    {"name": "binned one", "mean": 0.25, "indicator": True, "center": 0.0, "scale": 1.0, "splits": [-1.0, 0.25, 4.0]},
]
CATEGORICAL = [
    {"name": "colour", "values": ["red", "grün", "blue"], "numbers": "whole", "booleans": ["false", "true"]},
    {"name": "without other", "values": ["a", "b"], "numbers": "whole", "booleans": ["false", "true"]},
    {"name": "constant", "values": ["only"], "numbers": "whole", "booleans": ["false", "true"]},
]
FEATURES = [
    ("colour", "category", "blue"), ("binned one", "interval", ""), ("plain", "numeric", ""), ("standard", "missing", ""),
    ("binned one", "interval", ""), ("without other", "category", "b"), ("colour", "other", ""), ("standard", "standardised", ""),
    ("binned one", "missing", ""), ("colour", "category", "grün"), ("binned one", "interval", ""),
]  # fmt: skip


def make_scorecard(form: str, labels: list[str], chance: random.Random) -> dict[str, Any]:
    """Returns a scorecard with random numbers; the features of a column do not stand side by side."""
    classes, width = len(labels), len(FEATURES)
    numbers: dict[str, Any] = {}
    if form == "linear":
        margins = 1 if classes == 2 else classes
        numbers["intercepts"] = [chance.gauss(0, 1) for _ in range(margins)]
        numbers["coefficients"] = [[chance.gauss(0, 1) for _ in range(width)] for _ in range(margins)]
    elif form == "network":
        numbers["layers"] = [
            {
                "weights": [[chance.gauss(0, 1) for _ in range(inputs)] for _ in range(units)],
                "intercepts": [chance.gauss(0, 1) for _ in range(units)],
            }
            for inputs, units in ((width, 5), (5, 4), (4, classes))
        ]
    else:
        leaves = classes if form == "averaged_trees" else 0
        numbers["trees"] = [make_tree(chance, depth, leaves) for depth in (4, 0, 1, 5, 5, 4)]
    return {
        "scorecard_version": 3, "form": form, "labels": labels, "threshold": 0.4 if classes == 2 else None,
        "numeric": NUMERIC, "categorical": CATEGORICAL, "cells": cells.definition(), **numbers,
        "features": [{"column": column, "kind": kind, "category": category} for column, kind, category in FEATURES],
    }  # fmt: skip


def make_tree(chance: random.Random, depth: int, classes: int) -> dict[str, list[Any]]:
    """Returns a tree; the value of a leaf is one number, or the shares of the classes."""
    tree: dict[str, list[Any]] = {"feature": [], "threshold": [], "left": [], "right": [], "value": []}

    def grow(left: int) -> int:
        place = len(tree["value"])
        shares = [chance.random() for _ in range(classes)]
        value = [share / sum(shares) for share in shares] if classes else chance.gauss(0, 1)
        for name, each in (("feature", -1), ("threshold", None), ("left", -1), ("right", -1), ("value", value)):
            tree[name].append(each)
        if left:
            tree["feature"][place], tree["threshold"][place] = (
                chance.randrange(len(FEATURES)),
                chance.choice([0.0, 0.5, 1.3]),
            )
            tree["value"][place] = None
            tree["left"][place], tree["right"][place] = grow(left - 1), grow(left - chance.choice([1, left]))
        return place

    grow(depth)
    return tree


def make_row(chance: random.Random) -> dict[str, Any]:
    numbers = [None, -1.0, 0.25, 4.0, 0.5, 1.3, chance.gauss(0, 3), chance.gauss(0, 300), 1e90, 1e-300]
    return {
        **{item["name"]: chance.choice(numbers) for item in NUMERIC},
        "colour": chance.choice(["red", "grün", "blue", "never met", "", None]),
        "without other": chance.choice(["a", "b", "c", None]),
        "constant": chance.choice(["only", "x", None]),
    }


def run(content: bytes, rows: list[Mapping[str, Any]], output: str = "probabilities") -> tuple[list[str], Any]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    feed = {
        item["name"]: np.array(
            [[np.nan if row[item["name"]] is None else row[item["name"]]] for row in rows], np.float64
        )
        for item in NUMERIC
    }
    feed |= {item["name"]: np.array([[row[item["name"]] or ""] for row in rows], object) for item in CATEGORICAL}
    labels, probabilities = session.run(["label", output], feed)
    return list(labels), probabilities


@pytest.mark.parametrize(
    ("form", "labels"),
    [
        ("linear", ["no", "yes"]),
        ("linear", ["a", "b", "c"]),
        ("averaged_trees", ["no", "yes"]),
        ("averaged_trees", ["a", "b", "c"]),
        ("boosted_trees", ["no", "yes"]),
        ("network", ["no", "yes"]),
        ("network", ["a", "b", "c"]),
    ],
)
def test_probabilities_are_those_of_the_scorer(form: str, labels: list[str]) -> None:
    chance = random.Random(f"{form}{len(labels)}")
    scorecard = make_scorecard(form, labels, chance)
    rows = [make_row(chance) for _ in range(ROWS)]
    scores = [Scorer(scorecard).score(row) for row in rows]
    expected = np.array([[score.probabilities[label] for label in labels] for score in scores])
    found_labels, found = run(onnx_export.onnx_model(scorecard, name="bank", version="1"), rows)
    assert found.dtype == np.float64
    assert np.abs(found - expected).max() <= TOLERANCE
    assert found_labels == [score.label for score in scores]
    assert len({tuple(each) for each in expected.round(6).tolist()}) > 10


def test_the_correction_to_the_base_rate_is_that_of_the_scorer() -> None:
    chance = random.Random(3)
    scorecard = make_scorecard("boosted_trees", ["no", "yes"], chance)
    scorecard["correction"] = {"base_rate": 0.1, "sample_rate": 0.5, "shift": -2.197}
    scorer, rows = Scorer(scorecard), [make_row(chance) for _ in range(ROWS)]
    expected = [list(scorer.corrected(scorer.score(row)).values()) for row in rows]
    content = onnx_export.onnx_model(scorecard, name="bank", version="1")
    assert np.abs(run(content, rows, "corrected_probabilities")[1] - np.array(expected)).max() <= TOLERANCE


def test_the_same_scorecard_gives_the_same_file() -> None:
    scorecard = make_scorecard("linear", ["no", "yes"], random.Random(1))
    one, other = (onnx_export.onnx_model(scorecard, name="bank", version="1") for _ in range(2))
    assert one == other


def test_a_column_that_is_named_like_an_output_is_told() -> None:
    scorecard = make_scorecard("linear", ["no", "yes"], random.Random(1))
    scorecard["numeric"] = [{**NUMERIC[0], "name": "label"}]
    with pytest.raises(InputError, match="column 'label' cannot be an input"):
        onnx_export.onnx_model(scorecard, name="bank", version="1")


def test_a_form_of_another_release_is_told() -> None:
    scorecard = {**make_scorecard("linear", ["no", "yes"], random.Random(1)), "form": "rules"}
    with pytest.raises(InputError, match="form 'rules'"):
        onnx_export.onnx_model(scorecard, name="bank", version="1")

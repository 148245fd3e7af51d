"""The metrics against scikit-learn and against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as reference

from spark_jobs.evaluation import metrics

counts = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)).filter(any), min_size=2, max_size=30).filter(
    lambda pairs: sum(n for n, _ in pairs) > 0 and sum(p for _, p in pairs) > 0
)


def rows_of(pairs: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    truth = [label for n, p in pairs for label in [0] * n + [1] * p]
    return truth, [i for i, (n, p) in enumerate(pairs) for _ in range(n + p)]


@given(counts)
def test_area_under_roc_is_scikit_learns_with_any_ties(pairs: list[tuple[int, int]]) -> None:
    negatives, positives = np.array(pairs, dtype=float).T
    assert metrics.area_under_roc(negatives, positives) == pytest.approx(
        reference.roc_auc_score(*rows_of(pairs)), abs=1e-12
    )
    false, true = metrics.roc_curve(negatives, positives)
    assert np.trapezoid(true, false) == pytest.approx(metrics.area_under_roc(negatives, positives), abs=1e-12)


@given(counts)
def test_precision_and_recall_are_scikit_learns_at_every_threshold(pairs: list[tuple[int, int]]) -> None:
    negatives, positives = np.array(pairs, dtype=float).T
    recall, precision = metrics.precision_recall_curve(negatives, positives)
    expected_precision, expected_recall, _ = reference.precision_recall_curve(*rows_of(pairs))
    assert recall[1:] == pytest.approx(expected_recall[:-1][::-1])
    assert precision[1:] == pytest.approx(expected_precision[:-1][::-1])


@given(counts)
def test_the_tenths_hold_all_positives_and_fall_apart_evenly(pairs: list[tuple[int, int]]) -> None:
    negatives, positives = np.array(pairs, dtype=float).T
    tenths = metrics.gains(negatives, positives)
    assert tenths.sum() == pytest.approx(positives.sum())
    assert (tenths <= (negatives + positives).sum() / 10 + 1e-9).all()


@pytest.mark.parametrize("rule", ["max_f1", "max_accuracy", "youden"])
def test_threshold_is_the_best_by_its_rule(rule: str) -> None:
    """Probabilities 0.1, 0.3, 0.5, 0.7, 0.9 with (negatives, positives) as below."""
    by_bin = np.zeros((11, 2))
    for place, pair in zip((0, 2, 4, 6, 8), ((8, 0), (3, 3), (4, 1), (0, 4), (0, 3)), strict=True):
        by_bin[place] = pair
    truth = np.array([label for n, p in ((8, 0), (3, 3), (4, 1), (0, 4), (0, 3)) for label in [0] * n + [1] * p])
    p = np.repeat([0.1, 0.3, 0.5, 0.7, 0.9], [8, 6, 5, 4, 3])
    judge = {
        "max_f1": reference.f1_score,
        "max_accuracy": reference.accuracy_score,
        "youden": lambda a, b: reference.recall_score(a, b) + reference.recall_score(a, b, pos_label=0),
    }
    found = metrics.choose_threshold(by_bin, rule)
    scores = [judge[rule](truth, p > k / 10) for k in range(10)]
    assert judge[rule](truth, p > found) == pytest.approx(max(scores))
    assert metrics.choose_threshold(by_bin, "half") == 0.5


def test_calibration_groups_hold_every_row_and_their_shares() -> None:
    p = np.linspace(0.05, 0.95, 19)
    groups = metrics.calibration(p, 100 * (1 - p), 100 * p)
    assert sum(group["rows"] for group in groups) == pytest.approx(1900)
    for group in groups:
        assert group["observed"] == pytest.approx(group["predicted"])
        assert group["low"] < group["observed"] < group["high"]


def test_weighted_metrics_of_three_classes_are_scikit_learns() -> None:
    generator = np.random.default_rng(0)
    truth, predicted = generator.integers(0, 3, 200), generator.integers(0, 3, 200)
    confusion = reference.confusion_matrix(truth, predicted).astype(float)
    found = metrics.multiclass_estimates(confusion)
    precision, recall, f1, _ = reference.precision_recall_fscore_support(truth, predicted, average="weighted")
    assert found == pytest.approx(
        {
            "accuracy": reference.accuracy_score(truth, predicted),
            "weightedPrecision": precision,
            "weightedRecall": recall,
            "f1": f1,
        }
    )

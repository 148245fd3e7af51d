"""The scorecard, `scorecard.json`: a fitted model as plain numbers, so that `serving.scorer` can score rows without Spark or a JVM.

Its `form` says how the numbers give probabilities:

- `linear`: `intercepts`, and `coefficients` of shape (rows, features). The margin of a class is its intercept plus the sum of coefficient
  times value over all features. The probability is the logistic function of the margin for two classes, which have one row, and the
  softmax of the margins for more, which have one row each.
- `averaged_trees`: `trees`, each as lists with one entry per node: `feature`, `threshold`, `left`, `right` and `value`. A row starts at
  node 0 and goes to the left child if its feature is at most the threshold, else to the right one. A leaf has no children (-1), and its
  value is the list of the classes' probabilities; those of the row are the mean over the trees.
- `boosted_trees`: the same, but the value of a leaf is a number, and the sum over the trees is the log-odds of the positive class.
- `network`: `layers`, each with `weights`, shape (units, inputs), and `intercepts`. A unit's sum is its intercept plus its weights times
  the layer's inputs. The output of a hidden unit is the logistic function of its sum; the probabilities are the softmax of the last
  layer's sums.

Its `correction`, if the specification states a base rate, says by how much the log-odds are shifted for the population: see
`population_shift`. This module only builds the document; train writes it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from spark_jobs import cells
from spark_jobs.dataset import read_specification

SCORECARD_VERSION = 3
"""Version of the document's format; `serving.scorer` refuses any other."""


def population_shift(
    base_rate: float | None, labels: Sequence[str], train: Mapping[str, int], class_weights: str
) -> dict[str, float] | None:
    """Returns by how much log-odds are shifted for a population whose share of positives (base rate) is stated in the specification.

    The shift is ln(b / (1 - b)) - ln(s / (1 - s)), where b is the base rate of the population and s the share of positives in the fit
    (King & Zeng 2001, section 4.2: prior correction).

    Args:
        base_rate: the base rate; None: the specification states none.
        labels: the label values, the positive one second.
        train: train rows by label value.
        class_weights: setting of train; `balanced` makes the share in the fit a half.

    Returns:
        The shift with `base_rate` and `sample_rate`; None without a base rate.
    """
    if base_rate is None:
        return None
    sample_rate = 0.5 if class_weights == "balanced" else train[labels[1]] / sum(train.values())
    shift = math.log(base_rate / (1 - base_rate)) - math.log(sample_rate / (1 - sample_rate))
    return {"base_rate": base_rate, "sample_rate": sample_rate, "shift": shift}


def build_scorecard(
    features: Mapping[str, Any],
    *,
    model: str,
    numbers: Mapping[str, Any],
    threshold: float | None,
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """Builds the scorecard of a model.

    Args:
        features: the document `features.json` of preprocess.
        model: title of the estimator.
        numbers: the fitted model as its estimator's `scorecard` returns it: its `form` and the numbers of that form.
        threshold: for two classes, the probability above which the positive class is predicted; None for more classes.
        settings: the hyperparameters.
        digests: digests of the inputs of the fit.

    Returns:
        The document, with its own digest under `digest`.
    """
    base_rate = read_specification(features["specification"], "the specification in features.json").base_rate
    scorecard: dict[str, Any] = {
        "scorecard_version": SCORECARD_VERSION,
        "model": model,
        "labels": features["labels"],
        "threshold": threshold,
        "correction": population_shift(
            base_rate, features["labels"], features["split"]["counts"]["train"], str(settings.get("class_weights", ""))
        ),
        **numbers,
        "cells": cells.definition(),
        "numeric": features["numeric"],
        "categorical": features["categorical"],
        "features": features["features"],
        "model_columns": features["model_columns"],
        "specification": features["specification"],
        "settings": dict(settings),
        "digests": dict(digests),
    }
    scorecard["digest"] = hashlib.sha256(json.dumps(scorecard, sort_keys=True).encode()).hexdigest()
    return scorecard

"""The scorecard: a fitted model as plain numbers, which anyone can score with a few additions.

For each class, the margin is the intercept plus, for each feature, its coefficient times its value; the probability is the logistic
function (two classes) or the softmax (more) of the margins. Knows nothing of files; `serving.scorer` reads what this writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from spark_jobs import cells

SCORECARD_VERSION = 2


def build_scorecard(
    features: Mapping[str, Any],
    *,
    coefficients: Sequence[Sequence[float]],
    intercepts: Sequence[float],
    threshold: float | None,
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """The scorecard of a logistic regression.

    Args:
        features: the document that preprocess wrote (`features.json`).
        coefficients: one row for two classes, else a row for each class; shape (rows, features), in units of the raw features.
        intercepts: one for each row of `coefficients`.
        threshold: two classes: the positive one is predicted above this probability; None for more classes.
        settings: the hyperparameters.
        digests: of the data and of the features.
    """
    scorecard: dict[str, Any] = {
        "scorecard_version": SCORECARD_VERSION,
        "model": "logistic regression",
        "labels": features["labels"],
        "threshold": threshold,
        "intercepts": list(intercepts),
        "coefficients": [list(row) for row in coefficients],
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

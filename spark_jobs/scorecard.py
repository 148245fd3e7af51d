"""The scorecard: a fitted model as plain numbers, which anyone can score with a few additions.

For each class, the margin is the intercept plus, for each feature, its coefficient times its value; the probability is the logistic
function (two classes) or the softmax (more) of the margins. Knows nothing of files; `serving.scorer` reads what this writes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from spark_jobs import cells

SCORECARD_VERSION = 2


def build_scorecard(
    features: Mapping[str, Any],
    *,
    model: str,
    numbers: Mapping[str, Any],
    threshold: float | None,
    settings: Mapping[str, Any],
    digests: Mapping[str, str],
) -> dict[str, Any]:
    """The scorecard of a model.

    Args:
        features: the document that preprocess wrote (`features.json`).
        model: which kind it is.
        numbers: the model itself, as its estimator gives it; of a logistic regression `coefficients`, one row for two classes, else a row
            for each class, shape (rows, features), in units of the raw features, and `intercepts`, one for each row.
        threshold: two classes: the positive one is predicted above this probability; None for more classes.
        settings: the hyperparameters.
        digests: of the data and of the features.
    """
    scorecard: dict[str, Any] = {
        "scorecard_version": SCORECARD_VERSION,
        "model": model,
        "labels": features["labels"],
        "threshold": threshold,
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

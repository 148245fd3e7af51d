"""Multilayer perceptron: Spark's `MultilayerPerceptronClassifier`, for two and more classes.

This module implements `spark_jobs.estimator.Estimator`, which describes each function.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from pyspark.ml.classification import MultilayerPerceptronClassificationModel, MultilayerPerceptronClassifier

from spark_jobs.arguments import flag
from spark_jobs.contract import TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Shape

TITLE = "multilayer perceptron"
MODEL = MultilayerPerceptronClassificationModel
WHEN_TOO_SURE = "Fit a smaller network or stop earlier, for example units 4 or max_iter 30."


def check(args: TrainArgs, labels: Sequence[str]) -> None:
    """Refuses a step size that the solver does not use."""
    if args.solver != "gd" and args.step_size != TrainArgs.settings()["step_size"]:
        raise InputError(
            f"{flag('step_size')}={args.step_size} is for {flag('solver')}=gd, and {flag('solver')} is {args.solver}: "
            "leave one of them out"
        )


def build(args: TrainArgs, shape: Shape) -> MultilayerPerceptronClassifier:
    """Returns Spark's estimator with the settings of the contract."""
    return MultilayerPerceptronClassifier(
        layers=[shape.features, *[args.units] * args.layers, shape.classes],
        solver=args.solver,
        stepSize=args.step_size,
        maxIter=args.max_iter,
        tol=args.tol,
        seed=args.fit_seed,
    )


def convergence(model: MultilayerPerceptronClassificationModel, args: TrainArgs) -> None:
    """Returns None: a network that is fitted until it converges is overfitted, so `max_iter` ends the fit, as it should."""


def explain(
    model: MultilayerPerceptronClassificationModel,
    features: Sequence[Mapping[str, Any]],
    labels: Sequence[str],
    deviations: Mapping[str, float],
) -> dict[str, Any]:
    """Returns nothing: no weight of a network tells by itself what a feature does."""
    return {}


def scorecard(model: MultilayerPerceptronClassificationModel, uri: str) -> dict[str, Any]:
    """Returns each layer's weights, shape (units, inputs), and its intercepts."""
    numbers, layers = model.weights.toArray(), []
    sizes = model.getLayers()
    for inputs, units in pairwise(sizes):
        weights, intercepts, numbers = (
            numbers[: inputs * units],
            numbers[inputs * units : (inputs + 1) * units],
            numbers[(inputs + 1) * units :],
        )
        layers.append({"weights": weights.reshape(inputs, units).T.tolist(), "intercepts": intercepts.tolist()})
    return {"form": "network", "layers": layers}

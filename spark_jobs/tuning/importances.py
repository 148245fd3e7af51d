"""How much each setting decides whether a trial is among the best.

By PED-ANOVA (Watanabe, Bansal & Hutter 2023, IJCAI): how differently the values of a setting lie in the best trials and in all of them.
Optuna's other evaluators need scikit-learn, which is no part of the Spark image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import optuna

from spark_jobs.trials import Trial, loss
from spark_jobs.tuning.proposals import distribution_of
from spark_jobs.tuning.unit_cube import Space

BEST_SHARE = 0.25
"""Share of the trials that are the best ones."""
FEWEST_TRIALS = 8
"""With fewer finished trials of an estimator nothing is said."""


def importances_of(trials: Sequence[Trial], space: Space, objective: str) -> dict[str, dict[str, float]]:
    """Returns by estimator and setting a share, with the sum 1 for each estimator, the most important setting first.

    An estimator with fewer than two settings or `FEWEST_TRIALS` finished trials is left out.
    """
    found: dict[str, dict[str, float]] = {}
    for estimator, settings in space.items():
        own = [trial for trial in trials if trial.estimator == estimator and trial.finished]
        if len(own) >= FEWEST_TRIALS and len(settings) > 1:
            found[estimator] = shares(own, {name: distribution_of(*what) for name, what in settings.items()}, objective)
    return {estimator: each for estimator, each in found.items() if each}


def shares(
    trials: Sequence[Trial], ranges: Mapping[str, optuna.distributions.BaseDistribution], objective: str
) -> dict[str, float]:
    """Returns the share of each setting; none if all trials are equally good."""
    losses = [loss(trial, objective) for trial in trials]
    if min(losses) == max(losses):
        return {}
    study = optuna.create_study()
    for trial, value in zip(trials, losses, strict=True):
        params = {name: trial.settings[name] for name in ranges}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=dict(ranges), value=value))
    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_SHARE)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))

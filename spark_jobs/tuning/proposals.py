"""Chooses what the trials of one algorithm try, and which of them stop early. Optuna keeps the trials and has most of the algorithms.

Knows nothing of Spark. A trial is described to Optuna by the loss, of which a smaller one is better.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna

from spark_jobs.arguments import SearchRange
from spark_jobs.contract import BAYESIAN, CMAES, GRID, HYPERBAND, MEDIAN, RANDOM, TPE, TuneArgs
from spark_jobs.trials import Trial, loss
from spark_jobs.tuning.gaussian_process import most_promising
from spark_jobs.tuning.unit_cube import Choice, choice_at, grid, point_of

FIRST_AT_RANDOM = 5
"""Number of trials at random before tpe or the Gaussian process chooses one; Optuna's own ten are half of a short search."""
TPE_AT_ONE_TIME = 2
"""Number of trials that tpe chooses before it learns from the first of them, as one fit of a small table keeps only one core busy."""
TRIALS_TO_LEARN_FROM = 10
"""Number of finished trials of an earlier attempt that cmaes needs to begin where they lie: it takes the best tenth of them."""
BEFORE_THE_MEDIAN = 4
"""Number of finished trials before the median of their objectives stops another."""


@dataclass(frozen=True)
class Proposal:
    """What a trial shall try.

    Attributes:
        estimator: the kind of model.
        settings: its settings.
        asked: Optuna's trial.
    """

    estimator: str
    settings: dict[str, Any]
    asked: Any


class Proposals:
    """The trials of one algorithm, one after another."""

    def __init__(
        self,
        args: TuneArgs,
        algorithm: str,
        objective: str,
        finished: Sequence[Trial],
        largest_budget: int,
        second_objective: str = "",
    ) -> None:
        """Tells Optuna of the trials of an earlier attempt.

        Args:
            args: the arguments of tune.
            algorithm: one of its algorithms.
            objective: the metric by which trials are compared.
            finished: the algorithm's trials of an earlier attempt of this step; it learns from them, too.
            largest_budget: the budget of a trial that is not stopped, see `should_stop`.
            second_objective: a metric by which trials are compared, too; empty: there is none.
        """
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        self._objective, self._space = objective, args.space()
        self._objectives = [objective, *([second_objective] if second_objective else [])]
        self.algorithm = algorithm
        # Another seed after each interruption, or the random numbers of the first attempt would come again.
        seed = args.search_seed + len(finished)
        self._generator = np.random.default_rng(seed)
        known = [self._described(trial) for trial in finished]
        # The name of a study decides which trial belongs to which bracket of hyperband.
        self._study = optuna.create_study(
            study_name=algorithm,
            sampler=sampler_of(algorithm, seed, known),
            pruner=pruner_of(algorithm, args, largest_budget),
            directions=["minimize"] * len(self._objectives),
        )
        self._study.add_trials(known)
        done = [(trial.estimator, dict(trial.settings)) for trial in finished]
        self._grid = [choice for choice in grid(self._space, args.trials) if choice not in done]
        self.left = len(self._grid) if algorithm == GRID else max(0, args.trials - len(finished))

    @property
    def independent(self) -> int:
        """Number of next trials that may be asked for before the first of them has ended; it depends on no machine."""
        if self.algorithm in (RANDOM, GRID):
            return self.left
        if self.algorithm in (TPE, BAYESIAN):
            done = len(self._study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,)))
            return min(self.left, max(FIRST_AT_RANDOM - done, TPE_AT_ONE_TIME if self.algorithm == TPE else 1))
        return min(self.left, 1)

    def ask(self) -> Proposal:
        """Chooses the next trial."""
        self.left -= 1
        if self.algorithm == GRID:
            self._enqueue(self._grid.pop(0))
        elif self.algorithm == BAYESIAN and (chosen := self._by_gaussian_process()):
            self._enqueue(chosen)
        asked = self._study.ask()
        # A choice among one would be a setting that is no number, which cmaes cannot search.
        several = len(self._space) > 1
        estimator = asked.suggest_categorical("estimator", list(self._space)) if several else next(iter(self._space))
        settings = {name: suggest(asked, f"{estimator}.{name}", *what) for name, what in self._space[estimator].items()}
        return Proposal(estimator, settings, asked)

    def should_stop(self, proposal: Proposal, budget: int, value: float) -> bool:
        """Notes the objective that a trial has reached so far, and returns whether it shall stop.

        Args:
            proposal: the trial.
            budget: what it has had: the number of folds, or of ninths of the train rows.
            value: the objective.
        """
        proposal.asked.report(self._loss(value), budget)
        return bool(proposal.asked.should_prune())

    def tell(self, proposal: Proposal, trial: Trial) -> None:
        """Tells Optuna how a trial has ended."""
        if trial.finished:
            self._study.tell(proposal.asked, self._losses(trial))
        else:
            self._study.tell(proposal.asked, state=state_of(trial))

    def _losses(self, trial: Trial) -> list[float]:
        return [loss(trial, objective) for objective in self._objectives]

    def _loss(self, value: float) -> float:
        return loss(Trial(estimator="", settings={}, metrics={self._objective: value}), self._objective)

    def _enqueue(self, choice: Choice) -> None:
        estimator, settings = choice
        self._study.enqueue_trial(self._parameters(estimator, settings, estimator))

    def _by_gaussian_process(self) -> Choice | None:
        """Returns the most promising choice; None before there are enough trials to learn from."""
        done = (optuna.trial.TrialState.COMPLETE,)
        known = self._study.get_trials(deepcopy=False, states=done)
        if len(known) < FIRST_AT_RANDOM:
            return None
        points = [point_of(self._space, self._choice_of(trial.params)) for trial in known]
        losses = np.array([trial.value for trial in known], dtype=float)
        chosen = most_promising(np.array(points), losses, self._generator)
        return choice_at(self._space, chosen.tolist())

    def _choice_of(self, params: dict[str, Any]) -> Choice:
        """Returns the choice that Optuna's parameters stand for."""
        own = {name.partition(".")[2]: value for name, value in params.items() if name != "estimator"}
        return params.get("estimator", next(iter(self._space))), own

    def _parameters(self, estimator: str, values: Mapping[str, Any], chosen: Any) -> dict[str, Any]:
        """Returns values by Optuna's names of the settings; `chosen` is that of the estimator, if there are several."""
        own = {f"{estimator}.{name}": value for name, value in values.items()}
        return {"estimator": chosen, **own} if len(self._space) > 1 else own

    def _described(self, trial: Trial) -> Any:
        """Describes a trial of an earlier attempt to Optuna."""
        ranges = {name: distribution_of(*what) for name, what in self._space[trial.estimator].items()}
        among = optuna.distributions.CategoricalDistribution(list(self._space))
        return optuna.trial.create_trial(
            params=self._parameters(trial.estimator, trial.settings, trial.estimator),
            distributions=self._parameters(trial.estimator, ranges, among),
            values=self._losses(trial) if trial.finished else None,
            intermediate_values={budget: self._loss(value) for budget, value in trial.reports},
            state=state_of(trial),
        )


def suggest(asked: Any, name: str, kind: str, wanted: SearchRange) -> float | int:
    """Lets Optuna choose the value of a setting."""
    if kind == "int":
        return int(asked.suggest_int(name, int(wanted.low), int(wanted.high), log=wanted.log))
    return float(asked.suggest_float(name, wanted.low, wanted.high, log=wanted.log))


def state_of(trial: Trial) -> Any:
    """Returns Optuna's state of a trial that has ended."""
    if trial.stopped:
        return optuna.trial.TrialState.PRUNED
    return optuna.trial.TrialState.COMPLETE if trial.finished else optuna.trial.TrialState.FAIL


def distribution_of(kind: str, wanted: SearchRange) -> Any:
    """Describes the range of a setting to Optuna."""
    if kind == "int":
        return optuna.distributions.IntDistribution(int(wanted.low), int(wanted.high), log=wanted.log)
    return optuna.distributions.FloatDistribution(wanted.low, wanted.high, log=wanted.log)


def sampler_of(algorithm: str, seed: int, known: Sequence[Any]) -> Any:
    """Returns what draws the trials of an algorithm; the trials that are chosen elsewhere are queued."""
    if algorithm == TPE:
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=FIRST_AT_RANDOM, constant_liar=True)
    if algorithm == CMAES:
        done = [trial for trial in known if trial.state == optuna.trial.TrialState.COMPLETE]
        enough = len(done) >= TRIALS_TO_LEARN_FROM
        return optuna.samplers.CmaEsSampler(seed=seed, source_trials=done if enough else None)
    assert algorithm in (RANDOM, GRID, BAYESIAN, HYPERBAND), algorithm
    return optuna.samplers.RandomSampler(seed=seed)


def pruner_of(algorithm: str, args: TuneArgs, largest_budget: int) -> Any:
    """Returns what stops trials early."""
    if algorithm == HYPERBAND:
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=largest_budget, reduction_factor=3)
    if args.early_stopping == MEDIAN:
        return optuna.pruners.MedianPruner(n_startup_trials=BEFORE_THE_MEDIAN)
    return optuna.pruners.NopPruner()

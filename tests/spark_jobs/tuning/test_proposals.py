"""What the algorithms choose: in the ranges, the same for one seed, better than chance where they learn, and which trials they stop."""

from __future__ import annotations

import math
from typing import Any

import pytest

from spark_jobs.contract import ALGORITHMS, TuneArgs
from spark_jobs.trials import Trial
from spark_jobs.tuning.proposals import Proposals


def arguments(**settings: Any) -> TuneArgs:
    return TuneArgs(preprocess_uri="p", output_uri="o", report_uri="r", **settings)


def bowl(settings: dict[str, Any]) -> float:
    """A loss with its smallest value, 0, at reg_param 0.01 and elastic_net_param 0.3."""
    return (math.log10(settings["reg_param"]) + 2) ** 2 / 9 + (settings["elastic_net_param"] - 0.3) ** 2


def searched(
    algorithm: str, trials: int, finished: list[Trial] | None = None, seed: int = 1, **more: Any
) -> list[Trial]:
    args = arguments(trials=trials, algorithms=algorithm, search_seed=seed, **more)
    found = list(finished or [])
    proposals = Proposals(args, algorithm, "logLoss", found, 1)
    while proposals.left:
        proposal = proposals.ask()
        metrics = (
            {"logLoss": bowl(proposal.settings)} if proposal.estimator == "logistic_regression" else {"logLoss": 9.0}
        )
        trial = Trial(estimator=proposal.estimator, settings=proposal.settings, metrics=metrics, algorithm=algorithm)
        proposals.tell(proposal, trial)
        found.append(trial)
    return found


def losses(trials: list[Trial]) -> list[float]:
    return [trial.metrics["logLoss"] for trial in trials]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_stays_in_the_ranges_and_repeats_itself_for_one_seed(algorithm: str) -> None:
    found = searched(algorithm, 12)
    assert len(found) == 12
    assert all(1e-6 <= trial.settings["reg_param"] <= 10 for trial in found)
    assert all(0 <= trial.settings["elastic_net_param"] <= 1 for trial in found)
    assert found == searched(algorithm, 12)
    assert algorithm == "grid" or found != searched(algorithm, 12, seed=2)


@pytest.mark.parametrize("algorithm", ["tpe", "cmaes", "bayesianoptimization"])
def test_what_learns_does_better_than_chance(algorithm: str) -> None:
    """The mean of the last ten of forty trials, over three seeds; random trials have 0.6."""
    late = [loss for seed in range(3) for loss in losses(searched(algorithm, 40, seed=seed))[-10:]]
    at_random = [loss for seed in range(3) for loss in losses(searched("random", 40, seed=seed))[-10:]]
    assert sum(late) < 0.5 * sum(at_random)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "cmaes"])
def test_every_algorithm_but_cmaes_chooses_among_estimators(algorithm: str) -> None:
    found = searched(algorithm, 16, estimators="logistic_regression,decision_tree")
    assert {trial.estimator for trial in found} == {"logistic_regression", "decision_tree"}
    assert all(
        set(trial.settings) == {"max_depth", "max_bins", "min_instances_per_node"}
        for trial in found
        if trial.estimator == "decision_tree"
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("done", [7, 25])
def test_a_search_goes_on_after_the_trials_of_an_earlier_attempt(algorithm: str, done: int) -> None:
    first = searched(algorithm, done + 5)[:done]
    failed = Trial(estimator="logistic_regression", settings=first[0].settings, error="no", algorithm=algorithm)
    whole = searched(algorithm, done + 5, [*first, failed] if algorithm != "grid" else first)
    assert len(whole) == done + 5
    new = [trial.settings for trial in whole[done + 1 :]]
    assert all(settings not in [trial.settings for trial in first] for settings in new)


def test_the_points_of_a_grid_that_are_done_are_not_repeated_whatever_their_order() -> None:
    whole = searched("grid", 6)
    rest = searched("grid", 6, [whole[3], whole[0]])[2:]
    assert rest == [whole[1], whole[2], whole[4], whole[5]]


@pytest.mark.parametrize(
    ("algorithm", "at_first", "later"),
    [("random", 20, 13), ("grid", 20, 13), ("tpe", 5, 2), ("bayesianoptimization", 5, 1), ("cmaes", 1, 1)],
)
def test_trials_that_an_algorithm_learns_from_are_waited_for(algorithm: str, at_first: int, later: int) -> None:
    args = arguments(trials=20, algorithms=algorithm)
    assert Proposals(args, algorithm, "logLoss", [], 1).independent == at_first
    assert Proposals(args, algorithm, "logLoss", searched(algorithm, 20)[:7], 1).independent == later


def test_a_grid_takes_up_where_it_was_left() -> None:
    whole = searched("grid", 20)
    assert searched("grid", 20, whole[:9]) == whole
    assert len(whole) == 20


def test_the_median_stops_a_trial_that_is_worse_than_the_median_of_those_before() -> None:
    args = arguments(folds=3, early_stopping="medianstop")
    proposals = Proposals(args, "random", "areaUnderROC", [], 3)
    stopped = []
    for value in (0.6, 0.7, 0.8, 0.9, 0.65, 0.85):
        proposal = proposals.ask()
        stops = proposals.should_stop(proposal, 1, value)
        stopped.append(stops)
        where = "fold 1 of 3" if stops else ""
        metrics = {"areaUnderROC": value}
        proposals.tell(proposal, Trial(estimator="x", settings={}, metrics=metrics, stopped=where))
    assert stopped == [False, False, False, False, True, False]


def test_without_early_stopping_no_trial_is_stopped() -> None:
    proposals = Proposals(arguments(), "random", "areaUnderROC", [], 9)
    for value in (0.9, 0.9, 0.9, 0.9, 0.9, 0.1):
        proposal = proposals.ask()
        assert not proposals.should_stop(proposal, 1, value)
        proposals.tell(proposal, Trial(estimator="x", settings={}, metrics={"areaUnderROC": value}))


def test_hyperband_stops_most_of_the_worse_trials_and_never_the_best() -> None:
    proposals = Proposals(arguments(algorithms="hyperband", trials=60), "hyperband", "areaUnderROC", [], 9)
    values = [0.5 + (number * 37 % 60) / 120 for number in range(60)]
    stopped = {}
    for value in values:
        proposal = proposals.ask()
        budget = next((budget for budget in (1, 3) if proposals.should_stop(proposal, budget, value)), 0)
        stopped[value] = bool(budget)
        trial = Trial(estimator="x", settings={}, metrics={"areaUnderROC": value}, stopped="early" if budget else "")
        proposals.tell(proposal, trial)
    worse = sorted(values)[:30]
    assert not stopped[max(values)]
    assert sum(stopped[value] for value in worse) >= 12
    assert sum(stopped[value] for value in worse) > sum(stopped[value] for value in values if value not in worse)


def test_the_reports_of_an_earlier_attempt_count_for_the_median() -> None:
    earlier = [
        Trial(estimator="logistic_regression", settings={"reg_param": 0.1, "elastic_net_param": 0.5},
              metrics={"areaUnderROC": 0.9}, reports=((1, 0.9), (2, 0.9)), algorithm="random")
    ] * 4  # fmt: skip
    proposals = Proposals(arguments(folds=2, early_stopping="medianstop"), "random", "areaUnderROC", earlier, 2)
    assert proposals.should_stop(proposals.ask(), 1, 0.5)


@pytest.mark.parametrize("algorithm", ["random", "grid", "tpe"])
def test_two_objectives_are_searched_and_taken_up_again(algorithm: str) -> None:
    args = arguments(trials=16, algorithms=algorithm, second_objective="logLoss")
    found: list[Trial] = []
    for _ in range(2):  # the second time after eight trials
        proposals = Proposals(args, algorithm, "accuracy", found, 1, "logLoss")
        for _ in range(8):
            proposal = proposals.ask()
            bad = bowl(proposal.settings)
            metrics = {"logLoss": bad, "accuracy": 1 - proposal.settings["elastic_net_param"]}
            found.append(Trial(estimator=proposal.estimator, settings=proposal.settings, metrics=metrics))
            proposals.tell(proposal, found[-1])
    assert len({tuple(trial.settings.values()) for trial in found}) == 16

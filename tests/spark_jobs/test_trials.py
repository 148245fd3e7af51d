"""What a table of trials tells: the best one, and how soon each algorithm came close to it."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from typing import Any

import pytest

from spark_jobs.trials import (
    Trial,
    best_document,
    best_of,
    document_of,
    front_of,
    gain_of,
    loss,
    read_trials,
    summarise,
    warnings_of,
    winner_of,
)


def trial(value: float | None, algorithm: str = "tpe", objective: str = "areaUnderROC", seconds: float = 1.0) -> Trial:
    metrics = {} if value is None else {objective: value}
    return Trial(estimator="gbt", settings={}, metrics=metrics, algorithm=algorithm, seconds=seconds)


def test_the_best_trial_is_the_smallest_loss_and_the_first_of_equals() -> None:
    trials = [trial(None), trial(0.7), trial(0.9, seconds=1.0), trial(0.9, seconds=2.0)]
    assert best_of(trials, "areaUnderROC") is trials[2]
    losses = [trial(0.7, objective="logLoss"), trial(0.3, objective="logLoss")]
    assert best_of(losses, "logLoss") is losses[1]
    assert best_of([trial(None)], "areaUnderROC") is None
    assert loss(trial(None), "areaUnderROC") == math.inf


@pytest.mark.parametrize(
    ("objective", "values", "after"),
    [
        ("areaUnderROC", [0.5, 0.8909, 0.892, 0.9], 3),  # within 1 % of 0.9 is 0.891 and more
        ("logLoss", [0.5, 0.31, 0.302, 0.3], 3),
        ("accuracy", [1.0, 0.2], 1),
    ],
)
def test_the_trials_until_one_was_close_are_counted(objective: str, values: list[float], after: int) -> None:
    (found,) = summarise([trial(value, objective=objective) for value in values], objective)
    assert found.trials_to_close == after


def test_all_algorithms_are_measured_by_the_best_trial_of_all() -> None:
    trials = [trial(0.8, "random"), trial(0.7, "random", seconds=2.0), trial(None, "tpe"), trial(0.9, "tpe")]
    random, tpe = summarise(trials, "areaUnderROC")
    assert (random.algorithm, random.trials, random.trials_to_close, random.seconds) == ("random", 2, None, 3.0)
    assert random.best is trials[0]
    assert (tpe.algorithm, tpe.trials, tpe.trials_to_close) == ("tpe", 2, 2)


def test_a_trial_that_was_taken_over_costs_nothing_and_is_counted() -> None:
    taken = replace(trial(0.8, "tpe"), seconds=0.0, taken_over=True)
    random, tpe = summarise([trial(0.8, "random"), taken, trial(0.7, "tpe", seconds=2.0)], "areaUnderROC")
    assert (random.taken_over, random.seconds) == (0, 1.0)
    assert (tpe.taken_over, tpe.trials, tpe.seconds) == (1, 2, 2.0)


def test_an_algorithm_whose_trials_all_failed_has_no_best() -> None:
    (found,) = summarise([trial(None)], "areaUnderROC")
    assert (found.best, found.trials_to_close) == (None, None)


def test_trials_are_read_as_they_were_written() -> None:
    trials = [trial(0.8, "random"), trial(None)]
    document = document_of(trials, "areaUnderROC", trial(0.5))
    assert read_trials(document["trials"]) == trials
    assert document["algorithms"][0]["best"] == asdict(trials[0])


def test_on_the_front_are_the_trials_that_no_other_one_beats() -> None:
    def two(area: float, loss: float, **more: Any) -> Trial:
        return Trial(estimator="x", settings={}, metrics={"areaUnderROC": area, "logLoss": loss}, **more)

    trials = [two(0.9, 0.4), two(0.8, 0.3), two(0.8, 0.4), two(0.9, 0.4), two(0.99, 0.1, stopped="fold 1 of 3")]
    assert front_of(trials, ("areaUnderROC", "logLoss")) == [0, 1, 3]


@pytest.mark.parametrize(
    ("values", "untuned", "wins", "told"),
    [
        ([0.9036, 0.9], 0.9134, True, "the best trial is worse by 0.0098; so the model is trained with the defaults"),
        ([0.9], 0.9, True, "the best trial is no better; so the model is trained with the defaults"),
        ([0.8, 0.9005], 0.9, False, "the best trial is better by 0.0005"),
        ([0.8, 0.92], 0.9, False, ""),
        ([None, 0.8], None, False, ""),
    ],
    ids=["worse", "equal", "hardly better", "better", "defaults that cannot be fitted"],
)
def test_the_defaults_win_unless_a_trial_is_better(
    values: list[float | None], untuned: float | None, wins: bool, told: str
) -> None:
    trials = [
        Trial(estimator="gbt", settings={"a": place}, metrics=trial(value).metrics)
        for place, value in enumerate(values)
    ]
    defaults = Trial(estimator="mlp", settings={}, metrics=trial(untuned).metrics)
    winner = winner_of(trials, "areaUnderROC", defaults)
    assert (winner is defaults) is wins
    assert best_document(winner, "areaUnderROC", defaults)["settings"] == ({} if wins else trials[-1].settings)
    assert (gain_of(trials, "areaUnderROC", defaults) > 0) is not wins
    said = [warning for warning in warnings_of(trials, "areaUnderROC", defaults) if "tuning" in warning]
    assert [warning.endswith(told) for warning in said] == ([True] if told else [])


def test_a_search_of_which_no_trial_has_finished_fails_with_the_reason() -> None:
    failed = Trial(estimator="gbt", settings={}, error="no such luck")
    with pytest.raises(RuntimeError, match="none of 1 trials has finished; the last one: no such luck"):
        winner_of([failed], "areaUnderROC", trial(0.9))

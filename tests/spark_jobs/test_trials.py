"""What a table of trials tells: the best one, and how soon each algorithm came close to it."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import pytest

from spark_jobs.trials import Trial, best_of, document_of, front_of, loss, read_trials, summarise


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

"""The shift of the log-odds that a scorecard carries for a population with another share of positives."""

from __future__ import annotations

import math

import pytest

from spark_jobs.scorecard import population_shift

TRAIN = {"no": 60, "yes": 40}


@pytest.mark.parametrize(("class_weights", "sample_rate"), [("none", 0.4), ("balanced", 0.5)])
def test_the_shift_is_the_difference_of_the_log_odds(class_weights: str, sample_rate: float) -> None:
    found = population_shift(0.1, ["no", "yes"], TRAIN, class_weights)
    assert found is not None
    assert (found["base_rate"], found["sample_rate"]) == (0.1, sample_rate)
    assert found["shift"] == pytest.approx(math.log(0.1 / 0.9) - math.log(sample_rate / (1 - sample_rate)))


def test_without_a_base_rate_there_is_none() -> None:
    assert population_shift(None, ["no", "yes"], TRAIN, "none") is None

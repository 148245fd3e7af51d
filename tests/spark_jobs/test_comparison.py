"""Two runs are compared where they may be, with an interval that holds what it promises."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spark_jobs.comparison import compare
from spark_jobs.errors import InputError
from spark_jobs.evaluation.metrics import leave_each_out

GROUPS = 20


def evaluation(right: Any = (True,) * GROUPS, groups: Any = range(GROUPS), **changes: Any) -> dict[str, Any]:
    """An evaluation by accuracy alone.

    Args:
        right: which rows are predicted right.
        groups: the part of the test rows that each row is in.
    """
    right, groups = np.asarray(right, dtype=float), np.asarray(groups)
    left_out = leave_each_out(range(GROUPS), lambda kept: {"accuracy": float(right[np.isin(groups, kept)].mean())})
    return {
        "label": "deposit",
        "labels": ["no", "yes"],
        "digests": {"data": "one"},
        "split": {"method": "hash", "seed": 42, "rows": {"test": len(right)}},
        "metrics": [{"name": "accuracy", "value": float(right.mean())}],
        "left_out": left_out,
    } | changes


def test_the_interval_of_a_difference_holds_the_true_one_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    groups = np.arange(2000) % GROUPS
    held, widths, apart = 0, [], []
    for _ in range(400):
        hard = generator.random(2000)  # both models fail on the hard rows, the second on fewer
        one, other = hard < 0.80, np.where(generator.random(2000) < 0.1, generator.random(2000) < 0.9, hard < 0.82)
        (found,) = compare(evaluation(one, groups), evaluation(other, groups)).differences
        assert found.interval is not None
        truth = 0.9 * 0.82 + 0.1 * 0.9 - 0.80
        held += found.interval[0] <= truth <= found.interval[1]
        widths.append(found.interval[1] - found.interval[0])
        apart.append(2 * 1.96 * np.sqrt(one.var() / 2000 + other.var() / 2000))
    assert 0.92 <= held / 400 <= 0.98
    assert np.mean(widths) < 0.7 * np.mean(apart)  # what it is for: narrower than if the rows were not the same


def test_equal_models_differ_by_nothing() -> None:
    (found,) = compare(evaluation(), evaluation()).differences
    assert (found.value, found.interval) == (0.0, (0.0, 0.0))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"digests": {"data": "two"}}, "the runs read different data"),
        ({"split": {"method": "hash", "seed": 7, "rows": {"test": GROUPS}}}, "differently (seed)"),
    ],
)
def test_no_difference_is_told_of_models_that_were_judged_on_other_rows(changes: dict[str, Any], said: str) -> None:
    found = compare(evaluation(), evaluation(**changes))
    assert found.differences == ()
    assert said in found.note


@pytest.mark.parametrize("changes", [{"label": "loan"}, {"labels": ["no", "maybe", "yes"]}])
def test_models_of_different_labels_are_not_compared(changes: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="predict different things, deposit"):
        compare(evaluation(), evaluation(**changes))


def test_a_difference_has_no_interval_where_a_part_of_the_rows_is_missing_a_class() -> None:
    lacking = evaluation()
    lacking["left_out"]["accuracy"][3] = None
    (found,) = compare(evaluation(), lacking).differences
    assert found.interval is None

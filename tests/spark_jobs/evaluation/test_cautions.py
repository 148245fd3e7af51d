"""The warnings of an evaluation: which numbers of a good-looking model must not be believed, and why."""

from __future__ import annotations

from typing import Any

from spark_jobs.contract import LEAK
from spark_jobs.evaluation.cautions import cautions


def evaluation(**changes: Any) -> dict[str, Any]:
    """An evaluation that has nothing to beware of, with changes."""
    metrics = {"areaUnderROC": (0.8, 0.7, 0.9), "logLoss": (0.4, 0.3, 0.5)}
    return {
        "metrics": [{"name": name, "value": at, "low": low, "high": high} for name, (at, low, high) in metrics.items()],
        "baseline": {"metrics": {"logLoss": 0.6}},
        "model": {"when_too_sure": "Fit with a penalty."},
        "clipped": {"rows": 0.0, "smallest": 1e-15, "of_log_loss": 0.0},
        "split": {"method": "ordered"},
        "data": {"suspicious": []},
        "without_known_afterwards": None,
        "correction": None,
        **changes,
    }


def test_an_evaluation_without_a_weakness_has_only_the_warnings_of_the_earlier_steps() -> None:
    assert cautions(evaluation(), ["few rows"]) == ["few rows"]


def test_a_leak_is_the_first_warning_and_says_what_to_do() -> None:
    reason = "all but tells the label; is it known before the outcome?"
    found = cautions(
        evaluation(data={"suspicious": [{"column": "alive", "kind": LEAK, "reason": reason}]}), ["few rows"]
    )
    assert found[0].startswith("This result is probably a leak. alive all but tells the label.")
    assert found[0].endswith("Drop the column and train again.")
    assert found[1:] == ["few rows"], "the leak is said once"


def test_a_log_loss_worse_than_the_majority_class_is_a_warning() -> None:
    (found,) = cautions(evaluation(baseline={"metrics": {"logLoss": 0.39}}), [])
    assert "logLoss is 0.4000, worse than the 0.3900 of the baseline" in found
    assert found.endswith("Fit with a penalty.")


def test_an_interval_that_reaches_one_half_is_a_warning() -> None:
    document = evaluation()
    document["metrics"][0]["low"] = 0.49
    assert "may be no better than guessing" in cautions(document, [])[0]


def test_rows_at_the_clip_are_a_warning_with_what_they_do_to_log_loss() -> None:
    (found,) = cautions(evaluation(clipped={"rows": 1.0, "smallest": 1e-15, "of_log_loss": 0.3079}), [])
    assert "In 1 test row the model gave the actual class a probability below 1e-15" in found
    assert "0.3079 of the 0.4000 of logLoss" in found


def test_another_suspicious_column_is_a_warning_but_no_leak() -> None:
    reason = "has one value in all rows"
    (found,) = cautions(evaluation(data={"suspicious": [{"column": "id", "kind": "constant", "reason": reason}]}), [])
    assert found == "Column id has one value in all rows"

"""Finds the reasons to mistrust an evaluation: leaks, probabilities that are too sure, few rows, a random split.

The step evaluate writes them as the warnings of evaluation.json. The report, the command `run` and the summary of a task in KFP show them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spark_jobs.contract import LEAK

LEAK_HEADLINE = "This result is probably a leak."


def leaks(evaluation: Mapping[str, Any]) -> list[str]:
    """Lists the features that nearly determine the label."""
    return [item["column"] for item in evaluation["data"]["suspicious"] if item.get("kind") == LEAK]


def leak_warning(evaluation: Mapping[str, Any]) -> str:
    """Returns the warning of an evaluation with leaks; it begins with `LEAK_HEADLINE`. Without leaks it is empty."""
    columns = leaks(evaluation)
    if not columns:
        return ""
    tell, known, drop = ("tells", "it is", "the column") if len(columns) == 1 else ("tell", "they are", "the columns")
    return (
        f"{LEAK_HEADLINE} {', '.join(columns)} all but {tell} the label. If {known} known only after the outcome, the model is useless "
        f"and its metrics are misleading. Drop {drop} and train again."
    )


def cautions(evaluation: Mapping[str, Any], warnings: Sequence[str]) -> list[str]:
    """Returns the warnings of an evaluation, one or more sentences each; a leak comes first.

    Args:
        evaluation: the content of evaluation.json except its warnings.
        warnings: the warnings of the earlier steps, which come last.
    """
    metrics = {item["name"]: item for item in evaluation["metrics"]}
    found = [leak_warning(evaluation)] if leaks(evaluation) else []
    without, correction = evaluation["without_known_afterwards"], evaluation["correction"]
    if without:
        other = next(item for item in without["metrics"] if item["name"] == "areaUnderROC")
        found.append(
            f"Known only after the outcome: {', '.join(without['columns'])}. A decision made before the outcome cannot use that. "
            f"Without it areaUnderROC is {number(other['value'])} instead of {number(metrics['areaUnderROC']['value'])}."
        )
    if correction:
        found.append(
            f"The rows are rebalanced: {percentage(correction['sample_rate'])} are “{evaluation['positive']}”, in the population "
            f"{percentage(correction['base_rate'])}. There the mean of the probabilities is {percentage(correction['mean_before'])} before "
            f"the correction and {percentage(correction['mean_after'])} after it."
        )
    if metrics["areaUnderROC"]["low"] <= 0.5:
        found.append("The interval of areaUnderROC reaches 0.5: the model may be no better than guessing.")
    if metrics["logLoss"]["value"] > evaluation["baseline"]["metrics"]["logLoss"]:
        found.append(
            f"logLoss is {number(metrics['logLoss']['value'])}, worse than the {number(evaluation['baseline']['metrics']['logLoss'])} of "
            f"the baseline, which knows no feature: the probabilities are far too close to 0 and 1. {evaluation['model']['when_too_sure']}"
        )
    if evaluation["clipped"]["rows"]:
        found.append(
            clipped_rows(evaluation["clipped"], metrics["logLoss"]["value"], evaluation["model"]["when_too_sure"])
        )
    if evaluation["split"]["method"] == "hash":
        found.append(
            "The split is random. If the model will meet later data than it has seen, judge it on an ordered split as well."
        )
    suspicious = [item for item in evaluation["data"]["suspicious"] if item.get("kind") != LEAK]
    return [*found, *(f"Column {item['column']} {item['reason']}" for item in suspicious), *warnings]


def clipped_rows(clipped: Mapping[str, float], log_loss: float, advice: str) -> str:
    """Returns the sentence about test rows whose own class had a probability of nearly 0, which dominate logLoss."""
    count = int(clipped["rows"])
    rows = "1 test row" if count == 1 else f"{count:,} test rows"
    return (
        f"In {rows} the model gave the actual class a probability below {clipped['smallest']:g}; it counts as {clipped['smallest']:g}, as "
        f"logLoss would be infinite otherwise. {number(clipped['of_log_loss'])} of the {number(log_loss)} of logLoss come from there: "
        f"another limit would give another number. Judge by the other metrics. {advice}"
    )


def percentage(value: float) -> str:
    """Formats a share as percentage."""
    return f"{value * 100:.1f} %"


def number(value: float | None) -> str:
    """Formats a number with four decimal places, one of 100 or more as an integer, and None as a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 100 else f"{value:,.0f}"

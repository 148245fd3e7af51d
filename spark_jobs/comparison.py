"""Compares the metrics of two runs and says whether a difference is larger than chance.

Two models that were evaluated on the same test rows had the same easy and hard rows. So their difference has a much smaller confidence
interval than their two intervals suggest. This module takes and returns plain values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_jobs.errors import InputError

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
         2.110, 2.101, 2.093)  # fmt: skip
"""The 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom; `evaluate` makes at most 20 groups of rows."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between two runs in one metric.

    Attributes:
        metric: name of the metric.
        value: the second run's metric minus the first run's.
        interval: the ends of the difference's 95 % interval; None if it cannot be computed.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The comparison of two runs.

    Attributes:
        differences: one for each metric that both runs have; none if they were not evaluated on the same rows.
        note: how to read the differences, or why there are none.
    """

    differences: tuple[Difference, ...]
    note: str


def compare(one: Mapping[str, Any], other: Mapping[str, Any]) -> Comparison:
    """Compares two evaluations.

    Args:
        one: parsed evaluation.json of the first run.
        other: parsed evaluation.json of the second run.

    Raises:
        InputError: the runs have different labels or classes.
    """
    predicted = [f"{each.get('label', '')} ({', '.join(each['labels'])})" for each in (one, other)]
    if predicted[0] != predicted[1]:
        raise InputError(
            f"the runs predict different things, {predicted[0]} and {predicted[1]}; compare two runs of one label"
        )
    unlike = _row_mismatch(one, other)
    if unlike:
        return Comparison(
            differences=(),
            note=f"{unlike}, so they were not judged on the same rows and their metrics cannot be compared",
        )
    found = [_difference(item, one, other) for item in one["metrics"]]
    return Comparison(
        differences=tuple(item for item in found if item),
        note="both were judged on the same test rows; a difference whose interval holds 0 may be chance",
    )


def _row_mismatch(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one["digests"]["data"] != other["digests"]["data"]:
        return "the runs read different data"
    names = [name for name, value in one["split"].items() if other["split"].get(name) != value]
    return f"the runs split the rows differently ({', '.join(names)})" if names else ""


def _difference(item: Mapping[str, Any], one: Mapping[str, Any], other: Mapping[str, Any]) -> Difference | None:
    name = item["name"]
    value = next((each["value"] for each in other["metrics"] if each["name"] == name), None)
    if value is None:
        return None
    parts = [each.get("left_out", {}).get(name, []) for each in (one, other)]
    change = value - item["value"]
    return Difference(metric=name, value=change, interval=_interval(change, *parts))


def _interval(change: float, one: Sequence[float | None], other: Sequence[float | None]) -> tuple[float, float] | None:
    """Returns the 95 % interval of a difference, by the delete-a-group jackknife (Kott 2001, Journal of Official Statistics 17).

    Args:
        change: the difference on all rows.
        one: the first model's metric, computed once without each group of rows.
        other: the second model's metric, computed without the same groups.
    """
    if len(one) != len(other) or not 2 <= len(one) <= len(T_975) + 1 or None in one or None in other:
        return None
    changes = [b - a for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    count = len(changes)
    mean = sum(changes) / count
    variance = (count - 1) / count * sum((each - mean) ** 2 for each in changes)
    half = T_975[count - 2] * math.sqrt(variance)
    return change - half, change + half

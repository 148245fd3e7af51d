"""Compares the metrics of two models that were judged on the same rows.

Both had the same easy and hard rows, so their difference has a much smaller confidence interval than their two intervals suggest. This
module takes and returns plain values and imports only the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
         2.110, 2.101, 2.093)  # fmt: skip
"""The 97.5 % quantiles of Student's t distribution with 1, 2, ... degrees of freedom; `evaluate` makes at most 20 groups of rows."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference between two models in one metric.

    Attributes:
        metric: name of the metric.
        value: the second model's metric minus the first one's.
        interval: the ends of the difference's 95 % interval; None if it cannot be computed.
    """

    metric: str
    value: float
    interval: tuple[float, float] | None


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Returns the difference in each metric that both have.

    Args:
        one: the first model's `metrics`, and `left_out`: by metric its values without each group of rows.
        other: those of the second model, on the same rows.
    """
    values = {item["name"]: item["value"] for item in other["metrics"]}
    found = []
    for item in one["metrics"]:
        name = item["name"]
        if name in values:
            parts = [each.get("left_out", {}).get(name, []) for each in (one, other)]
            change = values[name] - item["value"]
            found.append(Difference(metric=name, value=change, interval=interval(change, *parts)))
    return tuple(found)


def interval(change: float, one: Sequence[float | None], other: Sequence[float | None]) -> tuple[float, float] | None:
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

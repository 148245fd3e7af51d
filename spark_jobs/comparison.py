"""Compares the metrics of two runs and says whether a difference is larger than chance.

Two models that were evaluated on the same test rows had the same easy and hard rows. So their difference has a much smaller confidence
interval than their two intervals suggest. This module takes and returns plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from spark_jobs.errors import InputError
from spark_jobs.paired import Difference, differences


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
    return Comparison(
        differences=differences(one, other),
        note="both were judged on the same test rows; a difference whose interval holds 0 may be chance",
    )


def _row_mismatch(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    if one["digests"]["data"] != other["digests"]["data"]:
        return "the runs read different data"
    names = [name for name, value in one["split"].items() if other["split"].get(name) != value]
    return f"the runs split the rows differently ({', '.join(names)})" if names else ""

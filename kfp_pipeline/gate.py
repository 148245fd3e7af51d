"""The quality gate: is an evaluated candidate as good as the bounds that its data's owner has set?

Pure judgement over plain values. A metric comes with its 95 % interval, and only a candidate whose whole interval lies beyond a bound does
not pass: a difference that chance may have made stops nobody. `gate_cli` reads the files and prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from spark_jobs.contract import InputError

LOWER_IS_BETTER = ("logLoss", "brierScore")
"""Metrics that have a ceiling; every other has a floor."""

Kind = Literal["floor", "ceiling"]
KINDS: Mapping[str, Kind] = {"floors": "floor", "ceilings": "ceiling"}
"""Table of the TOML file to the kind of its bounds."""


@dataclass(frozen=True)
class Bound:
    """What a metric must reach (floor) or stay below (ceiling)."""

    metric: str
    kind: Kind
    value: float


@dataclass(frozen=True)
class Metric:
    """A metric of the candidate, with the ends of its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """How a metric stands to its bound."""

    metric: Metric
    bound: Bound

    @property
    def miss(self) -> float:
        """How far the whole interval lies beyond the bound; 0 if the bound is within it or on its better side."""
        if self.bound.kind == "floor":
            return max(0.0, self.bound.value - self.metric.high)
        return max(0.0, self.metric.low - self.bound.value)

    @property
    def passed(self) -> bool:
        """Whether the candidate passes this bound."""
        return self.miss == 0.0

    @property
    def is_beyond(self) -> bool:
        """Whether the value itself is on the wrong side of the bound."""
        if self.bound.kind == "floor":
            return self.metric.value < self.bound.value
        return self.metric.value > self.bound.value


def read_bounds(document: Mapping[str, Any], where: str) -> list[Bound]:
    """The bounds of a parsed TOML file.

    Args:
        document: tables `floors` and `ceilings`, each metric to number; one of them may be absent.
        where: name of the file, for the error.

    Raises:
        InputError: it has another shape, a number is not finite, a metric is in the wrong table, or there is no bound at all.
    """
    if unknown := sorted(set(document) - set(KINDS)):
        raise InputError(f"{where}: {unknown[0]!r} is not known; put the bounds into [floors] and [ceilings]")
    bounds = []
    for table, kind in KINDS.items():
        entries = document.get(table, {})
        if not isinstance(entries, dict):
            raise InputError(f"{where}: {table} is {entries!r}; make it a table: [{table}]")
        bounds += [_bound(name, kind, value, f"{where}: {table}.{name}") for name, value in entries.items()]
    if not bounds:
        raise InputError(
            f"{where} has no bound, so anything would pass; add one below [floors], like areaUnderROC = 0.8"
        )
    return bounds


def _bound(name: str, kind: Kind, value: Any, where: str) -> Bound:
    if not is_finite(value):
        raise InputError(f"{where} is {value!r}; it must be a finite number")
    if (name in LOWER_IS_BETTER) != (kind == "ceiling"):
        better, right = ("lower", "[ceilings]") if name in LOWER_IS_BETTER else ("higher", "[floors]")
        raise InputError(f"{where}: {better} is better for {name}; move it to {right}")
    return Bound(name, kind, float(value))


def is_finite(value: Any) -> bool:
    """Whether a value of a TOML or JSON file is a number that can be compared."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_metrics(evaluation: Any, where: str) -> dict[str, Metric]:
    """The metrics of a parsed evaluation.json, by name.

    Raises:
        InputError: it is no evaluation, or a metric lacks its value or interval, or these are not finite or not in order.
    """
    items = evaluation.get("metrics") if isinstance(evaluation, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) and "name" in item for item in items):
        raise InputError(f"{where} is not an evaluation; name a run, or the evaluation.json of one")
    found = {}
    for item in items:
        for part in ("value", "low", "high"):
            if not is_finite(item.get(part)):
                raise InputError(
                    f"{where}: {part} of {item['name']} is {item.get(part)!r}, and the gate needs a finite number; evaluate the model again"
                )
        metric = Metric(str(item["name"]), float(item["value"]), float(item["low"]), float(item["high"]))
        if metric.low > metric.high:
            raise InputError(f"{where}: the interval of {metric.name} ends before it begins; evaluate the model again")
        found[metric.name] = metric
    return found


def judge(metrics: Mapping[str, Metric], bounds: Sequence[Bound], where: str) -> list[Verdict]:
    """A verdict for each bound, in the order of the bounds.

    Raises:
        InputError: a bound is for a metric that the candidate does not have; `where` names the file of the bounds.
    """
    for bound in bounds:
        if bound.metric not in metrics:
            raise InputError(
                f"{where}: the evaluation has no metric {bound.metric!r}; it has {', '.join(metrics) or 'none'}"
            )
    return [Verdict(metrics[bound.metric], bound) for bound in bounds]


def describe(verdict: Verdict) -> str:
    """A verdict in one line."""
    metric, bound = verdict.metric, verdict.bound
    side = "below" if bound.kind == "floor" else "above"
    measured = f"{metric.name} {short(metric.value)} ({short(metric.low)} to {short(metric.high)})"
    if not verdict.passed:
        return f"did not pass: {measured} is {side} {bound.value:g} by {short(verdict.miss)} beyond its interval"
    if verdict.is_beyond:
        return f"passed: {measured} is {side} {bound.value:g}, but no more than its interval allows"
    return f"passed: {measured} is not {side} {bound.value:g}"


def short(value: float) -> str:
    """Four digits that count, so that no miss is shown as 0."""
    return f"{value:.4g}"

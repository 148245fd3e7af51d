"""The quality gate: is an evaluated candidate as good as the bounds that its data's owner has set?

Pure judgement over plain values. A metric comes with its 95 % interval, and a bound is met when the whole interval is on its better side:
a model on few rows may be much worse than its value. An interval with the bound inside cannot tell, and that is an answer of its own.
`gate_commands` reads the files and prints.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from spark_jobs.contract import LEAK
from spark_jobs.errors import InputError

LOWER_IS_BETTER = ("logLoss", "brierScore")
"""Metrics that have a ceiling; every other has a floor."""

Kind = Literal["floor", "ceiling"]
KINDS: Mapping[str, Kind] = {"floors": "floor", "ceilings": "ceiling"}
"""Table of the TOML file to the kind of its bounds."""
JUDGED_BY = ("interval", "value")


class Answer(StrEnum):
    """What a candidate is to a bound, or to all of them."""

    PASSES = "passes"
    FAILS = "fails"
    TOO_FEW_ROWS = "too few rows to tell"


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
class Rules:
    """What a TOML file asks of a candidate.

    Attributes:
        bounds: in the order of the file.
        judge: `interval`: the whole interval must be on the better side of the bound; `value`: the value itself.
        allow_too_few_rows: whether a candidate passes on which the interval cannot decide.
        allow_leaks: columns that may tell the label, because someone has looked at them.
    """

    bounds: Sequence[Bound]
    judge: str = "interval"
    allow_too_few_rows: bool = False
    allow_leaks: Sequence[str] = ()


@dataclass(frozen=True)
class Verdict:
    """How a metric stands to its bound."""

    metric: Metric
    bound: Bound
    judge: str = "interval"

    @property
    def worse_end(self) -> float:
        """What must be on the better side for the candidate to pass."""
        return self._end(self.metric.low, self.metric.high)

    @property
    def better_end(self) -> float:
        """What must be on the worse side for the candidate to fail."""
        return self._end(self.metric.high, self.metric.low)

    def _end(self, of_floor: float, of_ceiling: float) -> float:
        if self.judge == "value":
            return self.metric.value
        return of_floor if self.bound.kind == "floor" else of_ceiling

    def _miss(self, number: float) -> float:
        return self.bound.value - number if self.bound.kind == "floor" else number - self.bound.value

    @property
    def miss(self) -> float:
        """How far the better end is on the wrong side of the bound; 0 if it is not."""
        return max(0.0, self._miss(self.better_end))

    @property
    def answer(self) -> Answer:
        """Passes if the worse end meets the bound, fails if not even the better end does."""
        if self._miss(self.worse_end) <= 0:
            return Answer.PASSES
        return Answer.FAILS if self.miss > 0 else Answer.TOO_FEW_ROWS


def read_rules(document: Mapping[str, Any], where: str) -> Rules:
    """The rules of a parsed TOML file.

    Args:
        document: tables `floors` and `ceilings`, and the keys `judge`, `allow_too_few_rows`, `allow_leaks`; one bound is needed.
        where: name of the file, for the error.

    Raises:
        InputError: it has another shape, or there is no bound at all.
    """
    keys = {name: value for name, value in document.items() if name in ("judge", "allow_too_few_rows", "allow_leaks")}
    rules = Rules(read_bounds({name: value for name, value in document.items() if name not in keys}, where), **keys)
    if rules.judge not in JUDGED_BY:
        raise InputError(f"{where}: judge is {rules.judge!r}; allowed: {', '.join(JUDGED_BY)}")
    if not isinstance(rules.allow_too_few_rows, bool):
        raise InputError(f"{where}: allow_too_few_rows is {rules.allow_too_few_rows!r}; make it true or false")
    if not isinstance(rules.allow_leaks, list | tuple) or not all(isinstance(name, str) for name in rules.allow_leaks):
        raise InputError(f'{where}: allow_leaks is {rules.allow_leaks!r}; make it a list of columns, like ["duration"]')
    return rules


def read_bounds(document: Mapping[str, Any], where: str) -> list[Bound]:
    """The bounds of a parsed TOML file.

    Args:
        document: tables `floors` and `ceilings`, each metric to number; one of them may be absent.
        where: name of the file, for the error.

    Raises:
        InputError: it has another shape, a number is not finite, a metric is in the wrong table, or there is no bound at all.
    """
    if unknown := sorted(set(document) - set(KINDS)):
        raise InputError(
            f"{where}: {unknown[0]!r} is not known; put the bounds into [floors] and [ceilings], and above them judge, "
            "allow_too_few_rows and allow_leaks"
        )
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


def leaks(evaluation: Any, rules: Rules) -> list[str]:
    """Columns of a parsed evaluation.json that all but tell the label, and that the rules do not allow."""
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    suspicious = data.get("suspicious", []) if isinstance(data, dict) else []
    return [
        str(item["column"])
        for item in suspicious
        if item.get("kind") == LEAK and item["column"] not in rules.allow_leaks
    ]


def judge(metrics: Mapping[str, Metric], rules: Rules, where: str) -> list[Verdict]:
    """A verdict for each bound, in the order of the bounds.

    Raises:
        InputError: a bound is for a metric that the candidate does not have; `where` names the file of the bounds.
    """
    for bound in rules.bounds:
        if bound.metric not in metrics:
            raise InputError(
                f"{where}: the evaluation has no metric {bound.metric!r}; it has {', '.join(metrics) or 'none'}"
            )
    return [Verdict(metrics[bound.metric], bound, rules.judge) for bound in rules.bounds]


def overall(verdicts: Sequence[Verdict], found_leaks: Sequence[str]) -> Answer:
    """The answer for a candidate: the worst of its verdicts, and a leak fails it."""
    answers = {verdict.answer for verdict in verdicts}
    if found_leaks or Answer.FAILS in answers:
        return Answer.FAILS
    return Answer.TOO_FEW_ROWS if Answer.TOO_FEW_ROWS in answers else Answer.PASSES


def describe(verdict: Verdict) -> str:
    """A verdict in one line."""
    metric, bound = verdict.metric, verdict.bound
    side, right = ("below", "above") if bound.kind == "floor" else ("above", "below")
    measured = f"{verdict.answer}: {metric.name} {short(metric.value)} ({short(metric.low)} to {short(metric.high)})"
    if verdict.answer is Answer.PASSES:
        return f"{measured} is not {side} {bound.value:g}"
    if verdict.answer is Answer.TOO_FEW_ROWS:
        return f"{measured} may be {side} or {right} {bound.value:g}"
    whole = "" if verdict.judge == "value" else " with its whole interval"
    return f"{measured} is {side} {bound.value:g}{whole}, by {short(verdict.miss)}"


def describe_leak(column: str, where: str) -> str:
    """A leak in one line."""
    return (
        f"{Answer.FAILS}: column {column!r} all but tells the label, so the metrics are probably a leak's; drop it, or if its value is "
        f"known before the outcome, allow it in {where}: allow_leaks = [{column!r}]"
    )


def short(value: float) -> str:
    """Four digits that count, so that no miss is shown as 0."""
    return f"{value:.4g}"

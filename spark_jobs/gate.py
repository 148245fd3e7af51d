"""The quality gate: compares the metrics of an evaluated model with the bounds in a TOML file and decides whether the model passes.

A metric comes with its 95 % interval. A metric meets its bound if the whole interval does: measured on few rows, a model may be much worse
than the value says. If the bound lies inside the interval, the rows are too few to tell, which is a decision of its own. This module takes
and returns plain values; `commands.gate_commands` reads the files and prints, and `promotion` has the rules of a promotion besides.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal

from spark_jobs.contract import LEAK, LOWER_IS_BETTER
from spark_jobs.dataset import meant
from spark_jobs.errors import InputError

Kind = Literal["minimum", "maximum"]
KINDS: tuple[Kind, ...] = ("minimum", "maximum")
"""The kinds of bounds; the TOML file has a table for each."""
JUDGED_BY = ("interval", "value")
FEATURE_ROLES = ("numeric", "categorical")
"""The roles of a column, as evaluation.json has them, in which it becomes features."""


class Decision(StrEnum):
    """The decision on one bound, or on the model as a whole."""

    PASSES = "passes"
    FAILS = "fails"
    TOO_FEW_ROWS = "too few rows to tell"


@dataclass(frozen=True)
class Bound:
    """The smallest (minimum) or largest (maximum) value that a metric may have."""

    metric: str
    kind: Kind
    value: float


@dataclass(frozen=True)
class Metric:
    """A metric of the model, with the ends of its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rules:
    """The rules of a TOML file.

    Attributes:
        bounds: the bounds, in the order of the file.
        judge_by: `interval`: the whole 95 % interval must meet the bound; `value`: the value must.
        allow_too_few_rows: whether a model passes for which the rows are too few to tell.
        allow_leaks: columns that predict the label almost perfectly and are nevertheless known before the outcome.
        forbidden: columns that no model may use, such as one that the law protects.
    """

    bounds: Sequence[Bound]
    judge_by: str = "interval"
    allow_too_few_rows: bool = False
    allow_leaks: Sequence[str] = ()
    forbidden: Sequence[str] = ()


@dataclass(frozen=True)
class BoundCheck:
    """One metric compared with its bound."""

    metric: Metric
    bound: Bound
    judge_by: str = "interval"

    @property
    def worse_end(self) -> float:
        """The worse end of the interval; the model passes if this end meets the bound."""
        return self._end(self.metric.low, self.metric.high)

    @property
    def better_end(self) -> float:
        """The better end of the interval; the model fails if not even this end meets the bound."""
        return self._end(self.metric.high, self.metric.low)

    def _end(self, for_minimum: float, for_maximum: float) -> float:
        if self.judge_by == "value":
            return self.metric.value
        return for_minimum if self.bound.kind == "minimum" else for_maximum

    def _distance(self, number: float) -> float:
        """How far a number is beyond the bound; 0 or less if it meets the bound."""
        return self.bound.value - number if self.bound.kind == "minimum" else number - self.bound.value

    @property
    def miss(self) -> float:
        """How far the better end is beyond the bound; 0 if that end meets the bound."""
        return max(0.0, self._distance(self.better_end))

    @property
    def decision(self) -> Decision:
        """The decision on this bound."""
        if self._distance(self.worse_end) <= 0:
            return Decision.PASSES
        return Decision.FAILS if self.miss > 0 else Decision.TOO_FEW_ROWS


def parse_rules(text: str, where: str) -> Rules:
    """Parses the rules; for the arguments and errors see `read_rules`.

    Raises:
        InputError: the text is not TOML, or wrong.
    """
    try:
        return read_rules(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where} is not TOML: {error}; correct that line") from error


def read_rules(document: Mapping[str, Any], where: str) -> Rules:
    """Reads the rules from a parsed TOML file.

    Args:
        document: the tables `minimum` and `maximum` and the keys `judge_by`, `allow_too_few_rows`, `allow_leaks` and `forbidden`.
            Everything but one bound may be absent.
        where: name of the file, for the error message.

    Raises:
        InputError: a table or key is unknown or has a wrong value, or there is no bound.
    """
    options = ("judge_by", "allow_too_few_rows", "allow_leaks", "forbidden")
    keys = {name: value for name, value in document.items() if name in options}
    rules = Rules(read_bounds({name: value for name, value in document.items() if name not in keys}, where), **keys)
    if rules.judge_by not in JUDGED_BY:
        raise InputError(f"{where}: judge_by is {rules.judge_by!r}; allowed: {', '.join(JUDGED_BY)}")
    if not isinstance(rules.allow_too_few_rows, bool):
        raise InputError(f"{where}: allow_too_few_rows is {rules.allow_too_few_rows!r}; make it true or false")
    for option in ("allow_leaks", "forbidden"):
        columns = getattr(rules, option)
        if not isinstance(columns, list | tuple) or not all(isinstance(name, str) for name in columns):
            raise InputError(f'{where}: {option} is {columns!r}; make it a list of columns, like ["duration"]')
    return rules


def read_bounds(document: Mapping[str, Any], where: str) -> list[Bound]:
    """Reads the bounds from a parsed TOML file.

    Args:
        document: the tables `minimum` and `maximum`, each from metric to number; one of them may be absent.
        where: name of the file, for the error message.

    Raises:
        InputError: a table is unknown, a number is not finite, a metric is in the wrong table, or there is no bound.
    """
    if unknown := sorted(set(document) - set(KINDS)):
        raise InputError(
            f"{where}: {unknown[0]!r} is not known; put the bounds into [minimum] and [maximum], and above them judge_by, "
            "allow_too_few_rows, allow_leaks and forbidden"
        )
    bounds = []
    for kind in KINDS:
        entries = document.get(kind, {})
        if not isinstance(entries, dict):
            raise InputError(f"{where}: {kind} is {entries!r}; make it a table: [{kind}]")
        bounds += [_bound(name, kind, value, f"{where}: {kind}.{name}") for name, value in entries.items()]
    if not bounds:
        raise InputError(
            f"{where} has no bound, so anything would pass; add one below [minimum], like areaUnderROC = 0.8"
        )
    return bounds


def _bound(name: str, kind: Kind, value: Any, where: str) -> Bound:
    if not is_finite(value):
        raise InputError(f"{where} is {value!r}; it must be a finite number")
    if (name in LOWER_IS_BETTER) != (kind == "maximum"):
        better, right = ("lower", "[maximum]") if name in LOWER_IS_BETTER else ("higher", "[minimum]")
        raise InputError(f"{where}: {better} is better for {name}; move it to {right}")
    return Bound(name, kind, float(value))


def is_finite(value: Any) -> bool:
    """Whether a value from a TOML or JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_metrics(evaluation: Any, where: str) -> dict[str, Metric]:
    """Reads the metrics from a parsed evaluation.json, by name.

    Args:
        evaluation: the document.
        where: name of the file, for the error message.

    Raises:
        InputError: the document is not an evaluation, or a metric has no finite value or no valid interval.
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
    """Lists the leaks in a parsed evaluation.json: columns that predict the label almost perfectly and that the rules do not allow."""
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    suspicious = data.get("suspicious", []) if isinstance(data, dict) else []
    return [
        str(item["column"])
        for item in suspicious
        if item.get("kind") == LEAK and item["column"] not in rules.allow_leaks
    ]


def forbidden_columns(evaluation: Any, rules: Rules) -> list[str]:
    """Lists the columns of which a model makes features although the rules forbid it, from a parsed evaluation.json."""
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    columns = data.get("columns", []) if isinstance(data, dict) else []
    used = {str(item["name"]) for item in columns if item.get("role") in FEATURE_ROLES}
    return [name for name in rules.forbidden if name in used]


def unknown_columns(evaluation: Any, rules: Rules) -> list[str]:
    """Describes each forbidden column that the table of a parsed evaluation.json does not have at all: its name may be misspelled."""
    data = evaluation.get("data") if isinstance(evaluation, dict) else None
    there = [str(item["name"]) for item in (data.get("columns", []) if isinstance(data, dict) else [])]
    unknown = [name for name in rules.forbidden if there and name not in there]
    return [f"the table has no column {name!r} that could be forbidden{meant(name, there)}" for name in unknown]


def check_metric(name: str, metrics: Iterable[str], where: str) -> None:
    """Checks that an evaluation has a metric; `where` names the flag or the file that asks for it.

    Raises:
        InputError: it has not.
    """
    if name not in (names := list(metrics)):
        raise InputError(f"{where}: the evaluation has no metric {name!r}; it has {', '.join(names) or 'none'}")


def check_bounds(metrics: Mapping[str, Metric], rules: Rules, where: str) -> list[BoundCheck]:
    """Compares each bound with its metric, in the order of the bounds.

    Raises:
        InputError: the model lacks the metric of a bound; `where` names the file of the rules.
    """
    for bound in rules.bounds:
        check_metric(bound.metric, metrics, where)
    return [BoundCheck(metrics[bound.metric], bound, rules.judge_by) for bound in rules.bounds]


def decide(checks: Sequence[BoundCheck], refused_columns: Sequence[str]) -> Decision:
    """Decides on the model as a whole: a refused column or a failed bound fails it, else one undecided bound leaves it undecided."""
    decisions = {check.decision for check in checks}
    if refused_columns or Decision.FAILS in decisions:
        return Decision.FAILS
    return Decision.TOO_FEW_ROWS if Decision.TOO_FEW_ROWS in decisions else Decision.PASSES


def accepts(decision: Decision, rules: Rules) -> bool:
    """Whether a model passes with this decision: also with too few rows to tell, if the rules allow that."""
    return decision is Decision.PASSES or (decision is Decision.TOO_FEW_ROWS and rules.allow_too_few_rows)


def describe(check: BoundCheck) -> str:
    """Describes the check of a bound in one line."""
    metric, bound = check.metric, check.bound
    side, right = ("below", "above") if bound.kind == "minimum" else ("above", "below")
    interval = f"{format_number(metric.low)} to {format_number(metric.high)}"
    measured = f"{check.decision}: {metric.name} {format_number(metric.value)} ({interval})"
    if check.decision is Decision.PASSES:
        return f"{measured} is not {side} {bound.value:g}"
    if check.decision is Decision.TOO_FEW_ROWS:
        return f"{measured} may be {side} or {right} {bound.value:g}"
    whole = "" if check.judge_by == "value" else " with its whole interval"
    return f"{measured} is {side} {bound.value:g}{whole}, by {format_number(check.miss)}"


def describe_leak(column: str, where: str) -> str:
    """Describes a leak in one line; `where` names the file of the rules."""
    return (
        f"{Decision.FAILS}: column {column!r} all but tells the label, so the metrics are probably a leak's; drop it, or if its value is "
        f"known before the outcome, allow it in {where}: allow_leaks = [{column!r}]"
    )


def describe_forbidden(column: str, where: str) -> str:
    """Describes a forbidden column in one line; `where` names the file of the rules."""
    return f"{Decision.FAILS}: column {column!r} is forbidden by {where}; list it under columns.dropped of the specification"


def format_number(value: float) -> str:
    """Formats a number with four significant digits, so that a small miss does not read as 0."""
    return f"{value:.4g}"

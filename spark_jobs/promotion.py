"""The rules by which a candidate becomes the champion; each answers yes or no with its numbers.

This module takes and returns plain values: parsed evaluation.json documents, and for the parity a number that somebody else measured. The
step promote has all the rules; the command line has no Spark, so it leaves out those that need a model, and says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spark_jobs import gate
from spark_jobs.comparison import compare
from spark_jobs.contract import LOWER_IS_BETTER
from spark_jobs.errors import InputError

FLOORS, FORBIDDEN, ROWS, BALANCE, CHAMPION, PARITY, DRIFT = (
    "floors", "no forbidden column", "enough rows", "class balance", "not worse than the champion", "parity of the scorecard",
    "no drift from train to test",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits of the rules that are no bounds of metrics.

    Attributes:
        metric: the metric by which candidate and champion are compared.
        min_test_rows: smallest number of test rows of each class.
        max_balance_shift: largest difference of the share of a class in the train rows, between candidate and champion.
        max_parity_difference: largest difference of a probability between the scorecard and Spark.
    """

    metric: str = "areaUnderROC"
    min_test_rows: int = 30
    max_balance_shift: float = 0.1
    max_parity_difference: float = 1e-9


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The answer of one rule.

    Attributes:
        rule: its name.
        passed: yes or no.
        sentence: the answer in words.
        numbers: what was measured and compared.
    """

    rule: str
    passed: bool
    sentence: str
    numbers: Mapping[str, Any]


def floors(evaluation: Mapping[str, Any], rules: gate.Rules | None, where: str) -> Verdict:
    """Whether each metric meets its bound.

    Args:
        evaluation: parsed evaluation.json of the candidate.
        rules: the rules of a TOML file; None: there is none, and every model passes.
        where: name of that file.
    """
    if rules is None:
        return Verdict(rule=FLOORS, passed=True, sentence="no bounds are given", numbers={})
    checks = gate.check_bounds(gate.read_metrics(evaluation, "the evaluation"), rules, where)
    decision = gate.decide(checks, ())
    passed = gate.accepts(decision, rules)
    allowed = passed and decision is gate.Decision.TOO_FEW_ROWS
    shown = [check for check in checks if check.decision is not gate.Decision.PASSES] or checks
    sentence = "; ".join(map(gate.describe, shown)) + (f"; {where} allows that" if allowed else f" ({where})")
    numbers = {
        check.bound.metric: {
            "value": check.metric.value,
            "low": check.metric.low,
            "high": check.metric.high,
            check.bound.kind: check.bound.value,
        }
        for check in checks
    }
    return Verdict(rule=FLOORS, passed=passed, sentence=sentence, numbers=numbers)


def no_forbidden_column(evaluation: Mapping[str, Any], rules: gate.Rules | None) -> Verdict:
    """Whether the model uses no column that tells the label or that the rules forbid."""
    rules = rules or gate.Rules(())
    leaks, forbidden = gate.leaks(evaluation, rules), gate.forbidden_columns(evaluation, rules)
    found = [f"{name!r} all but tells the label" for name in leaks] + [f"{name!r} is forbidden" for name in forbidden]
    unknown = gate.unknown_columns(evaluation, rules)
    return Verdict(
        rule=FORBIDDEN,
        passed=not found,
        sentence="; ".join([*(found or ["none is used"]), *unknown]),
        numbers={"leaks": leaks, "forbidden": forbidden, "unknown": len(unknown)},
    )


def enough_rows(evaluation: Mapping[str, Any], limits: Limits) -> Verdict:
    """Whether there are enough test rows of each class for the metrics to mean something."""
    rows, shares = evaluation["split"]["rows"]["test"], evaluation["split"]["class_fractions"]["test"]
    counts = {label: round(share * rows) for label, share in shares.items()}
    fewest = min(counts, key=lambda label: counts[label])
    passed = counts[fewest] >= limits.min_test_rows
    sentence = f"{counts[fewest]} test rows of class {fewest!r}, at least {limits.min_test_rows} are asked for"
    return Verdict(rule=ROWS, passed=passed, sentence=sentence, numbers={**counts, "limit": limits.min_test_rows})


def class_balance(evaluation: Mapping[str, Any], champion: Mapping[str, Any] | None, limits: Limits) -> Verdict:
    """Whether the classes have about the shares in the train rows that they had in the champion's.

    Args:
        evaluation: parsed evaluation.json of the candidate.
        champion: that of the champion, as it was registered; None: there is no champion.
        limits: the limits.
    """
    if champion is None:
        return _without_champion(BALANCE)
    now, before = (each["split"]["class_fractions"]["train"] for each in (evaluation, champion))
    shifts = {label: now.get(label, 0.0) - before.get(label, 0.0) for label in {**before, **now}}
    largest = max(shifts, key=lambda label: abs(shifts[label]))
    passed = abs(shifts[largest]) <= limits.max_balance_shift
    sentence = (
        f"class {largest!r} is {now.get(largest, 0.0):.1%} of the train rows, it was {before.get(largest, 0.0):.1%}: "
        f"a change of {100 * shifts[largest]:+.4g} points, {100 * limits.max_balance_shift:g} are allowed"
    )
    return Verdict(
        rule=BALANCE, passed=passed, sentence=sentence, numbers={**shifts, "limit": limits.max_balance_shift}
    )


def not_worse(candidate: Mapping[str, Any], champion: Mapping[str, Any] | None, limits: Limits) -> Verdict:
    """Whether the candidate is not worse than the champion on the same test rows, beyond the 95 % interval of the paired difference.

    Args:
        candidate: evaluation of the candidate.
        champion: evaluation of the champion on the same rows; None: there is no champion.
        limits: the limits; they name the metric.
    """
    if champion is None:
        return _without_champion(CHAMPION)
    try:
        compared = compare(champion, candidate)
    except InputError as error:
        return Verdict(rule=CHAMPION, passed=False, sentence=str(error), numbers={})
    found = next((item for item in compared.differences if item.metric == limits.metric), None)
    if not found:
        why = (
            compared.note if not compared.differences else f"the champion's evaluation has no metric {limits.metric!r}"
        )
        return Verdict(rule=CHAMPION, passed=False, sentence=why, numbers={})
    sign = -1.0 if limits.metric in LOWER_IS_BETTER else 1.0
    better_by = sign * found.value
    low, high = sorted(sign * end for end in found.interval or (found.value, found.value))
    decides = f"95 % interval {low:+.4g} to {high:+.4g}" if found.interval else "which decides, as there is no interval"
    value = {name: _value(each, limits.metric) for name, each in (("candidate", candidate), ("champion", champion))}
    sentence = (
        f"{limits.metric} {value['candidate']:.4f}, the champion has {value['champion']:.4f} on the same test rows; "
        f"better by {better_by:+.4g}, {decides}"
    )
    numbers = {"metric": limits.metric, **value, "better_by": better_by, "low": low, "high": high}
    return Verdict(rule=CHAMPION, passed=high >= 0.0, sentence=sentence, numbers=numbers)


def parity(largest: float | None, rows: int, limits: Limits, *, why_not: str = "") -> Verdict:
    """Whether the scorecard gives Spark's probabilities.

    Args:
        largest: the largest difference of a probability; None: it was not measured.
        rows: number of rows that were scored.
        limits: the limits.
        why_not: why it was not measured.
    """
    if largest is None:
        return Verdict(rule=PARITY, passed=False, sentence=f"not measured: {why_not}", numbers={})
    sentence = f"largest difference {largest:.1e} on {rows} rows, {limits.max_parity_difference:.0e} is allowed"
    numbers = {"largest": largest, "rows": rows, "limit": limits.max_parity_difference}
    return Verdict(rule=PARITY, passed=largest <= limits.max_parity_difference, sentence=sentence, numbers=numbers)


@dataclass(frozen=True, kw_only=True)
class LargestIndex:
    """The largest population stability index of a comparison.

    Attributes:
        of: what it is of.
        value: the index.
        limit: the largest that is allowed.
        p: the p value of its test, after the correction for all tests of the comparison.
        significance: the largest p value that is significant.
    """

    of: str
    value: float
    limit: float
    p: float
    significance: float

    def in_words(self) -> str:
        """Describes an index that is no alarm, with the number that decided."""
        named = f"largest PSI {gate.format_number(self.value)}, of {self.of}"
        if self.value <= self.limit:
            return f"{named}; {self.limit:g} is allowed"
        return f"{named}, is beyond {self.limit:g} but not significant: p {self.p:.2g}, {self.significance:g} or less would be"


def no_drift(largest: LargestIndex | None, alarms: Sequence[str], *, why_not: str = "") -> Verdict:
    """Whether the test rows are like the train rows: on others the metrics would say nothing of the rows that the model was made for.

    Args:
        largest: the largest population stability index; None: it was not measured.
        alarms: the changes that are significant and beyond a limit, as sentences.
        why_not: why it was not measured.
    """
    if not largest:
        return Verdict(rule=DRIFT, passed=False, sentence=f"not measured: {why_not}", numbers={})
    numbers = {
        "of": largest.of,
        "largest": largest.value,
        "limit": largest.limit,
        "p": largest.p,
        "alarms": len(alarms),
    }
    return Verdict(rule=DRIFT, passed=not alarms, sentence="; ".join(alarms) or largest.in_words(), numbers=numbers)


def passed_before(champion: str) -> Verdict:
    """The answer for a canary that the step promote has compared with this champion already."""
    sentence = f"it became the canary because the step promote found it not worse than {champion}"
    return Verdict(rule=CHAMPION, passed=True, sentence=sentence, numbers={})


def _without_champion(rule: str) -> Verdict:
    return Verdict(rule=rule, passed=True, sentence="there is no champion yet", numbers={})


def _value(evaluation: Mapping[str, Any], metric: str) -> float:
    return float(next(item["value"] for item in evaluation["metrics"] if item["name"] == metric))


def passes(verdicts: Sequence[Verdict]) -> bool:
    """Whether all rules say yes."""
    return all(verdict.passed for verdict in verdicts)


def percent(share: float) -> str:
    """Formats a share of the requests so that only all of them are 100 %: 0.9999 is 99.99 %."""
    return f"{round(100 * share, 10):.12g}%"


def describe_outcome(
    name: str, version: str, champion: str, *, passed: bool, moved: bool, canary_share: float = 0.0
) -> str:
    """Describes in one sentence what became of a candidate.

    Args:
        name: name of the model.
        version: the candidate.
        champion: the champion now; empty: there is none.
        passed: whether all rules said yes.
        moved: whether the candidate was made the champion.
        canary_share: share of the requests that it gets as the canary; 0: it is none.
    """
    if moved:
        return f"{version} is the champion of {name!r}"
    stays = f"{champion} stays the champion" if champion else "there is still no champion"
    if canary_share:
        return f"{version} of {name!r} is the canary and gets {percent(canary_share)} of the requests; {stays}"
    refused = "" if passed else " and does not pass the gate"
    return f"{version} of {name!r} is registered{refused}; {stays}"

"""The rules of a promotion: each says yes or no with its numbers."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from spark_jobs import gate, promotion
from spark_jobs.promotion import Limits

LEFT_OUT = [0.88 + 0.001 * (number % 5) for number in range(20)]


def evaluation(value: float = 0.88, shift: float = 0.0) -> dict[str, Any]:
    return {
        "label": "deposit",
        "labels": ["no", "yes"],
        "metrics": [
            {"name": "areaUnderROC", "value": value, "low": value - 0.02, "high": value + 0.02},
            {"name": "logLoss", "value": 1 - value, "low": 0.98 - value, "high": 1.02 - value},
        ],
        "left_out": {
            "areaUnderROC": [each + value - 0.88 for each in LEFT_OUT],
            "logLoss": [1 - each - value + 0.88 for each in LEFT_OUT],
        },
        "digests": {"data": "d"},
        "data": {
            "columns": [{"name": "age", "role": "numeric"}, {"name": "day", "role": "dropped"}],
            "suspicious": [],
        },
        "split": {
            "rows": {"train": 600, "test": 200},
            "class_fractions": {
                "train": {"no": 0.5 - shift, "yes": 0.5 + shift},
                "test": {"no": 0.8, "yes": 0.2},
            },
        },
    }


def test_the_first_model_needs_no_champion() -> None:
    for verdict in (
        promotion.not_worse(evaluation(), None, Limits()),
        promotion.class_balance(evaluation(), None, Limits()),
    ):
        assert verdict.passed
        assert "no champion yet" in verdict.sentence


@pytest.mark.parametrize(
    ("metric", "value", "passed"),
    [
        ("areaUnderROC", 0.90, True),
        ("areaUnderROC", 0.88, True),
        ("areaUnderROC", 0.86, False),
        ("logLoss", 0.86, False),
        ("logLoss", 0.90, True),
    ],
)
def test_a_candidate_is_not_worse_than_the_champion(metric: str, value: float, passed: bool) -> None:
    verdict = promotion.not_worse(evaluation(value), evaluation(), Limits(metric=metric))
    assert verdict.passed is passed
    assert verdict.numbers["better_by"] == pytest.approx(value - 0.88)
    assert verdict.numbers["champion"] == pytest.approx(0.88 if metric == "areaUnderROC" else 0.12)


def test_a_difference_within_its_interval_is_not_worse() -> None:
    candidate = evaluation(0.879)
    candidate["left_out"]["areaUnderROC"] = [each + (0.02 if n % 2 else -0.02) for n, each in enumerate(LEFT_OUT)]
    verdict = promotion.not_worse(candidate, evaluation(), Limits())
    assert verdict.passed
    assert verdict.numbers["low"] < verdict.numbers["better_by"] < 0 < verdict.numbers["high"]


def test_without_an_interval_the_value_decides_and_the_sentence_says_so() -> None:
    alone = [{**evaluation(value), "left_out": {}} for value in (0.88, 0.87999)]
    verdict = promotion.not_worse(alone[1], alone[0], Limits())
    assert not verdict.passed
    assert verdict.sentence.endswith("better by -1e-05, which decides, as there is no interval")


def test_models_that_cannot_be_compared_are_refused_with_the_reason() -> None:
    other = {**evaluation(), "digests": {"data": "other"}}
    assert "read different data" in promotion.not_worse(evaluation(), other, Limits()).sentence
    other = {**evaluation(), "labels": ["no", "maybe", "yes"]}
    assert "predict different things" in promotion.not_worse(evaluation(), other, Limits()).sentence
    assert "no metric 'f1'" in promotion.not_worse(evaluation(), evaluation(), Limits(metric="f1")).sentence
    for verdict in (promotion.not_worse(evaluation(), other, Limits()),):
        assert not verdict.passed


def test_floors_are_those_of_the_gate() -> None:
    rules = gate.read_rules({"minimum": {"areaUnderROC": 0.85}}, "gate.toml")
    verdict = promotion.floors(evaluation(), rules, "gate.toml")
    assert verdict.passed
    assert verdict.numbers["areaUnderROC"]["minimum"] == 0.85
    assert verdict.sentence.endswith("is not below 0.85 (gate.toml)")
    rules = gate.read_rules({"minimum": {"areaUnderROC": 0.87}}, "gate.toml")
    assert not promotion.floors(evaluation(), rules, "gate.toml").passed
    allowed = gate.read_rules({"minimum": {"areaUnderROC": 0.87}, "allow_too_few_rows": True}, "gate.toml")
    verdict = promotion.floors(evaluation(), allowed, "gate.toml")
    assert (verdict.passed, verdict.sentence.endswith("; gate.toml allows that")) == (True, True)
    assert promotion.floors(evaluation(), None, "").passed


def test_a_forbidden_column_and_a_leak_are_refused() -> None:
    rules = gate.read_rules({"minimum": {"areaUnderROC": 0.5}, "forbidden": ["age", "day"]}, "gate.toml")
    assert promotion.no_forbidden_column(evaluation(), rules).numbers["forbidden"] == ["age"]
    leaking = copy.deepcopy(evaluation())
    leaking["data"]["suspicious"] = [{"kind": "leak", "column": "age"}]
    assert not promotion.no_forbidden_column(leaking, None).passed
    assert promotion.no_forbidden_column(evaluation(), None).passed


def test_a_forbidden_column_that_the_table_lacks_is_told_as_it_may_be_misspelled() -> None:
    rules = gate.read_rules({"minimum": {"areaUnderROC": 0.5}, "forbidden": ["aeg", "day", "religion"]}, "gate.toml")
    verdict = promotion.no_forbidden_column(evaluation(), rules)
    assert (verdict.passed, verdict.numbers["unknown"]) == (True, 2)
    assert "no column 'aeg' that could be forbidden; did you mean 'age'?" in verdict.sentence
    assert verdict.sentence.endswith("no column 'religion' that could be forbidden")


def test_each_class_needs_enough_test_rows() -> None:
    assert promotion.enough_rows(evaluation(), Limits(min_test_rows=40)).passed
    verdict = promotion.enough_rows(evaluation(), Limits(min_test_rows=41))
    assert not verdict.passed
    assert verdict.numbers == {"no": 160, "yes": 40, "limit": 41}


def test_the_classes_keep_their_balance() -> None:
    assert promotion.class_balance(evaluation(shift=0.09), evaluation(), Limits()).passed
    verdict = promotion.class_balance(evaluation(shift=0.2), evaluation(), Limits())
    assert not verdict.passed
    assert verdict.numbers["yes"] == pytest.approx(0.2)
    assert verdict.sentence.endswith("it was 50.0%: a change of -20 points, 10 are allowed")


def test_a_scorecard_that_differs_or_was_not_scored_is_refused() -> None:
    assert promotion.parity(1e-15, 100, Limits()).passed
    assert not promotion.parity(1e-6, 100, Limits()).passed
    assert not promotion.parity(float("nan"), 100, Limits()).passed
    assert "not measured: no scorer" in promotion.parity(None, 0, Limits(), why_not="no scorer").sentence


def largest(value: float, p: float) -> promotion.LargestIndex:
    return promotion.LargestIndex(of="age", value=value, limit=0.2, p=p, significance=0.01)


def test_drift_from_train_to_test_is_refused_with_its_sentence() -> None:
    quiet = promotion.no_drift(largest(0.05, 0.6), ())
    assert (quiet.passed, quiet.sentence) == (True, "largest PSI 0.05, of age; 0.2 is allowed")
    chance = promotion.no_drift(largest(0.3641, 0.0432), ())
    told = "largest PSI 0.3641, of age, is beyond 0.2 but not significant: p 0.043, 0.01 or less would be"
    assert (chance.passed, chance.sentence) == (True, told)
    moved = promotion.no_drift(largest(0.5, 0.0), ["drift of column 'age': PSI 0.500, limit 0.2"])
    assert (moved.passed, moved.numbers["alarms"]) == (False, 1)
    unknown = promotion.no_drift(None, (), why_not="reference.json is missing")
    assert (unknown.passed, unknown.sentence) == (False, "not measured: reference.json is missing")

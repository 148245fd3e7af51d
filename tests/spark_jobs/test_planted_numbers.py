"""Faults planted in the formulas behind the numbers: each is edited into a copy of the module, and the check of that number must fail."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from spark_jobs.contract import TrainArgs
from spark_jobs.dataset import Specification
from spark_jobs.evaluation import intervals, metrics
from spark_jobs.evaluation import judging as evaluation
from spark_jobs.evaluation.judging import Area, Losses, Training
from spark_jobs.table import profiling

Check = Callable[[types.ModuleType], None]


def edited(module: types.ModuleType, old: str, new: str) -> types.ModuleType:
    """A copy of a module in whose source one text is replaced."""
    source = inspect.getsource(module)
    assert source.count(old) == 1, f"{module.__name__} does not hold once: {old}"
    copy = types.ModuleType(module.__name__)
    copy.__dict__["__file__"] = module.__file__
    exec(compile(source.replace(old, new), f"{module.__name__} with a fault", "exec"), copy.__dict__)
    return copy


def training(counts: dict[str, dict[str, int]], base_rate: float | None = None) -> Training:
    """What the steps before would have left for these counts of classes."""
    specification = Specification(label="label", positive="yes", base_rate=base_rate, numeric=("x",))
    args = TrainArgs(preprocess_uri="p", output_uri="o")
    return Training({"labels": ["no", "yes"], "split": {"counts": counts}}, args, specification)


def check_correction(copy: types.ModuleType) -> None:
    """Right probabilities for a sample with half of the rows positive, applied where a tenth is: on average a tenth."""
    p = np.linspace(0.02, 0.98, 49)
    places = np.arange(98) % 49
    positive = np.arange(98) >= 49
    rows = 1000 * np.where(positive, p[places], 1 - p[places])
    margin = np.log(p / (1 - p))[places]
    counts = metrics.PredictionCounts(margin, positive, margin > 0, rows, rows, rows, rows, 0 * rows)
    found = copy.correction(counts, training({"train": {"no": 500, "yes": 500}}, base_rate=0.1))
    assert found["shift"] == pytest.approx(np.log(0.1 / 0.9), abs=1e-12)
    assert found["mean_after"] == pytest.approx(0.1, abs=1e-3)
    assert found["mean_before"] > 0.3
    for group in found["calibration"]:
        assert group["predicted"] == pytest.approx(group["observed"], abs=1e-3)


def check_bootstrap(copy: types.ModuleType) -> None:
    """The interval of a share of 400 rows is as wide as the normal approximation's."""
    low, high = copy.bootstrap(np.array([280.0, 120.0]), lambda rows: {"share": rows[0] / rows.sum()}, 1000)["share"]
    assert high - low == pytest.approx(2 * intervals.Z95 * (0.7 * 0.3 / 400) ** 0.5, rel=0.1)
    assert low < 0.7 < high


def check_three_classes(copy: types.ModuleType) -> None:
    """No interval of three classes is narrower than chance makes it."""
    confusion = np.array([[60.0, 30, 10], [30, 60, 10], [10, 30, 60]])
    areas = [Area(0.8, intervals.Interval(0.75, 0.85, intervals.DELONG))] * 3
    found = {item["name"]: item for item in copy.multiclass_metrics(confusion, areas, Losses(0.9, 1.2, 5.0), 200)}
    chance = dict.fromkeys(("accuracy", "weightedPrecision", "weightedRecall", "f1"), 0.111)
    for name, width in {**chance, "areaUnderROC": 0.1, "logLoss": 0.141}.items():
        assert found[name]["high"] - found[name]["low"] == pytest.approx(width, rel=0.2), name
        assert found[name]["low"] < found[name]["value"] < found[name]["high"]


def check_baseline(copy: types.ModuleType) -> None:
    """The model to compare with knows the train rows' classes and is judged on the test rows, where here the other class is commoner."""
    found = copy.baseline(training({"train": {"no": 60, "yes": 40}, "test": {"no": 4, "yes": 16}}))
    assert found["label"] == "no"
    assert found["metrics"]["accuracy"] == pytest.approx(0.2)
    assert found["metrics"]["logLoss"] == pytest.approx(-0.2 * np.log(0.6) - 0.8 * np.log(0.4))
    assert found["metrics"]["brierScore"] == pytest.approx(0.2 * 0.4**2 + 0.8 * 0.6**2)


PLANTS: list[tuple[Check, types.ModuleType, str, str]] = [
    (check_correction, evaluation, "metrics.logistic(margins + shift)", "metrics.logistic(margins - shift)"),
    (check_correction, evaluation, "shift = float(", "shift = -float("),
    (check_bootstrap, intervals, "[2.5, 97.5]", "[25, 75]"),
    (check_three_classes, evaluation, "lambda counts: metrics.multiclass_estimates(counts.reshape(confusion.shape))",
     "lambda counts: metrics.multiclass_estimates(confusion)"),
    (check_three_classes, evaluation, "half = intervals.Z95 * float(", "half = 0 * float("),
    (check_three_classes, evaluation, "list(zip(*each, strict=True))[:2]", "list(zip(*each, strict=True))[:1] * 2"),
    (check_three_classes, evaluation, "intervals.of_proportion(right, rows)", "Interval(right / rows, right / rows, '')"),
    (check_baseline, evaluation, 'training.counts["train"], training.counts["test"]', 'training.counts["test"], training.counts["test"]'),
]  # fmt: skip


@pytest.mark.parametrize(("check", "module", "old", "new"), PLANTS, ids=[plant[3] for plant in PLANTS])
def test_a_number_is_right_and_a_fault_in_its_formula_is_caught(
    check: Check, module: types.ModuleType, old: str, new: str
) -> None:
    check(module)
    with pytest.raises(AssertionError):
        check(edited(module, old, new))


def check_suspicious(describe: Callable[..., dict[str, Any]], spark: Any) -> None:
    """Of four columns the constant one, the identifier and the copy of the label are named, the honest one is not."""
    rows = [(1.0, f"c{i}", "in" if i % 3 else "out", float(i * i % 17), "yes" if i % 3 else "no") for i in range(200)]
    table = spark.createDataFrame(rows, ["same", "id", "copy", "honest", "label"])
    specification = Specification(label="label", numeric=("same", "honest"), categorical=("id", "copy"))
    assert {item["column"] for item in describe(table, specification, table.count())["suspicious"]} == {
        "same",
        "id",
        "copy",
    }


def test_columns_that_a_person_should_look_at_are_found_and_a_search_that_finds_none_is_caught(
    spark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_suspicious(profiling.describe, spark)
    monkeypatch.setattr(profiling, "_suspicious", lambda *_, **__: [])
    with pytest.raises(AssertionError):
        check_suspicious(profiling.describe, spark)

"""What every estimator must do: one suite for all of them, on a table of two classes and one of three."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from spark_jobs.contract import ESTIMATORS, TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Convergence, Shape, find_estimator, importance_rows
from spark_jobs.steps.train import fit, scale_warnings, set_threshold

NAMES = list(ESTIMATORS)
FEATURES = [{"name": name, "column": name, "kind": "numeric", "category": ""} for name in ("strong", "weak", "noise")]
DEVIATIONS = {"strong": 2.0, "weak": 2.0, "noise": 2.0}


def args(name: str, **settings: Any) -> TrainArgs:
    return TrainArgs(preprocess_uri="p", output_uri="o", estimator=name, **settings)


def table(spark: Any, classes: int) -> Any:
    from pyspark.ml.linalg import Vectors

    random = np.random.default_rng(classes)
    rows = []
    for place in range(240):
        strong, weak, noise = random.normal(size=3) * 2
        score = 2 * strong + 0.4 * weak + random.normal() / 2
        label = float(np.digitize(score, [0.0] if classes == 2 else [-2.0, 2.0]))
        rows.append((label, 1.0 + place % 2, Vectors.dense(strong, weak, noise)))
    return spark.createDataFrame(rows, ["label", "weight", "features"]).coalesce(1).cache()


def labels(classes: int) -> Sequence[str]:
    return ["a", "b", "c"][:classes]


TWO_CLASSES_ONLY = ["gbt"]
CASES = [(name, classes) for name in NAMES for classes in (2, 3) if classes == 2 or name not in TWO_CLASSES_ONLY]


@pytest.fixture(scope="module", params=CASES, ids=str)
def case(request: pytest.FixtureRequest, spark: Any) -> tuple[str, int, Any, Any]:
    """An estimator, the number of classes, the rows and the fitted model."""
    name, classes = request.param
    rows = table(spark, classes)
    fewer = {"num_trees": 10} if "num_trees" in ESTIMATORS[name].settings() else {}
    return name, classes, rows, fit(rows, rows, args(name, **fewer), Shape(3, classes))


def test_a_model_tells_probabilities_of_the_classes_and_ranks_them_well(case: tuple[str, int, Any, Any]) -> None:
    _, classes, rows, fitted = case
    predicted = fitted.model.transform(rows).select("label", "probability", "prediction").collect()
    for row in predicted:
        assert len(row["probability"]) == classes
        assert sum(row["probability"]) == pytest.approx(1.0)
    assert np.mean([row["label"] == row["prediction"] for row in predicted]) > 0.8


def test_two_classes_have_a_threshold_and_the_model_keeps_to_it(case: tuple[str, int, Any, Any]) -> None:
    _, classes, rows, fitted = case
    assert (fitted.threshold is None) is (classes > 2)
    if classes == 2:
        for threshold in (0.2, 0.5, 0.9):
            model = set_threshold(fitted.model.copy(), threshold)
            for row in model.transform(rows).select("probability", "prediction").collect():
                assert row["prediction"] == float(row["probability"][1] > threshold)


def test_a_saved_model_is_loaded_by_the_class_that_the_module_names(
    case: tuple[str, int, Any, Any], tmp_path: Any
) -> None:
    name, _, rows, fitted = case
    fitted.model.write().overwrite().save(str(tmp_path / "model"))
    loaded = find_estimator(name).MODEL.load(str(tmp_path / "model"))
    before, after = (
        [list(row[0]) for row in model.transform(rows).select("probability").collect()]
        for model in (fitted.model, loaded)
    )
    assert before == after


def test_what_drives_the_model_is_told_for_each_feature_and_the_strong_one_comes_first(
    case: tuple[str, int, Any, Any],
) -> None:
    name, classes, _, fitted = case
    told = find_estimator(name).explain(fitted.model, FEATURES, labels(classes), DEVIATIONS)
    if "coefficients" in told:
        rows = told["coefficients"]
        assert {row["feature"] for row in rows} == {"strong", "weak", "noise"}
        strength = {name: max(abs(row["coefficient"]) for row in rows if row["feature"] == name) for name in DEVIATIONS}
        assert max(strength, key=lambda key: strength[key]) == "strong"
    elif told:
        assert told["importances"][0]["feature"] == "strong"
        assert sum(row["importance"] for row in told["importances"]) == pytest.approx(1.0)


def test_how_the_fit_went_is_told_by_those_that_iterate(case: tuple[str, int, Any, Any]) -> None:
    name, classes, rows, fitted = case
    if fitted.convergence is None:
        return
    assert fitted.convergence.converged
    stopped = fit(rows, rows, args(name, max_iter=1), Shape(3, classes)).convergence
    assert stopped == Convergence(iterations=1, converged=False)


def test_the_words_for_people_are_there() -> None:
    for name in NAMES:
        module = find_estimator(name)
        assert module.TITLE
        assert module.TITLE.lower() == module.TITLE
        assert module.WHEN_TOO_SURE.endswith(".")


def test_a_binomial_regression_of_three_classes_is_refused() -> None:
    with pytest.raises(InputError, match="--family=binomial is for two classes, the label has 3"):
        find_estimator("logistic_regression").check(args("logistic_regression", family="binomial"), labels(3))


@pytest.mark.parametrize("name", NAMES)
def test_three_classes_are_refused_in_words_where_spark_has_two_only(name: str) -> None:
    check = find_estimator(name).check
    check(args(name), labels(2))
    if name not in TWO_CLASSES_ONLY:
        return check(args(name), labels(3))
    with pytest.raises(InputError, match=f"--estimator={name} is for two classes, the label has 3; use "):
        check(args(name), labels(3))
    return None


def test_a_step_size_that_the_solver_does_not_use_is_refused() -> None:
    with pytest.raises(InputError, match=r"--step-size=0\.5 is for --solver=gd, and --solver is l-bfgs"):
        find_estimator("mlp").check(args("mlp", step_size=0.5), labels(2))
    find_estimator("mlp").check(args("mlp", step_size=0.5, solver="gd"), labels(2))


def test_a_network_warns_of_numbers_as_they_are_and_other_kinds_do_not() -> None:
    (warning,) = scale_warnings(args("mlp"), FEATURES)
    assert "run with --numeric-form=standardised or quantile_bins" in warning
    assert not scale_warnings(args("mlp"), [{**item, "kind": "standardised"} for item in FEATURES])
    assert not scale_warnings(args("logistic_regression"), FEATURES)


def test_importances_are_sorted_and_keep_their_features() -> None:
    rows = importance_rows([0.1, 0.7, 0.2], FEATURES)
    assert [(row["feature"], row["importance"]) for row in rows] == [("weak", 0.7), ("noise", 0.2), ("strong", 0.1)]

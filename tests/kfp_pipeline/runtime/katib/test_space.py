"""The search space in Katib's words, and what Katib's own algorithms make of it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest

from kfp_pipeline.runtime.katib import space
from spark_jobs.arguments import Role
from spark_jobs.contract import ALGORITHMS, ESTIMATORS, TrainArgs, TuneArgs
from spark_jobs.errors import InputError


def tune(**settings: Any) -> TuneArgs:
    given = {
        "tuner": "katib",
        "preprocess_uri": "s3://b/preprocess",
        "output_uri": "s3://b/tune",
        "report_uri": "s3://b/r",
        **settings,
    }
    return TuneArgs(**given)


def parameters(algorithm: str = "random", **settings: Any) -> dict[str, dict[str, Any]]:
    found = space.parameters_of(tune(algorithms=algorithm, **settings), algorithm)
    return {item["name"]: item for item in found}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("estimators", [*ESTIMATORS, ",".join(ESTIMATORS)])
def test_each_parameter_is_a_field_of_the_contract(algorithm: str, estimators: str) -> None:
    if algorithm == "cmaes" and "," in estimators:
        pytest.skip("cmaes searches the numbers of one estimator")
    fields = {item.name: item for item in TrainArgs.arguments(Role.SETTING)}
    for name, item in parameters(algorithm, estimators=estimators, parallel_trials=9).items():
        assert name in fields
        kinds = {"int": "int", "double": "float", "categorical": "str", "discrete": fields[name].type}
        assert kinds[item["parameterType"]] == fields[name].type


def test_ranges_are_those_of_the_contract_with_their_scale() -> None:
    found = parameters()
    assert found["reg_param"] == {
        "name": "reg_param",
        "parameterType": "double",
        "feasibleSpace": {"min": "1e-06", "max": "10.0", "distribution": "logUniform"},
    }
    assert found["elastic_net_param"]["feasibleSpace"] == {"min": "0.0", "max": "1.0", "distribution": "uniform"}


def test_whole_numbers_are_written_as_such() -> None:
    depth = parameters(estimators="decision_tree", search="max_depth=2:9")["max_depth"]
    assert (depth["parameterType"], depth["feasibleSpace"]["min"], depth["feasibleSpace"]["max"]) == ("int", "2", "9")


def test_several_estimators_are_one_more_parameter() -> None:
    assert "estimator" not in parameters(estimators="gbt")
    assert parameters(estimators="gbt,mlp")["estimator"]["feasibleSpace"] == {"list": ["gbt", "mlp"]}


def test_a_grid_has_at_least_as_many_combinations_as_trials_and_ends_at_the_ends_of_the_ranges() -> None:
    for trials, estimators in itertools.product((1, 2, 5, 20, 100), ("logistic_regression", "logistic_regression,gbt")):
        args = tune(algorithms="grid", trials=trials, estimators=estimators)
        found = parameters("grid", trials=trials, estimators=estimators)
        combinations = math.prod(len(item["feasibleSpace"]["list"]) for item in found.values())
        assert trials == space.combinations(args) <= combinations
        listed = [float(text) for text in found["reg_param"]["feasibleSpace"]["list"]]
        assert (listed[0], listed[-1]) == (1e-6, 10.0)
        assert listed == sorted(set(listed))


def test_a_grid_of_few_whole_numbers_has_fewer_trials() -> None:
    args = tune(
        algorithms="grid",
        trials=100,
        estimators="decision_tree",
        search="max_depth=2:3,max_bins=2:3,min_instances_per_node=1:2",
    )
    assert space.combinations(args) == 8


def test_a_logarithmic_grid_is_even_in_logarithms() -> None:
    listed = parameters("grid", trials=9)["reg_param"]["feasibleSpace"]["list"]
    assert [round(math.log10(float(text)), 6) for text in listed] == [-6.0, -2.5, 1.0]


def test_bayesian_optimization_gets_no_range_that_begins_at_zero() -> None:
    # skopt.space.Real(0, 1, "log-uniform") raises; Katib gives it each number of type double so.
    assert float(parameters("bayesianoptimization")["elastic_net_param"]["feasibleSpace"]["min"]) == 1e-6


def test_hyperband_searches_the_share_of_the_train_rows_and_needs_nine_trials_at_one_time() -> None:
    args = tune(algorithms="hyperband", parallel_trials=9)
    assert parameters("hyperband", parallel_trials=9)["train_parts"]["feasibleSpace"]["max"] == "9"
    settings = {item["name"]: item["value"] for item in space.algorithm_of(args, "hyperband")["algorithmSettings"]}
    assert settings == {"r_l": "9", "resource_name": "train_parts", "eta": "3"}
    assert 3 ** int(math.log(9) / math.log(3)) == 9  # Katib's own formula, pkg/suggestion/v1beta1/hyperband/service.py
    with pytest.raises(
        InputError, match="--parallel-trials=3 --trials=20: Katib's hyperband compares 9 trials at one time"
    ):
        tune(algorithms="hyperband")


@pytest.mark.parametrize("algorithm", ["random", "tpe", "grid", "cmaes"])
def test_the_seed_is_passed_on(algorithm: str) -> None:
    found = space.algorithm_of(tune(algorithms=algorithm, search_seed=7), algorithm)
    assert found == {"algorithmName": algorithm, "algorithmSettings": [{"name": "random_state", "value": "7"}]}


def test_objective_goal_and_direction() -> None:
    metrics = space.metrics_for("logLoss", 2)
    assert metrics == ["logLoss", "areaUnderROC", "areaUnderPR", "accuracy", "f1"]
    spec = space.objective_spec(tune(objective="logLoss", goal="0.3"), "logLoss", metrics)
    assert (spec["type"], spec["goal"], spec["objectiveMetricName"]) == ("minimize", 0.3, "logLoss")
    assert "logLoss" not in spec["additionalMetricNames"]
    assert {item["value"] for item in spec["metricStrategies"]} == {"latest"}
    assert "goal" not in space.objective_spec(tune(), "areaUnderROC", metrics)
    assert space.objective_spec(tune(), "areaUnderROC", metrics)["type"] == "maximize"


def test_algorithms_that_know_no_logarithmic_ranges_are_named() -> None:
    (warning,) = space.range_warnings(tune(algorithms="cmaes"))
    assert warning.startswith("Katib's cmaes knows no logarithmic ranges: it searches reg_param on an even scale")
    assert not space.range_warnings(tune(algorithms="cmaes", search="reg_param=0:1"))
    assert not space.range_warnings(tune(algorithms="random,tpe,grid,bayesianoptimization"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"goal": "high"}, "--goal is 'high'; allowed: a number, or empty"),
        ({"goal": "nan"}, "--goal is 'nan'"),
        ({"parallel_trials": 0}, "--parallel-trials is 0"),
        ({"max_failed_trials": 0}, "--max-failed-trials is 0"),
        ({"resume_policy": "Always"}, "--resume-policy is 'Always'; allowed: Never, LongRunning, FromVolume"),
        ({"tuner": "optuna", "goal": "0.9"}, "--goal is for --tuner=katib, and --tuner is optuna"),
        ({"folds": 5}, "--folds=5 is for --tuner=optuna"),
        ({"patience": 5}, "--patience=5 is for --tuner=optuna"),
        ({"tuner": "kfp"}, "--tuner is 'kfp'; allowed: optuna, katib"),
    ],
)
def test_wrong_settings_of_katib_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        tune(**settings)

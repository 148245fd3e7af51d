"""The contract: command lines and result documents come back as they went, and wrong values are refused."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spark_jobs import contract
from spark_jobs.arguments import Role, StepArgs, from_argv, setting, to_argv
from spark_jobs.contract import (
    ARGUMENTS,
    ESTIMATORS,
    MONITORING,
    PIPELINES,
    RETRAINING,
    TRAINING,
    DriftArgs,
    EvaluateArgs,
    LoadArgs,
    Pipeline,
    PreprocessArgs,
    Step,
    TableArgs,
    TrainArgs,
)
from spark_jobs.errors import InputError
from spark_jobs.result import Failure, Result

text = st.text(max_size=20)


@given(
    uri=text,
    out=text,
    reg=st.floats(0, 1e9),
    share=st.floats(0, 1),
    iterations=st.integers(1, 10**6),
    intercept=st.booleans(),
)
def test_arguments_come_back_from_their_command_line(
    uri: str, out: str, reg: float, share: float, iterations: int, intercept: bool
) -> None:
    args = TrainArgs(
        preprocess_uri=uri,
        output_uri=out,
        reg_param=reg,
        elastic_net_param=share,
        max_iter=iterations,
        fit_intercept=intercept,
    )
    assert from_argv(TrainArgs, to_argv(args)) == args


@given(
    message=text,
    rows=st.dictionaries(text, st.integers()),
    warnings=st.lists(text),
    metrics=st.dictionaries(text, st.floats(-1e9, 1e9)),
)
def test_a_result_comes_back_from_its_document(message: str, rows: Any, warnings: Any, metrics: Any) -> None:
    failure = Failure(kind="fault", type="T", message=message, frames=("a", message))
    result = Result(
        step="load",
        status="failed",
        rows_out=rows,
        warnings=tuple(warnings),
        metrics=metrics,
        failure=failure,
        columns=(("a", "b"),),
    )
    assert Result.from_json(result.to_json()) == result


def test_a_result_with_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        Result(step="load", status="succeeded", metrics={"x": math.nan}).to_json()


def test_another_contract_version_is_refused() -> None:
    with pytest.raises(ValueError, match="contract version"):
        Result.from_json(Result(step="load", status="succeeded", contract_version=0).to_json())


def test_a_damaged_document_is_refused() -> None:
    with pytest.raises(ValueError, match="damaged result document"):
        Result.from_json('{"contract_version": 1}')


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("reg_param", -1.0),
        ("reg_param", math.nan),
        ("elastic_net_param", 1.1),
        ("max_iter", 0),
        ("max_iter", 10**12),
        ("tol", 0.0),
        ("family", "x"),
        ("threshold_rule", ""),
    ],
)
def test_a_setting_out_of_its_range_is_named(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=f"--{name.replace('_', '-')} is"):
        TrainArgs(preprocess_uri="p", output_uri="o", **{name: value})


def test_bins_without_quantile_bins_are_refused_and_not_ignored() -> None:
    with pytest.raises(
        InputError, match="--numeric-bins=5 is for --numeric-form=quantile_bins, and --numeric-form is as_is"
    ):
        PreprocessArgs(load_uri="-", output_uri="-", numeric_bins=5)


def test_a_setting_of_other_estimators_is_refused_and_names_them() -> None:
    given = {"preprocess_uri": "p", "output_uri": "o"}
    with pytest.raises(InputError, match="--step-size is a setting of gbt and mlp, and --estimator is random_forest"):
        TrainArgs(**given, estimator="random_forest", step_size=0.2)
    with pytest.raises(InputError, match="--num-trees is a setting of random_forest and gbt, and --estimator is"):
        TrainArgs(**given, num_trees=5)
    shared = TrainArgs(**given, estimator="random_forest", max_depth=3, num_trees=5).hyperparameters()
    assert (shared["max_depth"], shared["num_trees"]) == (3, 5)
    assert not {"step_size", "reg_param"} & shared.keys()


def test_estimators_that_share_the_name_of_a_setting_share_its_declaration() -> None:
    declared: dict[str, Any] = {}
    for kind in ESTIMATORS.values():
        for item in kind.arguments():
            assert declared.setdefault(item.name, item) == item, item.name
    meanings = {item.name: item.about for item in TrainArgs.arguments()}
    assert meanings["num_trees"] == f"{declared['num_trees'].about} (random_forest, gbt)"


@pytest.mark.parametrize("seed", [10**20, -(10**20), 2**53 + 1])
def test_a_seed_that_kfp_would_round_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"--seed is {seed}; allowed"):
        PreprocessArgs(load_uri="l", output_uri="o", seed=seed)


def test_fractions_must_leave_test_rows() -> None:
    with pytest.raises(InputError, match="leave no test rows"):
        PreprocessArgs(load_uri="l", output_uri="o", train_fraction=0.8, validation_fraction=0.2)


def test_what_becomes_of_small_classes_without_any_is_refused_and_not_ignored() -> None:
    with pytest.raises(InputError, match=r"^--small-classes=drop is for classes below --min-class-rows"):
        TRAINING.check_settings({"small_classes": "drop"})
    TRAINING.check_settings({"small_classes": "drop", "min_class_rows": 5})


def test_an_order_without_an_ordered_split_is_refused_and_not_ignored() -> None:
    with pytest.raises(InputError, match="--order-by=day is for an ordered split, and --split is hash"):
        PreprocessArgs(load_uri="-", output_uri="-", order_by="day")
    assert PreprocessArgs(load_uri="-", output_uri="-", order_by="day", split="ordered").order_by == "day"


def test_unknown_flags_and_missing_ones_are_errors() -> None:
    with pytest.raises(InputError, match="--nope"):
        from_argv(EvaluateArgs, ["--nope=1", "--preprocess-uri=a", "--train-uri=b", "--report-uri=c", "--output-uri=d"])
    with pytest.raises(InputError, match="--train-uri"):
        from_argv(EvaluateArgs, ["--preprocess-uri=a"])


def test_two_steps_of_a_pipeline_share_the_weights_of_the_classes_and_how_tables_are_read_and_nothing_else() -> None:
    for pipeline in PIPELINES.values():
        names = [name for step in pipeline.steps for name in ARGUMENTS[step].settings()]
        of_tables = set(TableArgs.settings()) if pipeline is RETRAINING else set()
        assert {name for name in names if names.count(name) > 1} <= {"class_weights"} | of_tables


def test_in_the_retraining_pipeline_drift_chooses_the_data_of_load() -> None:
    for_training = {"train_data_uri", "cooldown_hours"}
    assert MONITORING.inputs().keys() == set(DriftArgs.names(Role.GIVEN, Role.SETTING)) - for_training
    inputs = RETRAINING.inputs()
    assert [name for name, item in inputs.items() if item.needed] == ["data_uri", "model_uri", "train_data_uri"]
    assert RETRAINING.chosen(Step.DRIFT, {"train_on": "s3://b/new.csv"}) == {"data_uri": "s3://b/new.csv"}
    assert RETRAINING.chosen(Step.DRIFT, {"train_on": ""}) is None, "the later steps are left out"
    assert RETRAINING.chosen(Step.LOAD, {}) == MONITORING.chosen(Step.DRIFT, {"train_on": ""}) == {}


def test_data_that_would_break_the_condition_of_a_graph_are_refused() -> None:
    with pytest.raises(InputError, match="a quote or a backslash"):
        DriftArgs(data_uri="d", model_uri="m", report_uri="r", output_uri="o", train_data_uri="it's.csv")


def test_a_setting_that_two_steps_have_has_one_default_and_the_same_choices() -> None:
    declared: dict[str, Any] = {}
    for kind in ARGUMENTS.values():
        for item in kind.arguments(Role.SETTING):
            assert declared.setdefault(item.name, (item.default, item.choices)) == (item.default, item.choices), (
                item.name
            )


def test_what_a_tuner_tries_is_allowed() -> None:
    searched = [item for kind in ARGUMENTS.values() for item in kind.arguments(Role.SETTING) if item.search]
    assert {"reg_param", "elastic_net_param"} <= {item.name for item in searched}
    for item in searched:
        assert item.search is not None
        assert item.search.low < item.search.high
        for value in (item.search.low, item.search.high):
            item.validate(value)


def test_every_role_is_told_by_the_field_itself() -> None:
    assert PreprocessArgs.names(Role.FROM_STEP) == ["load_uri"]
    assert LoadArgs.names(Role.GIVEN) == ["data_uri", "specification_uri"]
    assert EvaluateArgs.names(Role.OUTPUT) == ["report_uri", "output_uri"]
    assert "reg_param" in TrainArgs.settings()
    for kind in ARGUMENTS.values():
        assert sorted(kind.names()) == sorted(name for role in Role for name in kind.names(role))


def test_a_pipeline_whose_step_reads_what_comes_later_is_refused() -> None:
    with pytest.raises(TypeError, match="pipeline odd: preprocess reads load, which does not come before it"):
        Pipeline(name="odd", title="", about="", group="", steps=(Step.PREPROCESS, Step.LOAD))


def test_a_pipeline_that_kfp_would_cache_without_knowing_the_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoadArgs, "REUSED_BY_DATA", False)
    with pytest.raises(TypeError, match="pipeline odd: no step before preprocess tells the version of the code"):
        Pipeline(name="odd", title="", about="", group="", steps=(Step.LOAD, Step.PREPROCESS))


def test_the_arguments_of_a_run_below_one_uri_follow_the_edges() -> None:
    args = TRAINING.arguments_below("s3://b/run", Step.EVALUATE, {"title": "mine", "seed": 7})
    assert args == EvaluateArgs(
        preprocess_uri="s3://b/run/preprocess",
        train_uri="s3://b/run/train",
        title="mine",
        report_uri="s3://b/run/report.html",
        output_uri="s3://b/run/evaluate",
    )


def test_settings_are_checked_before_outputs_are_known() -> None:
    TRAINING.check_settings({"reg_param": 0.5, "data_uri": "no setting"})
    with pytest.raises(InputError, match="--reg-param is -1"):
        TRAINING.check_settings({"reg_param": -1.0})


def test_a_setting_of_another_estimator_is_refused_and_not_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True, kw_only=True)
    class Other(StepArgs):
        depth: int = setting(5, "depth")

    monkeypatch.setattr(contract, "ESTIMATORS", {**contract.ESTIMATORS, "other": Other})

    @dataclass(frozen=True, kw_only=True)
    class More(TrainArgs, Other):
        pass

    with pytest.raises(
        InputError, match="--depth is a setting of other, and --estimator is logistic_regression: leave one"
    ):
        More(preprocess_uri="p", output_uri="o", depth=7)
    assert "depth" not in More(preprocess_uri="p", output_uri="o").hyperparameters()


def test_a_field_of_a_type_that_no_command_line_holds_is_told_by_name_and_type() -> None:
    with pytest.raises(
        TypeError, match=r"Planted\.layers is of type list\[int\]; a field must be one of str, int, float"
    ):

        class Planted(StepArgs):
            layers: list[int]


def test_two_dashes_are_a_value_where_a_flag_has_them() -> None:
    args = EvaluateArgs(preprocess_uri="a", train_uri="b", report_uri="c", output_uri="d", title="--")
    assert from_argv(EvaluateArgs, to_argv(args)) == args

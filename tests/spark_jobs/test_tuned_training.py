"""Training that tunes first: which inputs it takes, on which rows it fits, with which threshold, and the untuned model beside it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spark_jobs.arguments import Role, flag
from spark_jobs.contract import ARGUMENTS, RETRAINING, TRAINING, TUNING, Pipeline, Step, TrainArgs
from spark_jobs.errors import InputError
from spark_jobs.paired import Difference, differences
from spark_jobs.result import Result
from spark_jobs.steps import train
from spark_jobs.steps.evaluate import compare_with_untuned, tuning_verdict

Run = Callable[..., Any]
CHOICE = {"estimator": "decision_tree", "settings": {"max_depth": 3, "max_bins": 16, "min_instances_per_node": 5}}


TUNED = {"tune_first": True}
of_both = pytest.mark.parametrize("pipeline", [TRAINING, RETRAINING], ids=lambda pipeline: pipeline.name)


@of_both
def test_one_input_decides_whether_a_training_tunes_first(pipeline: Pipeline) -> None:
    fixed = tuple(step for step in pipeline.steps if step not in (Step.TUNE, Step.PROMOTE))
    assert pipeline.steps_of({}) == pipeline.steps_of({"tune_first": False}) == fixed
    place = fixed.index(Step.TRAIN)
    assert pipeline.steps_of(TUNED) == (*fixed[:place], Step.TUNE, *fixed[place:])
    assert pipeline.steps_of({**TUNED, "model_name": "bank"}) == pipeline.steps
    assert pipeline.arguments_below("runs/1", Step.TRAIN, {}).tune_uri == ""
    made = pipeline.arguments_below("runs/1", Step.TRAIN, {**TUNED, "threshold_rule": "half"})
    assert (made.tune_uri, made.threshold_rule) == ("runs/1/tune", "half")


def test_it_is_an_input_of_the_pipelines_that_train_and_an_argument_of_no_step() -> None:
    item = TRAINING.inputs(Role.SETTING)["tune_first"]
    assert (item.type, item.default) == ("bool", False)
    assert RETRAINING.inputs()["tune_first"] == item
    assert "tune_first" not in TUNING.inputs()
    assert TUNING.steps_of({}) == TUNING.steps, "there the search is what is asked for"
    assert not any("tune_first" in kind.names() for kind in ARGUMENTS.values())


def test_a_run_that_tunes_first_takes_no_setting_that_the_search_chooses() -> None:
    inputs = TRAINING.for_run(TUNED).inputs()
    assert {"threshold_rule", "class_weights", "estimators", "trials", "title"} <= set(inputs)
    assert not {"estimator", "reg_param", "max_depth", "tune_uri"} & set(inputs)
    assert {"estimator", "reg_param", "trials"} <= set(TRAINING.inputs())
    with pytest.raises(InputError, match="--reg-param: tune chooses it; leave it out, or --tune-uri"):
        TrainArgs(preprocess_uri="p", output_uri="o", tune_uri="t", reg_param=0.1)


def other_value(pipeline: Pipeline, name: str) -> Any:
    """A value of an input that is not its default and of the right type."""
    item = pipeline.inputs()[name]
    values = {"bool": not item.default, "int": 7, "float": 0.5, "str": "x"}
    return next((choice for choice in item.choices if choice != item.default), values[item.type])


@of_both
@pytest.mark.parametrize("values", [{}, TUNED, {"model_name": "bank"}], ids=["fixed", "tuned", "promoted"])
def test_what_no_step_of_a_run_takes_is_refused_in_one_sentence(pipeline: Pipeline, values: dict[str, Any]) -> None:
    taken = {*pipeline.for_run(values).inputs(Role.SETTING), "tune_first", "model_name"}
    ignored = [name for name in pipeline.inputs(Role.SETTING) if name not in taken]
    assert {"registry_uri", "canary_share"} & set(ignored) or "model_name" in values
    assert {"estimator", "reg_param"} & set(ignored) or "tune_first" not in values
    assert {"tuner", "trials", "search"} & set(ignored) or "tune_first" in values
    assert "class_weights" in taken, "tune and train share it"
    for name in ignored:
        with pytest.raises(InputError, match=f"^{flag(name)}.*(--tune-first|--model-name)") as told:
            pipeline.check_settings({**values, name: other_value(pipeline, name)})
        assert "leave" in str(told.value)


def test_the_sentence_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"^--estimator: with --tune-first the step tune chooses it; leave one"):
        TRAINING.check_settings({**TUNED, "estimator": "gbt"})
    told = "^--trials is for the step tune, which runs with --tune-first only: give --tune-first too, or leave --trials out$"
    with pytest.raises(InputError, match=told):
        TRAINING.check_settings({"trials": 3})
    TRAINING.check_settings({**TUNED, "trials": 3, "class_weights": "balanced", "threshold_rule": "half"})


@pytest.mark.parametrize(
    ("metric", "value", "interval", "told"),
    [
        ("areaUnderROC", 0.02, (0.01, 0.03), "Tuning paid: areaUnderROC of the test rows differs by +0.0200"),
        ("areaUnderROC", 0.02, (-0.01, 0.05), "Tuning is not shown to pay: "),
        ("areaUnderROC", -0.02, (-0.03, -0.01), "Tuning did harm: "),
        ("logLoss", -0.02, (-0.03, -0.01), "Tuning paid: "),
        ("logLoss", 0.02, (0.01, 0.03), "Tuning did harm: "),
        ("areaUnderROC", 0.02, None, "Whether tuning paid is not certain: "),
    ],
)
def test_one_sentence_says_whether_tuning_paid(
    metric: str, value: float, interval: tuple[float, float] | None, told: str
) -> None:
    assert tuning_verdict(Difference(metric=metric, value=value, interval=interval), "gbt").startswith(told)


def test_a_search_that_the_defaults_won_is_told_as_that() -> None:
    defaults = {"estimator": "gbt", "settings": {}}
    facts = {"chosen": defaults, "untuned": {**defaults}, "objective": "f1"}
    judged = {"metrics": [{"name": "f1", "value": 0.5}], "left_out": {"f1": [0.40, 0.50, 0.60]}}
    fitted = Result(step=Step.TRAIN, status="succeeded", facts=facts)
    told = compare_with_untuned(judged, judged, fitted)
    assert told is not None
    assert told["verdict"] == "Tuning chose the defaults of gbt: no trial was better on the validation rows."


def test_the_interval_of_a_difference_is_narrower_than_those_of_the_models() -> None:
    one = {"metrics": [{"name": "f1", "value": 0.5}], "left_out": {"f1": [0.40, 0.50, 0.60]}}
    other = {"metrics": [{"name": "f1", "value": 0.6}], "left_out": {"f1": [0.51, 0.60, 0.69]}}
    (found,) = differences(one, other)
    assert found.value == pytest.approx(0.1)
    assert found.interval == pytest.approx((0.1 - 4.303 * np.sqrt(2 / 3 * 2e-4), 0.1 + 4.303 * np.sqrt(2 / 3 * 2e-4)))


@pytest.fixture(scope="module")
def tuned(run_steps: Run, run_step: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A run of all steps on a table that a tree can learn and a linear model cannot; what was fitted on how many rows."""
    directory = tmp_path_factory.mktemp("tuned")
    rows = "".join(f"{i % 17},{i * 7 % 11},{'yes' if (i % 17 > 8) != (i * 7 % 11 > 5) else 'no'}\n" for i in range(900))
    (directory / "data.csv").write_text("x,y,label\n" + rows)
    run_steps(directory, last="preprocess", data_uri=directory / "data.csv", label="label")
    uris = {"preprocess_uri": directory / "preprocess"}
    run_step("tune", **uris, output_uri=directory / "tune", trials=3, estimators="logistic_regression,decision_tree")
    best = json.loads((directory / "tune" / "best.json").read_text())
    (directory / "tune" / "best.json").write_text(json.dumps({**best, **CHOICE}))
    fits: list[tuple[str, int, int, int]] = []
    fit = train.fit

    def noted(one: Any, other: Any, args: TrainArgs, *more: Any, both: Any = None) -> Any:
        fits.append((args.estimator, one.count(), other.count(), both.count()))
        return fit(one, other, args, *more, both=both)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "fit", noted)
        trained = run_step("train", **uris, tune_uri=directory / "tune", output_uri=directory / "train")
    evaluated = run_step(
        "evaluate", **uris, train_uri=directory / "train", report_uri=directory / "report.html",
        output_uri=directory / "evaluate",
    )  # fmt: skip
    return {"directory": directory, "fits": fits, "train": trained, "evaluate": evaluated}


@pytest.mark.slow
def test_both_models_are_fitted_on_the_train_and_the_validation_rows(tuned: dict[str, Any]) -> None:
    counts = json.loads((tuned["directory"] / "preprocess" / "features.json").read_text())["split"]["counts"]
    rows = {name: sum(by_label.values()) for name, by_label in counts.items()}
    expected = (rows["train"], rows["validation"], rows["train"] + rows["validation"])
    assert sorted(tuned["fits"]) == [("decision_tree", *expected), ("logistic_regression", *expected)]


@pytest.mark.slow
def test_the_threshold_and_the_scores_for_drift_are_those_of_a_fit_that_has_not_seen_the_validation_rows(
    tuned: dict[str, Any], run_step: Run
) -> None:
    directory = tuned["directory"]
    plain = run_step(
        "train", preprocess_uri=directory / "preprocess", output_uri=directory / "plain",
        estimator="decision_tree", **CHOICE["settings"],
    )  # fmt: skip
    assert tuned["train"].metrics["threshold"] == plain.metrics["threshold"]
    references = [json.loads((directory / name / "reference.json").read_text()) for name in ("train", "plain")]
    assert references[0]["score"] == references[1]["score"]
    assert tuned["train"].digest != plain.digest  # fitted on more rows


@pytest.mark.slow
def test_the_report_says_whether_tuning_paid(tuned: dict[str, Any]) -> None:
    evaluation = json.loads((tuned["directory"] / "evaluate" / "evaluation.json").read_text())
    tuning = evaluation["tuning"]
    assert evaluation["model"]["settings"]["max_depth"] == 3
    assert tuning["chosen"] == CHOICE
    assert tuning["untuned"] == {"estimator": "logistic_regression", "settings": {}}
    assert tuning["verdict"].startswith("Tuning paid: areaUnderROC")
    value = {item["name"]: item["value"] for item in evaluation["metrics"]}["areaUnderROC"]
    untuned = {item["name"]: item["value"] for item in tuning["metrics"]}["areaUnderROC"]
    change = next(item for item in tuning["differences"] if item["metric"] == "areaUnderROC")
    assert change["value"] == pytest.approx(value - untuned)
    assert change["interval"][0] > 0
    report = (tuned["directory"] / "report.html").read_text()
    assert "Did tuning pay?" in report
    assert "Tuning paid: areaUnderROC" in report


@pytest.mark.slow
def test_a_search_on_other_rows_is_refused(
    tuned: dict[str, Any], run_steps: Run, run_step: Run, tmp_path: Path
) -> None:
    (tmp_path / "data.csv").write_text("x,label\n" + "".join(f"{i},{'ab'[i * 7 % 2]}\n" for i in range(200)))
    run_steps(tmp_path, last="preprocess", data_uri=tmp_path / "data.csv", label="label")
    tune_uri = tuned["directory"] / "tune"
    with pytest.raises(InputError, match="was not made on"):
        run_step("train", preprocess_uri=tmp_path / "preprocess", tune_uri=tune_uri, output_uri=tmp_path / "train")

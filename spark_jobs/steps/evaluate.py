"""The step evaluate: computes the metrics of the model on the test rows and writes the report.

    spark-submit spark_jobs/__main__.py evaluate --preprocess-uri=out/preprocess --train-uri=out/train \
        --report-uri=out/report.html --output-uri=out/evaluate

No step before this one reads the test rows, so the metrics say how the model does on new rows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_jobs import storage
from spark_jobs.background import BackgroundWork
from spark_jobs.contract import LOWER_IS_BETTER, EvaluateArgs, Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError
from spark_jobs.estimator import find_estimator, fitted_args, with_choice
from spark_jobs.evaluation.cautions import cautions
from spark_jobs.evaluation.judging import Training, judge, judge_without
from spark_jobs.evaluation.permutation import permutation_importance
from spark_jobs.evaluation.report import effect, render_report
from spark_jobs.features import set_column_names, slicer_without
from spark_jobs.paired import Difference, differences
from spark_jobs.result import Result
from spark_jobs.split import is_small, read_set


def read_training(args: EvaluateArgs, fitted: Result) -> Training:
    """Reads how the model was trained: features.json of preprocess and the arguments of train."""
    where = storage.join(args.preprocess_uri, "features.json")
    features = json.loads(storage.read_text(where))
    return Training(features, fitted_args(fitted), read_specification(features["specification"], where))


def describe(training: Training, fitted: Result) -> dict[str, Any]:
    """Returns the parts of evaluation.json that describe the data, the split and the model."""
    split, kind = training.features["split"], find_estimator(training.args.estimator)
    counts: dict[str, dict[str, int]] = split["counts"]
    rows = {name: sum(by_label.values()) for name, by_label in counts.items()}
    shares = {
        name: {label: count / rows[name] for label, count in by_label.items()} for name, by_label in counts.items()
    }
    iterations = fitted.metrics.get("iterations")
    return {
        "data": training.features["data"],
        "split": {
            **{name: split[name] for name in ("method", "seed", "order_by")},
            "rows": rows,
            "class_fractions": shares,
        },
        "model": {
            "kind": kind.TITLE,
            "settings": training.args.hyperparameters(),
            "iterations": None if iterations is None else int(iterations),
            "converged": fitted.facts["converged"],
            "threshold": fitted.metrics.get("threshold"),
            "threshold_rule": training.args.threshold_rule,
            "features": len(training.features["features"]),
            "when_too_sure": kind.WHEN_TOO_SURE,
        },
    }


def reference_categories(features: Mapping[str, Any]) -> dict[str, str]:
    """Returns the value, or the interval, of each column to which the others are compared, as it has no feature."""
    intervals = {item["name"]: f"below {item['splits'][0]:g}" for item in features["numeric"] if item["splits"]}
    return intervals | {item["name"]: item["values"][0] for item in features["categorical"] if item["values"]}


def columns_by_strength(explanation: Mapping[str, Any], features: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns the columns, those of the strongest features by the explanation first; without one, in the order of the features."""
    strength: dict[str, float] = {feature["column"]: 0.0 for feature in features}
    for item in explanation.get("coefficients", []):
        strength[item["column"]] = max(strength[item["column"]], abs(effect(item)))
    for item in explanation.get("importances", []):
        strength[item["column"]] += item["importance"]
    return sorted(strength, key=lambda column: -strength[column])


def versions(session: SparkSession) -> dict[str, str]:
    """Returns the versions of the software that made this result."""
    try:
        own = version("spark-kfp")
    except PackageNotFoundError:  # run from a source folder that was never installed
        own = "source"
    return {"spark-kfp": own, "spark": session.version}


def judge_second_model(test: DataFrame, training: Training, args: EvaluateArgs, fitted: bool) -> dict[str, Any] | None:
    """Evaluates the model without the columns known only afterwards; None if train has not fitted one."""
    slicer = slicer_without(training.features["features"], training.specification.known_afterwards)
    if not slicer or not fitted:
        return None
    uri = storage.join(args.train_uri, "model_without_known_afterwards")
    classifier = storage.read_classifier(find_estimator(training.args.estimator).MODEL, uri)
    return judge_without(classifier.transform(slicer.transform(test)), training, args.bootstrap_samples)


def judge_untuned(test: DataFrame, training: Training, args: EvaluateArgs, fitted: Result) -> dict[str, Any] | None:
    """Evaluates the model with the default settings on the same rows; None if the settings were not tuned."""
    if "untuned" not in fitted.uris:
        return None
    untuned = replace(training, args=with_choice(TrainArgs(**fitted.arguments), fitted.facts["untuned"]))
    uri = storage.join(args.train_uri, "model_untuned")
    classifier = storage.read_classifier(find_estimator(untuned.args.estimator).MODEL, uri)
    judged = judge(classifier.transform(test), untuned, args.bootstrap_samples)
    return {name: judged[name] for name in ("metrics", "left_out")}


def compare_with_untuned(
    judged: Mapping[str, Any], untuned: Mapping[str, Any] | None, fitted: Result
) -> dict[str, Any] | None:
    """Compares the tuned model with the untuned one on the same test rows; None if the settings were not tuned."""
    if not untuned:
        return None
    changes = differences(untuned, judged)
    objective = fitted.facts["objective"] or "areaUnderROC"
    chosen, defaults = fitted.facts["chosen"], fitted.facts["untuned"]
    change = next(change for change in changes if change.metric == objective)
    return {
        "objective": objective,
        "chosen": chosen,
        "untuned": defaults,
        "metrics": untuned["metrics"],
        "differences": [asdict(change) for change in changes],
        "verdict": f"Tuning chose the defaults of {defaults['estimator']}: no trial was better on the validation rows."
        if chosen == defaults
        else tuning_verdict(change, defaults["estimator"]),
    }


def tuning_verdict(change: Difference, estimator: str) -> str:
    """Returns the sentence that says whether tuning paid.

    Args:
        change: the tuned model's objective less the untuned one's.
        estimator: the untuned model's kind.
    """
    better = -change.value if change.metric in LOWER_IS_BETTER else change.value
    told = f"{change.metric} of the test rows differs by {change.value:+.4f} from that of {estimator} with its defaults"
    if change.interval is None:
        return f"Whether tuning paid is not certain: {told}, without an interval."
    told += f" (95 % interval {change.interval[0]:+.4f} to {change.interval[1]:+.4f})"
    if change.interval[0] <= 0 <= change.interval[1]:
        return f"Tuning is not shown to pay: {told}, which may be chance."
    return f"Tuning paid: {told}." if better > 0 else f"Tuning did harm: {told}."


def run(session: SparkSession, args: EvaluateArgs) -> Result:
    """Evaluates the model and writes evaluation.json and the report; for the arguments see `EvaluateArgs`."""
    preprocessed, fitted = storage.read_result(args.preprocess_uri), storage.read_result(args.train_uri)
    if fitted.inputs.get("preprocess_uri") != preprocessed.digest:
        raise InputError(
            f"the model in {args.train_uri} was not trained on {args.preprocess_uri}; name the two that belong together"
        )
    training = read_training(args, fitted)
    test = read_set(session, storage.join(args.preprocess_uri, "features"), "test", preprocessed.rows_in)
    second = BackgroundWork(
        partial(judge_second_model, test, training, args, "without" in fitted.uris),
        small=is_small(preprocessed.rows_in),
    )
    untuned = BackgroundWork(partial(judge_untuned, test, training, args, fitted), small=is_small(preprocessed.rows_in))
    kind = find_estimator(training.args.estimator)
    classifier = storage.read_classifier(kind.MODEL, storage.join(args.train_uri, "model", fitted.facts["classifier"]))
    classifier = set_column_names(classifier, {})
    explanation = kind.explain(
        classifier, training.features["features"], training.labels, training.features["deviations"]
    )
    permuted = BackgroundWork(
        partial(
            permutation_importance,
            classifier,
            test,
            training.features["features"],
            columns_by_strength(explanation, training.features["features"]),
            [training.counts["test"].get(label, 0) for label in training.labels],
        ),
        small=is_small(preprocessed.rows_in),
    )
    judged = judge(classifier.transform(test), training, args.bootstrap_samples)
    without = second.value()
    earlier = list(dict.fromkeys((*training.features["data"]["warnings"], *preprocessed.warnings, *fitted.warnings)))
    document = {
        "title": args.title or f"Predicting {training.specification.label}",
        "binary": len(training.labels) == 2,
        "label": training.specification.label,
        "labels": training.labels,
        "positive": training.labels[1] if len(training.labels) == 2 else None,
        **describe(training, fitted),
        **judged,
        "without_known_afterwards": without,
        "tuning": compare_with_untuned(judged, untuned.value(), fitted),
        "explanation": explanation,
        "permutation_importance": permuted.value(),
        "reference_categories": reference_categories(training.features),
        "versions": versions(session),
        "digests": {"data": preprocessed.inputs["load_uri"], "model": fitted.digest},
    }
    document["warnings"] = cautions(document, earlier)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    storage.write_text(storage.join(args.output_uri, "evaluation.json"), text)
    storage.write_text(args.report_uri, render_report(document))
    rows = sum(training.counts["test"].values())
    return Result(
        step=Step.EVALUATE,
        status="succeeded",
        rows_in=rows,
        rows_out={"test": rows},
        metrics={item["name"]: item["value"] for item in judged["metrics"]},
        inputs={"preprocess_uri": preprocessed.digest, "train_uri": fitted.digest},
        digest=hashlib.sha256(text.encode()).hexdigest(),
        uris={"evaluation": storage.join(args.output_uri, "evaluation.json")},
        warnings=tuple(document["warnings"]),
    )

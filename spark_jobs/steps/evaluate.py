"""Evaluate: judges the model on the test rows, which nothing before this has used, and writes the report.

spark-submit spark_jobs/__main__.py evaluate --preprocess-uri=out/preprocess --train-uri=out/train \
    --report-uri=out/report.html --output-uri=out/evaluate
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pyspark.sql import DataFrame, SparkSession

from spark_jobs import storage
from spark_jobs.beside import Beside
from spark_jobs.contract import EvaluateArgs, Step, TrainArgs
from spark_jobs.dataset import read_specification
from spark_jobs.errors import InputError
from spark_jobs.estimator import find
from spark_jobs.evaluation.judging import Trained, judge, judge_without
from spark_jobs.evaluation.report import render_report
from spark_jobs.features import name_columns, slicer_without
from spark_jobs.result import Result
from spark_jobs.split import is_small, read_set


def read_trained(args: EvaluateArgs, fitted: Result) -> Trained:
    """What the earlier steps left: features.json, and the arguments of train."""
    where = storage.join(args.preprocess_uri, "features.json")
    features = json.loads(storage.read_text(where))
    return Trained(features, TrainArgs(**fitted.arguments), read_specification(features["specification"], where))


def describe(trained: Trained, fitted: Result) -> dict[str, Any]:
    """Data, split and model, as the report tells them."""
    split, kind = trained.features["split"], find(trained.args.estimator)
    counts: dict[str, dict[str, int]] = split["counts"]
    rows = {name: sum(by_label.values()) for name, by_label in counts.items()}
    shares = {
        name: {label: count / rows[name] for label, count in by_label.items()} for name, by_label in counts.items()
    }
    iterations = fitted.metrics.get("iterations")
    return {
        "data": trained.features["data"],
        "split": {
            **{name: split[name] for name in ("method", "seed", "order_by")},
            "rows": rows,
            "class_fractions": shares,
        },
        "model": {
            "kind": kind.TITLE,
            "settings": trained.args.hyperparameters(),
            "iterations": None if iterations is None else int(iterations),
            "converged": fitted.facts["converged"],
            "threshold": fitted.metrics.get("threshold"),
            "threshold_rule": trained.args.threshold_rule,
            "features": len(trained.features["features"]),
            "when_too_sure": kind.WHEN_TOO_SURE,
        },
    }


def versions(session: SparkSession) -> dict[str, str]:
    """What made this result."""
    try:
        own = version("spark-kfp")
    except PackageNotFoundError:  # run from a source folder that was never installed
        own = "source"
    return {"spark-kfp": own, "spark": session.version}


def judge_other(test: DataFrame, trained: Trained, args: EvaluateArgs, fitted: bool) -> dict[str, Any] | None:
    """Judges the model without the columns known only afterwards, if train has fitted one."""
    slicer = slicer_without(trained.features["features"], trained.specification.known_afterwards)
    if not slicer or not fitted:
        return None
    uri = storage.join(args.train_uri, "model_without_known_afterwards")
    classifier = storage.read_classifier(find(trained.args.estimator).MODEL, uri)
    return judge_without(classifier.transform(slicer.transform(test)), trained, args.bootstrap_samples)


def run(session: SparkSession, args: EvaluateArgs) -> Result:
    """Judges the model; see `EvaluateArgs`."""
    preprocessed, fitted = storage.read_result(args.preprocess_uri), storage.read_result(args.train_uri)
    if fitted.inputs.get("preprocess_uri") != preprocessed.digest:
        raise InputError(
            f"the model in {args.train_uri} was not trained on {args.preprocess_uri}; name the two that belong together"
        )
    trained = read_trained(args, fitted)
    test = read_set(session, storage.join(args.preprocess_uri, "features"), "test", preprocessed.rows_in)
    other = Beside(
        partial(judge_other, test, trained, args, "without" in fitted.uris), small=is_small(preprocessed.rows_in)
    )
    kind = find(trained.args.estimator)
    classifier = storage.read_classifier(kind.MODEL, storage.join(args.train_uri, "model", fitted.facts["classifier"]))
    judged = judge(name_columns(classifier, {}).transform(test), trained, args.bootstrap_samples)
    without = other.value()
    warnings = tuple(dict.fromkeys((*trained.features["data"]["warnings"], *preprocessed.warnings, *fitted.warnings)))
    document = {
        "title": args.title or f"Predicting {trained.specification.label}",
        "binary": len(trained.labels) == 2,
        "label": trained.specification.label,
        "labels": trained.labels,
        "positive": trained.labels[1] if len(trained.labels) == 2 else None,
        **describe(trained, fitted),
        **judged,
        "without_known_afterwards": without,
        "explanation": kind.explain(
            classifier, trained.features["features"], trained.labels, trained.features["deviations"]
        ),
        "reference_categories": {
            item["name"]: item["values"][0] for item in trained.features["categorical"] if item["values"]
        },
        "warnings": list(warnings),
        "versions": versions(session),
        "digests": {"data": preprocessed.inputs["load_uri"], "model": fitted.digest},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    storage.write_text(storage.join(args.output_uri, "evaluation.json"), text)
    storage.write_text(args.report_uri, render_report(document))
    rows = sum(trained.counts["test"].values())
    return Result(
        step=Step.EVALUATE,
        status="succeeded",
        rows_in=rows,
        rows_out={"test": rows},
        metrics={item["name"]: item["value"] for item in judged["metrics"]},
        inputs={"preprocess_uri": preprocessed.digest, "train_uri": fitted.digest},
        digest=hashlib.sha256(text.encode()).hexdigest(),
        uris={"evaluation": storage.join(args.output_uri, "evaluation.json")},
        warnings=warnings,
    )

"""What the tests of the search by Katib share: arguments, the platform's files, an output of preprocess, statuses as Katib writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime.katib.experiment import build_experiment, plan_of
from kfp_pipeline.runtime.katib.space import metrics_for
from spark_jobs.contract import TuneArgs
from spark_jobs.result import Result

PROJECT = Path(__file__).parents[4]
TEMPLATE = (PROJECT / "spark-operator/katib/experiment.yaml").read_text(encoding="utf-8")
PREPROCESS, OUTPUT = "s3://kfp/run/preprocess", "s3://kfp/run/tune"
Document = dict[str, Any]


def tune(**settings: Any) -> TuneArgs:
    given = {
        "tuner": "katib",
        "preprocess_uri": PREPROCESS,
        "output_uri": OUTPUT,
        "report_uri": "s3://kfp/run/report",
        "algorithms": "random",
        "trials": 4,
    }
    return TuneArgs(**{**given, **settings})


def experiment_of(args: TuneArgs, algorithm: str = "", **run: Any) -> Document:
    name = algorithm or args.algorithm_names()[0]
    return build_experiment(
        TEMPLATE, args, name, plan_of(args, name, "areaUnderROC", metrics_for("areaUnderROC", 2), [], **run)
    )


def preprocess_output() -> dict[str, bytes]:
    """The documents of a finished preprocess by their name in the store."""
    rows = {"train": 60, "validation": 20, "test": 20}
    result = Result(step="preprocess", status="succeeded", rows_in=100, rows_out=rows, digest="d1")
    features = json.dumps({"labels": ["no", "yes"]})
    return {
        "kfp/run/preprocess/result.json": result.to_json().encode(),
        "kfp/run/preprocess/features.json": features.encode(),
    }


def condition(kind: str, message: str = "", reason: str = "") -> Document:
    return {"type": kind, "status": "True", "reason": reason, "message": message}


def trial(name: str, experiment: str, settings: dict[str, str], **status: Any) -> Document:
    return {
        "metadata": {"name": name, "labels": {"katib.kubeflow.org/experiment": experiment}},
        "spec": {"parameterAssignments": [{"name": key, "value": value} for key, value in settings.items()]},
        "status": status,
    }


def observed(**metrics: float) -> Document:
    texts = {name: str(value) for name, value in metrics.items()}
    return {"metrics": [{"name": name, "min": text, "max": text, "latest": text} for name, text in texts.items()]}

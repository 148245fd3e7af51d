"""The step promote: registers the model, asks the gate, and makes the model the champion, or the canary, if every rule says yes.

    spark-submit spark_jobs/__main__.py promote --load-uri=out/load --preprocess-uri=out/preprocess --train-uri=out/train \
        --evaluate-uri=out/evaluate --model-name=bank --registry-uri=models --output-uri=out/promote

The champion is judged on the candidate's test rows by its own PipelineModel, which reads raw columns, so that both are judged on the same
rows. A refusal is a normal end: the result says which rule said no, and the pointer stays where it is.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pyspark.ml.functions import vector_to_array
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from spark_jobs import gate, promotion, storage
from spark_jobs.arguments import flag
from spark_jobs.contract import VERDICT_NAME, PreprocessArgs, PromoteArgs, Step
from spark_jobs.dataset import read_specification
from spark_jobs.estimator import fitted_args
from spark_jobs.evaluation.judging import Training, judge
from spark_jobs.monitoring.alarm import Limits as DriftLimits
from spark_jobs.monitoring.alarm import compare
from spark_jobs.monitoring.counting import count_cells, count_scores
from spark_jobs.monitoring.histograms import Reference
from spark_jobs.promotion import CHAMPION, Limits, Verdict
from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place, place_of
from spark_jobs.registry.pointer import Canary, Champion, ConflictError
from spark_jobs.registry.versions import RunOutputs, folder_of
from spark_jobs.result import Result
from spark_jobs.saved_model import REFERENCE_NAME
from spark_jobs.split import LABEL, ROW_HASH, SET, assign_sets, index_label, rows_schema
from spark_jobs.table.source import quoted

FEWEST_SAMPLES = 50
"""Bootstrap samples for the champion: only its values are used, and the interval of the difference is that of the jackknife."""
PARITY_ROWS = 1000
"""The scorecard is compared with Spark on at most so many test rows."""
PARITY_SECONDS = 120
"""Time limit of the comparison."""
USUAL_COLUMNS = {name: name for name in ("probability", "prediction")}
POINTER = "nobody else promoted meanwhile"


def test_rows(session: SparkSession, args: PromoteArgs, training: Training) -> tuple[DataFrame, str]:
    """Returns the raw test rows, with the label's index and the hash of the row, and the prefix of those two columns."""
    loaded = storage.read_result(args.load_uri)
    split = PreprocessArgs(**storage.read_result(args.preprocess_uri).arguments)
    prefix = loaded.facts["prefix"]
    table = storage.read_table(session, storage.join(args.load_uri, "rows"), rows_schema(loaded))
    rows = assign_sets(table, split, prefix).where(F.col(prefix + SET) == "test")
    return rows.withColumn(prefix + LABEL, index_label(training.specification.label, training.labels)), prefix


def raw_columns(features: Mapping[str, Any]) -> list[str]:
    """Returns the raw columns that a model reads, from its features.json."""
    return [item["name"] for kind in ("numeric", "categorical") for item in features[kind]]


def predict(model: Any, rows: DataFrame, features: Mapping[str, Any], prefix: str) -> DataFrame:
    """Applies a saved PipelineModel to raw rows; returns its raw columns and probability, prediction, label and row_hash.

    Args:
        model: the PipelineModel.
        rows: the raw rows of `test_rows`.
        features: the features.json of this model.
        prefix: of the columns that steps add.
    """
    given = [*map(quoted, raw_columns(features)), F.col(prefix + LABEL), F.col(prefix + ROW_HASH)]
    names = features["model_columns"]
    predicted: DataFrame = model.transform(rows.select(*given))
    return predicted.select(
        F.struct(*map(quoted, raw_columns(features))).alias("raw"),
        F.col(names["probability"]).alias("probability"),
        F.col(names["prediction"]).alias("prediction"),
        F.col(prefix + LABEL).alias(LABEL),
        F.col(prefix + ROW_HASH).alias(ROW_HASH),
    )


def make_examples(predicted: DataFrame, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Returns test rows with Spark's probabilities, the same ones in every run: those of the smallest hashes."""
    first = (
        predicted.orderBy(ROW_HASH).limit(PARITY_ROWS).select("raw", vector_to_array(F.col("probability")).alias("p"))
    )
    return [
        {
            "row": {name: None if value != value else value for name, value in row["raw"].asDict().items()},
            "probabilities": dict(zip(labels, row["p"], strict=True)),
        }
        for row in first.collect()
    ]


def measure_parity(scorecard: bytes, examples: Sequence[Mapping[str, Any]], limits: Limits) -> Verdict:
    """Lets the server's scorer score the rows, as a process of its own: the steps import nothing of the server."""
    if not scorecard:
        return Verdict(rule=promotion.PARITY, passed=True, sentence="this kind of model has no scorecard", numbers={})
    with tempfile.TemporaryDirectory(prefix="spark-kfp-parity-") as folder:
        paths = [Path(folder, name) for name in ("scorecard.json", "examples.json")]
        paths[0].write_bytes(scorecard)
        paths[1].write_text(json.dumps(examples), encoding="utf-8")
        command = [sys.executable, "-m", "serving.parity", *map(str, paths)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PARITY_SECONDS)
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return promotion.parity(None, 0, limits, why_not=why)
    found = json.loads(done.stdout)
    return promotion.parity(found["largest"], found["rows"], limits)


def judge_champion(
    registry: Place,
    champion: Champion,
    own: dict[str, Any],
    evaluation: Mapping[str, Any],
    rows: DataFrame,
    prefix: str,
    training: Training,
) -> tuple[dict[str, Any], str]:
    """Evaluates the champion on the candidate's test rows.

    Args:
        registry: the registry.
        champion: the champion.
        own: the evaluation with which the champion was registered.
        evaluation: that of the candidate.
        rows: the raw test rows, see `test_rows`.
        prefix: of the columns that steps add.
        training: how the candidate was trained.

    Returns:
        An evaluation like the candidate's with the champion's metrics, and why there is none: then the first is the champion's own.
    """
    place = folder_of(champion.name, champion.version)
    features = json.loads(registry.read(f"{place}/features.json"))
    if (own["label"], own["labels"]) != (evaluation["label"], evaluation["labels"]):
        return own, ""  # the comparison says what the two predict
    lacking = [name for name in raw_columns(features) if name not in rows.columns]
    if lacking:
        return own, f"the champion reads column {lacking[0]!r}, which these data lack"
    model = storage.read_model(storage.join(registry.uri, place, "model"))
    judged = judge(predict(model, rows, features, prefix), training, FEWEST_SAMPLES)
    return {**evaluation, "metrics": judged["metrics"], "left_out": judged["left_out"]}, ""


def measure_drift(
    train_uri: str, rows: DataFrame, predicted: DataFrame, labels: Sequence[str], limit: float
) -> Verdict:
    """Compares the test rows with the train rows, and their scores with those of the validation rows, by the rule of the step drift.

    Args:
        train_uri: the output of train, with the histograms of the train rows.
        rows: the raw test rows.
        predicted: these with the candidate's predictions, see `predict`.
        labels: the classes.
        limit: of the population stability index.
    """
    where = storage.join(train_uri, REFERENCE_NAME)
    text = storage.read_text_if_there(where)
    if text is None:
        return promotion.no_drift(None, (), why_not=f"{where} is missing; train the model again")
    reference = Reference.from_json(text, where)
    score = count_scores(predicted, USUAL_COLUMNS, reference.score, labels)
    columns = count_cells(rows, reference.columns)
    limits = DriftLimits(psi=limit)
    findings = compare(reference.columns, columns, limits, (reference.score, score))
    found = max((each for each in findings if each.before is None), key=lambda finding: finding.change)
    largest = promotion.LargestIndex(
        of=found.column, value=found.change, limit=limit, p=found.adjusted, significance=limits.significance
    )
    return promotion.no_drift(largest, [finding.in_words() for finding in findings if finding.alarm])


def read_rules(uri: str) -> gate.Rules | None:
    """Reads the bounds of the metrics; None if no file is named.

    Raises:
        InputError: the file is missing or wrong.
    """
    return gate.parse_rules(storage.read_text(uri), uri) if uri else None


def take_up(registry: Place, seen: Champion, version: str, canary_share: float) -> Champion:
    """Makes a version that has passed the canary, or with no share or no champion the champion.

    Raises:
        ConflictError: somebody else moved the pointer since it was read.
    """
    if not canary_share or seen.version in ("", version):
        return pointer.promote(registry, seen.name, version, why="the gate passed", seen=seen)
    canary = Canary(version=version, share=canary_share, passed_beside=seen.version)
    if seen.canary == canary:  # of an attempt before this one
        return seen
    why = f"the gate passed, {promotion.percent(canary_share)} of the requests"
    return pointer.set_canary(registry, seen.name, canary, why=why, seen=seen)


def run(session: SparkSession, args: PromoteArgs) -> Result:
    """Registers and judges the model and moves the pointer; for the arguments see `PromoteArgs`."""
    rules, registry = read_rules(args.rules_uri), place_of(args.registry_uri)
    limits = Limits(metric=args.compare_by, min_test_rows=args.min_test_rows, max_balance_shift=args.max_balance_shift)
    champion = pointer.read(registry, args.model_name)
    evaluation = json.loads(storage.read_text(storage.join(args.evaluate_uri, "evaluation.json")))
    gate.check_metric(args.compare_by, gate.read_metrics(evaluation, "the evaluation"), flag("compare_by"))
    floors = promotion.floors(
        evaluation, rules, args.rules_uri
    )  # before anything is registered, as the rules may be wrong
    fitted = storage.read_result(args.train_uri)
    where = storage.join(args.preprocess_uri, "features.json")
    features = json.loads(storage.read_text(where))
    training = Training(features, fitted_args(fitted), read_specification(features["specification"], where))
    rows, prefix = test_rows(session, args, training)
    model = storage.read_model(storage.join(args.train_uri, "model"))
    predicted = predict(model, rows, features, prefix)
    examples = make_examples(predicted, training.labels)
    outputs = RunOutputs(
        load_uri=args.load_uri,
        preprocess_uri=args.preprocess_uri,
        train_uri=args.train_uri,
        evaluate_uri=args.evaluate_uri,
    )
    kept = json.dumps(examples[: args.example_rows], ensure_ascii=False).encode() if args.example_rows else b""
    candidate = versions.collect(args.model_name, outputs, run_id=args.evaluate_uri, examples=kept)
    versions.write(registry, candidate)
    registered, before, why_not = None, None, ""
    if champion.version:
        described = versions.read(registry, champion.name, champion.version)
        registered = json.loads(versions.read_file(registry, described, "evaluation.json"))
        before, why_not = judge_champion(registry, champion, registered, evaluation, rows, prefix, training)
    verdicts = [
        floors,
        promotion.no_forbidden_column(evaluation, rules),
        promotion.enough_rows(evaluation, limits),
        promotion.class_balance(evaluation, registered, limits),
        Verdict(rule=CHAMPION, passed=False, sentence=why_not, numbers={})
        if why_not
        else promotion.not_worse(evaluation, before, limits),
        measure_parity(candidate.files.get("scorecard.json", b""), examples, limits),
        measure_drift(args.train_uri, rows, predicted, training.labels, args.max_test_psi),
    ]
    if promotion.passes(verdicts):
        try:
            champion = take_up(registry, champion, candidate.version, args.canary_share)
        except ConflictError as error:
            verdicts.append(Verdict(rule=POINTER, passed=False, sentence=str(error), numbers={}))
            champion = pointer.read(registry, args.model_name)
    passed = promotion.passes(verdicts)
    moved = passed and champion.version == candidate.version
    share = champion.canary.share if passed and champion.canary and not moved else 0.0
    facts = {
        "name": args.model_name,
        "version": candidate.version,
        "passed": passed,
        "promoted": moved,
        "canary_share": share,
        "champion": champion.version,
        "outcome": promotion.describe_outcome(
            args.model_name, candidate.version, champion.version, passed=passed, moved=moved, canary_share=share
        ),
        "examples": len(examples[: args.example_rows]),
        "verdicts": [asdict(verdict) for verdict in verdicts],
    }
    text = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    storage.write_text(storage.join(args.output_uri, VERDICT_NAME), text)
    test = sum(training.counts["test"].values())
    return Result(
        step=Step.PROMOTE,
        status="succeeded",
        rows_in=test,
        rows_out={"test": test},
        metrics={"promoted": float(moved), "refusals": float(sum(not verdict.passed for verdict in verdicts))},
        inputs={"train_uri": fitted.digest},
        digest=candidate.version,
        uris={"version": storage.join(registry.uri, folder_of(args.model_name, candidate.version))},
        warnings=tuple(
            f"{item.rule}: {item.sentence}" for item in verdicts if not item.passed or item.numbers.get("unknown")
        ),
        facts=facts,
    )

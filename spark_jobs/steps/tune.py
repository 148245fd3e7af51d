"""The step tune: searches the settings with which a model does best on the validation rows.

    spark-submit spark_jobs/__main__.py tune --preprocess-uri=out/preprocess --estimators=logistic_regression,gbt --output-uri=out/tune

A trial fits one estimator with one choice of its settings on the train rows, and judges it on the validation rows; test rows are never
read. All trials run in one session on rows that are kept in memory. Optuna chooses the settings of the next trial. Each finished trial is
written at once, so that the step, if it is killed and repeated, goes on after the last one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pyspark.ml.evaluation import MulticlassClassificationEvaluator
from pyspark.sql import DataFrame, SparkSession

from spark_jobs import storage
from spark_jobs.arguments import SearchRange, flag
from spark_jobs.contract import Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import Shape, find_estimator
from spark_jobs.evaluation.judging import count_predictions
from spark_jobs.evaluation.metrics import binary_estimates
from spark_jobs.features import FEATURES
from spark_jobs.result import Result
from spark_jobs.split import LABEL, read_set
from spark_jobs.trials import Trial, best_of, document_of, loss, read_trials

log = logging.getLogger(__name__)
JOURNAL = "journal.json"
"""The finished trials of a search that has not ended; it is not an output, so a repeated step does not remove it."""
TRIALS, BEST = "trials.json", "best.json"
MULTICLASS = ("logLoss", "accuracy", "f1")
"""The objectives for a label of more than two classes."""
FAILURES_IN_A_ROW = 3
"""After so many failed trials in a row the step fails: the cause is then not a single choice of settings."""
WORTH = 0.001
"""A gain in the objective below this is no gain, and a warning says so."""
Space = Mapping[str, Mapping[str, tuple[str, SearchRange]]]


@dataclass(frozen=True)
class Rows:
    """The rows that all trials use, and their shape."""

    train: DataFrame
    validation: DataFrame
    shape: Shape


def run(session: SparkSession, args: TuneArgs) -> Result:
    """Runs the trials and writes their table and the best settings; for the arguments see `TuneArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    features = json.loads(storage.read_text(storage.join(args.preprocess_uri, "features.json")))
    labels = features["labels"]
    objective = objective_of(args, labels)
    for estimator in args.space():
        find_estimator(estimator).check(TrainArgs(preprocess_uri="", output_uri="", estimator=estimator), labels)
    uri = storage.join(args.preprocess_uri, "features")
    train, validation = (read_set(session, uri, name, preprocessed.rows_in).cache() for name in ("train", "validation"))
    rows = Rows(train, validation, Shape(len(features["features"]), len(labels)))
    key = hashlib.sha256(json.dumps([preprocessed.digest, asdict(args)], sort_keys=True).encode()).hexdigest()
    journal = storage.join(args.output_uri, JOURNAL)
    trials = read_journal(journal, key)
    for algorithm in args.algorithms():
        search(args, algorithm, objective, rows, trials, lambda found: write_journal(journal, key, found))
    untuned = run_trial(rows, next(iter(args.space())), {})
    best = best_of(trials, objective)
    assert best, "a search fails when no trial is finished"
    gain = loss(untuned, objective) - loss(best, objective)
    table = document_of(trials, objective, untuned)
    storage.write_text(storage.join(args.output_uri, TRIALS), json.dumps(table, indent=1))
    chosen = {"estimator": best.estimator, "settings": dict(best.settings), "metrics": dict(best.metrics)}
    storage.write_text(storage.join(args.output_uri, BEST), json.dumps(chosen, indent=1))
    storage.remove(journal)
    counts = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
    return Result(
        step=Step.TUNE,
        status="succeeded",
        rows_in=sum(counts.values()),
        rows_out=counts,
        metrics={objective: best.metrics[objective], "trials": float(len(trials))}
        | ({"gain": gain} if math.isfinite(gain) else {}),
        inputs={"preprocess_uri": preprocessed.digest},
        digest=hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest(),
        warnings=warnings_of(trials, objective, gain, untuned),
    )


def objective_of(args: TuneArgs, labels: Sequence[str]) -> str:
    """Returns the metric by which trials are compared.

    Raises:
        InputError: it is for two classes, and the label has more.
    """
    if len(labels) == 2:
        return "areaUnderROC" if args.objective == "auto" else args.objective
    if args.objective == "auto":
        return "logLoss"
    if args.objective not in MULTICLASS:
        raise InputError(
            f"{flag('objective')}={args.objective} is for two classes, the label has {len(labels)}; use {', '.join(MULTICLASS)}"
        )
    return args.objective


def search(args: TuneArgs, algorithm: str, objective: str, rows: Rows, trials: list[Trial], on_trial: Any) -> None:
    """Runs the trials of one algorithm until there are as many as wanted.

    Args:
        args: the arguments of tune.
        algorithm: the algorithm.
        objective: the metric by which trials are compared.
        rows: the rows to fit and judge on.
        trials: all trials so far, to which those of this algorithm are added; it learns from its own of an earlier attempt of this step.
        on_trial: called with all trials after each one.

    Raises:
        RuntimeError: several trials in a row failed.
    """
    import optuna  # noqa: PLC0415 - takes half a second, and the module is imported by every run

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    finished = [trial for trial in trials if trial.algorithm == algorithm]
    # Another seed after each interruption, or the random numbers of the first attempt would come again.
    study = optuna.create_study(sampler=samplers[algorithm](seed=args.search_seed + len(finished)))
    space = args.space()
    for trial in finished:
        study.add_trial(as_optuna_trial(optuna, space, trial, objective))
    failures = 0
    for number in range(len(finished) + 1, args.trials + 1):
        asked = study.ask()
        estimator = asked.suggest_categorical("estimator", list(space))
        settings = {name: suggest(asked, f"{estimator}.{name}", *what) for name, what in space[estimator].items()}
        trial = replace(run_trial(rows, estimator, settings), algorithm=algorithm)
        failures = 0 if trial.metrics else failures + 1
        if failures == FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{failures} trials in a row failed, the last one: {estimator} {settings}: {trial.error}"
            )
        trials.append(trial)
        if trial.metrics:
            study.tell(asked, loss(trial, objective))
        else:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        on_trial(trials)
        value = f"{objective} {trial.metrics[objective]:.4f}" if trial.metrics else f"failed: {trial.error}"
        log.info(
            "%s, trial %d of %d: %s %s: %s, %.1f s",
            algorithm, number, args.trials, estimator, settings, value, trial.seconds,
        )  # fmt: skip


def suggest(asked: Any, name: str, kind: str, wanted: SearchRange) -> float | int:
    """Lets Optuna choose the value of a setting."""
    if kind == "int":
        return int(asked.suggest_int(name, int(wanted.low), int(wanted.high), log=wanted.log))
    return float(asked.suggest_float(name, wanted.low, wanted.high, log=wanted.log))


def as_optuna_trial(optuna: Any, space: Space, trial: Trial, objective: str) -> Any:
    """Describes a finished trial to Optuna."""
    distributions = {"estimator": optuna.distributions.CategoricalDistribution(list(space))}
    for name, (kind, wanted) in space[trial.estimator].items():
        made = optuna.distributions.IntDistribution if kind == "int" else optuna.distributions.FloatDistribution
        limits = (int(wanted.low), int(wanted.high)) if kind == "int" else (wanted.low, wanted.high)
        distributions[f"{trial.estimator}.{name}"] = made(*limits, log=wanted.log)
    params = {f"{trial.estimator}.{name}": value for name, value in trial.settings.items()}
    state = optuna.trial.TrialState.COMPLETE if trial.metrics else optuna.trial.TrialState.FAIL
    return optuna.trial.create_trial(
        params={"estimator": trial.estimator, **params},
        distributions=distributions,
        value=loss(trial, objective) if trial.metrics else None,
        state=state,
    )


def run_trial(rows: Rows, estimator: str, settings: Mapping[str, Any]) -> Trial:
    """Fits an estimator on the train rows and judges it on the validation rows; a fit that fails is a trial without metrics."""
    began = time.perf_counter()
    kind = find_estimator(estimator)
    args = TrainArgs(preprocess_uri="", output_uri="", estimator=estimator, **settings)
    try:
        model = kind.build(args, rows.shape).setFeaturesCol(FEATURES).setLabelCol(LABEL).fit(rows.train)
        found = metrics_of(model.transform(rows.validation), rows.shape.classes)
    except Exception as error:  # whatever Spark raises for these settings
        return Trial(
            estimator=estimator,
            settings=settings,
            seconds=time.perf_counter() - began,
            error=str(error).split("\n")[0][:300],
        )
    return Trial(estimator=estimator, settings=settings, metrics=found, seconds=time.perf_counter() - began)


def metrics_of(predictions: DataFrame, classes: int) -> dict[str, float]:
    """Computes the metrics of predicted rows with the columns label, probability, prediction and row_hash."""
    if classes == 2:
        return binary_estimates(count_predictions(predictions)[0])
    judge = MulticlassClassificationEvaluator(labelCol=LABEL)
    return {name: float(judge.evaluate(predictions, {judge.metricName: name})) for name in MULTICLASS}


def warnings_of(trials: Sequence[Trial], objective: str, gain: float, untuned: Trial) -> tuple[str, ...]:
    """Returns warnings about failed trials, and about a search that has gained nothing."""
    failed = [trial for trial in trials if not trial.metrics]
    found = []
    if failed:
        found.append(
            f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0].estimator}: {failed[0].error}"
        )
    if gain < WORTH:
        found.append(
            f"tuning gains nothing here: {objective} of the validation rows is {untuned.metrics[objective]:.4f} with the defaults of "
            f"{untuned.estimator}, and the best trial is better by {max(gain, 0.0):.4f}"
        )
    return tuple(found)


def read_journal(uri: str, key: str) -> list[Trial]:
    """Reads the trials of an earlier attempt of the same search; empty if there is none."""
    try:
        found = json.loads(storage.read_text(uri))
    except (InputError, ValueError):
        return []
    return read_trials(found["trials"]) if found.get("key") == key else []


def write_journal(uri: str, key: str, trials: Sequence[Trial]) -> None:
    """Writes the trials that are finished."""
    storage.write_text(uri, json.dumps({"key": key, "trials": [asdict(trial) for trial in trials]}))

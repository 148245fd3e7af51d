"""The step tune: searches the settings with which a model does best on the validation rows.

    spark-submit spark_jobs/__main__.py tune --preprocess-uri=out/preprocess --estimators=logistic_regression,gbt --output-uri=out/tune

A trial fits one estimator with one choice of its settings on the train rows, and judges it on the validation rows, or by folds of both;
test rows are never read. All trials run in one session on rows that are kept in memory. Each finished trial is written at once, so that
the step, if it is killed and repeated, goes on after the last one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import HYPERBAND, JOURNAL, KATIB, NO_STOP, Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import WEIGHT, Shape, class_weight, find_estimator
from spark_jobs.result import Result
from spark_jobs.split import read_set
from spark_jobs.trials import (
    Trial,
    best_document,
    best_of,
    document_of,
    gain_of,
    objective_of,
    read_trials,
    warnings_of,
)
from spark_jobs.tuning.fitting import Rows, folds, growing, run_trial, whole

if TYPE_CHECKING:
    from spark_jobs.tuning.proposals import Proposals

log = logging.getLogger(__name__)
TRIALS, BEST = "trials.json", "best.json"
FAILURES_IN_A_ROW = 3
"""After so many failed trials in a row the step fails: the cause is then not a single choice of settings."""


@dataclass(frozen=True)
class Journal:
    """The trials of all algorithms so far, in the file that a repeated step goes on from.

    Attributes:
        uri: the file.
        key: digest of what the search depends on; trials of another one are not taken over.
        objective: the metric by which trials are compared.
        wanted: number of trials of all algorithms.
        trials: the trials.
    """

    uri: str
    key: str
    objective: str
    wanted: int
    trials: list[Trial]

    def add(self, trial: Trial) -> None:
        """Adds a trial and writes the file."""
        self.trials.append(trial)
        document = {"key": self.key, "objective": self.objective, "wanted": self.wanted}
        storage.write_text(self.uri, json.dumps({**document, "trials": [vars(each) for each in self.trials]}))


def run(session: SparkSession, args: TuneArgs) -> Result:
    """Runs the trials and writes their table and the best settings; for the arguments see `TuneArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    features = json.loads(storage.read_text(storage.join(args.preprocess_uri, "features.json")))
    labels = features["labels"]
    objective = objective_of(args, labels)
    check(args, features)
    uri = storage.join(args.preprocess_uri, "features")
    weight = class_weight(features["split"]["counts"]["train"], labels)
    train, validation = (
        read_set(session, uri, name, preprocessed.rows_in).withColumn(WEIGHT, weight).cache()
        for name in ("train", "validation")
    )
    common = (train, validation, Shape(len(features["features"]), len(labels)), args.class_weights)
    all_rows = whole(*common) if args.folds == 1 else folds(*common, args.folds)
    journal = open_journal(args, objective, preprocessed.digest)
    for algorithm in args.algorithms():
        stops = algorithm == HYPERBAND or args.early_stopping != NO_STOP
        rows = growing(*common) if stops and args.folds == 1 else all_rows
        search(args, algorithm, rows, journal)
    trials = journal.trials
    untuned = run_trial(all_rows, next(iter(args.space())), {}, objective)
    best = best_of(trials, objective)
    assert best, "a search fails when no trial is finished"
    gain = gain_of(best, objective, untuned)
    table = document_of(trials, objective, untuned)
    storage.write_text(storage.join(args.output_uri, TRIALS), json.dumps(table, indent=1))
    chosen = best_document(best, objective, untuned)
    storage.write_text(storage.join(args.output_uri, BEST), json.dumps(chosen, indent=1))
    storage.remove(journal.uri)
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
        warnings=warnings_of(trials, objective, untuned),
    )


def check(args: TuneArgs, features: dict[str, Any]) -> None:
    """Checks the search against the table.

    Raises:
        InputError: an estimator cannot be fitted to these classes, folds would mix rows that have an order, or the search is for Katib.
    """
    if args.tuner == KATIB:
        raise InputError(
            f"{flag('tuner')}={KATIB} is carried out by a task or a command on a cluster, not by this step; leave it out"
        )
    for estimator in args.space():
        find_estimator(estimator).check(
            TrainArgs(preprocess_uri="", output_uri="", estimator=estimator), features["labels"]
        )
    if args.folds > 1 and features["split"]["method"] != "hash":
        raise InputError(
            f"{flag('folds')}={args.folds}: the rows are split in their order, and folds would judge rows by later ones; leave it out"
        )


def open_journal(args: TuneArgs, objective: str, data_digest: str) -> Journal:
    """Reads the trials of an earlier attempt of the same search; there are none if it was another one."""
    depends = [data_digest, {name: getattr(args, name) for name in args.settings()}]
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    uri = storage.join(args.output_uri, JOURNAL)
    try:
        found = json.loads(storage.read_text(uri))
        trials = read_trials(found["trials"]) if found["key"] == key else []
    except (InputError, ValueError, KeyError, TypeError):
        trials = []
    return Journal(uri, key, objective, args.trials * len(args.algorithms()), trials)


def search(args: TuneArgs, algorithm: str, rows: Rows, journal: Journal) -> None:
    """Runs the trials of one algorithm until there are as many as wanted, and adds them to the journal.

    Raises:
        RuntimeError: several trials in a row failed.
    """
    from spark_jobs.tuning.proposals import Proposals  # noqa: PLC0415 - Optuna takes half a second; every run imports this module

    own = [trial for trial in journal.trials if trial.algorithm == algorithm]
    proposals = Proposals(args, algorithm, journal.objective, own, rows.largest_budget)
    began, before, failures = time.perf_counter(), len(own), 0
    while proposals.left and not (args.patience and without_gain(own, journal.objective) >= args.patience):
        trial = next_trial(args, rows, proposals, algorithm, journal)
        own.append(trial)
        journal.add(trial)
        failures = failures + 1 if trial.error else 0
        if failures == FAILURES_IN_A_ROW:
            raise RuntimeError(
                f"{failures} trials in a row failed, the last one: {trial.estimator} {trial.settings}: {trial.error}"
            )
        left = (time.perf_counter() - began) / (len(own) - before) * proposals.left
        log.info("%s", progress_line(algorithm, own, proposals.left, journal.objective, left))


def next_trial(args: TuneArgs, rows: Rows, proposals: Proposals, algorithm: str, journal: Journal) -> Trial:
    """Runs the trial that the algorithm chooses, unless the same one has run already: then its result is taken."""
    proposal = proposals.ask()
    trial = None
    if algorithm != HYPERBAND and args.early_stopping == NO_STOP:  # else the trial may end before it has had all rows
        trial = same_trial(journal.trials, proposal.estimator, proposal.settings)
    if trial is None:
        trial = run_trial(
            rows,
            proposal.estimator,
            proposal.settings,
            journal.objective,
            lambda budget, value: proposals.should_stop(proposal, budget, value),
        )
    trial = replace(trial, algorithm=algorithm)
    proposals.tell(proposal, trial)
    return trial


def same_trial(trials: Sequence[Trial], estimator: str, settings: dict[str, Any]) -> Trial | None:
    """Returns a finished trial of all rows with these settings; algorithms with one seed often begin alike."""
    for trial in trials:
        if trial.finished and trial.estimator == estimator and trial.settings == settings:
            return trial
    return None


def without_gain(trials: Sequence[Trial], objective: str) -> int:
    """Returns the number of trials since the best one."""
    best = best_of(trials, objective)
    return len(trials) - 1 - trials.index(best) if best else 0


def progress_line(algorithm: str, own: Sequence[Trial], left: int, objective: str, seconds: float) -> str:
    """Returns the line about the last trial, the best so far, and the time that is left."""
    trial, best = own[-1], best_of(own, objective)
    value = f"failed: {trial.error}" if trial.error else f"{objective} {trial.metrics[objective]:.4f}"
    if trial.stopped:
        value += f", stopped after {trial.stopped}"
    so_far = f"best {best.metrics[objective]:.4f}, " if best else ""
    return (
        f"{algorithm}, trial {len(own)} of {len(own) + left}: {trial.estimator} {dict(trial.settings)}: {value}, {trial.seconds:.1f} s; "
        f"{so_far}about {seconds:.0f} s left"
    )

"""The step tune: searches the settings with which a model does best on the validation rows; the defaults take part.

    spark-submit spark_jobs/__main__.py tune --preprocess-uri=out/preprocess --output-uri=out/tune --report-uri=out/tuning.html

A trial fits one estimator with one choice of its settings on the train rows, and judges it on the validation rows, or by folds of both;
test rows are never read. All trials run in one session on rows that are kept in memory. Each finished trial is written at once, so that
the step, if it is killed and repeated, goes on after the last one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, Any

from pyspark.sql import SparkSession, is_remote

from spark_jobs import storage
from spark_jobs.arguments import flag
from spark_jobs.contract import HYPERBAND, JOURNAL, KATIB, NO_STOP, Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.estimator import WEIGHT, Shape, class_weight, find_estimator
from spark_jobs.result import Result
from spark_jobs.split import is_small, read_set
from spark_jobs.trials import (
    Trial,
    best_document,
    best_of,
    document_of,
    gain_of,
    objective_of,
    read_trials,
    second_objective_of,
    warnings_of,
    winner_of,
)
from spark_jobs.tuning.fitting import Rows, folds, growing, run_trial, whole
from spark_jobs.tuning.report import render_report

if TYPE_CHECKING:
    from spark_jobs.tuning.proposals import Proposal, Proposals

log = logging.getLogger(__name__)
TRIALS, BEST = "trials.json", "best.json"
SIDE_BY_SIDE = 4
"""Number of trials at one time on a small table: its rows lie in one partition, so that one fit keeps only one core busy."""
FAILURES_IN_A_ROW = 3
"""After so many failed trials in a row the step fails: the cause is then not a single choice of settings."""


@dataclass(frozen=True)
class Journal:
    """The trials of all algorithms so far, in the file that a repeated step goes on from.

    Attributes:
        uri: the file.
        key: digest of what the search depends on; trials of another one are not taken over.
        objective: the metric by which trials are compared.
        second_objective: another one; empty: there is none.
        wanted: number of trials of all algorithms.
        trials: the trials.
        spent_seconds: what earlier attempts have taken.
    """

    uri: str
    key: str
    objective: str
    second_objective: str
    wanted: int
    trials: list[Trial]
    spent_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _began: float = field(default_factory=time.perf_counter)
    _new: list[Trial] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """What the search has taken so far, all attempts together."""
        return self.spent_seconds + time.perf_counter() - self._began

    def add(self, trial: Trial) -> None:
        """Adds a trial and writes the file; also from several threads."""
        with self._lock:
            self.trials.append(trial)
            self._new.append(trial)
            document = {
                "key": self.key,
                "objective": self.objective,
                "wanted": self.wanted,
                "seconds": self.seconds,
                "seconds_per_trial": (time.perf_counter() - self._began) / len(self._new),
                "trials": [vars(each) for each in self.trials],
            }
            storage.write_text(self.uri, json.dumps(document))


def run(session: SparkSession, args: TuneArgs) -> Result:
    """Runs the trials and writes their table and the best settings; for the arguments see `TuneArgs`."""
    preprocessed = storage.read_result(args.preprocess_uri)
    features = json.loads(storage.read_text(storage.join(args.preprocess_uri, "features.json")))
    labels = features["labels"]
    objective, second = objective_of(args, labels), second_objective_of(args, labels)
    check(args, features)
    uri = storage.join(args.preprocess_uri, "features")
    weight = class_weight(features["split"]["counts"]["train"], labels)
    train, validation = (
        read_set(session, uri, name, preprocessed.rows_in).withColumn(WEIGHT, weight).cache()
        for name in ("train", "validation")
    )
    # A session of Spark Connect belongs to the thread that has built it.
    threads_help = is_small(preprocessed.rows_in) and not is_remote()
    common = (train, validation, Shape(len(features["features"]), len(labels)), args.class_weights)
    all_rows = whole(*common) if args.folds == 1 else folds(*common, args.folds)
    journal = open_journal(args, objective, second, preprocessed.digest)
    for algorithm in args.algorithm_names():
        stops = may_stop(args, algorithm)
        rows = growing(*common) if stops and args.folds == 1 else all_rows
        # A trial is stopped by the trials so far, and which ones those are must not depend on the machine.
        search(args, algorithm, replace(rows, side_by_side=not stops and threads_help), journal)
    trials = journal.trials
    untuned = run_trial(all_rows, next(iter(args.space())), {}, objective)
    winner, gain = winner_of(trials, objective, untuned), gain_of(trials, objective, untuned)
    warnings = warnings_of(trials, objective, untuned)
    table = full_document(args, journal, untuned)
    storage.write_text(storage.join(args.output_uri, TRIALS), json.dumps(table, indent=1))
    storage.write_text(args.report_uri, render_report(table))
    chosen = best_document(winner, objective, untuned)
    storage.write_text(storage.join(args.output_uri, BEST), json.dumps(chosen, indent=1))
    storage.remove(journal.uri)
    counts = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
    return Result(
        step=Step.TUNE,
        status="succeeded",
        rows_in=sum(counts.values()),
        rows_out=counts,
        metrics={objective: winner.metrics[objective], "trials": float(len(trials))}
        | ({"gain": gain} if math.isfinite(gain) else {}),
        inputs={"preprocess_uri": preprocessed.digest},
        digest=hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest(),
        warnings=warnings,
    )


def full_document(args: TuneArgs, journal: Journal, untuned: Trial) -> dict[str, Any]:
    """Returns the content of `trials.json`, with the ranges that were searched and the importance of each setting."""
    from spark_jobs.tuning.importances import importances_of  # noqa: PLC0415 - see search

    space = args.space()
    return document_of(journal.trials, journal.objective, untuned, journal.second_objective) | {
        "space": {
            estimator: {name: asdict(wanted) for name, (_, wanted) in each.items()} for estimator, each in space.items()
        },
        "seconds": journal.seconds,
        "importances": importances_of(journal.trials, space, journal.objective),
    }


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


def open_journal(args: TuneArgs, objective: str, second: str, data_digest: str) -> Journal:
    """Reads the trials of an earlier attempt of the same search; there are none if it was another one."""
    depends = [data_digest, {name: getattr(args, name) for name in args.settings()}]
    key = hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()
    uri = storage.join(args.output_uri, JOURNAL)
    try:
        found = json.loads(storage.read_text(uri))
        trials, spent = (read_trials(found["trials"]), float(found["seconds"])) if found["key"] == key else ([], 0.0)
    except (InputError, ValueError, KeyError, TypeError):
        trials, spent = [], 0.0
    return Journal(uri, key, objective, second, args.trials * len(args.algorithm_names()), trials, spent)


def search(args: TuneArgs, algorithm: str, rows: Rows, journal: Journal) -> None:
    """Runs the trials of one algorithm until there are as many as wanted, and adds them to the journal.

    Raises:
        RuntimeError: several trials in a row failed.
    """
    from spark_jobs.tuning.proposals import Proposals  # noqa: PLC0415 - Optuna takes half a second; every run imports this module

    own = [trial for trial in journal.trials if trial.algorithm == algorithm]
    proposals = Proposals(args, algorithm, journal.objective, own, rows.largest_budget, journal.second_objective)
    began, before, failures = time.perf_counter(), len(own), 0
    while proposals.left and (more := trials_before_patience_ends(args, own, journal.objective)):
        batch = [proposals.ask() for _ in range(min(proposals.independent, more))]
        first = len(journal.trials)
        in_order = []
        for proposal, trial in zip(batch, run_batch(batch, args, rows, proposals, journal), strict=True):
            proposals.tell(proposal, trial)
            own.append(trial)
            in_order.append(trial)
            failures = failures + 1 if trial.error else 0
            if failures == FAILURES_IN_A_ROW:
                raise RuntimeError(
                    f"{failures} trials in a row failed, the last one: {trial.estimator} {trial.settings}: {trial.error}"
                )
            left = proposals.left + len(batch) - len(in_order)
            seconds = (time.perf_counter() - began) / (len(own) - before) * left
            log.info("%s", progress_line(algorithm, own, left, journal.objective, seconds))
        journal.trials[first:] = in_order  # they were added as they ended


def run_batch(
    batch: Sequence[Proposal], args: TuneArgs, rows: Rows, proposals: Proposals, journal: Journal
) -> Iterator[Trial]:
    """Runs trials, side by side where that wins, and returns them in their order; each is in the journal as soon as it ends."""

    def run(proposal: Proposal) -> Trial:
        trial = replace(next_trial(args, rows, proposals, proposal, journal), algorithm=proposals.algorithm)
        journal.add(trial)
        return trial

    width = min(len(batch), SIDE_BY_SIDE if rows.side_by_side else 1)
    if width == 1:
        yield from map(run, batch)
    else:
        # Its threads are daemons: a search that fails or is interrupted does not wait for them.
        with ThreadPool(width) as pool:
            yield from pool.imap(run, batch)


def next_trial(args: TuneArgs, rows: Rows, proposals: Proposals, proposal: Proposal, journal: Journal) -> Trial:
    """Runs the trial that was proposed, unless the same one has run already: then its result is taken."""
    if not may_stop(args, proposals.algorithm):  # else the earlier trial may have ended before it had all rows
        known = same_trial(journal.trials, proposal.estimator, proposal.settings)
        if known:
            return replace(known, seconds=0.0, taken_over=True)

    def should_stop(budget: int, value: float) -> bool:
        return proposals.should_stop(proposal, budget, value)

    return run_trial(rows, proposal.estimator, proposal.settings, journal.objective, should_stop)


def may_stop(args: TuneArgs, algorithm: str) -> bool:
    """Whether a trial may end before it has had all rows."""
    return algorithm == HYPERBAND or args.early_stopping != NO_STOP


def same_trial(trials: Sequence[Trial], estimator: str, settings: dict[str, Any]) -> Trial | None:
    """Returns a finished trial of all rows with these settings; algorithms with one seed often begin alike."""
    for trial in trials:
        if trial.finished and trial.estimator == estimator and trial.settings == settings:
            return trial
    return None


def trials_before_patience_ends(args: TuneArgs, trials: Sequence[Trial], objective: str) -> int:
    """Returns the number of trials that run even if none of them is better than the best so far."""
    return max(0, args.patience - without_gain(trials, objective)) if args.patience else args.trials


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
        f"{algorithm}, trial {len(own)} of {len(own) + left}: {trial.estimator} {dict(trial.settings)}: {value}, "
        f"{'taken over' if trial.taken_over else f'{trial.seconds:.1f} s'}; "
        f"{so_far}about {seconds:.0f} s left"
    )

"""The trials of a search as plain values, and what a table of them tells: the best, and how soon each algorithm came close to it.

Whatever runs the trials, `trials.json` holds them in this form. This module imports only the standard library.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from spark_jobs.arguments import flag
from spark_jobs.contract import (
    LOWER_IS_BETTER,
    MULTICLASS_OBJECTIVES,
    NO_SECOND,
    OBJECTIVE_OF_TWO_CLASSES,
    TuneArgs,
)
from spark_jobs.errors import InputError

CLOSE = 0.01
"""A trial is close to the best if its objective differs from it by at most this share."""

WORTH = 0.001
"""A gain in the objective below this is no gain, and a warning says so."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial.

    Attributes:
        estimator: the kind of model.
        settings: the settings that were chosen; those that were not searched have their defaults.
        metrics: metrics of the rows that it was judged on; empty if the fit failed.
        seconds: for fit and judgement; none for one that was taken over.
        error: why the fit failed; empty if it did not.
        algorithm: what chose the settings; empty for the defaults.
        reports: the objective that it had reached, by the number of folds, or of ninths of the train rows, that it had by then.
        stopped: where it was stopped early, such as "fold 2 of 5"; its metrics are those it had reached. Empty if it was not.
        taken_over: whether it is an earlier trial of the same settings, by another algorithm perhaps, that was not fitted again.
    """

    estimator: str
    settings: Mapping[str, Any]
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""
    algorithm: str = ""
    reports: Sequence[tuple[int, float]] = ()
    stopped: str = ""
    taken_over: bool = False

    @property
    def finished(self) -> bool:
        """Whether it can be compared with others: its fit did not fail and it was not stopped."""
        return bool(self.metrics) and not self.stopped


def read_trials(documents: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """Reads the trials of a parsed `trials.json` or journal."""
    return [
        Trial(**{**document, "reports": tuple((budget, value) for budget, value in document.get("reports", ()))})
        for document in documents
    ]


def loss(trial: Trial, objective: str) -> float:
    """Returns the objective of a trial as a number of which a smaller one is better; infinity if it is not finished."""
    if not trial.finished:
        return math.inf
    return trial.metrics[objective] if objective in LOWER_IS_BETTER else -trial.metrics[objective]


def best_of(trials: Iterable[Trial], objective: str) -> Trial | None:
    """Returns the best finished trial, the first one of equals; None if no trial is finished."""
    done = [trial for trial in trials if trial.finished]
    return min(done, key=lambda trial: loss(trial, objective)) if done else None


@dataclass(frozen=True, kw_only=True)
class AlgorithmSummary:
    """What one algorithm has found.

    Attributes:
        algorithm: its name.
        trials: the number of its trials.
        stopped: how many of them were stopped early.
        taken_over: how many of them were not fitted again, as the same one had run already.
        best: its best trial; None if none is finished.
        trials_to_close: the number of trials after which one was close to the best of all algorithms; None if none was.
        seconds: of all its trials, added up, though some may have run side by side.
    """

    algorithm: str
    trials: int
    stopped: int
    taken_over: int
    best: Trial | None
    trials_to_close: int | None
    seconds: float


def summarise(trials: Sequence[Trial], objective: str) -> list[AlgorithmSummary]:
    """Summarises each algorithm, in the order of their first trials."""
    best = best_of(trials, objective)
    found = []
    for algorithm in dict.fromkeys(trial.algorithm for trial in trials):
        own = [trial for trial in trials if trial.algorithm == algorithm]
        close = [number for number, trial in enumerate(own, 1) if best and is_close(trial, best, objective)]
        found.append(
            AlgorithmSummary(
                algorithm=algorithm,
                trials=len(own),
                stopped=sum(bool(trial.stopped) for trial in own),
                taken_over=sum(trial.taken_over for trial in own),
                best=best_of(own, objective),
                trials_to_close=close[0] if close else None,
                seconds=sum(trial.seconds for trial in own),
            )
        )
    return found


def is_close(trial: Trial, best: Trial, objective: str) -> bool:
    """Whether the objective of a trial is within `CLOSE` of the best one."""
    return loss(trial, objective) <= loss(best, objective) + CLOSE * abs(loss(best, objective))


def progress(document: Mapping[str, Any]) -> str:
    """Describes how far a search is, by its parsed journal: the trials, the best so far, and the time that is left."""
    trials, objective, wanted = read_trials(document["trials"]), document["objective"], document["wanted"]
    best = best_of(trials, objective)
    seconds = document["seconds_per_trial"] * max(
        0, wanted - len(trials)
    )  # less than those of a trial if they run side by side
    so_far = f", {objective} {best.metrics[objective]:.4f} so far" if best else ""
    return f"{len(trials)} of {wanted} trials{so_far}, about {seconds:.0f} s left"


def front_of(trials: Sequence[Trial], objectives: tuple[str, str]) -> list[int]:
    """Returns the places of the trials on the Pareto front: no other trial is as good in both objectives and better in one."""
    losses = {
        place: tuple(loss(trial, name) for name in objectives) for place, trial in enumerate(trials) if trial.finished
    }
    return [
        place
        for place, own in losses.items()
        if not any(other != own and all(a <= b for a, b in zip(other, own, strict=True)) for other in losses.values())
    ]


def document_of(trials: Sequence[Trial], objective: str, untuned: Trial, second: str = "") -> dict[str, Any]:
    """Returns the content of `trials.json`: all trials, the defaults beside them, and for two objectives the places of the front."""
    return {
        "objective": objective,
        "second_objective": second,
        "front": front_of(trials, (objective, second)) if second else [],
        "algorithms": [asdict(summary) for summary in summarise(trials, objective)],
        "trials": [asdict(trial) for trial in trials],
        "untuned": asdict(untuned),
    }


def winner_of(trials: Sequence[Trial], objective: str, untuned: Trial) -> Trial:
    """Returns what the model is trained with: the best trial, or the defaults if no trial is better.

    Raises:
        RuntimeError: no trial is finished.
    """
    if not best_of(trials, objective):
        raise RuntimeError(f"none of {len(trials)} trials has finished; the last one: {trials[-1].error}")
    return min((untuned, *trials), key=lambda trial: loss(trial, objective))


def best_document(winner: Trial, objective: str, untuned: Trial) -> dict[str, Any]:
    """Returns the content of `best.json`: what train needs to fit the winner's model, and the one with the defaults beside it."""
    return {
        "estimator": winner.estimator,
        "settings": dict(winner.settings),
        "metrics": dict(winner.metrics),
        "objective": objective,
        "untuned": {"estimator": untuned.estimator, "settings": {}},
    }


def gain_of(trials: Sequence[Trial], objective: str, untuned: Trial) -> float:
    """Returns by how much the best trial is better than the defaults, negative if it is worse; infinity if those could not be judged."""
    return loss(untuned, objective) - min(loss(trial, objective) for trial in trials)


def no_gain(trials: Sequence[Trial], objective: str, untuned: Trial) -> str:
    """Returns a sentence about a search that has gained nothing; empty if it has, or the defaults could not be judged."""
    gain = gain_of(trials, objective, untuned)
    if gain >= WORTH:
        return ""
    told = (
        f"tuning gains nothing here: {objective} of the validation rows is {untuned.metrics[objective]:.4f} with the defaults of "
        f"{untuned.estimator}, and the best trial is"
    )
    if gain > 0:
        return f"{told} better by {gain:.4f}"
    return f"{told} {f'worse by {-gain:.4f}' if gain < 0 else 'no better'}; so the model is trained with the defaults"


def objective_of(args: TuneArgs, labels: Sequence[str]) -> str:
    """Returns the metric by which trials are compared.

    Raises:
        InputError: it is for two classes, and the label has more.
    """
    if args.objective == "auto":
        return OBJECTIVE_OF_TWO_CLASSES if len(labels) == 2 else "logLoss"
    return checked(args, "objective", labels)


def second_objective_of(args: TuneArgs, labels: Sequence[str]) -> str:
    """Returns the second objective; empty if there is none.

    Raises:
        InputError: it is for two classes, and the label has more, or it is the first one.
    """
    if args.second_objective == NO_SECOND:
        return ""
    if args.second_objective == objective_of(args, labels):
        raise InputError(
            f"{flag('second_objective')}={args.second_objective} is the first objective here; name another metric, or leave it out"
        )
    return checked(args, "second_objective", labels)


def checked(args: TuneArgs, name: str, labels: Sequence[str]) -> str:
    """Returns the metric that a setting names.

    Raises:
        InputError: it is for two classes, and the label has more.
    """
    metric = str(getattr(args, name))
    if len(labels) > 2 and metric not in MULTICLASS_OBJECTIVES:
        raise InputError(
            f"{flag(name)}={metric} is for two classes, the label has {len(labels)}; use {', '.join(MULTICLASS_OBJECTIVES)}"
        )
    return metric


def warnings_of(trials: Sequence[Trial], objective: str, untuned: Trial) -> tuple[str, ...]:
    """Returns warnings about failed trials, and about a search that has gained nothing."""
    failed = [trial for trial in trials if trial.error]
    found = []
    if failed:
        found.append(
            f"{len(failed)} of {len(trials)} trials failed, the first: {failed[0].estimator}: {failed[0].error}"
        )
    return (*found, *filter(None, [no_gain(trials, objective, untuned)]))

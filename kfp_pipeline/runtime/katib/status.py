"""Interprets the status of an Experiment and of its trials: pure functions over the objects as plain dicts.

The fields are those of Katib 0.19.0: pkg/apis/controller/experiments/v1beta1/experiment_types.go and trials/v1beta1/trial_types.go.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Any

from kfp_pipeline.runtime.katib.space import BUDGET, ESTIMATOR
from spark_jobs.arguments import TYPES, Role
from spark_jobs.contract import TRAIN_PARTS, TrainArgs
from spark_jobs.trials import Trial

Document = Mapping[str, Any]
EXPERIMENT_LABEL = "katib.kubeflow.org/experiment"
"""Label of a trial; pkg/controller.v1beta1/consts/const.go."""
ENDED = ("Succeeded", "Failed")
GOAL_REACHED = "ExperimentGoalReached"
"""Reason of the condition Succeeded; pkg/controller.v1beta1/experiment/util/status_util.go."""
UNAVAILABLE = "unavailable"
"""Value of a metric that was not reported; pkg/controller.v1beta1/consts/const.go."""
COUNTS = {
    "trialsSucceeded": "succeeded",
    "trialsFailed": "failed",
    "trialsEarlyStopped": "stopped early",
    "trialsKilled": "killed",
    "trialMetricsUnavailable": "without metrics",
    "trialsRunning": "running",
    "trialsPending": "pending",
}
"""Fields of the Experiment's status, and the words for them."""


def condition_of(document: Document, *types: str) -> Document | None:
    """Returns the first condition of one of these types that is true; None if there is none."""
    found = (document.get("status") or {}).get("conditions") or []
    return next((item for item in found if item["type"] in types and item["status"] == "True"), None)


def is_taken_up(experiment: Document) -> bool:
    """Whether Katib's controller has seen the Experiment."""
    return bool((experiment.get("status") or {}).get("conditions"))


def counts_of(experiment: Document) -> dict[str, int]:
    """Returns how many trials are in each state, without the states of none."""
    status = experiment.get("status") or {}
    return {words: int(status[name]) for name, words in COUNTS.items() if status.get(name)}


def progress(experiment: Document, objective: str) -> str:
    """Describes how far a search is."""
    wanted = experiment["spec"].get("maxTrialCount")
    counts = ", ".join(f"{count} {words}" for words, count in counts_of(experiment).items()) or "none yet"
    best = (experiment.get("status") or {}).get("currentOptimalTrial") or {}
    value = metrics_in(best.get("observation") or {}).get(objective)
    return f"of {wanted} trials {counts}" + ("" if value is None else f"; {objective} {value:.4f} so far")


def metrics_in(observation: Document) -> dict[str, float]:
    """Returns the metrics of a trial's observation: the last value of each that is a finite number."""
    found = {}
    for metric in observation.get("metrics") or []:
        try:
            value = float(metric.get("latest", UNAVAILABLE))
        except ValueError:
            continue
        if math.isfinite(value):
            found[str(metric["name"])] = value
    return found


def failed_trials(trials: Sequence[Document]) -> list[Document]:
    """Returns the trials that count as failed: those that failed, and those whose metrics did not come."""
    return [trial for trial in trials if condition_of(trial, "Failed", "MetricsUnavailable")]


def running_trials(trials: Sequence[Document]) -> list[Document]:
    """Returns the trials that have not ended."""
    return [
        trial
        for trial in trials
        if not condition_of(trial, "Succeeded", "Failed", "Killed", "EarlyStopped", "MetricsUnavailable")
    ]


def trial_values(trial: Document, searched: Mapping[str, Sequence[str]], algorithm: str, error: str) -> Trial:
    """Describes a trial that has ended, in the form of `trials.json`.

    Args:
        trial: the Trial.
        searched: by estimator the names of the settings that are searched.
        algorithm: what chose the settings.
        error: why it failed; empty if it did not.
    """
    assigned = {item["name"]: item["value"] for item in trial["spec"].get("parameterAssignments") or []}
    estimator = assigned.get(ESTIMATOR, next(iter(searched)))
    kinds = {item.name: TYPES[item.type] for item in TrainArgs.arguments(Role.SETTING)}
    settings = {name: kinds[name](assigned[name]) for name in searched[estimator] if name in assigned}
    parts = int(assigned.get(BUDGET, TRAIN_PARTS))
    stopped = "by Katib's medianstop" if condition_of(trial, "EarlyStopped") else ""
    if parts < TRAIN_PARTS:
        stopped = f"{parts}/{TRAIN_PARTS} of the train rows"
    return Trial(
        estimator=estimator,
        settings=settings,
        metrics={} if error else metrics_in((trial.get("status") or {}).get("observation") or {}),
        seconds=seconds_of(trial),
        error=error,
        algorithm=algorithm,
        stopped="" if error else stopped,
    )


def seconds_of(trial: Document) -> float:
    """Returns how long a trial took; 0 if its status does not tell."""
    status = trial.get("status") or {}
    try:
        began, ended = (datetime.datetime.fromisoformat(status[name]) for name in ("startTime", "completionTime"))
    except (KeyError, TypeError, ValueError):
        return 0.0
    return max(0.0, (ended - began).total_seconds())

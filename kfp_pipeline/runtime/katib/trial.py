"""The program of a trial's Job: trains with the trial's settings by a SparkApplication, and prints the metrics of the validation rows.

    python3 -m kfp_pipeline.runtime.katib.trial --trial=tune-0123456789ab-x7k2p9qz --reg-param=0.01 --elastic-net-param=0.5

Katib's StdOut collector finds the metrics in the output as NAME=VALUE (`DefaultFilter` in its
pkg/metricscollector/v1beta1/common/const.go).
The application belongs to the Experiment and not to the Job: Katib looks for a Trial among the owners of each pod and their owners, and
refuses a pod that has one, but no container of a trial (`getKatibJob`, `mutatePodEnv` in pkg/webhook/v1beta1/pod), as Spark's have none.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError, StepError, as_step_error
from kfp_pipeline.runtime.katib.space import BUDGET, ESTIMATOR
from kfp_pipeline.runtime.katib.trial_plan import FAILURE_NAME, PLAN_VARIABLE, TRIAL_FLAG, TrialPlan
from kfp_pipeline.runtime.kubernetes_api import EXPERIMENTS, Cluster, connect
from kfp_pipeline.runtime.processes import die_with_parent, signals_raise_interrupt
from kfp_pipeline.runtime.runner import runner_for
from kfp_pipeline.settings import Settings, trial_plan
from spark_jobs.arguments import RaisingParser, Role, add_arguments, flag
from spark_jobs.contract import Step, TrainArgs
from spark_jobs.errors import EXIT_FAULT, EXIT_INPUT, EXIT_INTERRUPTED, InputError
from spark_jobs.result import Failure, Result, write_termination_message

LEASE_SECONDS = 120
"""Nobody repeats a trial that is gone, so its application need not wait for a new one."""
VALIDATION_METRICS = "validation_metrics"
"""Where the result document of train has the metrics of the validation rows, among its facts."""


def main(argv: Sequence[str], plan_text: str) -> int:
    """Runs a trial and returns the exit code of its process: 0, 2 for bad input, 1 for a fault.

    Args:
        argv: the command that Katib has made of the template.
        plan_text: what the trial has to know, a `TrialPlan`.
    """
    if (
        os.getppid()
    ):  # the shell around the command, which passes no signal on; there is none where Katib adds no collector
        die_with_parent()
    folder = ""
    try:
        with signals_raise_interrupt():
            plan = read_plan(plan_text)
            trial, settings = parse(plan, argv)
            folder = f"{plan.trials_uri}/{trial}"
            run_trial(plan, folder, settings, Settings.from_environment())
    except KeyboardInterrupt:
        print("spark-kfp: the trial is cancelled", flush=True)
        return EXIT_INTERRUPTED
    except Exception as raised:
        error = as_step_error(raised)
        failure = error.failure if error else unexpected(raised)
        report(failure, folder)
        if not error:
            raise
        return EXIT_INPUT if failure.kind == "input" else EXIT_FAULT
    return 0


def read_plan(text: str) -> TrialPlan:
    """Reads what the trial has to know.

    Raises:
        InputError: it is not there, so the program runs outside of an Experiment.
    """
    try:
        return TrialPlan.from_variable(text)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"{PLAN_VARIABLE} holds no plan of a trial ({error!r}); this program is started by Katib: spark-kfp tune --tuner=katib"
        ) from error


def parse(plan: TrialPlan, argv: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Parses the command that Katib has made of the template.

    Returns:
        The trial's name, and the settings of train without those of other estimators.

    Raises:
        InputError: an argument is unknown, missing or of another type.
    """
    parser = RaisingParser(prog="trial", allow_abbrev=False)
    parser.add_argument(flag(TRIAL_FLAG), required=True)
    searched = {name for names in plan.searched.values() for name in names} | (
        {ESTIMATOR} if len(plan.searched) > 1 else set()
    )
    settings = TrainArgs.arguments(Role.SETTING)
    # Without a default: a value that did not arrive must not become the default's trial.
    add_arguments(parser, [replace(item, default=None) for item in settings if item.name in searched])
    add_arguments(parser, [item for item in settings if item.name == BUDGET])
    given = vars(parser.parse_args(list(argv)))
    only = next(iter(plan.searched))
    estimator = given[ESTIMATOR] if len(plan.searched) > 1 else only
    chosen = {name: given[name] for name in plan.searched[estimator]}
    return given[TRIAL_FLAG], {ESTIMATOR: estimator, BUDGET: given[BUDGET], **chosen}


def run_trial(plan: TrialPlan, folder: str, settings: Mapping[str, Any], platform: Settings) -> None:
    """Trains on the parts of the train rows that the plan names, one after another, and prints the metrics after each."""
    cluster = connect(platform.namespace, platform.patience_seconds)
    platform = replace(platform, lease_seconds=LEASE_SECONDS)
    owner = owner_of(cluster, plan.experiment)
    for number in plan.parts or [settings[BUDGET]]:
        args = TrainArgs(
            preprocess_uri=plan.preprocess_uri,
            output_uri=f"{folder}/{number}" if plan.parts else folder,
            class_weights=plan.class_weights,
            threshold_rule="half",  # as a search without Katib judges: accuracy and f1 with the threshold 0.5
            **{**settings, BUDGET: number},
        )
        runner = runner_for(
            "operator",
            platform,
            run=plan.run,
            overrides=plan.overrides,
            task_config=plan.task_config,
            owners=[owner],
        )
        print_metrics(runner.run(Step.TRAIN, args, Path(tempfile.gettempdir()) / "driver.log"), plan)


def owner_of(cluster: Cluster, experiment: str) -> dict[str, str]:
    """Returns the owner reference to the Experiment: if it is deleted, so are the applications of its trials.

    Raises:
        PermanentError: it is deleted already.
    """
    found = cluster.get(EXPERIMENTS, experiment)
    if not found:
        message = f"Experiment {experiment} is deleted, so the trial ends"
        raise PermanentError(Failure(kind="fault", type="Deleted", message=message))
    return {
        "apiVersion": found["apiVersion"],
        "kind": found["kind"],
        "name": experiment,
        "uid": found["metadata"]["uid"],
    }


def print_metrics(result: Result, plan: TrialPlan) -> None:
    """Prints the metrics as Katib's collector reads them; it knows neither NaN nor infinity, and would end the pod of such a trial.

    Raises:
        PermanentError: the objective is no finite number.
    """
    found: dict[str, float] = dict(result.facts.get(VALIDATION_METRICS) or {})
    value = found.get(plan.objective)
    if value is None or not math.isfinite(value):
        message = f"{plan.objective} of the validation rows is {value}; a search needs a finite number"
        raise PermanentError(Failure(kind="fault", type="NoObjective", message=message))
    for name in plan.metrics:
        if name in found and math.isfinite(found[name]):
            print(f"{name}={found[name]!r}", flush=True)


def report(failure: Failure, folder: str) -> None:
    """Writes why the trial failed where the search finds it: its output, its termination message, and the object store."""
    print(f"spark-kfp: error: {failure.message}", flush=True)
    write_termination_message(failure)
    if folder:
        with suppress(StepError, InputError):  # the store is away: the termination message has it
            content = json.dumps(asdict(failure), ensure_ascii=False).encode()
            object_store.write_bytes(f"{folder}/{FAILURE_NAME}", content, brief=True)


def unexpected(error: Exception) -> Failure:
    """Describes a fault of this program."""
    name = type(error).__name__
    return Failure(kind="fault", type=name, message=f"{name}: {error}; the trial's log shows where")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], trial_plan()))

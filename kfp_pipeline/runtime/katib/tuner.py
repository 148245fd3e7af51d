"""Carries out the step tune by Katib: makes an Experiment for each algorithm, follows it to its end, and writes what its trials found.

It can be retried and interrupted at any moment, as the runner for the Spark operator can: an Experiment's name is computed from the URI of
the task's output, so a second attempt finds the Experiment of the first and adopts it.
"""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.errors import PermanentError
from kfp_pipeline.runtime.katib.experiment import (
    CONFIG_NAME,
    FOLDER,
    TEMPLATE_KEY,
    Image,
    build_experiment,
    plan_of,
)
from kfp_pipeline.runtime.katib.pods import why_failed
from kfp_pipeline.runtime.katib.space import metrics_for, range_warnings
from kfp_pipeline.runtime.katib.status import GOAL_REACHED, condition_of, running_trials, trial_values
from kfp_pipeline.runtime.katib.tracking import ExperimentTracker, SearchLimits
from kfp_pipeline.runtime.katib.trial import VALIDATION_METRICS
from kfp_pipeline.runtime.katib.trial_plan import TrialPlan
from kfp_pipeline.runtime.kubernetes_api import (
    EXPERIMENTS,
    IN_CLUSTER_NAMESPACE,
    NAMESPACES,
    PODS,
    TRIALS,
    Cluster,
    ConflictError,
)
from kfp_pipeline.runtime.spark_operator.manifest import SPEC_HASH_ANNOTATION, check_overrides, read_config
from kfp_pipeline.runtime.spark_operator.runner import CANCEL_SECONDS, owners_of_this_pod
from kfp_pipeline.runtime.time_limits import LIMITS_KEY
from spark_jobs.arguments import StepArgs, flag
from spark_jobs.contract import GROWTH, HYPERBAND, NO_STOP, REPORT_URI, Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.result import RESULT_NAME, Failure, Result
from spark_jobs.trials import Trial, best_document, best_of, document_of, gain_of, objective_of, warnings_of, winner_of

Document = dict[str, Any]
INJECTION_LABEL = "katib.kubeflow.org/metrics-collector-injection"
"""Label of a namespace in which Katib adds its collector to trials (pkg/webhook/v1beta1/common/const.go); without it no metric arrives,
and an ended trial waits for them without end (`errMetricsNotReported` in pkg/controller.v1beta1/trial/trial_controller.go)."""
MOST_REASONS = 3
"""How many failed trials the message of a failed search names."""


class KatibTuner:
    """A `Runner` for the step tune: the trials are chosen by Katib and run as Jobs."""

    def __init__(
        self,
        cluster: Cluster,
        run_train: Callable[[TrainArgs, Path], Result],
        *,
        run: str = "",
        overrides: Mapping[str, Any] | None = None,
        task_config: Mapping[str, Any] | None = None,
        documents: object_store.Documents = object_store,
        log_line: Callable[[str], None] = print,
    ) -> None:
        """Makes it.

        Args:
            cluster: the namespace of the Experiments and of the SparkApplications.
            run_train: runs the step train; for the defaults, which are judged beside the trials.
            run: the run's id.
            overrides: the run's Spark settings; a trial has those of train.
            task_config: what the pipeline's author set on the KFP task.
            documents: the object store.
            log_line: writes a line to the task's log.
        """
        self._cluster, self._run_train, self._run = cluster, run_train, run
        self._of_run: dict[str, Any] = {"run": run, "overrides": overrides or {}, "task_config": task_config or {}}
        self._documents, self._log_line = documents, log_line
        self._current = ""

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        """See `Runner`. On KeyboardInterrupt, which SIGTERM raises too, it deletes the Experiment; all that it has made goes with it."""
        if step != Step.TUNE or not isinstance(args, TuneArgs):
            raise InputError(f"Katib carries out the step tune, not {step}")
        if not object_store.is_object_store_uri(args.output_uri):
            raise InputError(
                f"{args.output_uri}: {flag('tuner')}=katib writes to an object store; give a URI like s3://BUCKET/NAME"
            )
        check_overrides(self._of_run["overrides"])
        config = read_config(self._cluster, CONFIG_NAME, TEMPLATE_KEY, FOLDER)
        limits = SearchLimits.from_yaml(config.get(LIMITS_KEY, ""))
        self._check_namespace()
        preprocessed, labels = self._preprocessed(args)
        objective = objective_of(args, labels)
        metrics = metrics_for(objective, len(labels))
        trials: list[Trial] = []
        began = time.perf_counter()
        try:
            for algorithm in args.algorithm_names():
                parts = [*GROWTH] if args.early_stopping != NO_STOP and algorithm != HYPERBAND else []
                plan = plan_of(args, algorithm, objective, metrics, parts, **self._of_run)
                experiment = build_experiment(config[TEMPLATE_KEY], args, algorithm, plan, image=self._own_image())
                trials += self._search(experiment, plan, algorithm, limits)
            untuned = self._untuned(args, log_path)
        except KeyboardInterrupt:
            if self._current:
                self._log_line(f"interrupted: deleting Experiment {self._current}")
                self._cluster.delete(EXPERIMENTS, self._current, patience_seconds=CANCEL_SECONDS)
            raise
        return self._write(args, preprocessed, objective, trials, untuned, time.perf_counter() - began)

    def _check_namespace(self) -> None:
        """Checks that Katib collects metrics in this namespace.

        Raises:
            InputError: it does not.
        """
        name = self._cluster.namespace
        found = self._cluster.get(NAMESPACES, name) or {"metadata": {}}
        if (found["metadata"].get("labels") or {}).get(INJECTION_LABEL) != "enabled":
            raise InputError(
                f"Katib collects no metrics in namespace {name}, as it has no label {INJECTION_LABEL}=enabled; "
                f"set it: kubectl label namespace {name} {INJECTION_LABEL}=enabled"
            )

    def _preprocessed(self, args: TuneArgs) -> tuple[Result, list[str]]:
        """Reads the result of preprocess and the label's values.

        Raises:
            InputError: preprocess has not finished there.
        """
        texts = [self._documents.read_text(f"{args.preprocess_uri}/{name}") for name in (RESULT_NAME, "features.json")]
        try:
            return Result.from_json(texts[0] or ""), list(json.loads(texts[1] or "")["labels"])
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{args.preprocess_uri} holds no output of preprocess: {error}") from error

    def _own_image(self) -> Image | None:
        """Returns the image of the task in whose pod this process runs, so that its trials run the same code; None on a laptop."""
        pod = self._cluster.get(PODS, platform.node()) if IN_CLUSTER_NAMESPACE.exists() else None
        containers = ((pod or {}).get("spec") or {}).get("containers") or []
        main = next((item for item in containers if item["name"] == "main"), None)  # KFP's name for it
        return Image(name=main["image"], pull_policy=main["imagePullPolicy"]) if main else None

    def _search(self, desired: Document, plan: TrialPlan, algorithm: str, limits: SearchLimits) -> list[Trial]:
        """Makes or adopts the Experiment of one algorithm, waits for its end and reads its trials.

        Raises:
            StepError: the Experiment failed, or Katib did not carry it out.
        """
        owners = owners_of_this_pod(self._cluster)
        if owners:
            desired["metadata"]["ownerReferences"] = owners
        self._current = desired["metadata"]["name"]
        experiment = self._submit(desired)
        tracker = ExperimentTracker(
            self._cluster,
            experiment,
            limits,
            plan.objective,
            lambda trial: why_failed(self._cluster, self._documents, plan.trials_uri, trial),
            self._log_line,
        )
        ended = tracker.wait_until_ended()
        found = tracker.trials()
        tracker.find_reasons(found)
        self._end_running(ended, found)
        self._current = ""
        errors = tracker.reasons
        trials = [
            trial_values(trial, plan.searched, algorithm, errors.get(trial["metadata"]["name"], ""))
            for trial in found
            if trial not in running_trials(found)
        ]
        failed = condition_of(ended, "Failed")
        if failed or not best_of(trials, plan.objective):
            raise self._failure(desired["metadata"]["name"], failed, list(errors.values()))
        return trials

    def _submit(self, desired: Document) -> Document:
        """Creates the Experiment, or adopts the one that an earlier attempt created.

        Raises:
            PermanentError: another Experiment has this name, or the cluster has no Katib.
        """
        name = desired["metadata"]["name"]
        where = f"Experiment {name} in namespace {self._cluster.namespace}"
        try:
            created = self._cluster.create(EXPERIMENTS, desired)
            self._log_line(f"{where}: created")
            return created
        except ConflictError:
            existing = self._cluster.get(EXPERIMENTS, name)
        except PermanentError as error:
            if error.failure.type != "ApiServer404":
                raise
            message = (
                f"namespace {self._cluster.namespace}, or Katib itself, is not there: the API server knows no Experiments; "
                "check: kubectl get crd experiments.kubeflow.org"
            )
            raise PermanentError(Failure(kind="input", type="NoKatib", message=message)) from error
        if existing is None or existing["metadata"].get("deletionTimestamp"):
            message = f"{where} is being deleted; run the step again when it is gone: kubectl get experiment {name}"
            raise PermanentError(Failure(kind="input", type="NotGone", message=message))
        found = (existing["metadata"].get("annotations") or {}).get(SPEC_HASH_ANNOTATION, "none of ours")
        wanted = desired["metadata"]["annotations"][SPEC_HASH_ANNOTATION]
        if found != wanted:
            message = (
                f"{where} is another search (spec {found}, wanted {wanted}); write elsewhere, or delete it: "
                f"kubectl -n {self._cluster.namespace} delete experiment {name}"
            )
            raise PermanentError(Failure(kind="input", type="AnotherSpec", message=message))
        self._log_line(f"{where}: found, following it")
        return existing

    def _end_running(self, experiment: Document, trials: Sequence[Document]) -> None:
        """Deletes the trials that still run when the goal is reached: Katib lets them run on."""
        condition = condition_of(experiment, "Succeeded") or {}
        running = running_trials(trials) if condition.get("reason") == GOAL_REACHED else []
        for trial in running:
            self._cluster.delete(TRIALS, trial["metadata"]["name"], trial["metadata"]["uid"])
        if running:
            self._log_line(f"the goal is reached; ended {len(running)} trials that still ran")

    def _failure(self, name: str, condition: Mapping[str, Any] | None, reasons: Sequence[str]) -> PermanentError:
        """Explains why a search failed: what Katib says, and why trials failed."""
        said = condition.get("message", "") if condition else "no trial has finished"
        causes = "; ".join(dict.fromkeys(reasons[:MOST_REASONS])) or "no trial has failed"
        message = f"Experiment {name}: {said}; {len(reasons)} trials failed: {causes}"
        return PermanentError(Failure(kind="fault", type="SearchFailed", message=message[:2000]))

    def _untuned(self, args: TuneArgs, log_path: Path) -> Trial:
        """Judges the defaults of the first estimator, as the trials are."""
        estimator = next(iter(args.space()))
        self._log_line(f"the defaults of {estimator}, for comparison")
        wanted = TrainArgs(
            preprocess_uri=args.preprocess_uri,
            output_uri=f"{args.output_uri}/trials/untuned",
            estimator=estimator,
            class_weights=args.class_weights,
            threshold_rule="half",
        )
        result = self._run_train(wanted, log_path)
        metrics = dict(result.facts.get(VALIDATION_METRICS) or {})
        return Trial(estimator=estimator, settings={}, metrics=metrics, seconds=result.seconds["total"])

    def _write(
        self,
        args: TuneArgs,
        preprocessed: Result,
        objective: str,
        trials: Sequence[Trial],
        untuned: Trial,
        seconds: float,
    ) -> Result:
        """Writes the table of trials, the best settings and, last, the result document, as the step tune does."""
        winner, gain = winner_of(trials, objective, untuned), gain_of(trials, objective, untuned)
        chosen = best_document(winner, objective, untuned)
        counts = {name: preprocessed.rows_out[name] for name in ("train", "validation")}
        result = Result(
            step=Step.TUNE,
            status="succeeded",
            arguments={**asdict(args), REPORT_URI: ""},  # nothing here draws
            rows_in=sum(counts.values()),
            rows_out=counts,
            metrics={objective: winner.metrics[objective], "trials": float(len(trials)), "gain": gain},
            seconds={"startup": 0.0, "work": seconds, "total": seconds},
            inputs={"preprocess_uri": preprocessed.digest},
            digest=hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest(),
            uris={"output": args.output_uri},
            warnings=(*range_warnings(args), *warnings_of(trials, objective, untuned)),
        )
        for name, document in (("trials.json", document_of(trials, objective, untuned)), ("best.json", chosen)):
            self._documents.write_bytes(f"{args.output_uri}/{name}", json.dumps(document, indent=1).encode())
        self._documents.write_bytes(f"{args.output_uri}/{RESULT_NAME}", result.to_json().encode())
        return result

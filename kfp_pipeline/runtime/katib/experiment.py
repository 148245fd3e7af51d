"""Builds the Experiment of a search from the platform's template, `spark-operator/katib/experiment.yaml`. It submits nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from kubeflow_katib_api.models import IoK8sApiCoreV1PodSpec, V1beta1Experiment

from kfp_pipeline.runtime.katib.space import (
    algorithm_of,
    combinations,
    objective_spec,
    parameters_of,
)
from kfp_pipeline.runtime.katib.trial_plan import PLAN_VARIABLE, TRIAL_FLAG, TrialPlan
from kfp_pipeline.runtime.spark_operator.manifest import (
    MANAGED_BY,
    OUTPUT_URI_ANNOTATION,
    RUN_LABEL,
    SPEC_HASH_ANNOTATION,
    check_by_model,
    label_value,
    spec_hash,
)
from spark_jobs.arguments import flag
from spark_jobs.contract import GRID, MEDIAN, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.session_requests import request_name

Document = dict[str, Any]
CONFIG_NAME = "spark-kfp-katib"
TEMPLATE_KEY, FOLDER = "experiment.yaml", "spark-operator/katib"
TRIAL_CONTAINER = "trial"
TRIAL_PROGRAM = ("python3", "-m", "kfp_pipeline.runtime.katib.trial")
MEDIAN_START = 2
"""A trial may be stopped after its second report of three, on a third of the train rows."""
MEDIAN_TRIALS = 3
"""The number of succeeded trials before one is stopped: Katib's own default."""


@dataclass(frozen=True, kw_only=True)
class Image:
    """The image of the trials, where another than the template's is wanted.

    Attributes:
        name: the image.
        pull_policy: when a node pulls it.
    """

    name: str
    pull_policy: str


def experiment_name(algorithm: str, output_uri: str) -> str:
    """Makes the name of an Experiment, the same for each attempt of a task.

    Katib allows 40 characters (pkg/webhook/v1beta1/experiment/validator/validator.go), and appends the algorithm's name for a Service,
    whose limit is 63 (`GetSuggestionServiceName` in pkg/controller.v1beta1/util/suggestion.go).
    """
    return request_name("tune", f"{output_uri} {algorithm}")


def build_experiment(
    template: str, args: TuneArgs, algorithm: str, plan: TrialPlan, *, image: Image | None = None
) -> Document:
    """Builds the Experiment of one algorithm's search.

    Args:
        template: the text of `experiment.yaml`.
        args: the arguments of tune.
        algorithm: one of the algorithms that they name.
        plan: what its trials have to know.
        image: image of the trials; None: the template's.

    Raises:
        InputError: the template is not valid, or the algorithm cannot carry out this search.
    """
    try:
        experiment = yaml.safe_load(template)
        spec = experiment["spec"]
        job = spec["trialTemplate"]["trialSpec"]
        containers = job["spec"]["template"]["spec"]["containers"]
        container = next(item for item in containers if item["name"] == TRIAL_CONTAINER)
    except (yaml.YAMLError, KeyError, TypeError, StopIteration) as error:
        raise InputError(
            f"{TEMPLATE_KEY} of ConfigMap {CONFIG_NAME} is no Experiment with a Job whose container is {TRIAL_CONTAINER}: {error!r}"
        ) from error
    trials = combinations(args) if algorithm == GRID else args.trials
    spec |= {
        "parameters": parameters_of(args, algorithm),
        "objective": objective_spec(args, plan.objective, plan.metrics),
        "algorithm": algorithm_of(args, algorithm),
        "maxTrialCount": trials,
        # Katib refuses larger ones (`ValidateExperiment` in pkg/webhook/v1beta1/experiment/validator/validator.go).
        "parallelTrialCount": min(args.parallel_trials, trials),
        "maxFailedTrialCount": min(args.max_failed_trials, trials),
        "resumePolicy": args.resume_policy,
    }
    if args.early_stopping == MEDIAN:
        settings = {"min_trials_required": MEDIAN_TRIALS, "start_step": MEDIAN_START}
        pairs = [{"name": name, "value": str(value)} for name, value in settings.items()]
        spec["earlyStopping"] = {"algorithmName": MEDIAN, "algorithmSettings": pairs}
    names = [item["name"] for item in spec["parameters"]]
    spec["trialTemplate"] |= {"retain": args.retain_trials, "trialParameters": trial_parameters(names)}
    container["command"] = [
        *TRIAL_PROGRAM,
        *(f"{flag(name)}=${{trialParameters.{name}}}" for name in [TRIAL_FLAG, *names]),
    ]
    container["env"] = [*container.get("env", []), {"name": PLAN_VARIABLE, "value": plan.to_variable()}]
    if image:
        container |= {"image": image.name, "imagePullPolicy": image.pull_policy}
    _identify(experiment, args, algorithm, plan.run)
    validate(experiment)
    return dict(experiment)


def trial_parameters(names: list[str]) -> list[Document]:
    """Returns `trialTemplate.trialParameters`: the trial's name and the searched settings, each under its own name."""
    own = {"name": TRIAL_FLAG, "reference": "${trialSpec.Name}"}  # `isMetaKey` in Katib's experiment validator
    return [own, *({"name": name, "reference": name} for name in names)]


def _identify(experiment: Document, args: TuneArgs, algorithm: str, run: str) -> None:
    """Adds the name, labels and annotations by which the Experiment is found again."""
    metadata = experiment["metadata"] = experiment.get("metadata") or {}
    metadata["name"] = experiment_name(algorithm, args.output_uri)
    metadata["labels"] = {
        **(metadata.get("labels") or {}),
        **MANAGED_BY,
        **({RUN_LABEL: label_value(run)} if run else {}),
    }
    annotations = {OUTPUT_URI_ANNOTATION: args.output_uri, SPEC_HASH_ANNOTATION: spec_hash(experiment["spec"])}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), **annotations}


def validate(experiment: Mapping[str, Any]) -> None:
    """Checks names and types of fields by Katib's models, and those of the trial's pod by Kubernetes' own.

    Raises:
        InputError: a field is unknown or of another type.
    """
    check_by_model(V1beta1Experiment, experiment, "the Experiment")
    pod = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]
    where = "spec.trialTemplate.trialSpec.spec.template.spec."
    check_by_model(IoK8sApiCoreV1PodSpec, pod, "the Experiment", where)


def plan_of(
    args: TuneArgs,
    algorithm: str,
    objective: str,
    metrics: list[str],
    parts: list[int],
    **run: Any,
) -> TrialPlan:
    """Makes the plan of an algorithm's trials; `run` holds the fields of `TrialPlan` that belong to the run."""
    return TrialPlan(
        experiment=experiment_name(algorithm, args.output_uri),
        preprocess_uri=args.preprocess_uri,
        trials_uri=f"{args.output_uri}/trials",
        searched={name: list(found) for name, found in args.space().items()},
        objective=objective,
        metrics=metrics,
        parts=parts,
        class_weights=args.class_weights,
        **run,
    )

"""What a trial has to know besides its settings: it crosses from the search to the trial's Job in one environment variable.

Katib joins the words of a trial's command to a line for a shell and quotes nothing (`wrapWorkerContainer` in Katib's
pkg/webhook/v1beta1/pod/utils.go), so only numbers and names stand in the command, and URIs here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from kfp_pipeline.settings import PREFIX, TRIAL

PLAN_VARIABLE = f"{PREFIX}{TRIAL}"
TRIAL_FLAG = "trial"
"""Flag of a trial's command: the name that Katib gave to the trial."""
FAILURE_NAME = "failure.json"
"""The reason of a failed trial, in its folder: Katib deletes the pod of an ended trial, and its termination message with it."""


@dataclass(frozen=True, kw_only=True)
class TrialPlan:
    """What all trials of an Experiment have in common.

    Attributes:
        experiment: name of the Experiment.
        preprocess_uri: output of preprocess.
        trials_uri: URI below which each trial has a folder of its name.
        searched: by estimator the names of the settings that are searched.
        objective: the metric by which trials are compared.
        metrics: the metrics that a trial reports.
        parts: the numbers of parts of the train rows on which a trial is fitted, one after another; it reports the objective after each.
        class_weights: see `TrainArgs`.
        run: id of the run.
        overrides: the run's Spark settings.
        task_config: what the pipeline's author set on the KFP task.
    """

    experiment: str
    preprocess_uri: str
    trials_uri: str
    searched: Mapping[str, list[str]]
    objective: str
    metrics: list[str]
    parts: list[int] = field(default_factory=list)
    class_weights: str = "none"
    run: str = ""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    task_config: Mapping[str, Any] = field(default_factory=dict)

    def to_variable(self) -> str:
        """Returns the value of the environment variable; Kubernetes would replace $(NAME) in it, and $$ stands for $."""
        return json.dumps(asdict(self), sort_keys=True).replace("$", "$$")

    @classmethod
    def from_variable(cls, text: str) -> TrialPlan:
        """Parses the environment variable as a container gets it."""
        return cls(**json.loads(text))

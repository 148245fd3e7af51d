"""The Experiment as it is sent, checked by Katib's typed models and by the rules of its validating webhook."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from katib_bench import TEMPLATE, experiment_of, tune
from kubeflow_katib_api.models import V1beta1Experiment

from kfp_pipeline.runtime.katib.experiment import Image, build_experiment, experiment_name, plan_of, validate
from kfp_pipeline.runtime.katib.trial_plan import PLAN_VARIABLE, TrialPlan
from spark_jobs.contract import ALGORITHMS
from spark_jobs.errors import InputError


def container_of(experiment: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = experiment["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][
        0
    ]
    return found


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_it_passes_the_rules_of_katibs_webhook(algorithm: str) -> None:
    """pkg/webhook/v1beta1/experiment/validator/validator.go of Katib 0.19.0."""
    experiment = experiment_of(tune(algorithms=algorithm, trials=12, parallel_trials=9, early_stopping="medianstop"))
    assert V1beta1Experiment.from_dict(experiment).to_dict()["spec"]["trialTemplate"]["trialSpec"]["kind"] == "Job"
    spec, template = experiment["spec"], experiment["spec"]["trialTemplate"]
    assert re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", experiment["metadata"]["name"])
    # Its Suggestion's Service and Deployment append the algorithm's name: pkg/controller.v1beta1/util/suggestion.go.
    assert len(f"{experiment['metadata']['name']}-{algorithm}") <= 63 - len("-0123456789-01234")
    assert len(experiment["metadata"]["name"]) <= 40
    assert 0 < spec["parallelTrialCount"] <= spec["maxTrialCount"]
    assert 0 <= spec["maxFailedTrialCount"] <= spec["maxTrialCount"]
    names = {item["name"] for item in spec["parameters"]}
    for item in spec["parameters"]:
        space = item["feasibleSpace"]
        if item["parameterType"] in ("int", "double"):
            assert space["min"]
            assert space["max"]
            assert "list" not in space
        else:
            assert not {"min", "max", "step"} & set(space)
    text = json.dumps(template["trialSpec"])
    for item in template["trialParameters"]:
        assert item["reference"] in names or item["reference"] == "${trialSpec.Name}"
        assert f"${{trialParameters.{item['name']}}}" in text
        text = text.replace(f"${{trialParameters.{item['name']}}}", "test-value")
    assert "${trialParameters." not in text
    assert not {"name", "namespace"} & set(template["trialSpec"].get("metadata", {}))
    assert template["primaryContainerName"] == "trial"
    assert template["successCondition"]
    assert template["failureCondition"]


def test_the_command_is_safe_in_the_shell_into_which_katib_puts_it() -> None:
    """`wrapWorkerContainer` in pkg/webhook/v1beta1/pod/utils.go joins the words with spaces and quotes none."""
    uri = "s3://kfp/a b;$(id)/tune"
    command = container_of(experiment_of(tune(output_uri=uri, estimators="gbt,mlp")))["command"]
    assert command[0] == "python3"  # an explicit command: else Katib asks a registry for that of the image
    assert all(re.fullmatch(r"[\w.=/-]+(\$\{trialParameters\.\w+\})?", word) for word in command)


def test_what_a_trial_has_to_know_arrives_whole_although_kubernetes_expands_variables() -> None:
    settings = {"all": {"sparkConf": {"spark.sql.shuffle.partitions": "$(PATH) $$"}}}
    found = container_of(experiment_of(tune(output_uri="s3://kfp/$(HOME)/tune"), overrides=settings, run="r1"))
    value = next(item["value"] for item in found["env"] if item["name"] == PLAN_VARIABLE)
    assert not re.search(r"(?<!\$)(\$\$)*\$\(", value)
    plan = TrialPlan.from_variable(value.replace("$$", "$"))  # as the kubelet does
    assert (plan.trials_uri, plan.overrides, plan.run) == ("s3://kfp/$(HOME)/tune/trials", settings, "r1")


def test_no_secret_is_in_it() -> None:
    experiment = experiment_of(tune())
    for item in container_of(experiment)["env"]:
        assert ("SECRET" in item["name"] or "ACCESS_KEY" in item["name"]) == (
            "secretKeyRef" in item.get("valueFrom", {})
        )


def test_the_name_is_that_of_the_output_and_the_hash_that_of_the_spec() -> None:
    one, same, other = (experiment_of(tune(**more)) for more in ({}, {}, {"trials": 5}))
    assert one == same
    assert one["metadata"]["name"] == other["metadata"]["name"] == experiment_name("random", tune().output_uri)
    hashes = [item["metadata"]["annotations"]["spark-kfp/spec-hash"] for item in (one, other)]
    assert hashes[0] != hashes[1]
    names = {experiment_name(algorithm, uri) for algorithm in ALGORITHMS for uri in ("s3://b/1", "s3://b/2")}
    assert len(names) == 2 * len(ALGORITHMS)


def test_counts_goal_retain_and_resume_policy_are_passed_on() -> None:
    args = tune(
        trials=7, parallel_trials=2, max_failed_trials=4, goal="0.9", retain_trials=True, resume_policy="LongRunning"
    )
    spec = experiment_of(args)["spec"]
    assert (spec["maxTrialCount"], spec["parallelTrialCount"], spec["maxFailedTrialCount"]) == (7, 2, 4)
    assert (spec["objective"]["goal"], spec["trialTemplate"]["retain"], spec["resumePolicy"]) == (
        0.9,
        True,
        "LongRunning",
    )
    assert "earlyStopping" not in spec


def test_counts_are_not_larger_than_the_number_of_trials() -> None:
    spec = experiment_of(tune(trials=2))["spec"]
    assert (spec["maxTrialCount"], spec["parallelTrialCount"], spec["maxFailedTrialCount"]) == (2, 2, 2)


def test_medianstop_gets_its_settings_under_their_names() -> None:
    """pkg/earlystopping/v1beta1/medianstop/service.py knows these two and refuses others."""
    found = experiment_of(tune(early_stopping="medianstop"))["spec"]["earlyStopping"]
    assert found["algorithmName"] == "medianstop"
    assert {item["name"]: int(item["value"]) for item in found["algorithmSettings"]} == {
        "min_trials_required": 3,
        "start_step": 2,
    }


def test_a_task_gives_its_own_image_to_its_trials() -> None:
    args = tune()
    plan = plan_of(args, "random", "areaUnderROC", ["areaUnderROC"], [])
    found = container_of(
        build_experiment(TEMPLATE, args, "random", plan, image=Image(name="r/task@sha256:1", pull_policy="Never"))
    )
    assert (found["image"], found["imagePullPolicy"]) == ("r/task@sha256:1", "Never")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spec": {"paralellTrialCount": 3}}, "unknown field spec.paralellTrialCount"),
        ({"spec": {"maxTrialCount": "many"}}, "maxTrialCount"),
        ({"spec": {"objective": {"goal": "high"}}}, "goal"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], message: str) -> None:
    experiment = experiment_of(tune())
    for key, value in change["spec"].items():
        experiment["spec"][key] = {**experiment["spec"][key], **value} if isinstance(value, dict) else value
    with pytest.raises(InputError, match=message):
        validate(experiment)


def test_a_wrong_field_of_the_trials_pod_is_named() -> None:
    template = yaml.safe_load(TEMPLATE)
    template["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["containers"][0]["resource"] = {}
    template["spec"]["trialTemplate"]["trialSpec"]["spec"]["template"]["spec"]["hostPort"] = 3
    args = tune()
    with pytest.raises(
        InputError, match=r"unknown field spec\.trialTemplate\.trialSpec\.spec\.template\.spec\.hostPort"
    ):
        build_experiment(yaml.safe_dump(template), args, "random", plan_of(args, "random", "f1", ["f1"], []))


@pytest.mark.parametrize("template", ["", "[]", "kind: Experiment", "spec: {trialTemplate: {configMap: {}}}", "a: ["])
def test_a_template_without_a_trial_is_an_error(template: str) -> None:
    args = tune()
    with pytest.raises(InputError, match=r"experiment\.yaml of ConfigMap spark-kfp-katib is no Experiment"):
        build_experiment(template, args, "random", plan_of(args, "random", "f1", ["f1"], []))

"""What a pipeline's author sets on a task reaches its SparkApplication, and nothing else does."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from test_manifest import ARGS, TEMPLATE

from kfp_pipeline.runtime.spark_operator.manifest import build_application
from kfp_pipeline.runtime.spark_operator.task_config import apply_task_config
from spark_jobs.contract import Step
from spark_jobs.errors import InputError

SPEC: dict[str, Any] = yaml.safe_load(TEMPLATE)["spec"]


def changed(given: dict[str, Any], spec: dict[str, Any] = SPEC) -> dict[str, Any]:
    """The spec after the change."""
    found = copy.deepcopy(spec)
    apply_task_config(found, given)
    return found


def environment(spec: dict[str, Any], role: str) -> dict[str, Any]:
    return {item["name"]: item for item in spec[role]["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize(
    "given", [{}, dict.fromkeys(("resources", "env", "tolerations", "node_selector")), {"resources": {}, "env": []}]
)
def test_nothing_set_changes_nothing(given: dict[str, Any]) -> None:
    assert changed(given) == SPEC


def test_the_memory_limit_is_that_of_the_whole_pod() -> None:
    found = changed({"resources": {"limits": {"memory": "7Gi"}}})
    assert found["driver"]["memory"] == found["executor"]["memory"] == "5120m"  # 7 / 1.4
    found = changed({"resources": {"limits": {"memory": "4096Mi"}}}, {"executor": {"memoryOverhead": "1g"}})
    assert found["executor"]["memory"] == "3072m"
    assert found["driver"]["memory"] == "2925m"
    found = changed({"resources": {"limits": {"memory": "3Gi"}}}, {"memoryOverheadFactor": "0.5"})
    assert found["driver"]["memory"] == "2048m"


def test_cores_are_whole_and_the_request_is_as_given() -> None:
    found = changed({"resources": {"limits": {"cpu": "2500m"}, "requests": {"cpu": "500m"}}})
    assert {key: found["executor"][key] for key in ("cores", "coreRequest", "coreLimit")} == {
        "cores": 2,
        "coreRequest": "500m",
        "coreLimit": "2500m",
    }
    assert changed({"resources": {"limits": {"cpu": "200m"}}})["driver"]["cores"] == 1


def test_tolerations_and_node_selector_reach_driver_and_executors() -> None:
    tolerations = [{"key": "spark", "operator": "Exists"}]
    found = changed({"tolerations": tolerations, "node_selector": {"disk": "ssd"}})
    for role in ("driver", "executor"):
        assert found[role]["tolerations"] == tolerations
        assert found[role]["nodeSelector"] == {"disk": "ssd"}


def test_the_authors_variables_are_added_and_the_platforms_and_the_tasks_own_stay() -> None:
    secret = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "token"}}}
    given = [
        secret,
        {"name": "AWS_ENDPOINT_URL", "value": "http://elsewhere"},
        {"name": "SPARK_KFP_RUN_ID", "value": "x"},
    ]
    found = changed({"env": given})
    for role in ("driver", "executor"):
        assert environment(found, role) == {**environment(SPEC, role), "TOKEN": secret}
    assert environment(changed({"env": given}, {}), "driver") == {"TOKEN": secret}


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        ({"limits": {"nvidia.com/gpu": "1"}}, "nvidia.com/gpu"),
        ({"limits": {"memory": "512Mi"}}, "give at least 717Mi"),
    ],
)
def test_what_spark_cannot_take_is_told(resources: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError, match=told):
        changed({"resources": resources})


def test_the_runs_own_settings_come_after_the_authors() -> None:
    application = build_application(
        {"spark-application.yaml": TEMPLATE},
        Step.LOAD,
        ARGS,
        run="run-1",
        overrides={"load": {"driver": {"memory": "3g"}}},
        task_config={"resources": {"limits": {"memory": "7Gi"}}},
    )
    assert application["spec"]["driver"]["memory"] == "3g"
    assert application["spec"]["executor"]["memory"] == "5120m"

"""The manifests of the server: both ways to run it have the same environment, and find the registry that the documents fill."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


def environment(name: str, *path: str) -> dict[str, Any]:
    """Returns the variables of the only container; `path` leads to the pod's specification."""
    found: Any = next(yaml.safe_load_all((ROOT / "spark-operator" / "serving" / name).read_text()))
    for part in path:
        found = found[part]
    (container,) = found["containers"]
    return {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}


DEPLOYMENT = environment("deployment.yaml", "spec", "template", "spec")


def test_kserve_and_the_deployment_give_the_server_the_same_settings() -> None:
    assert environment("kserve.yaml", "spec", "predictor") == DEPLOYMENT
    key = DEPLOYMENT["SPARK_KFP_SERVE_API_KEY"]["secretKeyRef"]
    assert (key["name"], key["key"], key["optional"]) == ("spark-kfp-serving", "api-key", True)


@pytest.mark.parametrize("page", ["models.md", "monitoring.md", "serving.md", "care.md"])
def test_the_documents_name_the_registry_of_the_manifests(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    named = set(re.findall(r"(?:registry[-_]uri[= ]\s*|(?<![\w/]))(s3://[\w.-]+/(?:models|registry))\b", text))
    assert named == {DEPLOYMENT["SPARK_KFP_SERVE_REGISTRY"]}
    assert (ROOT / "spark-operator/base/bucket-job.yaml").read_text().count("make-bucket, spark-kfp]") == 1

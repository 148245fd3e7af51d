"""What the platform gives to every task is one setting in a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kfp_pipeline.commands.main import main
from kfp_pipeline.settings import lease_seconds_for
from kfp_pipeline.task_settings import Platform, read_platform
from spark_jobs.errors import InputError


def test_without_a_file_all_is_as_it_is_shipped() -> None:
    assert read_platform("") == Platform()
    assert read_platform("", "other:1") == Platform(image="other:1")


@pytest.mark.parametrize("image", ["localhost:5000/team/task:1.0", "task", f"host/task@sha256:{'0a' * 32}"])
def test_an_image_may_have_a_registry_a_tag_and_a_digest(image: str) -> None:
    assert read_platform("", image).image == image


def test_a_file_changes_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text("retries: 5\ncache: false\nimage: mine:2\n")
    assert read_platform(str(tmp_path / "platform.yaml")) == Platform(retries=5, cache=False, image="mine:2")
    assert read_platform(str(tmp_path / "platform.yaml"), "other:1").image == "other:1"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("retry: 5", "'retry' is no setting of a task; there are image"),
        ("retries: many", "retries is 'many'; it must be a whole number"),
        ("retries: -1", "retries is -1"),
        ("retries: true", "retries is True"),
        ("cache: 1", "cache is 1; it must be true or false"),
        ("image: a b", "image is 'a b'; it must be like"),
        ("image: 'a:b:'", "image is 'a:b:'"),
        ("image: a@sha256:12", "image is 'a@sha256:12'"),
        ("- a", "must map settings"),
        ("a: [", "is not YAML"),
        ("", "must map settings"),
    ],
)
def test_a_wrong_file_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "platform.yaml").write_text(text)
    with pytest.raises(InputError, match=told):
        read_platform(str(tmp_path / "platform.yaml"))
    with pytest.raises(InputError, match="No such file"):
        read_platform(str(tmp_path / "nobody.yaml"))


def test_the_compiled_pipeline_has_the_files_settings(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text(
        "retries: 1\nnamespace: spark-kfp\nbackoff_seconds: 7\ntime_limit_seconds: 3600\ncache: false\nworkflow_ttl_seconds: 60\n"
    )
    output = tmp_path / "pipeline.yaml"
    assert main(["compile", "-o", str(output), "--platform", str(tmp_path / "platform.yaml")]) == 0
    document, platform = yaml.safe_load_all(output.read_text())
    graphs = [component["dag"]["tasks"] for name, component in document["components"].items() if "dag" in component]
    # The condition under which promote runs is a task of the graph, too, but has no pod.
    tasks = {
        name: task for found in graphs for name, task in found.items() if not name.startswith(("condition-", "exit-"))
    }
    assert {task["retryPolicy"]["maxRetryCount"] for task in tasks.values()} == {1}
    assert {task["retryPolicy"]["backoffDuration"] for task in tasks.values()} == {"7s"}
    assert [name for name, task in tasks.items() if task["cachingOptions"].get("enableCache")] == []
    executors = document["deploymentSpec"]["executors"].values()
    variables = [executor["container"]["env"] for executor in executors]
    given = {
        "SPARK_KFP_REUSE": "false",
        "SPARK_KFP_NAMESPACE": "spark-kfp",
        "SPARK_KFP_LEASE_SECONDS": str(lease_seconds_for(1, 7)),
    }
    assert [{item["name"]: item["value"] for item in found} for found in variables] == [given] * len(variables)
    kubernetes = platform["platforms"]["kubernetes"]
    assert len(variables) == len(tasks) + 1, "finish has them too"
    limits = {item["activeDeadlineSeconds"] for item in kubernetes["deploymentSpec"]["executors"].values()}
    assert limits == {"3600"}
    assert kubernetes["pipelineConfig"] == {"resourceTtlOnCompletion": 60}


def test_the_platform_may_say_how_long_an_application_outlives_its_task(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text("lease_seconds: 1800\n")
    output = tmp_path / "pipeline.yaml"
    assert main(["compile", "-o", str(output), "--platform", str(tmp_path / "platform.yaml")]) == 0
    executors = next(yaml.safe_load_all(output.read_text()))["deploymentSpec"]["executors"].values()
    assert {str(executor["container"]["env"]) for executor in executors} == {
        "[{'name': 'SPARK_KFP_LEASE_SECONDS', 'value': '1800'}]"
    }


def test_the_development_overlays_file_is_one() -> None:
    overlay = Path(__file__).parents[2] / "spark-operator/overlays/kubeflow-tasks/platform.yaml"
    assert read_platform(str(overlay)) == Platform(namespace="spark-kfp")


def test_no_limit_and_no_retry_leave_the_fields_out(tmp_path: Path) -> None:
    (tmp_path / "platform.yaml").write_text("retries: 0\ntime_limit_seconds: 0\n")
    output = tmp_path / "pipeline.yaml"
    assert main(["compile", "-o", str(output), "--platform", str(tmp_path / "platform.yaml")]) == 0
    assert "retryPolicy" not in output.read_text()
    assert "activeDeadlineSeconds" not in output.read_text()

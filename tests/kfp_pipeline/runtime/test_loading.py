"""Load takes over what an earlier run has made of the same data by the same code, and of nothing else."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_documents import Store
from kfp import dsl

from kfp_pipeline.runtime import failures, fingerprint, kubernetes_api
from kfp_pipeline.runtime import step as step_module
from kfp_pipeline.runtime.loading import LoadedTable, run_load
from kfp_pipeline.runtime.spark_operator import manifest
from kfp_pipeline.runtime.spark_submit.runner import step_program
from spark_jobs.arguments import StepArgs
from spark_jobs.contract import LoadArgs, Step
from spark_jobs.result import Result

DATA = "s3://b/data/bank.csv"
ROOT = "minio://b/kfp/training"
TEMPLATE = "spec: {image: 'spark-kfp-spark:0.1.0', driver: {memory: 1g}}"


class Cluster:
    """The one that Spark runs on: writes what load writes, and notes for which data."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.read: list[str] = []
        self.meanwhile: Callable[[], None] = lambda: None

    def run(self, step: Step, args: StepArgs, log_path: Path) -> Result:
        del log_path
        assert isinstance(args, LoadArgs)
        self.read.append(args.data_uri)
        self.meanwhile()
        result = Result(step=step, status="succeeded", arguments=vars(args), rows_out={"rows": 8}, digest="abc")
        self.store.write_bytes(f"{args.output_uri}/rows/part-0.parquet", b"rows")
        self.store.write_bytes(f"{args.output_uri}/result.json", result.to_json().encode())
        return result


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store.instead(monkeypatch)
    found.write_bytes(DATA, b"x,label\n1,yes\n")
    return found


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The platform's ConfigMap."""
    found = {"spark-application.yaml": TEMPLATE, "steps.yaml": "train: {driver: {memory: 2g}}"}
    monkeypatch.setattr(kubernetes_api, "connect", lambda *_: None)
    monkeypatch.setattr(manifest, "read_config", lambda *_: found)
    return found


@pytest.fixture
def cluster(store: Store, config: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Cluster:
    assert config
    found = Cluster(store)
    monkeypatch.setattr(step_module, "runner_of", lambda *_, **__: found)
    monkeypatch.setattr(step_module, "die_with_parent", lambda: None)
    return found


@pytest.fixture
def load(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[LoadedTable, Mapping[str, Any]]]:
    """Runs the task of a run; gives back what it returns and its artifact's metadata."""
    assert cluster

    def run(run_id: str, **changed: Any) -> tuple[LoadedTable, Mapping[str, Any]]:
        monkeypatch.setenv("SPARK_KFP_RUN_ID", run_id)
        table = SimpleNamespace(uri=f"{ROOT}/{run_id}/load/salt/table", metadata={})
        given = vars(LoadArgs(data_uri=DATA, output_uri="-"))
        more = {"scheduled_time": "2026-11-25T15:32:00Z", "spark": "operator", "spark_settings": {}}
        return run_load({**given, **more, "task_config": dsl.TaskConfig(), "table": table, **changed}), table.metadata

    return run


Load = Callable[..., tuple[LoadedTable, Mapping[str, Any]]]


def test_the_second_run_takes_the_table_over_and_starts_no_spark(load: Load, cluster: Cluster) -> None:
    first, _ = load("one", label="label")
    again, metadata = load("two", label="label")
    assert first.uri == f"{ROOT}/one/load/salt/table"
    assert again == first
    assert metadata["reused_from"] == first.uri
    assert (metadata["rows"], metadata["digest"]) == ({"rows": 8}, "abc")
    assert cluster.read == [DATA]


def test_other_arguments_and_other_data_are_loaded(load: Load, cluster: Cluster, store: Store) -> None:
    load("one")
    load("two", label="other")
    store.write_bytes(DATA, b"x,label\n2,no\n")
    assert load("three")[0].uri == f"{ROOT}/three/load/salt/table"
    assert len(cluster.read) == 3


def test_code_that_was_edited_is_seen_though_no_name_has_changed(
    load: Load, cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code = tmp_path / "spark_jobs"
    shutil.copytree(step_program().parent, code)
    monkeypatch.setattr(fingerprint, "step_program", lambda: code / "__main__.py")
    first, _ = load("one")
    (code / "steps/train.py").write_text((code / "steps/train.py").read_text() + "# another estimator\n")
    second, _ = load("two")
    assert first.code_version != second.code_version
    assert len(cluster.read) == 2


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("spark-application.yaml", TEMPLATE.replace("0.1.0", "0.1.1")),
        ("steps.yaml", "train: {image: 'spark-kfp-spark:mine'}"),
    ],
)
def test_another_spark_image_is_seen(load: Load, cluster: Cluster, config: dict[str, str], key: str, text: str) -> None:
    first, _ = load("one")
    config[key] = text
    second, _ = load("two")
    assert first.code_version != second.code_version
    assert len(cluster.read) == 2


def test_more_memory_is_not_other_code(load: Load, cluster: Cluster, config: dict[str, str]) -> None:
    load("one")
    config["steps.yaml"] = "all: {driver: {memory: 8g}}"
    load("two")
    assert len(cluster.read) == 1


def test_a_task_on_one_machine_brings_no_client_of_kubernetes_along() -> None:
    script = "import sys; from kfp_pipeline.runtime import loading; print({'kfp', 'kubernetes'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("part", ["rows/part-0.parquet", "result.json"])
def test_a_table_of_which_something_is_gone_is_loaded_again(
    load: Load, cluster: Cluster, store: Store, part: str
) -> None:
    first, _ = load("one")
    store.remove(f"{first.uri}/{part}")
    assert load("two")[0].uri == f"{ROOT}/two/load/salt/table"
    assert len(cluster.read) == 2


def test_where_the_platform_wants_no_reuse_there_is_none(
    load: Load, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_KFP_REUSE", "false")
    load("one")
    load("two")
    assert len(cluster.read) == 2


def test_data_that_change_while_they_are_read_fail_the_task_and_are_not_taken_over(
    load: Load, cluster: Cluster, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    cluster.meanwhile = lambda: store.write_bytes(DATA, b"x,label\n3,yes\n")
    with pytest.raises(SystemExit) as end:
        load("one")
    assert end.value.code == 2
    assert "has changed while the run read it" in capsys.readouterr().out
    cluster.meanwhile = lambda: None
    assert load("two")[0].uri == f"{ROOT}/two/load/salt/table"


def test_a_repeated_task_reads_what_its_first_attempt_has_found(load: Load, cluster: Cluster, store: Store) -> None:
    """Its application may go on; data that have changed since are told, and not passed off as what it has read."""
    for day in ("2026-11-25", "2026-11-26"):
        store.write_bytes(f"s3://b/{day}.csv", b"x")
    cluster.meanwhile = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        load("one", data_uri="s3://b/{{date}}.csv")
    cluster.meanwhile = lambda: None
    load("one", data_uri="s3://b/{{date}}.csv", scheduled_time="2026-11-26T00:00:01Z")
    assert cluster.read == ["s3://b/2026-11-25.csv"] * 2


@pytest.mark.parametrize(
    ("uri", "told"), [("s3://b/data/nobody.csv", "there is nothing"), ("/tmp/bank.csv", "spark-kfp data upload")]
)
def test_data_that_are_not_there_are_told_before_anything_is_submitted(
    load: Load, cluster: Cluster, store: Store, uri: str, told: str
) -> None:
    with pytest.raises(SystemExit) as end:
        load("one", data_uri=uri)
    assert end.value.code == 2
    assert cluster.read == []
    assert told in failures.read_failures(store, f"{ROOT}/one")[Step.LOAD].message


@pytest.mark.parametrize("time", ["", "[[ScheduledTime]]", "{{$.pipeline_job_schedule_time_utc}}"])
def test_where_kfp_does_not_tell_the_time_the_log_says_that_the_date_is_todays(
    load: Load, cluster: Cluster, store: Store, time: str, capsys: pytest.CaptureFixture[str]
) -> None:
    today = f"s3://b/{datetime.now(UTC):%Y-%m-%d}.csv"
    store.write_bytes(today, b"x")
    load("one", data_uri="s3://b/{{date}}.csv", scheduled_time=time)
    assert cluster.read == [today]
    assert "so the date is today's" in capsys.readouterr().out
    load("two", scheduled_time=time)
    assert "today" not in capsys.readouterr().out

"""A search by Katib on a real cluster: real Jobs, whose trials submit real SparkApplications; only Katib's controllers are played."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import yaml
from conftest import E2E, NAMESPACE, PROJECT, TaskRun, compile_pipeline, kubectl, new_root, until
from faults import TERMINATE, Note, error_of, kill
from katib_player import JOBS, SIDECAR, KatibPlayer, katib_would_take

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.katib.experiment import experiment_name
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, CONFIG_MAPS, EXPERIMENTS, PODS, TRIALS
from kfp_pipeline.runtime.spark_operator.runner import SparkOperatorRunner
from spark_jobs.contract import TUNING, Step

pytestmark = pytest.mark.cluster
GOOD = {"reg_param": "0.01", "elastic_net_param": "0.5"}
STRONG = {"reg_param": "5.0", "elastic_net_param": "1.0"}
REFUSED = {"reg_param": "-1", "elastic_net_param": "0.5"}
LABEL = "katib.kubeflow.org/metrics-collector-injection"
SEARCH_SECONDS = 600


@dataclass
class Search:
    """A namespace ready for Katib, and a table that is preprocessed."""

    e2e: E2E
    preprocess_uri: str

    def start(self, run_id: str, **settings: Any) -> TaskRun:
        """Starts the task tune as KFP would."""
        given = {"trials": 2, "parallel_trials": 1, "algorithms": "random", **settings}
        return self.e2e.start("tune", {"tuner": "katib", "preprocess_uri": self.preprocess_uri, **given}, run_id)

    def experiment(self, run: TaskRun) -> str:
        return experiment_name("random", run.output_uri)

    def document(self, run: TaskRun, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(object_store.read_text(f"{run.output_uri}/{name}") or "{}")
        return found

    def limits(self, text: str) -> None:
        """Sets the limits of searches."""
        self.e2e.cluster.replace(
            CONFIG_MAPS,
            {
                **(found := self.e2e.cluster.get(CONFIG_MAPS, "spark-kfp-katib") or {}),
                "data": {**found["data"], "limits.yaml": text},
            },
        )

    def nothing_is_left(self, experiment: str) -> bool:
        """Whether no object of the Experiment is there."""
        kinds = (EXPERIMENTS, TRIALS, JOBS)
        names = [item["metadata"]["name"] for kind in kinds for item in self.e2e.cluster.list(kind)]
        owned = [
            item["metadata"]["name"]
            for item in self.e2e.cluster.list(APPLICATIONS)
            if any(each["name"] == experiment for each in item["metadata"].get("ownerReferences") or [])
        ]
        return not owned and not any(name.startswith(experiment) for name in names)


@pytest.fixture(scope="module")
def search(e2e: E2E, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Search]:
    kubectl("apply", "-f", str(PROJECT / "tests/e2e/katib_definitions.yaml"))
    kubectl(
        "wait",
        "--for=condition=established",
        "--timeout=30s",
        "crd/experiments.kubeflow.org",
        "crd/trials.kubeflow.org",
    )
    kubectl("apply", "-k", str(PROJECT / "spark-operator/katib"))
    kubectl("label", "namespace", NAMESPACE, f"{LABEL}=enabled", "--overwrite")
    compiled = compile_pipeline(tmp_path_factory.mktemp("katib"), e2e.image, "--pipeline", "tuning")
    own = replace(e2e, compiled=compiled, root=new_root().replace("training", "tuning"))
    place = f"{own.root}/prepared"
    for step in (Step.LOAD, Step.PREPROCESS):
        args = TUNING.arguments_below(place, step, own.inputs())
        SparkOperatorRunner(own.cluster, run="prepared").run(step, args, tmp_path_factory.mktemp("logs") / "driver.log")
    yield Search(own, f"{place}/preprocess")
    kubectl("delete", "experiments,trials", "--all", "--timeout=60s", check=False)
    kubectl("delete", "-k", str(PROJECT / "spark-operator/katib"), "--ignore-not-found")
    kubectl("label", "namespace", NAMESPACE, f"{LABEL}-")
    kubectl(
        "delete",
        "-f",
        str(PROJECT / "tests/e2e/katib_definitions.yaml"),
        "--ignore-not-found",
        "--timeout=60s",
        check=False,
    )


def test_a_search_finds_the_better_trial_and_writes_the_same_table_as_without_katib(
    search: Search, run_id: str
) -> None:
    with KatibPlayer(search.e2e.cluster, [STRONG, GOOD]) as katib:
        run = search.start(run_id)
        taken = until(lambda: _spark_pods(search), SEARCH_SECONDS, "no driver of a trial")
        assert not [pod["metadata"]["name"] for pod in taken if katib_would_take(search.e2e.cluster, pod)]
        ended, log, output = search.e2e.wait(run, SEARCH_SECONDS)
    assert ended == "Succeeded", log[-3000:]
    table, best = search.document(run, "trials.json"), search.document(run, "best.json")
    assert [trial["settings"] for trial in table["trials"]] == [
        {"reg_param": 5.0, "elastic_net_param": 1.0},
        {"reg_param": 0.01, "elastic_net_param": 0.5},
    ]
    bad, good, untuned = *table["trials"], table["untuned"]
    assert good["metrics"]["areaUnderROC"] > bad["metrics"]["areaUnderROC"] == 0.5
    winner = max((untuned, good), key=lambda trial: trial["metrics"]["areaUnderROC"])
    assert (best["settings"], best["metrics"]) == (winner["settings"], winner["metrics"])
    assert {"areaUnderROC", "areaUnderPR", "logLoss", "accuracy", "f1"} == set(best["metrics"])
    assert untuned["metrics"]["areaUnderROC"] > 0.5
    assert output["artifacts"]["metrics"]["artifacts"][0]["metadata"]["trials"] == 2.0
    assert "of 2 trials 2 succeeded; areaUnderROC 0." in log
    assert not [item for item in search.e2e.cluster.list(JOBS) if item["metadata"]["name"] in katib.made]


def _spark_pods(search: Search) -> list[dict[str, Any]]:
    """Drivers and executors of train."""
    return search.e2e.cluster.list(PODS, labelSelector="spark-kfp/step=train,spark-role")


@pytest.mark.selection
def test_trials_that_fail_are_told_and_too_many_end_the_search(search: Search, run_id: str, note: Note) -> None:
    began = time.monotonic()
    with KatibPlayer(search.e2e.cluster, [REFUSED, REFUSED]):
        run = search.start(run_id, max_failed_trials=2)
        ended, log, _ = search.e2e.wait(run, SEARCH_SECONDS)
    assert ended == "Failed"
    assert "max failed count has reached; 2 trials failed: --reg-param is -1.0; allowed: 0 or more" in error_of(log)
    note("trials that fail, as many as allowed", error_of(log), time.monotonic() - began)


def test_a_trial_out_of_memory_is_told_and_the_others_go_on(search: Search, run_id: str, note: Note) -> None:
    began = time.monotonic()
    small = {"train": {"driver": {"memory": "480m", "memoryOverhead": "1m"}}}
    with KatibPlayer(search.e2e.cluster, [GOOD, GOOD]):
        run = search.start(run_id, max_failed_trials=1, spark_settings=small)
        ended, log, _ = search.e2e.wait(run, SEARCH_SECONDS)
    assert ended == "Failed"
    assert "1 trials failed: the driver needed more memory than its 481Mi" in error_of(log)
    note("a trial's driver out of memory", error_of(log), time.monotonic() - began)


@pytest.mark.selection
def test_without_katibs_controllers_the_wait_is_bounded(search: Search, run_id: str, note: Note) -> None:
    search.limits("accepted_seconds: 10")
    began = time.monotonic()
    run = search.start(run_id)
    ended, log, _ = search.e2e.wait(run)
    search.limits("{}")
    assert ended == "Failed"
    assert "no Katib controller has taken it up" in error_of(log)
    assert search.nothing_is_left(search.experiment(run))
    note("Katib's controllers away, with accepted_seconds: 10", error_of(log), time.monotonic() - began)


def test_a_killed_task_is_repeated_and_adopts_its_experiment_and_a_cancelled_one_leaves_nothing(
    search: Search, run_id: str, note: Note
) -> None:
    cluster = search.e2e.cluster
    with KatibPlayer(cluster, [GOOD, GOOD]):
        run = search.start(run_id)
        name = search.experiment(run)
        uid = until(lambda: (cluster.get(EXPERIMENTS, name) or {}).get("metadata", {}).get("uid"), 120, "no Experiment")
        kill(run.pod)
        began = time.monotonic()
        run = search.start(run_id)
        until(
            lambda: (
                f"Experiment {name} in namespace {NAMESPACE}: found, following it"
                in kubectl("logs", run.pod, check=False)
            ),
            120,
            "not followed",
        )
        assert (cluster.get(EXPERIMENTS, name) or {})["metadata"]["uid"] == uid
        note("a search's task killed; another comes", "it follows the same Experiment", time.monotonic() - began)
        until(lambda: _running_drivers(search, name), 240, "no driver of a trial runs")
        began = time.monotonic()
        kubectl("exec", run.pod, "--", "python", "-c", TERMINATE)
        until(lambda: search.nothing_is_left(name), 120, "something is left")
        note(
            "SIGTERM to a search's task",
            "the Experiment, its trials, their Jobs and SparkApplications are gone",
            time.monotonic() - began,
        )


def _running_drivers(search: Search, experiment: str) -> list[str]:
    """The applications of an Experiment that run."""
    return [
        item["metadata"]["name"]
        for item in search.e2e.cluster.list(APPLICATIONS)
        if any(each["name"] == experiment for each in item["metadata"].get("ownerReferences") or [])
        and ((item.get("status") or {}).get("applicationState") or {}).get("state") == "RUNNING"
    ]


def test_a_trial_that_katib_stops_early_deletes_its_application(search: Search, run_id: str, note: Note) -> None:
    cluster = search.e2e.cluster
    with KatibPlayer(
        cluster, [GOOD], stop_rule="areaUnderROC;2.0;less;1"
    ) as katib:  # no trial reaches 2: the first report stops it
        run = search.start(run_id, trials=1, early_stopping="medianstop")
        until(lambda: any("mark: early-stopped" in log for log in katib.logs.values()), SEARCH_SECONDS, "not stopped")
        ended, log, _ = search.e2e.wait(run, SEARCH_SECONDS)
    assert "spark-kfp: the trial is cancelled" in next(iter(katib.logs.values()))
    assert ended == "Failed"  # its only trial was stopped
    assert "no trial has finished" in error_of(log)
    left = [
        item
        for item in cluster.list(APPLICATIONS)
        if f"/trials/{katib.made[0]}/3" in json.dumps(item["metadata"].get("annotations"))
    ]
    assert not left
    note("a trial that Katib's medianstop ends", "its SparkApplication is deleted", None)


def test_the_trials_pod_is_as_katib_changes_it(search: Search) -> None:
    """What the player adds to a Job's pod passes the namespace's own rules: no root, a quota, a range of limits."""
    template = yaml.safe_load((PROJECT / "spark-operator/katib/experiment.yaml").read_text(encoding="utf-8"))
    job = template["spec"]["trialTemplate"]["trialSpec"]
    job["metadata"] = {"name": "as-katib-changes-it"}
    trial = {"metadata": {"name": "t", "labels": {}}, "spec": {"primaryContainerName": "trial"}}
    job["spec"]["template"]["spec"]["containers"][0]["command"] = ["python3"]
    KatibPlayer(search.e2e.cluster, []).inject(job["spec"]["template"], trial)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "x", "namespace": NAMESPACE},
        "spec": job["spec"]["template"]["spec"],
    }
    done = subprocess.run(
        ["kubectl", "apply", "--dry-run=server", "-f", "-"],
        input=json.dumps(pod),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    assert [item["name"] for item in pod["spec"]["containers"]] == ["trial", SIDECAR]

"""The search by Katib against an API server whose Experiments a test moves on: made once, adopted, followed, explained, deleted."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_documents import Store
from katib_bench import OUTPUT, TEMPLATE, condition, experiment_of, observed, preprocess_output, trial, tune
from kubernetes import client, config

from kfp_pipeline.runtime.errors import PermanentError, StepError, TemporaryError
from kfp_pipeline.runtime.katib.experiment import experiment_name
from kfp_pipeline.runtime.katib.tuner import INJECTION_LABEL, KatibTuner
from kfp_pipeline.runtime.kubernetes_api import Cluster
from spark_jobs.contract import Step, TrainArgs, TuneArgs
from spark_jobs.errors import InputError
from spark_jobs.result import Result

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

NAME = experiment_name("random", OUTPUT)
QUICK = "{accepted_seconds: 1, first_trial_seconds: 1, silent_seconds: 2, check_interval_seconds: 0.05, read_interval_seconds: 0.5}"
GOOD = {"reg_param": "0.01", "elastic_net_param": "0.5"}


class Place:
    """A namespace with what the search needs, and a search that runs in a thread."""

    def __init__(self, server: FakeKubernetes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server, self.said = server, list[str]()
        self.store = Store.instead(monkeypatch)
        self.store.kept |= preprocess_output()
        settings = client.Configuration()
        config.load_kube_config(str(server.kubeconfig(folder / "kubeconfig")), client_configuration=settings)
        settings.retries = False
        self.cluster = Cluster(client.ApiClient(settings), server.namespace, patience_seconds=5)
        server.put("namespaces", {"metadata": {"name": server.namespace, "labels": {INJECTION_LABEL: "enabled"}}})
        self.configure(QUICK)
        self.trained: list[TrainArgs] = []
        self.outcome: Result | BaseException | None = None

    def configure(self, limits: str, template: str = TEMPLATE) -> None:
        data = {"experiment.yaml": template, "limits.yaml": limits}
        self.server.put("configmaps", {"metadata": {"name": "spark-kfp-katib"}, "data": data})

    def train(self, args: TrainArgs, _: Path) -> Result:
        self.trained.append(args)
        facts = {"validation_metrics": {"areaUnderROC": 0.88, "logLoss": 0.4}}
        return Result(step="train", status="succeeded", facts=facts, seconds={"total": 2.0})

    def tuner(self, **more: Any) -> KatibTuner:
        return KatibTuner(self.cluster, self.train, log_line=self.said.append, **more)

    def run(self, args: TuneArgs | None = None, **more: Any) -> Result:
        return self.tuner(**more).run(Step.TUNE, args or tune(), Path("unused"))

    def start(self, args: TuneArgs | None = None) -> threading.Thread:
        def work() -> None:
            try:
                self.outcome = self.run(args)
            except BaseException as error:
                self.outcome = error

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        return thread

    def until(self, condition: Callable[[], Any]) -> Any:
        give_up = time.monotonic() + 10
        while time.monotonic() < give_up:
            if found := condition():
                return found
            time.sleep(0.01)
        raise AssertionError(f"it did not come so far: {self.said}, {self.outcome}")

    def experiment(self, name: str = NAME) -> dict[str, Any]:
        found: dict[str, Any] = self.until(lambda: self.server.get("experiments", name))
        return found

    def status(self, name: str = NAME, **status: Any) -> None:
        assert self.server.update("experiments", name, lambda item: item.update(status=status))

    def end(self, thread: threading.Thread) -> Any:
        thread.join(10)
        assert not thread.is_alive(), self.said
        return self.outcome


@pytest.fixture
def place(server: FakeKubernetes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(server, tmp_path, monkeypatch)


def good_end(place: Place, name: str = NAME, values: tuple[float, ...] = (0.90, 0.91)) -> None:
    """Two trials of different quality, and the end."""
    place.experiment(name)
    times = {"startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:00:30Z"}
    for number, value in enumerate(values):
        made = trial(f"{name}-aaaaaaa{number}", name, {**GOOD, "reg_param": f"0.0{number + 1}"})
        made["status"] = {
            "conditions": [condition("Succeeded")],
            "observation": observed(areaUnderROC=value, f1=0.5),
            **times,
        }
        place.server.put("trials", made)
    place.status(name, conditions=[condition("Succeeded", "max trial count")], trials=2, trialsSucceeded=2)


def test_what_the_trials_found_is_written_as_the_step_tune_writes_it(place: Place) -> None:
    thread = place.start()
    good_end(place)
    result = place.end(thread)
    assert isinstance(result, Result), result
    assert (result.metrics["areaUnderROC"], result.metrics["trials"], round(result.metrics["gain"], 6)) == (
        0.91,
        2.0,
        0.03,
    )
    table = json.loads(place.store.kept["kfp/run/tune/trials.json"])
    assert [item["settings"]["reg_param"] for item in table["trials"]] == [0.01, 0.02]
    assert table["trials"][1]["seconds"] == 30.0
    assert table["untuned"]["metrics"]["areaUnderROC"] == 0.88
    assert table["algorithms"][0]["best"]["metrics"] == {"areaUnderROC": 0.91, "f1": 0.5}
    best = json.loads(place.store.kept["kfp/run/tune/best.json"])
    assert (best["estimator"], best["settings"]) == (
        "logistic_regression",
        {"reg_param": 0.02, "elastic_net_param": 0.5},
    )
    assert Result.from_json(place.store.kept["kfp/run/tune/result.json"].decode()) == result
    assert place.trained[0].output_uri == f"{OUTPUT}/trials/untuned"


def test_the_defaults_win_if_no_trial_is_better(place: Place) -> None:
    thread = place.start()
    good_end(place, values=(0.86, 0.87))
    result = place.end(thread)
    assert isinstance(result, Result), result
    best = json.loads(place.store.kept["kfp/run/tune/best.json"])
    assert (best["settings"], best["metrics"]["areaUnderROC"]) == ({}, 0.88)
    assert result.metrics["areaUnderROC"] == 0.88
    assert any("worse by 0.0100; so the model is trained with the defaults" in line for line in result.warnings)


def test_several_algorithms_are_searched_one_after_another(place: Place) -> None:
    thread = place.start(tune(algorithms="random,tpe"))
    for algorithm in ("random", "tpe"):
        good_end(place, experiment_name(algorithm, OUTPUT))
    result = place.end(thread)
    assert isinstance(result, Result), result
    table = json.loads(place.store.kept["kfp/run/tune/trials.json"])
    assert [(item["algorithm"], item["trials"]) for item in table["algorithms"]] == [("random", 2), ("tpe", 2)]


def test_a_repeated_task_adopts_the_experiment_of_the_first(place: Place) -> None:
    place.cluster.create("/apis/kubeflow.org/v1beta1/namespaces/{namespace}/experiments", experiment_of(tune()))
    uid = place.experiment()["metadata"]["uid"]
    thread = place.start()
    place.until(lambda: any("found, following it" in line for line in place.said))
    good_end(place)
    assert isinstance(place.end(thread), Result)
    assert place.experiment()["metadata"]["uid"] == uid


def test_an_experiment_that_has_ended_is_only_read(place: Place) -> None:
    thread = place.start()
    good_end(place)
    first = place.end(thread)
    assert place.run().metrics == first.metrics


def test_another_search_of_the_same_name_is_an_error_that_names_both(place: Place) -> None:
    other = experiment_of(tune(trials=5))
    place.cluster.create("/apis/kubeflow.org/v1beta1/namespaces/{namespace}/experiments", other)
    hashes = [item["metadata"]["annotations"]["spark-kfp/spec-hash"] for item in (other, experiment_of(tune()))]
    with pytest.raises(
        PermanentError,
        match=f"is another search .spec {hashes[0]}, wanted {hashes[1]}.*kubectl -n spark-kfp delete experiment",
    ):
        place.run()


def test_a_lost_answer_makes_no_second_experiment(place: Place) -> None:
    place.server.faults.add("cut_after", method="POST", path="experiments")
    thread = place.start()
    good_end(place)
    assert isinstance(place.end(thread), Result)


@pytest.mark.parametrize("fault", ["410", "watch_gone", "watch_cut", "watch_ends", "503", "500", "watch_hangs"])
def test_a_watch_that_breaks_is_resumed(place: Place, fault: str) -> None:
    place.server.faults.add(fault, method="GET", path="experiments.*watch", times=2, seconds=0.2)
    thread = place.start()
    good_end(place)
    assert isinstance(place.end(thread), Result)


def test_a_failed_search_says_what_katib_says_and_why_trials_failed(place: Place) -> None:
    thread = place.start()
    place.experiment()
    reasons = ["the driver needed more memory than its 700Mi and was killed", "no row has a label"]
    for number, reason in enumerate(reasons):
        name = f"{NAME}-bbbbbbb{number}"
        failure = {"kind": "fault", "type": "x", "message": reason, "frames": []}
        place.store.kept[f"kfp/run/tune/trials/{name}/failure.json"] = json.dumps(failure).encode()
        place.server.put("trials", trial(name, NAME, GOOD, conditions=[condition("Failed", "BackoffLimitExceeded")]))
    place.status(
        conditions=[condition("Failed", "Experiment has failed because max failed count has reached")],
        trialsFailed=2,
        trials=2,
    )
    error = place.end(thread)
    assert isinstance(error, PermanentError), error
    for part in ("max failed count has reached; 2 trials failed", *reasons):
        assert part in str(error)
    assert "kfp/run/tune/result.json" not in place.store.kept


def test_why_a_trial_failed_is_found_while_its_pod_is_there(place: Place) -> None:
    thread = place.start()
    place.experiment()
    name = f"{NAME}-ccccccc0"
    ended = {"exitCode": 137, "reason": "OOMKilled"}
    pod = {"metadata": {"name": f"{name}-x", "labels": {"batch.kubernetes.io/job-name": name}}}
    pod["status"] = {"containerStatuses": [{"name": "trial", "state": {"terminated": ended}}]}
    place.server.put("pods", pod)
    place.server.put("trials", trial(name, NAME, GOOD, conditions=[condition("Failed")]))
    place.status(conditions=[condition("Running")], trials=1, trialsFailed=1)
    place.until(lambda: any(f"trial {name} failed: the trial's own program" in line for line in place.said))
    place.server.remove("pods", f"{name}-x")
    good_end(place)
    assert isinstance(place.end(thread), Result)
    table = json.loads(place.store.kept["kfp/run/tune/trials.json"])
    assert sorted(bool(item["error"]) for item in table["trials"]) == [False, False, True]


def test_trials_without_metrics_count_as_failed(place: Place) -> None:
    thread = place.start()
    place.experiment()
    place.server.put("trials", trial(f"{NAME}-d", NAME, GOOD, conditions=[condition("MetricsUnavailable")]))
    place.status(conditions=[condition("Failed", "max failed count")], trials=1, trialMetricsUnavailable=1)
    assert "printed no metrics" in str(place.end(thread))


def test_without_a_katib_controller_the_wait_is_bounded(place: Place) -> None:
    with pytest.raises(
        TemporaryError,
        match=r"no Katib controller has taken it up; check: kubectl -n kubeflow get deployment katib-controller, for 1 s",
    ):
        place.run()
    assert not place.server.list("experiments")


def test_an_algorithm_whose_pod_does_not_start_is_named_by_the_clusters_warning(place: Place) -> None:
    thread = place.start()
    place.experiment()
    place.status(conditions=[condition("Created"), condition("Running")])
    about = {"kind": "Pod", "name": f"{NAME}-random-5d4"}
    event = {
        "metadata": {"name": "e1"},
        "involvedObject": about,
        "type": "Warning",
        "reason": "FailedCreate",
        "message": "violates PodSecurity",
    }
    place.server.put("events", event)
    error = place.end(thread)
    assert isinstance(error, TemporaryError)
    assert "Katib has made no trial" in str(error)
    assert "FailedCreate: violates PodSecurity" in str(error)


def test_a_search_that_does_not_go_on_ends(place: Place) -> None:
    thread = place.start()
    place.experiment()
    place.status(conditions=[condition("Running")], trials=1, trialsRunning=1)
    assert "its status has not changed, for 2 s" in str(place.end(thread))


def test_a_deleted_experiment_ends_the_task(place: Place) -> None:
    thread = place.start()
    place.experiment()
    place.status(conditions=[condition("Running")], trials=1, trialsRunning=1)
    place.server.remove("experiments", NAME)
    assert "was deleted while it ran" in str(place.end(thread))


def test_a_cancelled_task_deletes_its_experiment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kfp_pipeline.runtime.katib.tracking.ExperimentTracker.wait_until_ended", interrupt)
    with pytest.raises(KeyboardInterrupt):
        place.run()
    assert not place.server.list("experiments")
    assert place.said[-1] == f"interrupted: deleting Experiment {NAME}"


def test_trials_that_run_when_the_goal_is_reached_are_deleted(place: Place) -> None:
    thread = place.start(tune(goal="0.9"))
    place.experiment()
    place.server.put("trials", trial(f"{NAME}-run", NAME, GOOD, conditions=[condition("Running")]))
    done = trial(
        f"{NAME}-done", NAME, GOOD, conditions=[condition("Succeeded")], observation=observed(areaUnderROC=0.95)
    )
    place.server.put("trials", done)
    place.status(
        conditions=[condition("Succeeded", reason="ExperimentGoalReached")],
        trials=2,
        trialsSucceeded=1,
        trialsRunning=1,
    )
    result = place.end(thread)
    assert isinstance(result, Result), result
    assert result.metrics["trials"] == 1.0
    assert [item["metadata"]["name"] for item in place.server.list("trials")] == [f"{NAME}-done"]


def test_stopped_trials_are_in_the_table_and_are_not_the_best(place: Place) -> None:
    thread = place.start(tune(early_stopping="medianstop"))
    place.experiment()
    stopped = [condition("Running"), condition("EarlyStopped")]
    place.server.put(
        "trials", trial(f"{NAME}-1", NAME, GOOD, conditions=stopped, observation=observed(areaUnderROC=0.99))
    )
    done = trial(f"{NAME}-2", NAME, GOOD, conditions=[condition("Succeeded")], observation=observed(areaUnderROC=0.9))
    place.server.put("trials", done)
    place.status(conditions=[condition("Succeeded")], trials=2, trialsSucceeded=1, trialsEarlyStopped=1)
    result = place.end(thread)
    assert isinstance(result, Result), result
    assert result.metrics["areaUnderROC"] == 0.9
    table = json.loads(place.store.kept["kfp/run/tune/trials.json"])
    assert [item["stopped"] for item in table["trials"]] == ["by Katib's medianstop", ""]


def test_a_namespace_where_katib_collects_nothing_is_refused_before_anything_is_made(place: Place) -> None:
    place.server.put("namespaces", {"metadata": {"name": place.server.namespace}})
    with pytest.raises(InputError, match=f"kubectl label namespace spark-kfp {INJECTION_LABEL}=enabled"):
        place.run()
    assert not place.server.list("experiments")


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda place: place.server.remove("configmaps", "spark-kfp-katib"),
            "make it: kubectl apply -k spark-operator/katib",
        ),
        (lambda place: place.configure("{accepted: 1}"), "limits.yaml of ConfigMap spark-kfp-katib must hold seconds"),
        (lambda place: place.store.kept.clear(), "s3://kfp/run/preprocess holds no output of preprocess"),
        (lambda place: place.server.denied.add(("create", "experiments")), "the service account may not do this"),
        (lambda place: place.server.denied.add(("get", "namespaces")), "the service account may not do this"),
    ],
)
def test_what_is_missing_is_named(place: Place, break_it: Callable[[Place], Any], message: str) -> None:
    break_it(place)
    with pytest.raises((InputError, StepError), match=message):
        place.run()


def test_a_cluster_without_katib_is_named(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "kfp_pipeline.runtime.katib.tuner.EXPERIMENTS", "/apis/nowhere.org/v1/namespaces/{namespace}/experiments"
    )
    with pytest.raises(PermanentError, match=r"kubectl get crd experiments\.kubeflow\.org"):
        place.run()


def test_outputs_on_this_machine_are_refused(place: Place) -> None:
    with pytest.raises(InputError, match="--tuner=katib writes to an object store"):
        place.run(tune(output_uri="/tmp/tune"))

"""`spark-kfp run --kfp --wait` and `runs show --kfp`: tasks, reasons and metrics, from what a real server lists (`fake_kfp_nodes`)."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kfp_pipeline.commands import display, server_commands
from kfp_pipeline.kfp_server import run_tasks, server_runs
from kfp_pipeline.runtime import kubernetes_api, object_store

if TYPE_CHECKING:
    from fake_kfp_server import FakeKfp
    from fake_kubernetes import FakeKubernetes

Call = Callable[..., tuple[int, str, str]]
DATA = "s3://bank/bank.csv"
RUN = ("run", DATA, "--label=y", "--wait")
WHY = "no label column 'depositt'; did you mean 'deposit'?"
WAITING = {"reason": "CreateContainerConfigError", "message": 'secret "spark-kfp-object-store" not found'}


def spec() -> dict[str, Any]:
    found: dict[str, Any] = next(yaml.safe_load_all(server_commands.compile_package().text))
    return found


def tale(state: str, states: dict[str, str] | None = None, *, attempts: int = 1, **also: Any) -> dict[str, Any]:
    """A run as the server tells it; `states` are those of its tasks, `attempts` those of `load`."""
    from fake_kfp_nodes import node_list

    return {
        "state": state,
        "run_details": {"task_details": node_list(spec(), states, {"load": attempts}) if states else []},
        **also,
    }


def history(*states: str) -> list[dict[str, str]]:
    return [{"state": state, "update_time": "2026-11-23T10:00:00Z"} for state in states]


@pytest.fixture
def summary(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The store holds the summary of a run that failed; the addresses at which it was read."""
    read = list[str]()
    document = {
        "status": "FAILED",
        "message": "",
        "applications": [{"step": "load", "name": "load-1", "state": "FAILED", "error": WHY}],
        "metrics": {},
        "report": "",
    }

    def read_text(uri: str) -> str:
        read.append(uri)
        return json.dumps(document)

    monkeypatch.setattr(object_store, "read_text", read_text)
    return read


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKubernetes]:
    """The cluster in which the tasks' pods are, and a kubeconfig for it."""
    from fake_kubernetes import FakeKubernetes

    with FakeKubernetes(namespace="kubeflow", speed=0) as running:
        path = running.kubeconfig(tmp_path / "config")
        monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
        monkeypatch.setattr(kubernetes_api, "IN_CLUSTER_NAMESPACE", tmp_path / "no-such-file")
        yield running


def test_each_of_the_pipelines_tasks_is_shown_once_by_its_name(server: FakeKfp, call: Call) -> None:
    """Also while Argo repeats one: its attempts are nodes of their own, and failed ones are among them."""
    done = {"load": "SUCCEEDED"}
    server.story = [
        tale("PENDING"),
        tale("RUNNING", {"load": "RUNNING"}),
        tale("RUNNING", {"load": "RUNNING", "load/executor": "RUNNING"}, attempts=3),
        tale("RUNNING", {**done, "preprocess": "RUNNING"}, attempts=3),
        tale(
            "SUCCEEDED",
            {**done, "preprocess": "SUCCEEDED", "train": "SUCCEEDED", "evaluate": "SKIPPED", "finish": "SUCCEEDED"},
        ),
    ]
    code, out, _ = call(*RUN, "--kfp", server.url)
    assert code == 0
    assert [" ".join(line.split()) for line in out.splitlines()][2:-3] == [
        "Load running",
        "Load done 30.0 s",
        "Preprocess running",
        "Preprocess done 30.0 s",
        "Train done 30.0 s",
        "Evaluate skipped",
        "Finish done 30.0 s",
        "succeeded after 0 s",
    ]


def test_tasks_come_in_the_graphs_order_and_groups_are_none() -> None:
    tasks = run_tasks.tasks_of(spec())
    fixed, tuned = ("train", "evaluate", "promote"), ("tune", "train-2", "evaluate-2", "promote-2")
    assert [task.key for task in tasks] == ["load", "preprocess", *fixed, *tuned, "finish"]
    names = ("Load", "Preprocess", "Train", "Evaluate", "Promote", "Tune", "Train", "Evaluate", "Promote", "Finish")
    assert tuple(task.name for task in tasks) == names


FIXED = {"load": "SUCCEEDED", "preprocess": "SUCCEEDED", "train": "SUCCEEDED", "evaluate": "SUCCEEDED"}
TUNED = {"load": "SUCCEEDED", "preprocess": "SUCCEEDED", "tune": "SUCCEEDED", "train-2": "RUNNING"}


@pytest.mark.parametrize(
    ("states", "words", "shown", "asked"),
    [
        (FIXED | {"condition-3": "SKIPPED", "condition-4": "SKIPPED"}, (), "Load Preprocess Train Evaluate", "Finish"),
        (TUNED | {"condition-2": "SKIPPED"}, ("--tune-first",), "Load Preprocess Tune Train", "Evaluate Finish"),
    ],
    ids=["fixed", "tuned"],
)
def test_of_the_two_branches_the_one_that_runs_is_shown_and_by_the_usual_names(
    states: dict[str, str],
    words: tuple[str, ...],
    shown: str,
    asked: str,
    server: FakeKfp,
    call: Call,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given: list[str] = []
    make = display.Progress

    def progress(console: Any, steps: list[str]) -> display.Progress:
        given.extend(steps)
        return make(console, steps)

    monkeypatch.setattr(display, "Progress", progress)
    ended = {task: "FAILED" if state == "RUNNING" else state for task, state in states.items()}
    server.story = [tale("RUNNING", states), tale("FAILED", ended)]
    code, out, err = call(*RUN, *words, "--kfp", server.url)
    events = [line.split()[0] for line in out.splitlines() if " done " in line or " running" in line]
    assert events == shown.split()
    assert given == f"{shown} {asked}".split()
    identity = server.all("runs")[0]["run_id"]
    _, out, _ = call("runs", "show", "--kfp", server.url, identity)
    told = [line.split() for line in out.splitlines()]
    assert [line[1] for line in told if line[0] == "task"] == shown.split()
    assert ("tune_first", "True") in [tuple(line) for line in told] or not words
    assert code == 1
    assert ("failed at Train;" in err) == bool(words)


@pytest.mark.parametrize("where", ["load", "load-driver"])
def test_a_failed_run_tells_its_task_and_the_steps_own_words(
    where: str, server: FakeKfp, call: Call, summary: list[str]
) -> None:
    server.story = [tale("FAILED", {where: "FAILED", "finish": "SUCCEEDED"})]
    code, out, err = call(*RUN, "--kfp", server.url, "--pipeline-root", "s3://kfp/root/")
    identity = server.all("runs")[0]["run_id"]
    assert (code, ["Load", "failed"] in [line.split() for line in out.splitlines()]) == (1, True)
    assert f"failed at Load: load: {WHY}; {server.url}/#/runs/details/{identity}" in err
    assert summary == [f"s3://kfp/root/spark-kfp-training/{identity}/summary.json"]
    _, out, _ = call("runs", "show", "--kfp", server.url, identity)
    assert f"at Load: load: {WHY}" in " ".join(out.split())


def test_a_message_in_the_summary_is_the_reason(server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"message": WHY, "applications": [{"step": "load", "error": "driver container failed with ExitCode: 2"}]}
    monkeypatch.setattr(object_store, "read_text", lambda _: json.dumps(told))
    server.story = [tale("FAILED", {"load": "FAILED"})]
    assert f"failed at Load: {WHY};" in call(*RUN, "--kfp", server.url)[2]


def test_without_the_store_it_is_told_where_the_reason_is(server: FakeKfp, call: Call) -> None:
    server.story = [tale("FAILED", {"load": "FAILED"})]
    code, _, err = call(*RUN, "--kfp", server.url)
    identity = server.all("runs")[0]["run_id"]
    assert (code, "AWS_ENDPOINT_URL is not set" in err) == (1, True)
    assert f"kubectl logs -n kubeflow -l pipeline/runid={identity} -c main" in err
    assert "the task Finish, Visualization" in err


@pytest.mark.parametrize(
    ("states", "told"),
    [(("RUNNING", "CANCELING", "FAILED"), True), (("CANCELED",), True), (("RUNNING", "FAILED"), False)],
)
def test_a_terminated_run_is_told_as_that(states: tuple[str, ...], told: bool, server: FakeKfp, call: Call) -> None:
    server.story = [tale(states[-1], {"load": states[-1]}, state_history=history(*states))]
    code, _, err = call(*RUN, "--kfp", server.url)
    assert (code, "was terminated" in err, "failed at" in err) == (1, told, not told)
    identity = server.all("runs")[0]["run_id"]
    for argv in (("show", identity), ("list",)):
        assert ("(terminated)" in call("runs", argv[0], "--kfp", server.url, *argv[1:])[1]) == told


def test_terminated_while_waiting(server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    call("run", DATA, "--label=y", "--kfp", server.url)
    (run,) = server.all("runs")
    call("runs", "terminate", "--kfp", server.url, run["run_id"])
    monkeypatch.setattr(server_runs, "create", lambda *_: run)
    assert "was terminated" in call(*RUN, "--kfp", server.url)[2]


@pytest.mark.parametrize("root", ["", "s3://kfp/root"])
def test_a_run_that_succeeded_ends_with_its_metrics(
    root: str, server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = list[str]()

    def read_text(uri: str) -> str:
        read.append(uri)
        return json.dumps({"metrics": {"areaUnderROC": 0.93451}, "report": "s3://r/report.html"})

    monkeypatch.setattr(object_store, "read_text", read_text)
    server.story = [tale("SUCCEEDED", {"load": "SUCCEEDED"})]
    code, out, _ = call(*RUN, "--kfp", server.url, *([f"--pipeline-root={root}"] if root else []))
    identity = server.all("runs")[0]["run_id"]
    assumed = "minio://mlpipeline/v2/artifacts"
    assert read == [f"{root or assumed}/spark-kfp-training/{identity}/summary.json"]
    assert (code, "areaUnderROC 0.9345" in out, f"KFP's default, {assumed}" in out) == (0, True, not root)
    assert out.splitlines()[-1] == f"{server.url}/#/runs/details/{identity}"


def test_without_the_store_it_is_told_where_the_metrics_are(server: FakeKfp, call: Call) -> None:
    server.story = [tale("SUCCEEDED", {"load": "SUCCEEDED"})]
    code, out, _ = call(*RUN, "--kfp", server.url)
    assert (code, "behind the link (AWS_ENDPOINT_URL is not set" in out) == (0, True)


def test_a_pod_that_cannot_start_is_told_once_with_its_reason(
    server: FakeKfp, call: Call, cluster: FakeKubernetes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KFP itself lists a pending node and nothing else."""
    monkeypatch.setattr(server_runs, "STUCK_SECONDS", 0.05)

    def create(*given: Any) -> Any:
        run = made(*given)
        labels = {"pipeline/runid": run["run_id"]}
        for name, labelled, state in (("ours", labels, {"waiting": WAITING}), ("another", {}, {"waiting": WAITING})):
            status = {"phase": "Pending", "containerStatuses": [{"name": "main", "state": state}]}
            cluster.put("pods", {"metadata": {"name": name, "labels": labelled}, "spec": {}, "status": status})
        return run

    made = server_runs.create
    monkeypatch.setattr(server_runs, "create", create)
    stuck = tale("RUNNING", {"load": "RUNNING", "load/executor": "PENDING"})
    server.story = [stuck] * 40 + [tale("SUCCEEDED", {"load": "SUCCEEDED"})]
    code, _, err = call(*RUN, "--kfp", server.url)
    assert (code, err.count("has started for")) == (0, 1)
    assert "pod ours: CreateContainerConfigError: " + WAITING["message"] in err
    assert "another" not in err


@pytest.mark.parametrize("states", [{}, {"load": "RUNNING", "load/executor": "PENDING"}])
def test_without_a_cluster_it_is_told_what_to_look_at(
    states: dict[str, str], server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_runs, "STUCK_SECONDS", 0.05)
    server.story = [tale("RUNNING", states)] * 40 + [tale("SUCCEEDED", {"load": "SUCCEEDED"})]
    code, _, err = call(*RUN, "--kfp", server.url)
    identity = server.all("runs")[0]["run_id"]
    assert (code, f"kubectl get pods -n kubeflow -l pipeline/runid={identity}" in err) == (0, True)


def test_a_step_that_takes_long_is_no_pod_that_cannot_start(
    server: FakeKfp, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_runs, "STUCK_SECONDS", 0.05)
    server.story = [tale("RUNNING", {"load": "RUNNING"})] * 40 + [tale("SUCCEEDED", {"load": "SUCCEEDED"})]
    assert "has started" not in call(*RUN, "--kfp", server.url)[2]


def test_runs_show_tells_state_tasks_and_inputs(server: FakeKfp, call: Call) -> None:
    call("run", "--kfp", server.url, DATA, "--label=y")
    server.story = [tale("RUNNING", {"load": "SUCCEEDED", "preprocess": "RUNNING"})]
    identity = server.all("runs")[0]["run_id"]
    code, out, _ = call("runs", "show", "--kfp", server.url, identity)
    lines = [line.split() for line in out.splitlines()]
    assert code == 0
    assert ["state", "RUNNING"] in lines
    assert [line for line in lines if line[0] == "task"] == [
        ["task", "Load", "done", "30.0", "s"],
        ["task", "Preprocess", "running"],
    ]
    assert ["data_uri", DATA] in lines
    server.things["versions"].clear()
    assert "the pipeline's version is no longer on the server" in call("runs", "show", "--kfp", server.url, identity)[1]

"""What the tests on a real cluster share: the namespace, the object store, and pods that run the compiled pipeline's own commands.

They need KUBECONFIG, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, the images in the cluster's nodes, and
`kubectl apply -k` of the overlay that SPARK_KFP_E2E_OVERLAY names (tests/e2e/cluster without it). The images are spark and task, and for
test_serving.py serving, which tests/e2e/serving deploys.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ir import Compiled, CompiledTask, PodOutput, executor_input, pod_of
from trouble import trouble

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import APPLICATIONS, PODS, Cluster, connect
from kfp_pipeline.runtime.spark_operator.manifest import application_name
from kfp_pipeline.runtime.step import main_artifact
from spark_jobs.contract import Step

PROJECT = Path(__file__).resolve().parents[2]
NAMESPACE = "spark-kfp"
BUCKET = "spark-kfp"
OVERLAY = os.environ.get("SPARK_KFP_E2E_OVERLAY", str(PROJECT / "tests/e2e/cluster"))
DATA = Path(os.environ.get("SPARK_KFP_E2E_DATA", str(PROJECT / "data/bank_sample.csv")))


def kubectl(*words: str, check: bool = True, given: str | None = None) -> str:
    """The output of a kubectl command, which may be given something to read."""
    command = ["kubectl", "-n", NAMESPACE, *words]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done.stdout


def rolled_out(deployment: str, *, namespace: str = NAMESPACE, seconds: int = 120) -> None:
    """Waits until a Deployment's pods are ready; if they are not, the message says what keeps them."""
    words = ["rollout", "status", f"deployment/{deployment}", f"--timeout={seconds}s"]
    done = subprocess.run(["kubectl", "-n", namespace, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{deployment}: {done.stdout}{done.stderr}\n{trouble(namespace)}"


def new_root() -> str:
    """A place for a pipeline of which no run has loaded anything yet."""
    return f"minio://{BUCKET}/v2/artifacts/{uuid.uuid4().hex[:8]}/spark-kfp-training"


@dataclass
class TaskRun:
    """A pod that runs a task.

    Attributes:
        pod: its name.
        application: name of the SparkApplication that it will submit.
        output_uri: of the step.
        began: when it was made.
    """

    pod: str
    application: str
    output_uri: str
    began: float = field(default_factory=time.monotonic)


@dataclass
class E2E:
    """The cluster and the compiled pipeline."""

    cluster: Cluster
    compiled: Compiled
    image: str
    data_uri: str
    specification_uri: str
    pods: list[str] = field(default_factory=list)
    root: str = field(default_factory=new_root)

    def inputs(self, **more: Any) -> dict[str, Any]:
        """The pipeline's inputs."""
        return {"data_uri": self.data_uri, "specification_uri": self.specification_uri, **more}

    def task(self, name: str) -> CompiledTask:
        return next(task for task in self.compiled.tasks() if task.name == name)

    def start(
        self, step: str, inputs: Mapping[str, Any], run_id: str, variables: Mapping[str, str] | None = None
    ) -> TaskRun:
        """Starts one step's task by itself, with the pipeline's inputs, and with `variables` on top of its own; nothing is reused."""
        task = self.task(step)
        given = {**self.compiled.defaults, **inputs, "scheduled_time": "", "code_version": ""}
        known = task.component["inputDefinitions"]["parameters"]
        fresh = {"SPARK_KFP_REUSE": "false", **(variables or {})}
        return self.start_task(task, {name: given[name] for name in known if name in given}, run_id, fresh)

    def start_task(
        self, task: CompiledTask, values: Mapping[str, Any], run_id: str, variables: Mapping[str, str] | None = None
    ) -> TaskRun:
        """Starts a task's pod."""
        document = executor_input(task, values, root=self.root, run_id=run_id)
        name = f"task-{task.name}-{uuid.uuid4().hex[:8]}"
        body = pod_of(task, name, document, run_id=run_id, service_account="spark-kfp-task")
        environment = body["spec"]["containers"][0]["env"]
        changed = [{"name": name, "value": value} for name, value in (variables or {}).items()]
        environment[:] = [item for item in environment if item["name"] not in (variables or {})] + changed
        self.cluster.create(PODS, body)
        self.pods.append(name)
        if task.name not in list(Step):
            return TaskRun(name, "", "")
        step = Step(task.name)
        uri = task.uri(main_artifact(step), self.root, run_id)
        shared = values.get("spark") == "shared"
        named = application_name("session", f"{self.root}/{run_id}") if shared else application_name(step, uri)
        return TaskRun(name, named, uri)

    def wait(self, run: TaskRun, seconds: float = 400) -> tuple[str, str, dict[str, Any]]:
        """The pod's phase at its end, its log, and what the task has put out; uploads what KFP's launcher would."""
        until(lambda: self.phase(run) in ("Succeeded", "Failed", "gone"), seconds, f"pod {run.pod} has not ended")
        if self.phase(run) == "gone":
            return "gone", "", {}
        found = PodOutput.parse(kubectl("logs", run.pod))
        for uri, content in found.uploads.items():
            object_store.write_bytes(uri, content)
        return self.phase(run), found.log, found.output

    def phase(self, run: TaskRun) -> str:
        pod = self.cluster.get(PODS, run.pod)
        assert "ErrImage" not in json.dumps(pod), f"{run.pod}: its image is not in the node"
        return str(pod["status"].get("phase")) if pod else "gone"

    def application(self, run: TaskRun) -> dict[str, Any] | None:
        return self.cluster.get(APPLICATIONS, run.application)

    def state(self, run: TaskRun) -> str:
        found = self.application(run) or {}
        return str(((found.get("status") or {}).get("applicationState") or {}).get("state", ""))

    def driver(self, run: TaskRun) -> dict[str, Any] | None:
        return self.cluster.get(PODS, f"{run.application}-driver")


def until(condition: Callable[[], Any], seconds: float, otherwise: str) -> Any:
    """Waits until something is so."""
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        if found := condition():
            return found
        time.sleep(0.3)
    raise AssertionError(f"{otherwise} after {seconds:.0f} s\n{trouble(NAMESPACE)}")


def compile_pipeline(folder: Path, image: str, *options: str) -> Compiled:
    """The pipeline, compiled into a folder by the command that a user types."""
    path = folder / "pipeline.yaml"
    command = [sys.executable, "-m", "kfp_pipeline", "compile", "-o", str(path), "--image", image, *options]
    subprocess.run(command, check=True)
    return Compiled.read(path)


@pytest.fixture(scope="session")
def e2e(tmp_path_factory: pytest.TempPathFactory) -> Iterator[E2E]:
    """The namespace, with the manifests applied, the data in the object store, and the pipeline compiled."""
    folder = tmp_path_factory.mktemp("e2e")
    applied = subprocess.run(["kubectl", "apply", "-k", OVERLAY], capture_output=True, text=True, check=False)
    assert applied.returncode == 0, applied.stderr
    rolled_out("spark-kfp-reaper")
    object_store.make_bucket(BUCKET)
    object_store.upload(DATA, f"s3://{BUCKET}/e2e/{DATA.name}")
    object_store.upload(PROJECT / "data/bank.toml", f"s3://{BUCKET}/e2e/bank.toml")
    image = kubectl("get", "deployment", "spark-kfp-reaper", "-o", "jsonpath={.spec.template.spec.containers[0].image}")
    cluster, compiled = connect(NAMESPACE, 30), compile_pipeline(folder, image)
    found = E2E(cluster, compiled, image, f"s3://{BUCKET}/e2e/{DATA.name}", f"s3://{BUCKET}/e2e/bank.toml")
    yield found
    for pod in found.pods:
        cluster.delete(PODS, pod)


@dataclass(frozen=True)
class LocalRun:
    """A run of the pipeline on this machine.

    Attributes:
        document: what `spark-kfp run --json` says of it.
        evaluate_output: the output of its step evaluate.
    """

    document: dict[str, Any]
    evaluate_output: Path


@pytest.fixture(scope="session")
def local_run(tmp_path_factory: pytest.TempPathFactory) -> LocalRun:
    """A run on this machine of the same data."""
    folder = tmp_path_factory.mktemp("runs")
    command = [sys.executable, "-m", "kfp_pipeline", "run", str(DATA), "--spec", str(PROJECT / "data/bank.toml")]
    done = subprocess.run([*command, "--json", "--runs", str(folder)], capture_output=True, text=True, check=True)
    (output,) = folder.glob("*/pipeline/*/evaluate/evaluation")
    return LocalRun(json.loads(done.stdout), output)


@pytest.fixture(scope="module")
def note() -> Iterator[Callable[..., None]]:
    """Notes a line of the table of faults."""
    from faults import fault_table

    with fault_table() as add:
        yield add


@pytest.fixture
def run_id() -> str:
    """A run's id, as KFP makes it."""
    return str(uuid.uuid4())

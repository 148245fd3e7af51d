"""The Spark operator of `fake_kubernetes`: takes an application through a script of stages, with its driver's pod, log and events.

Statuses, events and messages have the shape of Spark operator 2.5.2 on Kubernetes 1.34.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fake_kubernetes import FakeKubernetes

Document = dict[str, Any]
Hook = Callable[[str, Document], str | None]
CONTAINER = "spark-kubernetes-driver"
STATES = (
    "", "SUBMITTED", "RUNNING", "SUCCEEDING", "COMPLETED", "FAILING", "FAILED", "SUBMISSION_FAILED", "PENDING_RERUN", "SUSPENDING",
    "SUSPENDED", "RESUMING", "INVALIDATING", "UNKNOWN",
)  # fmt: skip
ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Stage:
    """One step of a script.

    Attributes:
        seconds: how long it lasts, before the operator's speed divides it.
        state: of the application, one of STATES.
        phase: of the driver's pod: Pending, Running, Succeeded, Failed, or gone; empty leaves it as it is.
        error: the state's message.
        log: what the driver writes in this stage, spread over its time.
        reason: why the container waits (Pending) or has ended.
        message: what the container, or with `unschedulable` the scheduler, says to that.
        exit_code: of the container that has ended.
        unschedulable: no node takes the pod.
        silent: the driver's end is not told to `on_driver_end`, as it leaves no result.
        executors: state of each executor.
    """

    seconds: float
    state: str
    phase: str = ""
    error: str = ""
    log: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    exit_code: int = 0
    unschedulable: bool = False
    silent: bool = False
    executors: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.state not in STATES or self.phase not in ("", "Pending", "Running", "gone", *ENDED):
            raise ValueError(f"no such state: {self.state!r} {self.phase!r}")


NEW = Stage(3, "")
SUBMITTED = Stage(2, "SUBMITTED", "Pending", reason="ContainerCreating")
LINES = tuple(f"26/11/23 07:06:{number:02d} INFO Step: line {number}" for number in range(20))
RUNNING = Stage(10, "RUNNING", "Running", log=LINES, executors=("RUNNING",))
AGAIN = Stage(
    5,
    "RUNNING",
    "Running",
    log=tuple(line.replace("line", "later line") for line in LINES[:10]),
    executors=("RUNNING",),
)
SUCCEEDED = Stage(1, "SUCCEEDING", "Succeeded", reason="Completed", executors=("FAILED",))  # the driver kills them
COMPLETED = Stage(0, "COMPLETED")
QUOTA = """failed to submit spark application: failed to run spark-submit: failed to run spark-submit: WARNING: Using incubator modules
26/11/23 07:23:25 INFO SparkKubernetesClientFactory: Auto-configuring K8S client using current context from users K8S config file
26/11/23 07:23:47 ERROR Client: Please check "kubectl auth can-i create pod" first. It should be yes.
Exception in thread "main" io.fabric8.kubernetes.client.KubernetesClientException: Failure executing: POST at: \
https://10.96.0.1:443/api/v1/namespaces/spark-kfp/pods. Message: pods "NAME-driver" is forbidden: exceeded quota: quota, requested: \
limits.memory=1Gi, used: limits.memory=4Gi, limited: limits.memory=4Gi. Received status: Status(apiVersion=v1, code=403).
\tat io.fabric8.kubernetes.client.KubernetesClientException.copyAsCause(KubernetesClientException.java:205)
26/11/23 07:23:47 INFO ShutdownHookManager: Shutdown hook called
"""
TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "/opt/spark-kfp/main.py", line 2, in <module>',
    "ValueError: no column x",
)


def _dies(exit_code: int, reason: str, message: str = "", log: tuple[str, ...] = ()) -> list[Stage]:
    error = f"driver container failed with ExitCode: {exit_code}, Reason: {reason}"
    end = Stage(1, "FAILING", "Failed", error, log, reason, message, exit_code, executors=("FAILED",))
    return [NEW, SUBMITTED, RUNNING, end, Stage(0, "FAILED", error=error)]


def _waits(reason: str, message: str) -> list[Stage]:
    return [NEW, Stage(1e9, "SUBMITTED", "Pending", reason=reason, message=message)]


SCRIPTS: dict[str, list[Stage]] = {
    "success": [NEW, SUBMITTED, RUNNING, SUCCEEDED, COMPLETED],
    "no_result": [
        NEW,
        SUBMITTED,
        RUNNING,
        Stage(1, "SUCCEEDING", "Succeeded", reason="Completed", silent=True),
        COMPLETED,
    ],
    "python_error": _dies(1, "Error", "\n".join(TRACEBACK), TRACEBACK),
    "oom": _dies(137, "OOMKilled"),
    "driver_killed": _dies(137, "Error"),
    "image_missing": [
        NEW,
        Stage(2, "SUBMITTED", "Pending", reason="ErrImagePull", message="failed to pull and unpack image: not found"),
        Stage(
            1e9, "SUBMITTED", "Pending", reason="ImagePullBackOff", message='Back-off pulling image "no-such/image:1"'
        ),
    ],
    "secret_missing": _waits("CreateContainerConfigError", 'secret "spark-kfp-object-store" not found'),
    "unschedulable": [
        NEW,
        Stage(
            1e9, "SUBMITTED", "Pending", message="0/1 nodes are available: 1 Insufficient memory.", unschedulable=True
        ),
    ],
    "quota_exceeded": [NEW, Stage(2, "SUBMISSION_FAILED", error=QUOTA), Stage(0, "FAILED", error=QUOTA)],
    "submission_failed_then_ok": [
        NEW,
        Stage(3, "SUBMISSION_FAILED", error="failed to run spark-submit: connection refused"),
        Stage(1, "PENDING_RERUN"),
        SUBMITTED,
        RUNNING,
        SUCCEEDED,
        COMPLETED,
    ],
    "unknown_then_ok": [NEW, SUBMITTED, RUNNING, Stage(5, "UNKNOWN"), AGAIN, SUCCEEDED, COMPLETED],
    "unknown_forever": [NEW, SUBMITTED, RUNNING, Stage(1e9, "UNKNOWN", "gone")],
    "never_submitted": [Stage(1e9, "")],
    "suspended_then_ok": [
        NEW,
        SUBMITTED,
        RUNNING,
        Stage(1, "SUSPENDING"),
        Stage(3, "SUSPENDED", "gone"),
        Stage(1, "RESUMING"),
        SUBMITTED,
        AGAIN,
        SUCCEEDED,
        COMPLETED,
    ],
    # kubeflow/spark-operator#2788: a restarted operator submits again and takes the running driver for a failure.
    "operator_restart": [
        NEW,
        SUBMITTED,
        Stage(4, "RUNNING", "Running", log=LINES[:10]),
        Stage(6, "FAILED", error="failed to run spark-submit: driver pod already exist", log=LINES[10:]),
        Stage(0, "FAILED", "Succeeded", "failed to run spark-submit: driver pod already exist", reason="Completed"),
    ],
}


class FakeOperator:
    """Moves applications.

    Attributes:
        speed: by which all times are divided; with 0 nothing moves but by `step`.
        on_driver_end: called with the application's name and itself when its driver ends by its own will, before anyone can see that
            (state SUCCEEDING or FAILING, FAILED for #2788); may return the container's termination message.
        driver_starts: how often a driver was made, by application.
        lines_per_stamp: how many log lines in a row bear the very same time.
        awake: clear it, and the operator is away.
        programs: what a driver does while it runs, by a pattern of the application's name; it gets the application and a function that
            writes a line into the log and returns whether the pod is still there, and it returns the stages that follow.
    """

    def __init__(self, server: FakeKubernetes, speed: float) -> None:
        self.speed = speed
        self.on_driver_end: Hook = lambda _name, _application: None
        self.driver_starts: Counter[str] = Counter()
        self.lines_per_stamp = 1
        self.programs: dict[str, Callable[[Document, Callable[[str], bool]], list[Stage]]] = {}
        self.awake = threading.Event()
        self.awake.set()
        self._server = server
        self._scripts: dict[str, list[list[Stage]]] = {}
        self._made: set[str] = set()
        self._left: dict[str, list[Stage]] = {}
        self._logs: dict[str, list[tuple[str, str]]] = {}
        self._stamp, self._written = 0, 0

    def script(self, pattern: str, *scripts: str | Iterable[Stage | tuple[Any, ...]]) -> None:
        """What becomes of applications whose name matches; of several scripts each is for one creation, the last for all later ones.

        Args:
            pattern: a name, or a pattern such as `load-*`. What was told last counts.
            scripts: a name of SCRIPTS, or stages.
        """
        told = [
            SCRIPTS[s] if isinstance(s, str) else [x if isinstance(x, Stage) else Stage(*x) for x in s] for s in scripts
        ]
        self._scripts = {pattern: told, **{key: value for key, value in self._scripts.items() if key != pattern}}

    def begin(self, name: str, uid: str) -> None:
        """Takes up a new application; the server calls it."""
        told = next(
            (found for pattern, found in self._scripts.items() if fnmatchcase(name, pattern)), [SCRIPTS["success"]]
        )
        added = f"SparkApplication {name} was added, enqueuing it for submission"
        self._server.note("SparkApplication", name, "Normal", "SparkApplicationAdded", added)
        script = told.pop(0) if len(told) > 1 else told[0]
        self._left[uid] = list(script)
        if self.speed:
            threading.Thread(target=self._play, args=(name, uid), daemon=True).start()

    def step(self, name: str, times: int = 1) -> None:
        """Moves an application by hand to its next stages; for speed 0."""
        uid = self._server.applications[name]["metadata"]["uid"]
        for _ in range(times):
            stage = self._left[uid].pop(0)
            self._enter(name, uid, stage)
            for line in stage.log:
                self._write(f"{name}-driver", line)

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Does something after a while of the operator's time."""
        if not self.speed:
            action()
            return
        timer = threading.Timer(seconds / self.speed, action)
        timer.daemon = True
        timer.start()

    def log(self, pod_uid: str) -> list[tuple[str, str]]:
        """The lines of a pod's log, each with its time."""
        return list(self._logs.get(pod_uid, ()))

    def has_ended(self, pod_uid: str) -> bool:
        """Whether nothing more comes into a log, as its container has ended or its pod is gone."""
        pods = {pod["metadata"]["uid"]: pod for pod in self._server.list("pods")}
        return pod_uid not in pods or pods[pod_uid]["status"]["phase"] in ENDED

    def _play(self, name: str, uid: str) -> None:
        while self._left[uid]:
            while not self.awake.wait(0.01) and not self._server.stopped.is_set():
                pass
            stage = self._left[uid].pop(0)
            if not self._enter(name, uid, stage):
                return
            program = next((found for pattern, found in self.programs.items() if fnmatchcase(name, pattern)), None)
            if program and stage.phase == "Running":
                application = self._server.applications[name]
                self._left[uid] = program(application, lambda line: self._write(f"{name}-driver", line))
                continue
            end = time.monotonic() + stage.seconds / self.speed
            for number, line in enumerate(stage.log):
                self._server.stopped.wait(max(0.0, (end - time.monotonic()) / (len(stage.log) - number)))
                if not self._write(f"{name}-driver", line):
                    break
            while time.monotonic() < end:
                if self._server.stopped.wait(min(0.2, max(0.0, end - time.monotonic()))) or not self._is_there(
                    name, uid
                ):
                    return

    def _is_there(self, name: str, uid: str) -> bool:
        found = self._server.get("sparkapplications", name)
        return found is not None and found["metadata"]["uid"] == uid and not found["metadata"].get("deletionTimestamp")

    def _enter(self, name: str, uid: str, stage: Stage) -> bool:
        """Makes a stage true: the driver first, then the application's status, as the operator comes to know it later."""
        application = self._server.applications.get(name)
        if self._server.stopped.is_set() or application is None or not self._is_there(name, uid):
            return False
        stage, told = self._or_trouble(name, uid, stage), stage.message
        if stage.phase in ENDED:
            if stage.exit_code < 128 and not stage.silent:
                _set_status(application, stage)
                told = self.on_driver_end(name, application) or told
            for line in stage.log:  # what a dying driver writes comes before its end
                self._write(f"{name}-driver", line)
        with self._server.changed:
            if not self._is_there(name, uid):
                return False
            before = self._server.applications[name].get("status", {}).get("applicationState", {}).get("state", "")
            if stage.phase:
                self._move_driver(name, stage, told)
            if stage.state:
                self._server.update("sparkapplications", name, lambda application: _set_status(application, stage))
            if stage.state != before:
                self._tell(name, stage, before)
        return True

    def _or_trouble(self, name: str, uid: str, stage: Stage) -> Stage:
        """The stage, or the failure that comes of it as the driver's pod is another's or was deleted by someone else."""
        pod, error = self._server.get("pods", f"{name}-driver"), ""
        if stage.phase and pod and pod["metadata"]["ownerReferences"][0]["uid"] != uid:
            error = "driver pod already exist"
        if stage.phase in ("Running", *ENDED) and pod is None and uid in self._made:
            error = "driver pod not found"
        if not error:
            return stage
        self._left[uid] = []
        return Stage(0, "FAILED", error=error)

    def _tell(self, name: str, stage: Stage, before: str) -> None:
        error = stage.error.replace("NAME", name)
        event = {
            "SUBMITTED": ("Normal", "SparkApplicationSubmitted", f"SparkApplication {name} was submitted successfully"),
            "RUNNING": ("Normal", "SparkDriverRunning", f"Driver {name}-driver is running"),
            "SUCCEEDING": ("Normal", "SparkDriverCompleted", f"Driver {name}-driver completed"),
            "FAILING": ("Warning", "SparkDriverFailed", f"Driver {name}-driver failed"),
            "SUBMISSION_FAILED": ("Warning", "SparkApplicationSubmissionFailed",
                                  f"failed to submit SparkApplication {name}: {error}"),
                "FAILED": ("Warning", "SparkApplicationFailed", f"SparkApplication {name} failed: {error}"),
        }.get(stage.state)  # fmt: skip
        if event and (stage.state != "FAILED" or before == "SUBMISSION_FAILED"):
            self._server.note("SparkApplication", name, *event)

    def _move_driver(self, name: str, stage: Stage, told: str) -> None:
        server, pod = self._server, f"{name}-driver"
        there = server.get("pods", pod)
        if stage.phase == "gone":
            server.remove("pods", pod)
            return
        if there is None:
            there = self._make_driver(name)
        image = there["spec"]["containers"][0]["image"]
        started = there["status"].get("startTime") or _now()
        container: Document = {"name": CONTAINER, "image": image, "imageID": "", "restartCount": 0, "lastState": {}}
        scheduled: Document = {"type": "PodScheduled", "status": "True", "lastTransitionTime": _now()}
        status: Document = {
            "phase": stage.phase,
            "startTime": started,
            "conditions": [scheduled],
            "qosClass": "Burstable",
        }
        if stage.unschedulable:
            scheduled |= {"status": "False", "reason": "Unschedulable", "message": stage.message}
            del status["startTime"]
            server.note("Pod", pod, "Warning", "FailedScheduling", stage.message)
        elif stage.phase == "Pending":
            reason = stage.reason or "ContainerCreating"
            waiting = {"reason": reason} | ({"message": told} if told else {})
            status["containerStatuses"] = [
                {**container, "ready": False, "started": False, "state": {"waiting": waiting}}
            ]
            if reason == "ContainerCreating":  # its volumes are made a moment later than it: noise of every start
                volume = 'MountVolume.SetUp failed for volume "spark-conf-volume-driver" : configmap "spark-drv-conf-map" not found'
                server.note("Pod", pod, "Warning", "FailedMount", volume)
            else:
                server.note("Pod", pod, "Warning", "Failed", f"Error: {told or reason}")
        elif stage.phase == "Running":
            state = {"running": {"startedAt": _now()}}
            status["containerStatuses"] = [{**container, "ready": True, "started": True, "state": state}]
            if there["status"].get("phase") != "Running":
                server.note("Pod", pod, "Normal", "Started", f"Started container {CONTAINER}")
        else:
            ended: Document = {"exitCode": stage.exit_code, "reason": stage.reason or "Completed", "startedAt": started}
            ended |= {"finishedAt": _now()} | ({"message": told} if told else {})
            status["containerStatuses"] = [
                {**container, "ready": False, "started": False, "state": {"terminated": ended}}
            ]
        server.update("pods", pod, lambda document: document.update(status=status))

    def _make_driver(self, name: str) -> Document:
        application = self._server.applications[name]
        spec, uid = application.get("spec", {}), application["metadata"]["uid"]
        self.driver_starts[name] += 1
        self._made.add(uid)
        driver = spec.get("driver") or {}
        labels = {
            **(application["metadata"].get("labels") or {}), **(driver.get("labels") or {}), "spark-role": "driver",
            "spark-app-name": name, "sparkoperator.k8s.io/app-name": name,
            "sparkoperator.k8s.io/launched-by-spark-operator": "true", "sparkoperator.k8s.io/submission-id": _submission(uid),
        }  # fmt: skip
        owner = {"apiVersion": application["apiVersion"], "kind": application["kind"], "name": name, "uid": uid}
        owner |= {"controller": True, "blockOwnerDeletion": True}
        memory = str(driver.get("memory") or "1g").lower().replace("g", "Gi").replace("m", "Mi")
        resources = {"limits": {"memory": memory}, "requests": {"cpu": str(driver.get("cores") or 1), "memory": memory}}
        container = {"name": CONTAINER, "image": driver.get("image") or spec.get("image", ""), "resources": resources}
        metadata = {"name": f"{name}-driver", "labels": labels, "ownerReferences": [owner]}
        body = {"metadata": metadata, "spec": {"containers": [container]}, "status": {"phase": "Pending"}}
        return self._server.put("pods", body)

    def _write(self, pod: str, line: str) -> bool:
        with self._server.changed:
            found = self._server.get("pods", pod)
            if not found or found["status"].get("phase") in ENDED:
                return False
            if self._written % self.lines_per_stamp == 0:
                self._stamp = max(time.time_ns(), self._stamp + 1)
            self._written += 1
            whole, nanos = divmod(self._stamp, 10**9)
            stamp = f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
            self._logs.setdefault(found["metadata"]["uid"], []).append((stamp, line))
            self._server.changed.notify_all()
            return True


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _submission(uid: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, uid))


def _set_status(application: Document, stage: Stage) -> None:
    name, uid = application["metadata"]["name"], application["metadata"]["uid"]
    status = application.setdefault("status", {"terminationTime": None})
    status["applicationState"] = {"state": stage.state} | (
        {"errorMessage": stage.error.replace("NAME", name)} if stage.error else {}
    )
    if stage.state in ("SUBMITTED", "SUBMISSION_FAILED"):
        attempts = status.get("submissionAttempts", 0) + 1
        status |= {
            "lastSubmissionAttemptTime": _now(),
            "submissionAttempts": attempts,
            "submissionID": _submission(uid),
        }
    if stage.state == "SUBMITTED":
        status["driverInfo"] = {"podName": f"{name}-driver"}
        status |= {"executionAttempts": 1, "sparkApplicationId": f"spark-{uuid.UUID(uid).hex}"}
    if stage.executors:
        status["executorState"] = {f"{name}-exec-{number}": state for number, state in enumerate(stage.executors, 1)}
    if stage.state in ("SUCCEEDING", "FAILING", "COMPLETED", "FAILED") and not status.get("terminationTime"):
        status["terminationTime"] = _now()

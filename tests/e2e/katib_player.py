"""Plays Katib's controllers on a real API server: experiments, suggestions, trials and the webhook that adds the collector to a pod.

Each part follows the source of Katib 0.19.0 that its docstring names. What the algorithms would propose comes from the test.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from conftest import kubectl

from kfp_pipeline.runtime.kubernetes_api import EXPERIMENTS, PODS, TRIALS, Cluster, ConflictError

Document = dict[str, Any]
JOBS = "/apis/batch/v1/namespaces/{namespace}/jobs"
COLLECTOR = Path(__file__).with_name("katib_collector.py").read_text(encoding="utf-8")
SIDECAR, LOG_FOLDER = "metrics-logger-and-collector", "/var/log/katib"
FILTER = re.compile(r"([\w|-]+)\s*=\s*([+-]?\d*(\.\d+)?([Ee][+-]?\d+)?)")
ENDED = ("Succeeded", "Failed", "EarlyStopped", "MetricsUnavailable")


class KatibPlayer:
    """A context in which Katib seems to run.

    Attributes:
        proposals: what the algorithm proposes, one after another: parameters by name.
        stop_rule: rule of early stopping of all trials; empty for none.
    """

    def __init__(self, cluster: Cluster, proposals: Sequence[Mapping[str, str]], stop_rule: str = "") -> None:
        self.cluster, self.proposals, self.stop_rule = cluster, list(proposals), stop_rule
        self.made: list[str] = []
        self.logs: dict[str, str] = {}
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._play, daemon=True)

    def __enter__(self) -> KatibPlayer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._error, self._error

    def _play(self) -> None:
        while not self._stop.wait(0.5):
            try:
                for experiment in self.cluster.list(EXPERIMENTS):
                    self.reconcile(experiment)
            except ConflictError:  # the object has changed meanwhile: the next round sees it
                continue
            except BaseException as error:
                self._error = error
                return

    def reconcile(self, experiment: Document) -> None:
        """`Reconcile` in pkg/controller.v1beta1/experiment/experiment_controller.go."""
        if experiment["metadata"].get("deletionTimestamp") or is_true(experiment, "Succeeded", "Failed"):
            return
        name = experiment["metadata"]["name"]
        if not (experiment.get("status") or {}).get("conditions"):
            self.write(EXPERIMENTS, experiment, {"conditions": [condition("Created"), condition("Running")]})
            return
        trials = self.cluster.list(TRIALS, labelSelector=f"katib.kubeflow.org/experiment={name}")
        for trial in trials:
            if not is_true(trial, *ENDED):
                self.reconcile_trial(trial)
        trials = self.cluster.list(TRIALS, labelSelector=f"katib.kubeflow.org/experiment={name}")
        self.summarise(experiment, trials)
        active = sum(not is_true(trial, *ENDED) for trial in trials)
        spec = experiment["spec"]
        room = min(spec["maxTrialCount"] - len(trials), spec["parallelTrialCount"] - active)
        for _ in range(min(room, len(self.proposals))):
            self.make_trial(experiment, self.proposals.pop(0))

    def summarise(self, experiment: Document, trials: Sequence[Document]) -> None:
        """`UpdateExperimentStatus` in pkg/controller.v1beta1/experiment/util/status_util.go."""
        spec, status = experiment["spec"], dict(experiment["status"])
        count = {kind: sum(is_true(trial, kind) for trial in trials) for kind in ENDED}
        status |= {
            "trials": len(trials), "trialsSucceeded": count["Succeeded"], "trialsFailed": count["Failed"],
            "trialsEarlyStopped": count["EarlyStopped"], "trialMetricsUnavailable": count["MetricsUnavailable"],
            "trialsRunning": len(trials) - sum(count.values()),
        }  # fmt: skip
        objective = spec["objective"]["objectiveMetricName"]
        done = [trial for trial in trials if trial.get("status", {}).get("observation")]
        if done:
            best = max(done, key=lambda trial: value_of(trial, objective))
            status["currentOptimalTrial"] = {
                "bestTrialName": best["metadata"]["name"],
                "observation": best["status"]["observation"],
            }
        failed = count["Failed"] + count["MetricsUnavailable"]
        if failed and failed >= spec["maxFailedTrialCount"]:
            status["conditions"] = [condition("Failed", "Experiment has failed because max failed count has reached")]
        elif sum(count.values()) >= spec["maxTrialCount"]:
            status["conditions"] = [
                condition("Succeeded", "Experiment has succeeded because max trial count has reached")
            ]
        if status != experiment["status"]:
            self.write(EXPERIMENTS, experiment, status)

    def make_trial(self, experiment: Document, proposal: Mapping[str, str]) -> None:
        """`applyParameters` in pkg/controller.v1beta1/experiment/manifest/generator.go, and `getTrialInstance`."""
        name = f"{experiment['metadata']['name']}-{uuid.uuid4().hex[:8]}"
        template = experiment["spec"]["trialTemplate"]
        text = json.dumps(template["trialSpec"])
        own = {"${trialSpec.Name}": name}
        values = {
            item["name"]: own.get(item["reference"]) or proposal[item["reference"]]
            for item in template["trialParameters"]
        }
        assert set(proposal) == {item["name"] for item in experiment["spec"]["parameters"]}
        for parameter, value in values.items():
            text = text.replace(f"${{trialParameters.{parameter}}}", value)
        run_spec = json.loads(text)
        run_spec["metadata"] = {"name": name, "namespace": self.cluster.namespace}
        labels = {
            **(experiment["metadata"].get("labels") or {}),
            "katib.kubeflow.org/experiment": experiment["metadata"]["name"],
        }
        spec = {
            "objective": experiment["spec"]["objective"],
            "parameterAssignments": [{"name": key, "value": value} for key, value in proposal.items()],
            "runSpec": run_spec,
            "retainRun": template.get("retain", False),
            **{key: template[key] for key in ("primaryContainerName", "successCondition", "failureCondition")},
        }
        metadata = {"name": name, "labels": labels, "ownerReferences": [owner(experiment)]}
        made = self.cluster.create(
            TRIALS, {"apiVersion": "kubeflow.org/v1beta1", "kind": "Trial", "metadata": metadata, "spec": spec}
        )
        self.write(TRIALS, made, {"conditions": [condition("Created")]})
        self.made.append(name)

    def reconcile_trial(self, trial: Document) -> None:
        """`reconcileTrial` in pkg/controller.v1beta1/trial/trial_controller.go."""
        name = trial["metadata"]["name"]
        job = self.cluster.get(JOBS, name)
        if job is None:
            run_spec = json.loads(json.dumps(trial["spec"]["runSpec"]))
            run_spec["metadata"]["ownerReferences"] = [owner(trial)]
            self.inject(run_spec["spec"]["template"], trial)
            self.cluster.create(JOBS, run_spec)
            return
        status = {**trial["status"]}
        if is_true(job, "Failed"):
            said = next(item for item in job["status"]["conditions"] if item["type"] == "Failed")
            status["conditions"] = [condition("Failed", f"Trial has failed. Job message: {said['message']}")]
        elif is_true(job, "Complete"):
            status |= self.observation_of(trial)
        elif not is_true(trial, "Running"):
            status["conditions"] = [condition("Created"), condition("Running")]
        if status == trial["status"]:
            return
        self.write(TRIALS, trial, status)
        if any(item["type"] in ENDED for item in status["conditions"]) and not trial["spec"]["retainRun"]:
            self.cluster.delete(JOBS, name)

    def observation_of(self, trial: Document) -> Document:
        """`parseLogsInTextFormat` in pkg/metricscollector/v1beta1/file-metricscollector, `getMetrics` in trial_controller_util.go."""
        name, objective = trial["metadata"]["name"], trial["spec"]["objective"]
        (pod,) = self.cluster.list(PODS, labelSelector=f"batch.kubernetes.io/job-name={name}")
        log = self.logs[name] = kubectl("logs", pod["metadata"]["name"], "-c", SIDECAR)
        names = [objective["objectiveMetricName"], *objective["additionalMetricNames"]]
        found: dict[str, list[str]] = {}
        for line in log.splitlines():
            for match in FILTER.finditer(line):
                if match[1] in names:
                    found.setdefault(match[1], []).append(match[2])
        if names[0] not in found:
            return {"conditions": [condition("MetricsUnavailable")]}
        metrics = [
            {"name": key, "min": min(values, key=float), "max": max(values, key=float), "latest": values[-1]}
            for key, values in found.items()
        ]
        ended = "EarlyStopped" if "mark: early-stopped" in log else "Succeeded"
        times = {
            "startTime": trial["metadata"]["creationTimestamp"],
            "completionTime": pod["status"]["containerStatuses"][0]["state"]["terminated"]["finishedAt"],
        }
        return {"conditions": [condition("Created"), condition(ended)], "observation": {"metrics": metrics}, **times}

    def inject(self, template: Document, trial: Document) -> None:
        """`Mutate` in pkg/webhook/v1beta1/pod/inject_webhook.go and `wrapWorkerContainer` in utils.go, with security contexts injected."""
        spec = template["spec"]
        main = next(item for item in spec["containers"] if item["name"] == trial["spec"]["primaryContainerName"])
        words = [*main["command"], *main.get("args", []), f"1>{LOG_FOLDER}/metrics.log 2>&1"]
        mark = f"{LOG_FOLDER}/$$$$.pid"
        if self.stop_rule:
            words += ["||", f"if test -f {mark} && [ $(head -n 1 {LOG_FOLDER}/$$.pid) = early-stopped ]; then echo Training Container was "
                      "Early Stopped; else echo Training Container was Failed; exit 1; fi"]  # fmt: skip
        main["command"], main["args"] = ["sh", "-c"], [" ".join([*words, "&&", f"echo completed > {mark}"])]
        mount = {"name": "metrics-volume", "mountPath": LOG_FOLDER}
        main["volumeMounts"] = [*main.get("volumeMounts", []), mount]
        sidecar = {
            "name": SIDECAR, "image": main["image"], "imagePullPolicy": main["imagePullPolicy"],
            "command": ["python3", "-c", COLLECTOR, self.stop_rule], "volumeMounts": [mount],
            "securityContext": main["securityContext"],
            "resources": {"requests": {"cpu": "50m", "memory": "10Mi"}, "limits": {"memory": "100Mi"}},
        }  # fmt: skip
        spec["containers"].append(sidecar)
        spec["volumes"] = [*spec.get("volumes", []), {"name": "metrics-volume", "emptyDir": {}}]
        spec["shareProcessNamespace"] = True
        labels = template["metadata"].setdefault("labels", {})
        labels |= {**trial["metadata"]["labels"], "katib.kubeflow.org/trial": trial["metadata"]["name"]}

    def write(self, kind: str, item: Document, status: Document) -> None:
        """Writes a status, as a controller does."""
        body = {**item, "status": status}
        path = f"{kind}/{item['metadata']['name']}/status"
        self.cluster.retry_while_unavailable(lambda: self.cluster._request("PUT", path, body=body), missing=None)


def katib_would_take(cluster: Cluster, item: Document) -> bool:
    """Whether Katib's webhook takes a pod for one of a trial: `getKatibJob` in inject_webhook.go walks up all owners."""
    kinds = {
        "Trial": TRIALS, "Experiment": EXPERIMENTS, "Job": JOBS, "Pod": PODS,
        "SparkApplication": "/apis/sparkoperator.k8s.io/v1beta2/namespaces/{namespace}/sparkapplications",
    }  # fmt: skip
    for each in item["metadata"].get("ownerReferences") or []:
        if each["kind"] == "Trial":
            return True
        above = cluster.get(kinds[each["kind"]], each["name"]) if each["kind"] in kinds else None
        if above and katib_would_take(cluster, above):
            return True
    return False


def owner(item: Document) -> Document:
    """A reference to the controller of an object."""
    found = {key: item[key] for key in ("apiVersion", "kind")} | {key: item["metadata"][key] for key in ("name", "uid")}
    return {**found, "controller": True, "blockOwnerDeletion": True}


def condition(kind: str, message: str = "") -> Document:
    return {"type": kind, "status": "True", "reason": f"Played{kind}", "message": message}


def is_true(item: Document, *kinds: str) -> bool:
    conditions = (item.get("status") or {}).get("conditions") or []
    return any(each["type"] in kinds and each["status"] == "True" for each in conditions)


def value_of(trial: Document, metric: str) -> float:
    return next(
        (float(each["latest"]) for each in trial["status"]["observation"]["metrics"] if each["name"] == metric),
        float("-inf"),
    )

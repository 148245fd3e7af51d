"""The checks of `spark-kfp doctor`: whether a cluster has what a run needs. They only read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from kfp_pipeline.doctor.check_results import CheckFailedError, CheckResult, run_check
from kfp_pipeline.doctor.kubeflow_checks import CRD, kfp_api_server, kfp_retries, object_store_address
from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.kubernetes_api import PODS, Cluster
from kfp_pipeline.runtime.spark_operator.manifest import TEMPLATE_KEY, build_application, read_config
from spark_jobs.contract import LoadArgs, Step

APPLY = "kubectl apply -k spark-operator/"
OPERATOR = "install the Kubeflow Spark operator, see spark-operator/README.md"
BUCKET = "spark-kfp"
"""The bucket that the manifests create."""
SUBMITTER_PERMISSIONS = (
    *(("sparkoperator.k8s.io", "sparkapplications", verb) for verb in ("create", "get", "list", "watch", "delete")),
    *(("", "pods", verb) for verb in ("get", "list", "watch")),
    ("", "pods/log", "get"),
    ("", "events", "list"),
    ("", "configmaps", "get"),
    *(("coordination.k8s.io", "leases", verb) for verb in ("create", "get", "update", "delete")),
)
"""The permissions that a task's service account, or a user of `spark-kfp submit`, needs: API group, resource, verb."""


def run_checks(cluster: Cluster, config_map: str) -> Iterator[CheckResult]:
    """Runs the checks one after another and yields each result; if the API server is unavailable, only the first."""
    first = run_check(
        "API server", lambda: _api_server(cluster), "check the network and the kubeconfig: kubectl version"
    )
    yield first
    if first.ok is False:
        return
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("SparkApplication definition", lambda: _custom_resource_definition(cluster), OPERATOR),
        ("Spark operator", lambda: _operator(cluster), OPERATOR),
        ("permissions", lambda: _permissions(cluster), f"{APPLY}, or ask who runs the cluster"),
        ("template", lambda: _template(cluster, config_map), APPLY),
        ("image", lambda: _image(cluster, config_map), "load or push it, or name another in spark-operator/"),
        ("driver's service account", lambda: _service_account(cluster, config_map), APPLY),
        ("secret keys", lambda: _secrets(cluster, config_map), "make the secret, see spark-operator/README.md"),
        ("quota", lambda: _quota(cluster), "raise the quota, or ask for less in spark-operator/"),
        ("reaper", lambda: _reaper(cluster), APPLY),
        ("object store", _object_store, "set AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"),
        ("Kubeflow Pipelines", lambda: kfp_api_server(cluster), "needed for runs from KFP only"),
        ("KFP's retries", lambda: kfp_retries(cluster), "needed for runs from KFP only"),
        ("object store endpoint", lambda: object_store_address(cluster), APPLY),
    ]
    for name, check, fix in checks:
        yield run_check(name, check, fix)


def _api_server(cluster: Cluster) -> str:
    return f"{cluster.text('/version')['gitVersion']}, namespace {cluster.namespace}"


def _custom_resource_definition(cluster: Cluster) -> str:
    found = cluster.text(f"{CRD}/sparkapplications.sparkoperator.k8s.io")
    versions = [version["name"] for version in found["spec"]["versions"] if version["served"]]
    if "v1beta2" not in versions:
        raise CheckFailedError(f"serves {', '.join(versions)}, not v1beta2", OPERATOR)
    return ", ".join(versions)


def _operator(cluster: Cluster) -> str:
    query = {"labelSelector": "app.kubernetes.io/name=spark-operator"}
    pods = cluster.text("/api/v1/pods", query)["items"]
    controllers = [pod for pod in pods if "controller" in pod["metadata"]["name"]]
    running = [pod for pod in controllers if pod["status"].get("phase") == "Running"]
    if not running:
        raise CheckFailedError("no controller runs" if pods else "not installed", OPERATOR)
    arguments = [word for item in running[0]["spec"]["containers"] for word in (item.get("args") or [])]
    watched = next((word.partition("=")[2] for word in arguments if word.startswith("--namespaces=")), "")
    if watched.strip('"') and cluster.namespace not in watched.strip('"').split(","):
        raise CheckFailedError(
            f"watches {watched}, not {cluster.namespace}", "add it to spark.jobNamespaces of its Helm values"
        )
    image = running[0]["spec"]["containers"][0]["image"]
    return f"{running[0]['metadata']['name']} ({image.rpartition('/')[2]}) watches this namespace"


def _permissions(cluster: Cluster) -> str:
    lacking = []
    for group, resource, verb in SUBMITTER_PERMISSIONS:
        name, _, sub = resource.partition("/")
        asked = {"namespace": cluster.namespace, "group": group, "resource": name, "subresource": sub, "verb": verb}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in asked.items() if value}},
        }
        answer = cluster.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body)
        if not answer["status"]["allowed"]:
            lacking.append(f"{verb} {resource}")
    if lacking:
        raise CheckFailedError(f"may not {', '.join(lacking)}", "")
    return f"all {len(SUBMITTER_PERMISSIONS)}"


def _spec(cluster: Cluster, config_map: str) -> dict[str, Any]:
    args = LoadArgs(data_uri="s3://bucket/data.csv", output_uri="s3://bucket/run/load")
    application = build_application(read_config(cluster, config_map), Step.LOAD, args, run="", overrides={})
    return dict(application["spec"])


def _template(cluster: Cluster, config_map: str) -> str:
    spec = _spec(cluster, config_map)
    return f"{TEMPLATE_KEY}: image {spec.get('image')}, Spark {spec.get('sparkVersion')}"


def _image(cluster: Cluster, config_map: str) -> str:
    spec = _spec(cluster, config_map)
    image = str(spec.get("image"))
    nodes = cluster.text("/api/v1/nodes")["items"]
    held = {name for node in nodes for found in node["status"].get("images", []) for name in found.get("names") or []}
    if any(name == image or name.endswith(f"/{image}") for name in held):
        return f"{image} is on a node"
    if spec.get("imagePullPolicy") == "Never":
        raise CheckFailedError(f"{image} is on no node, and the template forbids to pull it", "")
    raise CheckFailedError(f"{image} is on no node yet; it will be pulled", "", ok=None)


def _service_account(cluster: Cluster, config_map: str) -> str:
    name = (_spec(cluster, config_map).get("driver") or {}).get("serviceAccount", "default")
    cluster.text(f"/api/v1/namespaces/{cluster.namespace}/serviceaccounts/{name}")
    return str(name)


def _secrets(cluster: Cluster, config_map: str) -> str:
    driver = _spec(cluster, config_map).get("driver") or {}
    containers = [driver, *((driver.get("template") or {}).get("spec") or {}).get("containers", [])]
    wanted = [
        (ref["name"], ref["key"])
        for container in containers
        for variable in container.get("env") or []
        if (ref := (variable.get("valueFrom") or {}).get("secretKeyRef"))
    ]
    for name in sorted({name for name, _ in wanted}):
        found = cluster.text(f"/api/v1/namespaces/{cluster.namespace}/secrets/{name}")
        lacking = [key for secret, key in wanted if secret == name and key not in (found.get("data") or {})]
        if lacking:
            raise CheckFailedError(f"secret {name} lacks {', '.join(lacking)}", "")
    return ", ".join(f"{name}/{key}" for name, key in wanted) or "none needed"


def _quota(cluster: Cluster) -> str:
    found = cluster.text(f"/api/v1/namespaces/{cluster.namespace}/resourcequotas")["items"]
    parts = []
    for quota in found:
        status = quota.get("status") or {}
        for key, hard in (status.get("hard") or {}).items():
            used = (status.get("used") or {}).get(key, "0")
            if used == hard and hard != "0":
                raise CheckFailedError(f"{quota['metadata']['name']}: {key} is used up ({used} of {hard})", "")
            parts.append(f"{key} {used}/{hard}")
    return ", ".join(parts[:4]) or "none set"


def _reaper(cluster: Cluster) -> str:
    pods = cluster.text(PODS, {"labelSelector": "spark-kfp/role=reaper"})["items"]
    if not any(pod["status"].get("phase") == "Running" for pod in pods):
        raise CheckFailedError("does not run: what an outright killed task leaves behind goes on", "")
    return "runs: an application that nobody follows is deleted"


def _object_store() -> str:
    if not object_store.bucket_exists(BUCKET):
        fix = f"spark-kfp data make-bucket {BUCKET}, unless you use another"
        raise CheckFailedError(f"answers, and knows the key, but has no bucket {BUCKET}", fix, ok=None)
    return f"answers, knows the key, and has the bucket {BUCKET}"

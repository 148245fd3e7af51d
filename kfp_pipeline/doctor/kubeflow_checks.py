"""The checks of `spark-kfp doctor` for Kubeflow Pipelines, which only runs on a KFP server need. They only read."""

from __future__ import annotations

import yaml
from kubernetes.client.exceptions import ApiException

from kfp_pipeline.doctor.check_results import CheckFailedError
from kfp_pipeline.runtime.kubernetes_api import Cluster
from kfp_pipeline.settings import OBJECT_STORE

CRD = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
KFP_SERVICE, KFP_PORT = "ml-pipeline", 8888
OLDEST_KFP = (2, 15)
STORES = ("seaweedfs", "minio-service")
"""The services of KFP's own object store, both on port 9000: KFP's manifests/kustomize/third-party has seaweedfs/ since 2.16 and minio/ in
2.15."""
STORE_PORT = 9000
ARGO_CONFIG = "workflow-controller-configmap"


def kfp_api_server(cluster: Cluster) -> str:
    """Checks that KFP's API server answers and is new enough, and that its tasks find the object store's settings in their namespace.

    Raises:
        CheckFailedError: one of these is not so.
    """
    if not _crd_exists(cluster, "workflows.argoproj.io"):
        raise CheckFailedError("not installed", "needed for runs from KFP only", ok=None)
    home = _kfp_namespace(cluster)
    if not home:
        raise CheckFailedError(
            f"workflows are known, but there is no service {KFP_SERVICE}", "install the API server of KFP"
        )
    health = cluster.text(f"/api/v1/namespaces/{home}/services/{KFP_SERVICE}:{KFP_PORT}/proxy/apis/v2beta1/healthz")
    version = str(health.get("tag_name") or "unknown")
    if _version_numbers(version) and _version_numbers(version) < OLDEST_KFP:
        raise CheckFailedError(f"version {version}", "upgrade it to 2.15 or newer")
    if not health.get("multi_user") and home != cluster.namespace:
        _check_object_store_settings(cluster, home)
    return f"API server {version} in namespace {home} answers"


def _kfp_namespace(cluster: Cluster) -> str:
    """Returns the namespace of KFP's API server; empty if there is none."""
    services = cluster.text("/api/v1/services", {"fieldSelector": f"metadata.name={KFP_SERVICE}"})["items"]
    return str(services[0]["metadata"]["namespace"]) if services else ""


def kfp_retries(cluster: Cluster) -> str:
    """Reads Argo's configuration and says which tasks this KFP retries, in addition to the retries inside a task.

    Argo merges its `workflowDefaults` into every workflow. KFP sets a limit and a backoff if a task asks for retries, but no retry policy
    (getTaskRetryStrategyFromInput in KFP's argocompiler/container.go). Without a policy Argo retries failures (RetryPolicyActual in Argo's
    workflow_types.go).

    Raises:
        CheckFailedError: Argo retries too much, or KFP is not installed.
    """
    home = _kfp_namespace(cluster)
    if not home:
        raise CheckFailedError("KFP is not there", "needed for runs from KFP only", ok=None)
    data = cluster.text(f"/api/v1/namespaces/{home}/configmaps/{ARGO_CONFIG}").get("data") or {}
    defaults = yaml.safe_load(data.get("workflowDefaults", "")) or {}
    strategy = ((defaults.get("spec") or {}).get("templateDefaults") or {}).get("retryStrategy") or {}
    policy = strategy.get("retryPolicy") or ("Always" if strategy.get("expression") else "OnFailure")
    if policy == "Always":
        raise CheckFailedError(
            f"retryPolicy Always in {home}/{ARGO_CONFIG} retries whole graphs, and a user's errors too",
            "set it to OnError, as KFP 2.17 ships it",
        )
    times = f"{strategy['limit']} times" if "limit" in strategy else "without a limit"
    if policy == "OnError":
        return f"a task whose pod is gone, {times}; none that failed or was evicted (OnError)"
    if policy == "OnTransientError":
        return "a task whose error Argo takes for a passing one (OnTransientError)"
    if strategy:
        return f"every task that fails, a user's error too, {times}; none whose pod is gone ({policy})"
    return "nothing, unless the platform's file sets retries: then every task that fails, a user's error too; none whose pod is gone"


def object_store_address(cluster: Cluster) -> str:
    """Compares the endpoint that tasks and drivers of this namespace use with the object stores that KFP installed.

    Raises:
        CheckFailedError: the endpoint names a service in KFP's namespace that does not exist.
    """
    endpoint = str(
        (cluster.text(f"{_config_maps(cluster.namespace)}/{OBJECT_STORE}").get("data") or {}).get("endpoint", "")
    )
    home = _kfp_namespace(cluster)
    if not home:
        return f"{endpoint}; no KFP to compare with"
    there = [item["metadata"]["name"] for item in cluster.text(f"/api/v1/namespaces/{home}/services")["items"]]
    found = [f"http://{name}.{home}:{STORE_PORT}" for name in STORES if name in there]
    host = endpoint.partition("//")[2].partition(":")[0].split(".")
    if len(host) > 1 and host[1] == home and host[0] not in there:
        fix = f"set endpoint={found[0]} in spark-operator/base/kustomization.yaml" if found else "name your store there"
        raise CheckFailedError(f"ConfigMap {OBJECT_STORE} says {endpoint}, and {home} has no service {host[0]}", fix)
    return f"{endpoint}; KFP brought {', '.join(found) or 'none that is known'}"


def _config_maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def _version_numbers(version: str) -> tuple[int, ...]:
    parts = version.lstrip("v").split(".")[:2]
    return tuple(map(int, parts)) if all(part.isdecimal() for part in parts) else ()


def _check_object_store_settings(cluster: Cluster, home: str) -> None:
    """Checks that the Secret and the ConfigMap of the object store exist in KFP's namespace, where a single-user KFP runs its tasks."""
    for kind in ("secrets", "configmaps"):
        try:
            cluster.text(f"/api/v1/namespaces/{home}/{kind}/{OBJECT_STORE}")
        except ApiException as error:
            if error.status != 404:
                raise
            raise CheckFailedError(
                f"its tasks run in namespace {home}, which has no {OBJECT_STORE} among its {kind}",
                f"apply spark-operator/ to namespace {home}, see docs/kind.md",
            ) from error


def _crd_exists(cluster: Cluster, name: str) -> bool:
    try:
        cluster.text(f"{CRD}/{name}")
    except ApiException as error:
        if error.status == 404:
            return False
        raise
    return True

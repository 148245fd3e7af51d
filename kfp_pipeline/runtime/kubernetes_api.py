"""A small client of the Kubernetes API: objects as plain dicts, one namespace, and retries while the API server is unavailable.

A run of hours must survive an upgrade of the control plane, so each request is repeated for minutes. The official client's typed API would
drop fields that it does not know, and has no types for SparkApplications; so only its connection and its credentials are used here. This
module does not know the states of a SparkApplication.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import urllib3
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from kfp_pipeline.runtime.errors import PermanentError, TemporaryError
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

Document = dict[str, Any]
Response = TypeVar("Response")
APPLICATIONS = "/apis/sparkoperator.k8s.io/v1beta2/namespaces/{namespace}/sparkapplications"
EXPERIMENTS = "/apis/kubeflow.org/v1beta1/namespaces/{namespace}/experiments"
TRIALS = "/apis/kubeflow.org/v1beta1/namespaces/{namespace}/trials"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
PODS = "/api/v1/namespaces/{namespace}/pods"
EVENTS = "/api/v1/namespaces/{namespace}/events"
CONFIG_MAPS = "/api/v1/namespaces/{namespace}/configmaps"
NAMESPACES = "/api/v1/namespaces"
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
LONGEST_SILENCE_SECONDS = 90.0
"""A watch with no event and no bookmark for this long has lost its connection."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 8.0


class ConflictError(Exception):
    """HTTP 409: an object of that name exists already, or the object has changed since it was read."""


class GoneError(Exception):
    """HTTP 410: the API server no longer has the resource version from which a watch should continue."""


class Cluster:
    """Requests to one namespace of a cluster.

    A kind is given by its path, such as `PODS` or `APPLICATIONS`.

    Attributes:
        namespace: the namespace.
        patience_seconds: how long a request is repeated while the API server is unavailable.
    """

    def __init__(self, api: client.ApiClient, namespace: str, patience_seconds: float = 300.0) -> None:
        self._api = api
        self.namespace = namespace
        self.patience_seconds = patience_seconds

    def get(self, kind: str, name: str) -> Document | None:
        """Reads an object; returns None if it does not exist."""
        return self.retry_while_unavailable(lambda: self._request("GET", f"{kind}/{name}"), missing=None)

    def list(self, kind: str, **selectors: str) -> list[Document]:
        """Lists the objects of a kind; `labelSelector=...` and `fieldSelector=...` filter them."""
        found: Document = self.retry_while_unavailable(
            lambda: self._request("GET", kind, query=selectors), missing={"items": []}
        )
        return list(found["items"])

    def create(self, kind: str, body: Document) -> Document:
        """Creates an object.

        Raises:
            ConflictError: an object of that name exists. It may be the one that this call created, if the response was lost and the
                request was repeated.
        """
        return self.retry_while_unavailable(lambda: self._request("POST", kind, body=body))

    def replace(self, kind: str, body: Document) -> Document:
        """Replaces an object that was read before.

        Raises:
            ConflictError: the object has changed since it was read.
        """
        return self.retry_while_unavailable(
            lambda: self._request("PUT", f"{kind}/{body['metadata']['name']}", body=body)
        )

    def delete(self, kind: str, name: str, uid: str = "", patience_seconds: float | None = None) -> None:
        """Deletes an object if it exists.

        Args:
            kind: path of the kind.
            name: the object's name.
            uid: delete only the object with this UID, not a newer one of the same name.
            patience_seconds: how long to repeat the request; None for the default.
        """
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.retry_while_unavailable(
                lambda: self._request("DELETE", f"{kind}/{name}", body=options),
                missing={},
                patience_seconds=patience_seconds,
            )
        except ConflictError:  # a newer object has this name, so ours is gone
            return

    def watch(self, kind: str, name: str, version: str, seconds: float) -> Iterator[tuple[str, Document]]:
        """Watches one object and yields its events: ADDED, MODIFIED, DELETED, and BOOKMARK, which carries only a resource version.

        It does not retry. The API server sends a bookmark about once a minute and before it ends the request
        (staging/src/k8s.io/apiserver/pkg/storage/cacher in Kubernetes), so a longer silence means a lost connection.

        Args:
            kind: path of the kind.
            name: the object's name.
            version: the resource version after which to start.
            seconds: after which the server ends the request.

        Raises:
            GoneError: the version is too old; read the object again, then watch from its version.
            ApiException, urllib3.exceptions.HTTPError: the request failed.
        """
        query = {
            "watch": "true",
            "fieldSelector": f"metadata.name={name}",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, round(seconds))),
        }
        try:
            for line in self._lines(kind, query, min(seconds, LONGEST_SILENCE_SECONDS) + CONNECT_SECONDS):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise GoneError(event["object"].get("message", "gone"))
                yield event["type"], event["object"]
        except ApiException as error:
            if error.status == 410:
                raise GoneError(_message_of(error)) from error
            raise

    def log(self, pod: str, container: str, since: str, *, follow: bool) -> Iterator[str]:
        """Yields the lines of a container's log, each with its timestamp in front.

        Args:
            pod: the pod's name.
            container: the container's name.
            since: timestamp of the first line to read; empty for the whole log.
            follow: whether to wait for new lines until the container or the connection ends.
        """
        query = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
        if since:
            query["sinceTime"] = since
        for line in self._lines(f"{PODS}/{pod}/log", query, READ_SECONDS if not follow else 60.0):
            yield line.decode(errors="replace")

    def text(self, path: str, query: Mapping[str, str] | None = None) -> Document:
        """Reads any other document of the API, without retries."""
        return self._request("GET", path, query=query or {})

    def post(self, path: str, body: Document) -> Document:
        """Sends a POST that creates nothing, such as an access review, without retries."""
        return self._request("POST", path, body=body)

    def retry_while_unavailable(
        self, request: Callable[[], Response], missing: Any = ..., patience_seconds: float | None = None
    ) -> Response | Any:
        """Sends a request, and repeats it with exponential backoff while the API server is unavailable.

        Args:
            request: sends the request once.
            missing: what to return for HTTP 404; left out, 404 is an error.
            patience_seconds: how long to repeat; None for the cluster's default.

        Raises:
            TemporaryError: the server stayed unavailable.
            PermanentError: the server refuses the request.
            ConflictError: the object exists already or has changed.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        give_up, pause = time.monotonic() + patience, FIRST_PAUSE_SECONDS
        while True:
            try:
                return request()
            except ApiException as error:
                if error.status == 404 and missing is not ...:
                    return missing
                if not is_transient(error):
                    raise api_error(error, self.namespace) from error
                reason: Exception = error
            except (urllib3.exceptions.HTTPError, json.JSONDecodeError) as error:
                reason = error
            if time.monotonic() + pause > give_up:
                message = (
                    f"the API server has not answered for {patience:.0f} s ({_short(reason)}); what runs goes on: repeat, "
                    "and it is taken up again"
                )
                raise TemporaryError(Failure(kind="fault", type="ApiServerAway", message=message)) from reason
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, so that not all tasks come back at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Document | None = None
    ) -> Document:
        answer = self._call(method, path, query or {}, body, (CONNECT_SECONDS, READ_SECONDS))
        document: Document = json.loads(answer.data)
        return document

    def _lines(self, path: str, query: Mapping[str, str], read_seconds: float) -> Iterator[bytes]:
        answer = self._call("GET", path, query, None, (CONNECT_SECONDS, read_seconds))
        try:
            rest = b""
            for chunk in answer.stream(65536, decode_content=False):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line for line in whole if line)
            if rest:  # the last line of a log may have no newline
                yield rest
        finally:
            answer.close()
            answer.release_conn()

    def _call(
        self, method: str, path: str, query: Mapping[str, str], body: Document | None, seconds: tuple[float, float]
    ) -> Any:
        return self._api.call_api(
            path.format(namespace=self.namespace),
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": "application/json"},
            body=body,
            auth_settings=["BearerToken"],
            _preload_content=False,
            _request_timeout=seconds,
            _return_http_data_only=True,
        )


def connect(namespace: str = "", patience_seconds: float = 300.0) -> Cluster:
    """Connects to the cluster in which this process runs, or else to the one of the kubeconfig's current context.

    Args:
        namespace: the namespace; empty for the pod's own or the context's.
        patience_seconds: how long a request is repeated while the API server is unavailable.

    Raises:
        InputError: no cluster or no namespace is configured.
    """
    settings = client.Configuration()
    if IN_CLUSTER_NAMESPACE.exists():
        config.load_incluster_config(client_configuration=settings)
        found = IN_CLUSTER_NAMESPACE.read_text(encoding="utf-8").strip()
    else:
        try:
            config.load_kube_config(client_configuration=settings)
            _, context = config.list_kube_config_contexts()
        except (config.ConfigException, OSError, yaml.YAMLError) as error:
            raise InputError(
                f"no cluster to talk to ({error}); set KUBECONFIG to the file that names your cluster"
            ) from error
        found = context["context"].get("namespace", "")
    if not namespace and not found:
        raise InputError("the kubeconfig's context names no namespace; give --namespace")
    settings.retries = False  # `retry_while_unavailable` repeats requests; urllib3 must not do so too
    return Cluster(client.ApiClient(settings), namespace or found, patience_seconds)


@contextmanager
def transient_errors_ignored() -> Iterator[None]:
    """Suppresses the errors after which a watch or a log stream is simply opened again.

    Raises:
        ApiException: the server refuses the request, for example with 401 or 403.
    """
    try:
        yield
    except (GoneError, urllib3.exceptions.HTTPError, json.JSONDecodeError):
        return
    except ApiException as error:
        # 400 is the answer to a log request while the container is not created yet; 404 and 410 are found by reading the object.
        if error.status not in (400, 404, 410) and not is_transient(error):
            raise


def is_transient(error: ApiException) -> bool:
    """Whether the request may succeed if it is repeated."""
    return error.status is None or error.status in (0, 408, 410, 429) or error.status >= 500


def api_error(error: ApiException, namespace: str) -> Exception:
    """Converts a response of the API server to one of our errors, whose message says what to do."""
    message = _message_of(error)
    if error.status == 409:
        return ConflictError(message)
    if error.status == 403 and "exceeded quota" in message:
        return TemporaryError(Failure(kind="fault", type="QuotaExceeded", message=f"namespace {namespace}: {message}"))
    advice = {
        401: "the API server does not accept the credentials; renew those of the kubeconfig",
        403: "the service account may not do this; apply spark-operator/ in this namespace, or ask who runs the cluster",
        404: "not found; check with: spark-kfp doctor",
    }.get(error.status, "the API server refuses it")
    text = f"namespace {namespace}: {message}: {advice}"
    return PermanentError(Failure(kind="input", type=f"ApiServer{error.status}", message=text))


def _message_of(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason or error.status)


def _short(error: Exception) -> str:
    return _message_of(error) if isinstance(error, ApiException) else str(error).split("\n")[0][:200]

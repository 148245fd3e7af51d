"""The API server as a runner needs it: plain documents, one namespace, and patience with a server that blinks.

Knows nothing of Spark's states; whoever asks decides what an answer means.
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
LEASES = "/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
PODS = "/api/v1/namespaces/{namespace}/pods"
EVENTS = "/api/v1/namespaces/{namespace}/events"
CONFIG_MAPS = "/api/v1/namespaces/{namespace}/configmaps"
IN_CLUSTER_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
CONNECT_SECONDS, READ_SECONDS = 5.0, 20.0
LONGEST_SILENCE_SECONDS = 90.0
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 8.0


class ConflictError(Exception):
    """An object of that name is there already, or has changed since it was read."""


class GoneError(Exception):
    """The server no longer knows the version from which a watch should go on."""


class Cluster:
    """One namespace of a cluster.

    Attributes:
        namespace: its name.
        patience_seconds: how long requests are repeated while the server is away.
    """

    def __init__(self, api: client.ApiClient, namespace: str, patience_seconds: float = 300.0) -> None:
        self._api = api
        self.namespace = namespace
        self.patience_seconds = patience_seconds

    def get(self, kind: str, name: str) -> Document | None:
        """An object, or None if it is not there."""
        return self.retry_while_unavailable(lambda: self._request("GET", f"{kind}/{name}"), missing=None)

    def list(self, kind: str, **selectors: str) -> list[Document]:
        """The objects of a kind; `labelSelector=...` and `fieldSelector=...` narrow them down."""
        found: Document = self.retry_while_unavailable(
            lambda: self._request("GET", kind, query=selectors), missing={"items": []}
        )
        return list(found["items"])

    def create(self, kind: str, body: Document) -> Document:
        """Makes an object.

        Raises:
            ConflictError: one of that name is there; it may be our own, if an answer was lost.
        """
        return self.retry_while_unavailable(lambda: self._request("POST", kind, body=body))

    def replace(self, kind: str, body: Document) -> Document:
        """Replaces an object that was read before; ConflictError if it has changed since."""
        return self.retry_while_unavailable(
            lambda: self._request("PUT", f"{kind}/{body['metadata']['name']}", body=body)
        )

    def delete(self, kind: str, name: str, uid: str = "", patience_seconds: float | None = None) -> None:
        """Deletes an object, if it is there and, with `uid`, is still the same one."""
        options: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            self.retry_while_unavailable(
                lambda: self._request("DELETE", f"{kind}/{name}", body=options),
                missing={},
                patience_seconds=patience_seconds,
            )
        except ConflictError:  # another one of that name: ours is gone
            return

    def watch(self, kind: str, name: str, version: str, seconds: float) -> Iterator[tuple[str, Document]]:
        """What happens to one object after a version, as it comes: ADDED, MODIFIED, DELETED, and BOOKMARK, which only tells a version.

        None of its errors is repeated here. The server tells a version about once a minute and before it ends the request
        (staging/src/k8s.io/apiserver/pkg/storage/cacher in Kubernetes), so a longer silence is a connection that was lost.

        Raises:
            GoneError: read the object again, then watch from its version.
            ApiException, urllib3.exceptions.HTTPError: the server blinks.
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
        """The lines of a container's log from a time on, each after its own time; it ends with the container or the connection."""
        query = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
        if since:
            query["sinceTime"] = since
        for line in self._lines(f"{PODS}/{pod}/log", query, READ_SECONDS if not follow else 60.0):
            yield line.decode(errors="replace")

    def text(self, path: str, query: Mapping[str, str] | None = None) -> Document:
        """Any other document, asked for once."""
        return self._request("GET", path, query=query or {})

    def post(self, path: str, body: Document) -> Document:
        """Asks a question that is asked by a POST, once."""
        return self._request("POST", path, body=body)

    def retry_while_unavailable(
        self, request: Callable[[], Response], missing: Any = ..., patience_seconds: float | None = None
    ) -> Response | Any:
        """Repeats a request while the server is away.

        Raises:
            TemporaryError: it stayed away.
            PermanentError: it refuses.
            ConflictError: the object is there already or has changed.
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
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - so that not all come back at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def _request(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Document | None = None
    ) -> Document:
        answer = self._call(method, path, query or {}, body, (CONNECT_SECONDS, READ_SECONDS))
        found: Document = json.loads(answer.data)
        return found

    def _lines(self, path: str, query: Mapping[str, str], read_seconds: float) -> Iterator[bytes]:
        answer = self._call("GET", path, query, None, (CONNECT_SECONDS, read_seconds))
        try:
            rest = b""
            for chunk in answer.stream(65536, decode_content=False):
                *whole, rest = (rest + chunk).split(b"\n")
                yield from (line for line in whole if line)
            if rest:  # a log may end without an end of line
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
    """The cluster that this process belongs to, or that the kubeconfig names.

    Raises:
        InputError: there is neither, or no namespace is named.
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
            raise InputError(f"no cluster to talk to ({error}); set KUBECONFIG, or use --spark='local[*]'") from error
        found = context["context"].get("namespace", "")
    if not namespace and not found:
        raise InputError("the kubeconfig's context names no namespace; give --namespace")
    settings.retries = False  # `retry_while_unavailable` repeats
    return Cluster(client.ApiClient(settings), namespace or found, patience_seconds)


@contextmanager
def transient_errors_ignored() -> Iterator[None]:
    """Lets what a watch or a log stream may meet pass: whoever reads goes back to reading the object."""
    try:
        yield
    except (GoneError, urllib3.exceptions.HTTPError, json.JSONDecodeError):
        return
    except ApiException as error:
        if error.status not in (404, 410) and not is_transient(error) and error.status != 400:
            raise


def is_transient(error: ApiException) -> bool:
    """Whether a refusal may pass by itself."""
    return error.status is None or error.status in (0, 408, 410, 429) or error.status >= 500


def api_error(error: ApiException, namespace: str) -> Exception:
    """What a refusal means to whoever asked, with the advice that goes with it."""
    message = _message_of(error)
    if error.status == 409:
        return ConflictError(message)
    if error.status == 403 and "exceeded quota" in message:
        return TemporaryError(Failure(kind="fault", type="QuotaExceeded", message=f"namespace {namespace}: {message}"))
    advice = {
        401: "the API server does not know who asks; renew the credentials of the kubeconfig",
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

"""A client of the KFP server's REST API: it sends and returns plain JSON documents and retries while the server is unavailable.

It uses `kfp_server_api`, the generated client on which `kfp.Client` is built. `kfp.Client` itself waits without a time limit, prints stack
traces while it waits, and reads sessions from ~/.config/kfp. This module knows nothing of pipelines or runs.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import kfp_server_api
import urllib3

from kfp_pipeline.runtime.errors import TemporaryError
from kfp_pipeline.settings import KfpSettings
from spark_jobs.errors import InputError
from spark_jobs.result import Failure

Document = dict[str, Any]
Answer = TypeVar("Answer")
API = "/apis/v2beta1/"
CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
FIRST_CONTACT_SECONDS = 10.0
"""How long the first request is retried; short, so that a wrong URL is reported soon."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.25, 8.0
PAGE_SIZE = 100
NAMESPACED = ("experiments", "pipelines", "runs", "recurringruns")
"""The kinds that a multi-user server lists by namespace; a version of a pipeline belongs to its pipeline instead."""
AUTHENTICATION = "set KFP_TOKEN or give --token-file FILE, or, for a session of the browser, set KFP_COOKIES"
PORT_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"


class ConflictError(Exception):
    """An object of this name exists already (HTTP 409)."""


class NotFoundError(InputError):
    """The server has no such object (HTTP 404)."""


class Server:
    """A KFP server.

    Attributes:
        url: base URL of the API and of the UI.
        namespace: profile of a multi-user server; empty for a single-user server.
        patience_seconds: how long requests are retried while the server is unavailable.
    """

    def __init__(self, settings: KfpSettings, patience_seconds: float, log_line: Callable[[str], None]) -> None:
        self._log_line = log_line
        self.url, self.namespace, self.patience_seconds = settings.url, settings.namespace, patience_seconds
        self._secrets = [value for value in (settings.token, settings.cookies) if value]
        known = kfp_server_api.Configuration(host=settings.url)
        known.ssl_ca_cert = settings.ca_file or None
        # The method `retry` retries instead. A redirect leads to a login page; it must become an error with advice and not be followed.
        known.retries = urllib3.Retry(0, redirect=False)
        if settings.token:
            known.api_key = {"authorization": settings.token}
            known.api_key_prefix = {"authorization": "Bearer"}
        self._api = kfp_server_api.ApiClient(known, cookie=settings.cookies or None)

    def get(self, path: str, **query: str) -> Document:
        """Reads one document.

        Raises:
            NotFoundError: the document does not exist.
        """
        return self.retry(lambda: self._call("GET", path, query))

    def list_all(self, path: str, key: str, query: Mapping[str, str], limit: int = 0) -> list[Document]:
        """Lists the documents of a kind, page by page.

        Args:
            path: path of the kind below the API's root.
            key: key of the list in the server's answer.
            query: further query parameters.
            limit: largest number of documents to return; 0: all.
        """
        found = list[Document]()
        pages = {**query, "page_size": str(min(limit or PAGE_SIZE, PAGE_SIZE))}
        if self.namespace and path in NAMESPACED:
            pages["namespace"] = self.namespace
        while True:
            page = self.get(path, **pages)
            found += page.get(key) or []
            if not page.get("next_page_token") or (limit and len(found) >= limit):
                return found[:limit] if limit else found
            pages["page_token"] = page["next_page_token"]

    def list_by_name(self, path: str, key: str, name: str) -> list[Document]:
        """Lists the documents of a kind that have this display name; see `list_all` for path and key."""
        return self.list_matching(path, key, "display_name", name)

    def list_matching(self, path: str, key: str, field: str, value: str) -> list[Document]:
        """Lists the documents of a kind that have this value in a field."""
        predicate = {"operation": "EQUALS", "key": field, "stringValue": value}
        # The server URL-decodes the filter twice, so it is quoted once here and once by the client.
        found = self.list_all(path, key, {"filter": quote(json.dumps({"predicates": [predicate]}))})
        return [item for item in found if item.get(field) == value]

    def create(
        self,
        path: str,
        find_existing: Callable[[], Document | None],
        body: Document | None = None,
        query: Mapping[str, str] | None = None,
        file: Path | None = None,
    ) -> Document:
        """Creates an object exactly once.

        If the answer to a first request was lost, or the server answers that the name exists, the object may have been created all the
        same. Then `find_existing` looks for it.

        Args:
            path: path of the kind below the API's root.
            find_existing: returns the object if it exists.
            body: the document to send.
            query: query parameters.
            file: file to upload.

        Raises:
            ConflictError: the name is taken by another object than the one that `find_existing` looks for.
        """
        sent = False

        def make() -> Document:
            nonlocal sent
            found = find_existing() if sent else None
            sent = True
            return found or self._call("POST", path, query or {}, body, file)

        try:
            return self.retry(make)
        except ConflictError:
            if found := find_existing():
                return found
            raise

    def call(self, path: str, method: str = "POST") -> Document:
        """Sends a request that may safely arrive twice: terminate, enable, disable, delete."""
        return self.retry(lambda: self._call(method, path, {}))

    def retry(self, request: Callable[[], Answer], patience_seconds: float | None = None) -> Answer:
        """Sends a request, and retries with backoff while the server is unavailable.

        Args:
            request: sends the request and returns the answer.
            patience_seconds: how long to retry; None: the server's `patience_seconds`.

        Raises:
            TemporaryError: the server was unavailable for all that time.
            InputError: the server refuses the request.
            ConflictError: an object of this name exists.
        """
        patience = self.patience_seconds if patience_seconds is None else patience_seconds
        give_up, pause, reported = time.monotonic() + patience, FIRST_PAUSE_SECONDS, False
        while True:
            try:
                return request()
            except kfp_server_api.ApiException as error:
                reason = self._server_message(error)
                if not (error.status in (408, 429) or error.status >= 500):
                    # Not chained: the original error shows the request's headers, and so the token.
                    raise self._refusal(error, reason) from None
            except urllib3.exceptions.HTTPError as error:
                reason = self._connection_problem(error)
            if time.monotonic() + pause > give_up:
                message = (
                    f"the KFP server {self.url} has not answered for {patience:.0f} s ({reason}); check --kfp; "
                    f"to reach a server in a cluster: {PORT_FORWARD}"
                )
                raise TemporaryError(Failure(kind="fault", type="KfpServerAway", message=message)) from None
            if not reported and patience > FIRST_CONTACT_SECONDS:
                self._log_line(f"the KFP server does not answer ({reason}); asking again for {patience:.0f} s")
            reported = True
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, so that not all clients retry at once
            pause = min(2 * pause, LONGEST_PAUSE_SECONDS)

    def check(self) -> None:
        """Checks that a KFP server answers and that a namespace is given if the server needs one.

        Raises:
            InputError: the server is a multi-user one, and no namespace is given.
        """
        patience = min(FIRST_CONTACT_SECONDS, self.patience_seconds)
        answer = self.retry(lambda: self._call("GET", "healthz", {}), patience)
        if answer.get("multi_user") and not self.namespace:
            raise InputError(f"{self.url} has one namespace for each user; give yours with --namespace NAME")

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: Document | None = None,
        file: Path | None = None,
    ) -> Document:
        kind = "multipart/form-data" if file else "application/json"
        answer = self._api.call_api(
            API + path,
            method,
            query_params=list(query.items()),
            header_params={"Accept": "application/json", "Content-Type": kind},
            body=body,
            files={"uploadfile": str(file)} if file else {},
            response_type="object",
            auth_settings=["Bearer"],
            _request_timeout=(CONNECT_SECONDS, READ_SECONDS),
            _return_http_data_only=True,
        )
        if not isinstance(answer, dict):
            raise InputError(f"{self.url} answers, but not as a KFP server does; check --kfp, or {AUTHENTICATION}")
        return answer

    def _refusal(self, error: Any, message: str) -> Exception:
        if error.status == 409:
            return ConflictError(message)
        if error.status == 404:
            return NotFoundError(f"the KFP server {self.url}: {message}; check --kfp, --namespace and the name")
        advice = {
            401: f"it needs valid credentials; {AUTHENTICATION}",
            403: "this user may not do this; give another --namespace, or ask the administrator of the server; "
            f"to be another user, {AUTHENTICATION}",
        }.get(error.status, "it refuses the request")
        if 300 <= error.status < 400:
            advice = f"it wants a login; {AUTHENTICATION}"
        return InputError(f"the KFP server {self.url}: {message}: {advice}")

    def _server_message(self, error: Any) -> str:
        """Returns the server's own error message; the API and the upload endpoint use different fields for it."""
        try:
            said = json.loads(error.body)
            text = next(str(said[name]) for name in ("message", "error_message", "error") if said.get(name))
        except (TypeError, ValueError, AttributeError, StopIteration):
            text = f"{error.status} {error.reason or ''}".strip()
        return self._without_secrets(text)

    def _connection_problem(self, error: Exception) -> str:
        cause = getattr(error, "reason", None) or error
        text = self._without_secrets(str(cause))
        if isinstance(cause, urllib3.exceptions.SSLError):
            advice = "give --ca-file FILE with the certificate that signed the server's, or http:// if it has none"
            raise InputError(f"{self.url}: {text}; {advice}") from None
        return text

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return " ".join(text.split())[:300]


def connect(settings: KfpSettings, patience_seconds: float, log_line: Callable[[str], None] = lambda _: None) -> Server:
    """Connects to the KFP server that the settings name.

    Args:
        settings: address and credentials.
        patience_seconds: how long requests are retried while the server is unavailable.
        log_line: prints a line for the user who waits.

    Raises:
        InputError: no server is named, or the server refuses the request.
        TemporaryError: the server does not answer.
    """
    if not settings.url:
        raise InputError("which KFP server? Give --kfp URL or set SPARK_KFP_KFP, such as http://localhost:8080")
    if settings.ca_file and not Path(settings.ca_file).is_file():
        raise InputError(f"--ca-file={settings.ca_file}: no such file")
    server = Server(settings, patience_seconds, log_line)
    server.check()
    return server

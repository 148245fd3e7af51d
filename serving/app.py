"""The server's application: predictions by a short way of its own, everything else by FastAPI.

`Application` stands in front of FastAPI: it checks key and rate, answers the requests that score rows, counts and logs every request.
`make_api` has the routes that describe: models, health, metrics, OpenAPI, and the form.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI

from serving.bodies import (
    RequestError,
    answer_v1,
    answer_v2,
    read_json,
    rows_of_v1,
    rows_of_v2,
    score_rows,
)
from serving.capture import Capture
from serving.champion import Champion
from serving.drift_results import DriftResults
from serving.limits import CallerGoneError, Limits, Receive
from serving.metrics import Metrics
from serving.model_source import ServedModel
from serving.request_log import error_without_values, request_id
from serving.routes import make_api
from serving.scorer import Score
from serving.settings import ServerSettings

SCORING = re.compile(
    r"/v1/models/(?P<one>[^/:]+):(?P<verb>predict|explain)|/v2/models/(?P<two>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer"
).fullmatch
OPEN = frozenset(["/", "/form.css", "/form.js", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"])
"""What may be read without the API key: none of it tells anything of a customer, and probes and Prometheus have no key."""
MANY_ROWS = 200
"""A request of more rows is scored in a thread, so that others need not wait for it."""
MOST_EXPLAINED = 100
"""An ablation scores a row once for each of its columns."""
CALLER_GONE = 499
"""The status by which nginx, too, counts a request whose caller left before the answer."""
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
log = logging.getLogger("serving.requests")


class Application:
    """The ASGI application (https://asgi.readthedocs.io/en/latest/specs/www.html)."""

    def __init__(
        self,
        settings: ServerSettings,
        champion: Champion,
        capture: Capture | None = None,
        drift: DriftResults | None = None,
    ) -> None:
        self.settings, self.champion, self.capture = settings, champion, capture
        self.metrics, self.limits = Metrics(capture, drift), Limits(settings)
        self.api: FastAPI = make_api(champion, self.metrics)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, and always says how it went in the log and the metrics."""
        if scope["type"] != "http":
            await self.api(scope, receive, send)
            return
        request = Request(scope, send)
        try:
            await self._answer(request, receive)
        except RequestError as error:
            request.error = error.kind
            self.metrics.rejected[error.kind] += 1
            await request.answer(error.status, error.body())
        except CallerGoneError:
            request.status = CALLER_GONE
        except Exception as error:  # what a caller can cause is refused above, so this is a fault of the program
            log.error("fault", extra={"request_id": request.id, **error_without_values(error, error.__traceback__)})
            request.error = "fault"
            await request.answer(500, {"error": f"the server failed; its log says more under {request.id}"})
        finally:
            seconds = time.perf_counter() - request.began
            self.metrics.count_request(request.route, request.status, seconds)
            request.log(seconds)

    async def _answer(self, request: Request, receive: Receive) -> None:
        path = request.scope["path"]
        if path not in OPEN:
            self.limits.check_key(request.headers)
        scoring = SCORING(path)
        if scoring is None:
            await self.api(request.scope, receive, request.passing_on())
            return
        verb = scoring["verb"] or "infer"
        request.route = f"v1:{verb}" if scoring["one"] else "v2:infer"
        if request.scope["method"] != "POST":
            raise RequestError(405, "method", f"{request.route} wants POST")
        self.limits.check_rate()
        body = await self.limits.read_body(request.headers, receive)
        document = read_json(body)
        model = self._model(scoring["one"] or scoring["two"], scoring["version"])
        request.version = model.version
        rows = (rows_of_v1 if scoring["one"] else rows_of_v2)(document, self.settings.max_rows)
        request.rows = len(rows)
        answer = _explain if verb == "explain" else _score
        if len(rows) > MANY_ROWS:
            answered, scores = await asyncio.to_thread(answer, model, rows, document, scoring["one"] is not None)
        else:
            answered, scores = answer(model, rows, document, scoring["one"] is not None)
        self.metrics.count_scores(model, scores)
        if self.capture and verb != "explain":
            self.capture.add(model, rows, scores)
        await request.answer(200, answered)

    def _model(self, name: str, version: str | None) -> ServedModel:
        if name != self.champion.name:
            raise RequestError(
                404, "model", f"there is no model of this name; the one served here is {self.champion.name!r}"
            )
        model = self.champion.version(version) if version else self.champion.choose()
        if model is None and version:
            raise RequestError(404, "version", "this version is neither champion nor canary")
        if model is None:
            raise RequestError(503, "not_ready", self.champion.absence())
        return model


class Request:
    """One request: what its answer and its line in the log need."""

    def __init__(self, scope: Scope, send: Send) -> None:
        self.began = time.perf_counter()
        self.scope, self._send = scope, send
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.id = request_id(self.headers)
        self.route, self.status, self.error, self.version, self.rows = "other", 0, "", "", 0

    async def answer(self, status: int, document: dict[str, Any]) -> None:
        """Sends an answer of JSON, unless one is on its way already."""
        if self.status:
            return
        self.status = status
        body = json.dumps(document).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", self.id.encode()),
        ]
        if self.version:
            headers.append((b"x-model-version", self.version.encode()))
        headers += EXTRA_HEADERS.get(status, [])
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    def passing_on(self) -> Send:
        """Returns the function by which FastAPI sends its answer; it notes the status and adds the request's id."""

        async def send(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                route = self.scope.get("route")
                self.route = getattr(route, "path", "other")
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            await self._send(message)

        return send

    def log(self, seconds: float) -> None:
        fields: dict[str, Any] = {"request_id": self.id, "route": self.route, "status": self.status}
        fields["ms"] = round(1000 * seconds, 3)
        if self.rows:
            fields |= {"rows": self.rows, "model_version": self.version}
        if self.error:
            fields["error"] = self.error
        if self.status < 400 and self.route in QUIET:
            return
        log.info("request", extra=fields)


QUIET = ("/v2/health/live", "/v2/health/ready", "/metrics")
"""Probes and scrapes that went well would be most of the log."""
EXTRA_HEADERS: dict[int, list[tuple[bytes, bytes]]] = {
    401: [(b"www-authenticate", b"Bearer")],
    405: [(b"allow", b"POST")],
    429: [(b"retry-after", b"1")],
    503: [(b"retry-after", b"2")],
}


def _score(model: ServedModel, rows: Any, document: dict[str, Any], v1: bool) -> tuple[dict[str, Any], list[Score]]:
    scores = score_rows(model, rows)
    return answer_v1(model, scores) if v1 else answer_v2(model, scores, document), scores


def _explain(model: ServedModel, rows: Any, document: dict[str, Any], v1: bool) -> tuple[dict[str, Any], list[Score]]:
    """Scores and explains rows; the explanation stands beside each prediction."""
    if len(rows) > MOST_EXPLAINED:
        raise RequestError(413, "rows", f"{len(rows)} rows to explain in one request; send 1 to {MOST_EXPLAINED}")
    answer, scores = _score(model, rows, document, v1)
    for row, prediction in zip(rows, answer["predictions"], strict=True):
        prediction["explanation"] = asdict(model.explainer.explain(row))
    return answer, scores

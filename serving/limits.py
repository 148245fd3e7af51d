"""Whom the server answers, and how much: the API key, the rate of requests, the size and the time of a body."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from serving.bodies import RequestError
from serving.settings import ServerSettings

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
BURST_SECONDS = 10
"""So many seconds' worth of requests may come at once."""


class CallerGoneError(Exception):
    """The caller has closed the connection before his request was whole."""


class Limits:
    """The limits of one server process."""

    def __init__(self, settings: ServerSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._key = settings.api_key.encode()
        self._rate = settings.requests_per_second
        self._tokens, self._filled_at = max(self._rate * BURST_SECONDS, 1.0), clock()

    def check_key(self, headers: Mapping[bytes, bytes]) -> None:
        """Checks the API key, if there is one.

        Raises:
            RequestError: the caller sends none, or another one.
        """
        if not self._key:
            return
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given = token.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if not hmac.compare_digest(given, self._key):
            raise RequestError(401, "key", "this server wants an API key: send `Authorization: Bearer KEY`")

    def check_rate(self) -> None:
        """Takes one request off what may come now.

        Raises:
            RequestError: there were too many requests.
        """
        if not self._rate:
            return
        now = self._clock()
        full = max(self._rate * BURST_SECONDS, 1.0)
        self._tokens = min(full, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens < 1:
            raise RequestError(429, "rate", f"more than {self._rate:g} requests a second; try again in a moment")
        self._tokens -= 1

    async def read_body(self, headers: Mapping[bytes, bytes], receive: Receive) -> bytes:
        """Reads the body of a request of JSON.

        Raises:
            RequestError: it is no JSON, is too long or comes too slowly.
            CallerGoneError: the caller is gone.
        """
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if kind != b"application/json" or headers.get(b"content-encoding", b"identity") != b"identity":
            raise RequestError(415, "content_type", "send JSON, uncompressed, with `Content-Type: application/json`")
        most = self._settings.max_body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise self._too_long()
        body = b""
        try:
            async with asyncio.timeout(self._settings.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise CallerGoneError
                    body += bytes(message.get("body", b""))
                    if len(body) > most:
                        raise self._too_long()
                    if not message.get("more_body", False):
                        return body
        except TimeoutError:
            seconds = self._settings.body_seconds
            raise RequestError(408, "slow", f"the body took longer than {seconds:g} s to arrive") from None

    def _too_long(self) -> RequestError:
        return RequestError(413, "body", f"the body is longer than {self._settings.max_body_bytes} bytes")

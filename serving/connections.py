"""Bounds what a connection may cost: the size and the time of a request's head, and how many connections there are.

A head is the request line and the headers. With httptools uvicorn has no such bounds (uvicorn/protocols/http/httptools_impl.py), and
httptools joins the parts of a header in a time that grows with the square of its length (httptools/parser/parser.pyx). The size of
a body and its time are those of `serving.limits`.
"""

from __future__ import annotations

import asyncio
import json
import re
from functools import partial
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.metrics import Metrics
from serving.settings import ServerSettings

MOST_HEAD_BYTES = 32 << 10
"""Largest head; that of nginx, too (large_client_header_buffers)."""

UPGRADE = re.compile(rb"(?i)(?<=\r\n)upgrade:")


class BoundedProtocol(HttpToolsProtocol):
    """One connection. The way of a usual request, head and body in one piece, has one comparison more than uvicorn's own."""

    def __init__(self, *args: Any, settings: ServerSettings, metrics: Metrics, **more: Any) -> None:
        super().__init__(*args, **more)
        self._settings, self._metrics = settings, metrics
        self._unused = 0  # bytes since the last whole head or part of a body: a part of a head, or trailers
        self._body_came = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_of_head = False
        self._unread: asyncio.TimerHandle | None = None

    @property
    def waits(self) -> bool:
        """Whether no request of this connection is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a connection; if there are too many, one that waits makes room, first one without any request."""
        super().connection_made(transport)
        self._limit_wait()
        if len(self.connections) <= self._settings.max_connections:
            return
        others: list[Any] = [each for each in self.connections if each is not self]
        waiting = [each for each in others if each.waits and not each.transport.get_write_buffer_size()]
        if not waiting:
            self._refuse(503, "connections", f"more than {self._settings.max_connections} connections; try again")
            return
        left = min(waiting, key=lambda each: each.cycle is not None)
        self.connections.discard(left)
        left.transport.abort()
        self._metrics.rejected["connections"] += 1

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_timer()
        if self._unread:
            self._unread.cancel()

    def data_received(self, data: bytes) -> None:
        if b"pgrade" in data and self.waits and not self._unused:
            data = _without_upgrade(data)
        room = MOST_HEAD_BYTES - self._unused
        if len(data) > room and self.waits:
            self.data_received(data[:room])
            if not self.transport.is_closing():
                self.data_received(data[room:])
            return
        cycle, self._body_came = self.cycle, False
        super().data_received(data)
        if self.cycle is not cycle or self._body_came:  # a head is whole, or a part of a body is there
            self._unused = 0
        else:
            self._unused += len(data)
            if self._unused >= MOST_HEAD_BYTES:
                self._refuse(431, "headers", f"the headers are longer than {MOST_HEAD_BYTES} bytes")
        if self._timer and self.cycle is not cycle:
            self._stop_timer()
        if self.cycle is None or self.cycle.response_complete or "method" not in self.scope:
            self._limit_wait()

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        super().on_body(body)

    def _unsupported_upgrade_warning(self) -> None:
        """Says nothing: uvicorn would advise to install a library of WebSockets, which this server does not speak."""

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread:
            self._unread.cancel()

    def timeout_keep_alive_handler(self) -> None:
        """Ends an idle connection, and also one whose caller has not read the answer."""
        self.transport.abort()

    def _limit_wait(self) -> None:
        """Sets the end of the wait for a head: a short one if it has begun, else that of an idle connection. More bytes do not move it."""
        in_head = self.scope is not None and "method" not in self.scope
        if self._timer and self._timer_of_head == in_head:
            return
        self._stop_timer()
        self._timer_of_head = in_head
        if in_head:
            self._timer = self.loop.call_later(self._settings.body_seconds, self._end_of_head)
        else:
            self._timer = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _end_of_head(self) -> None:
        self._timer = None
        if self.waits:
            self._refuse(408, "slow", f"the headers took longer than {self._settings.body_seconds:g} s to arrive")
        else:
            self._limit_wait()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, kind: str, text: str) -> None:
        """Answers a request that has not come to the application, and closes the connection."""
        if not self.waits:  # in the middle of another answer
            self.transport.abort()
        elif not self.transport.is_closing():
            body = json.dumps({"error": text}).encode()
            line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            self.transport.write(f"{line}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
            self.transport.close()
        self._metrics.rejected[kind] += 1


def _without_upgrade(data: bytes) -> bytes:
    """Renames the header of a head that offers another protocol, as Java's client does; httptools would take the body for that protocol."""
    head, end, body = data.partition(b"\r\n\r\n")
    return UPGRADE.sub(b"no-offer:", head) + end + body


def bounded_protocol(settings: ServerSettings, metrics: Metrics) -> Any:
    """Returns what uvicorn calls for each new connection."""
    return partial(BoundedProtocol, settings=settings, metrics=metrics)

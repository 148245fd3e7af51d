"""Runs the application by uvicorn, and ends it without a lost request: by a drain.

A caller that keeps its connection may send the next request at the very moment the server closes it, and has no answer then. So after
SIGTERM the server goes on for a while, and every answer says `Connection: close`: each caller closes its connection itself, and
its next one goes to another server. Kubernetes takes a pod that ends out of its Service meanwhile.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import socket
import sys
import time
from typing import Any

import uvicorn

from serving.app import Application
from serving.capture import Capture
from serving.champion import Champion
from serving.connections import bounded_protocol
from serving.drift_results import DriftResults
from serving.settings import ServerSettings, SettingsError

KEEP_ALIVE_SECONDS = 75
"""Longer than load balancers keep an idle connection, so that they never send a request into one that is just closing."""
BACKLOG = 2048
THREAD_SECONDS = 0.0005
"""How long a thread may keep Python's lock while another one waits. With Python's own 5 ms a new champion that is being read, or a request
of many rows, would hold up each request beside it by that much."""
CLOSE = (b"connection", b"close")
log = logging.getLogger("serving")


class DrainingServer(uvicorn.Server):
    """A server that asks its callers to leave before it stops listening."""

    def __init__(self, config: uvicorn.Config, drain_seconds: float) -> None:
        super().__init__(config)
        self._drain_seconds = drain_seconds

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Drains, then stops; a second SIGINT stops at once."""
        log.info("draining", extra={"seconds": self._drain_seconds})
        # Each request takes the headers of all answers from here when it comes (RequestResponseCycle in uvicorn/protocols/http).
        self.server_state.default_headers = [*self.server_state.default_headers, CLOSE]
        end = time.monotonic() + self._drain_seconds
        while time.monotonic() < end and not self.force_exit:
            await asyncio.sleep(0.1)
        await super().shutdown(sockets)


def bind(host: str, port: int) -> list[socket.socket]:
    """Takes the port at each address of the host. It is done here, as uvicorn tells a failure in its log alone.

    Raises:
        SettingsError: the host is unknown or not one of this machine, or the port is taken or not allowed.
    """
    bound: list[socket.socket] = []
    absent: OSError | None = None
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            try:
                bound.append(_bound(socket.socket(family, kind, protocol), address))
            except OSError as error:
                if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                    raise
                absent = error  # such as ::1 of localhost where there is no IPv6
        if absent and not bound:
            raise absent
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "this is no name of a host"
        raise SettingsError(f"cannot listen on {host}, port {port}: {reason}; give another --host or --port") from error
    return bound


def _bound(found: socket.socket, address: Any) -> socket.socket:
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if found.family == socket.AF_INET6:
            found.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        found.bind(address)
    except OSError:
        found.close()
        raise
    return found


def serve(
    settings: ServerSettings,
    sockets: list[socket.socket],
    champion: Champion,
    capture: Capture | None,
    drift: DriftResults,
) -> None:
    """Answers requests on bound sockets until SIGTERM or SIGINT."""
    application = Application(settings, champion, capture, drift)
    config = uvicorn.Config(
        application,
        http=bounded_protocol(settings, application.metrics),
        ws="none",  # there is no route of it, and its connections would not be bounded
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing here asks for the caller's address
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    log.info(
        "serving",
        extra={
            "host": settings.host,
            "port": sockets[0].getsockname()[1],
            "model": champion.name,
            "callers": "need the API key" if settings.api_key else "anyone: no API key is set, so none is asked for",
        },
    )
    sys.setswitchinterval(THREAD_SECONDS)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: a full collection of it would stop all requests for tens of milliseconds
    DrainingServer(config, settings.drain_seconds).run(sockets)

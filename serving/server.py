"""Runs the application by uvicorn, and ends it without a lost request: by a drain.

A caller that keeps its connection may send the next request at the very moment the server closes it, and has no answer then. So after
SIGTERM the server goes on for a while, and every answer says `Connection: close`: each caller closes its connection itself, and
its next one goes to another server. Kubernetes takes a pod that ends out of its Service meanwhile.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import sys
import time

import uvicorn

from serving.app import Application
from serving.capture import Capture
from serving.champion import Champion
from serving.connections import bounded_protocol
from serving.drift_results import DriftResults
from serving.settings import ServerSettings

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


def serve(settings: ServerSettings, champion: Champion, capture: Capture | None, drift: DriftResults) -> None:
    """Answers requests until SIGTERM or SIGINT."""
    application = Application(settings, champion, capture, drift)
    config = uvicorn.Config(
        application,
        http=bounded_protocol(settings, application.metrics),
        ws="none",
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing here asks for the caller's address
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    log.info("serving", extra={"host": settings.host, "port": settings.port, "model": champion.name})
    sys.setswitchinterval(THREAD_SECONDS)
    gc.collect()
    gc.freeze()  # what is loaded by now stays: a full collection of it would stop all requests for tens of milliseconds
    DrainingServer(config, settings.drain_seconds).run()

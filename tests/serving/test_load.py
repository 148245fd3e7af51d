"""The load of the benchmark counts as failed what is no good answer."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from benchmarks.serving import CONNECTIONS, Load, drive

GOOD = b'{"predictions": []}'


def answer(status: int, version: str, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nx-model-version: {version}\r\n\r\n"
    return head.encode() + body


@contextmanager
def serve(make_answer: Callable[[int], bytes]) -> Iterator[int]:
    """Answers the n-th request with `make_answer(n)`; an empty answer closes the connection."""
    numbers = iter(range(1_000_000))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while self.request.recv(1 << 16):
                sent = make_answer(next(numbers))
                if not sent:
                    return
                self.request.sendall(sent)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"", "a connection that was closed"),
        (answer(503, "one", GOOD), "a status that is not 200"),
        (answer(200, "three", GOOD), "a version that is none of the two"),
        (answer(200, "one", b"{}"), "no prediction"),
    ],
)
def test_each_kind_of_bad_answer_is_a_failure(bad: bytes, why: str) -> None:
    load = Load([b"x"], 0.1, rate=200)
    with serve(lambda number: bad if number in (3, 5) else answer(200, "one", GOOD)) as port:
        drive(load, ["one", "two"], port)
    assert load.failures == 2, why
    assert len(load.times) + (2 if bad == b"" else 0) > 5


def test_the_time_of_a_request_counts_from_when_it_was_due() -> None:
    stopped = threading.Event()

    def slow_once(number: int) -> bytes:
        if number < CONNECTIONS:
            stopped.wait(0.2)
        return answer(200, "one" if number % 2 else "two", GOOD)

    load = Load([b"x"], 0.3, rate=400)
    with serve(slow_once) as port:
        drive(load, ["one", "two"], port)
    assert sum(each > 0.05 for each in load.times) > 2 * CONNECTIONS
    assert load.failures == 0
    assert load.switches > 0
    assert sum(load.answers.values()) == len(load.times)

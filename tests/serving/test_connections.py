"""The bounds of a connection, with callers that do not behave: endless or slow headers, and far too many connections."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server_process import ROW, Start, request

from serving.connections import MOST_HEAD_BYTES

PREDICT = "/v1/models/model:predict"
HEAD = f"POST {PREDICT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\n"


@pytest.fixture
def port(start: Start, tmp_path: Path, scorecard: dict[str, Any]) -> int:
    (tmp_path / "scorecard.json").write_text(json.dumps(scorecard))
    return start(f"--scorecard={tmp_path / 'scorecard.json'}", body_seconds="0.5", max_connections="5")[1]


@contextlib.contextmanager
def caller(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as found:
        yield found


def status_of(connection: socket.socket) -> int:
    answer = http.client.HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def everything(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(1 << 16):
            found += part
    return found


def test_headers_without_an_end_are_refused_at_the_limit(port: int) -> None:
    for begin, more in ((LIVE + b"X-A: ", b"a"), (LIVE, b"X-A: b\r\n"), (b"GET /", b"a"), (b"", b"\r\n")):
        with caller(port) as connection:
            connection.sendall((begin + more * MOST_HEAD_BYTES)[:MOST_HEAD_BYTES])
            assert everything(connection)[:13] == b"HTTP/1.1 431 ", begin
    assert 'rejected_total{kind="headers"} 4' in request(port, "GET", "/metrics")[1]


def test_headers_of_a_size_are_taken_or_not_however_they_come(port: int) -> None:
    for size, status in ((30_000, b"200"), (33_000, b"431"), (200_000, b"431")):
        with caller(port) as connection:
            with contextlib.suppress(OSError):
                connection.sendall(LIVE + b"X-A: " + b"a" * size + b"\r\nConnection: close\r\n\r\n")
            assert everything(connection)[9:12] == status


@pytest.mark.parametrize("pieces", ["one", "head and body"])
def test_an_offer_of_http_2_is_passed_over_as_java_makes_it_with_each_first_request(port: int, pieces: str) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    offer = "Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAA\r\nUpgrade: h2c\r\n"
    head = f"{HEAD}Content-Length: {len(body)}\r\n{offer}\r\n".encode()
    with caller(port) as connection:
        for part in [head + body] if pieces == "one" else [head, body]:
            connection.sendall(part)
            time.sleep(0.1)
        assert status_of(connection) == 200
        connection.sendall(LIVE + b"\r\n")
        assert status_of(connection) == 200


def test_endless_trailers_end_the_connection(port: int) -> None:
    for kind in (b"application/json", b"text/plain"):  # the answer waits for the body's end, or comes at once
        with caller(port) as connection:
            head = HEAD.encode().replace(b"application/json", kind) + b"Transfer-Encoding: chunked\r\n\r\n"
            connection.sendall(head + b"1\r\n{\r\n0\r\nX-A: ")
            sent = 0
            with contextlib.suppress(OSError):
                while sent < 20 << 20:
                    connection.sendall(b"a" * 10_000)
                    sent += 10_000
            assert sent < 10 << 20  # what the kernels' buffers hold
    assert 'rejected_total{kind="headers"} 2' in request(port, "GET", "/metrics")[1]


def test_slow_headers_are_refused_in_time(port: int) -> None:
    began = time.monotonic()
    with caller(port) as connection:
        connection.sendall(LIVE + b"X-A: ")
        while not select.select([connection], [], [], 0.05)[0]:
            connection.sendall(b"a")
        assert everything(connection)[:13] == b"HTTP/1.1 408 "
    assert 0.4 < time.monotonic() - began < 3


def test_a_kept_connection_has_the_time_anew_for_each_request(port: int) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    whole = f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with caller(port) as connection:
        for _ in range(3):
            connection.sendall(whole[:20])
            time.sleep(0.15)
            connection.sendall(whole[20:-5])
            time.sleep(0.15)
            connection.sendall(whole[-5:])
            assert status_of(connection) == 200
        connection.sendall(whole * 3)  # pipelined
        found = b""
        while found.count(b'"model_version"') < 3 or found[-1:] != b"}":
            found += connection.recv(4096)
        time.sleep(0.6)
        connection.sendall(whole)
        assert status_of(connection) == 200


def test_a_body_far_larger_than_the_headers_may_be_is_read(port: int) -> None:
    status, answer = request(port, "POST", PREDICT, {"instances": [ROW] * 9000})
    assert (status, len(answer["predictions"])) == (200, 9000)
    assert request(port, "POST", PREDICT, {"instances": ["x" * 1000] * 9000})[0] == 413


def test_one_connection_more_takes_the_place_of_a_waiting_one(port: int) -> None:
    with contextlib.ExitStack() as stack:
        used = stack.enter_context(caller(port))
        used.sendall(LIVE + b"\r\n")
        assert status_of(used) == 200
        for _ in range(20):
            stack.enter_context(caller(port))
        assert request(port, "GET", "/v2/health/live")[0] == 200
        used.sendall(LIVE + b"\r\n")
        assert status_of(used) == 200


def test_no_request_in_progress_is_cut_off_for_a_new_connection(port: int) -> None:
    body = json.dumps({"instances": [ROW]}).encode()
    with contextlib.ExitStack() as stack:
        busy = [stack.enter_context(caller(port)) for _ in range(5)]
        for each in busy:
            each.sendall(f"{HEAD}Content-Length: {len(body)}\r\n\r\n".encode() + body[:-1])
        time.sleep(0.1)
        with caller(port) as more:
            assert everything(more).startswith(b"HTTP/1.1 503 ")
        for each in busy:
            each.sendall(body[-1:])
            assert status_of(each) == 200

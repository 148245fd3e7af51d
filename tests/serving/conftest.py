"""A registry as design fixes it, written by hand, and a caller of the application that needs no server."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from spark_jobs import cells

sys.path.insert(0, str(Path(__file__).parent))  # so that tests here can `from server_process import request`
from server_process import start  # noqa: F401 - a fixture

SPECIFICATION = """
[label]
name = "bought"
positive = "yes"
[columns]
numeric = ["age", "income"]
categorical = ["kind"]
dropped = ["note"]
[limits]
age = [18, 120]
"""
SCORECARD: dict[str, Any] = {
    "scorecard_version": 3,
    "model": "logistic regression",
    "form": "linear",
    "labels": ["no", "yes"],
    "threshold": 0.5,
    "intercepts": [-1.0],
    "coefficients": [[0.02, 0.001, -1.5, 0.25]],
    "numeric": [
        {"name": "age", "mean": 40.0, "indicator": False, "center": 0.0, "scale": 1.0, "splits": []},
        {"name": "income", "mean": 500.0, "indicator": False, "center": 0.0, "scale": 1.0, "splits": []},
    ],
    "cells": cells.definition(),
    "categorical": [{"name": "kind", "values": ["common", "rare"], "numbers": "whole", "booleans": ["false", "true"]}],
    "features": [
        {"column": "age", "kind": "numeric", "category": ""},
        {"column": "income", "kind": "numeric", "category": ""},
        {"column": "kind", "kind": "category", "category": "rare"},
        {"column": "kind", "kind": "other", "category": ""},
    ],
    "specification": SPECIFICATION,
}
PROFILE = {
    "columns": [{"name": "age", "role": "numeric", "min": 18.0, "max": 95.0}, {"name": "kind", "role": "categorical"}]
}
ROW = {"age": 30, "income": 700, "kind": "rare"}


@pytest.fixture
def scorecard() -> dict[str, Any]:
    return json.loads(json.dumps(SCORECARD))


@pytest.fixture
def row() -> dict[str, Any]:
    return dict(ROW)


class Registry:
    """Writes versions and the pointer of the model `bank`."""

    def __init__(self, root: Path) -> None:
        self.root, self.moves = root, 0

    def add(
        self, version: str, scorecard: dict[str, Any], *, examples: Any = None, files: dict[str, bytes] | None = None
    ) -> Path:
        folder = self.root / "bank" / "versions" / version
        folder.mkdir(parents=True)
        contents = {"scorecard.json": json.dumps(scorecard).encode(), "profile.json": json.dumps(PROFILE).encode()}
        contents |= {"examples.json": json.dumps(examples).encode()} if examples is not None else {}
        contents |= files or {}
        listed = [
            {"path": path, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in contents.items()
        ]
        for path, content in contents.items():
            (folder / path).write_bytes(content)
        document = {"registry_version": 1, "name": "bank", "version": version, "files": listed}
        (folder / "version.json").write_text(json.dumps(document))
        return folder

    def point(self, version: str, canary: dict[str, Any] | None = None) -> None:
        self.moves += 1
        document = {
            "registry_version": 1,
            "name": "bank",
            "version": version,
            "move": self.moves,
            "canary": canary,
            "history": [],
        }
        new = self.root / "bank" / f".champion.{self.moves}"
        new.write_text(json.dumps(document))
        new.rename(self.root / "bank" / "champion.json")


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    (tmp_path / "registry" / "bank").mkdir(parents=True)
    return Registry(tmp_path / "registry")


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


Call = Callable[..., Answer]


@pytest.fixture
def call() -> Call:
    """A caller of an ASGI application, which sends one request and returns its answer."""

    def run(
        app: Any,
        method: str,
        path: str,
        document: Any = None,
        *,
        headers: dict[str, str] | None = None,
        chunks: Any = None,
    ) -> Answer:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        given = {"content-type": "application/json", **(headers or {})}
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "server": ("test", 80),
            "client": ("test", 1),
            "headers": [(name.encode(), text.encode()) for name, text in given.items()],
        }
        incoming = list(chunks) if chunks is not None else [{"type": "http.request", "body": body, "more_body": False}]
        sent: list[Any] = []

        async def receive() -> Any:
            if not incoming:
                await asyncio.sleep(3600)
            return incoming.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        asyncio.run(app(scope, receive, send))
        if not sent:
            return Answer(0, {}, b"")
        fields = {name.decode(): text.decode() for name, text in sent[0]["headers"]}
        return Answer(sent[0]["status"], fields, b"".join(message.get("body", b"") for message in sent[1:]))

    return run

"""A registry in a real MinIO: the server's champion is read, followed and refused as in a directory."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from minio import Minio

from serving.champion import Champion
from serving.model_source import UnreachableError, place_of

MINIO = shutil.which("minio")
PORT = 19087
pytestmark = pytest.mark.skipif(MINIO is None, reason="no minio on the path: go install github.com/minio/minio@latest")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Minio]:
    """A running MinIO with the bucket `models`; the environment names it."""
    keys = {"MINIO_ROOT_USER": "minio", "MINIO_ROOT_PASSWORD": "minio-root-password"}
    command = [MINIO or "", "server", str(tmp_path / "store"), f"--address=127.0.0.1:{PORT}"]
    with subprocess.Popen(
        command, env={**os.environ, **keys}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as server:
        try:
            for _ in range(200):
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{PORT}/minio/health/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            client = Minio(f"127.0.0.1:{PORT}", "minio", "minio-root-password", secure=False)
            client.make_bucket("models")
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{PORT}")
            monkeypatch.setenv("AWS_ACCESS_KEY_ID", "minio")
            monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "minio-root-password")
            yield client
        finally:
            server.terminate()


def upload(store: Minio, registry: Any) -> None:
    for path in registry.root.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            store.put_object("models", f"a/{path.relative_to(registry.root)}", io.BytesIO(content), len(content))


def test_the_champion_of_a_bucket_is_followed(store: Minio, registry: Any, scorecard: dict[str, Any]) -> None:
    place = place_of("s3://models/a")
    assert place.models() == []
    champion = Champion("bank", place)
    champion.refresh()
    assert champion.refused == {"": "there is no champion.json yet; promote a version"}
    for version in ("one", "two"):
        registry.add(version, scorecard)
        registry.point(version)
        upload(store, registry)
        champion.refresh()
        assert champion.in_use.champion is not None
        assert (champion.in_use.champion.version, champion.refused) == (version, {})
    assert place.models() == ["bank"]
    registry.add("three", scorecard, files={"scorecard.json": b"{}"})
    registry.point("three")
    upload(store, registry)
    champion.refresh()
    assert champion.in_use.champion.version == "two"
    assert "three" in champion.refused


def test_a_store_that_refuses_or_is_away_is_told(store: Minio, monkeypatch: pytest.MonkeyPatch) -> None:
    del store
    with pytest.raises(UnreachableError, match="answers NoSuchBucket"):
        place_of("s3://nothing/a").read("bank/champion.json")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(UnreachableError, match="answers SignatureDoesNotMatch"):
        place_of("s3://models/a").read("bank/champion.json")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(UnreachableError, match="does not answer"):
        place_of("s3://models/a").read("bank/champion.json")

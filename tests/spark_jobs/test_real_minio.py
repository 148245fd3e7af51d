"""The one door against a real MinIO, where one is on the path: temporary keys from its STS, and what it says to wrong ones."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run
from minio.credentials.credentials import Credentials
from minio.credentials.providers import AssumeRoleProvider
from pyspark.ml import Pipeline
from pyspark.ml.feature import StringIndexer
from urllib3 import PoolManager
from urllib3.exceptions import HTTPError

from kfp_pipeline.runtime import object_store as task_side
from spark_jobs import object_store, storage
from spark_jobs.errors import InputError
from spark_jobs.registry import archive, pointer, pruning, versions
from spark_jobs.registry.places import place_of

MINIO = shutil.which("minio")
ROOT, PASSWORD = "minio", "minio-root-password"
pytestmark = pytest.mark.skipif(MINIO is None, reason="no minio on the path: go install github.com/minio/minio@latest")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Of a running server with the bucket `kfp`."""
    assert MINIO is not None
    folder = tmp_path_factory.mktemp("minio")
    (folder / "data" / "kfp").mkdir(parents=True)
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    environment = {"MINIO_ROOT_USER": ROOT, "MINIO_ROOT_PASSWORD": PASSWORD, "HOME": str(folder)}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(
            [MINIO, "server", str(folder / "data"), "--address", f"127.0.0.1:{port}"],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        for _ in range(600):  # what it says to `/minio/health/ready` comes before its STS is ready
            with suppress(ValueError, HTTPError):
                temporary_keys(f"http://127.0.0.1:{port}")
                break
            assert server.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


def temporary_keys(address: str) -> Credentials:
    client = PoolManager(retries=False, timeout=5)
    provider = AssumeRoleProvider(sts_endpoint=address, access_key=ROOT, secret_key=PASSWORD, http_client=client)
    return provider.retrieve()


@pytest.fixture
def keys(address: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Temporary keys of a real STS in the environment; what it gives is the way to change them."""
    given = temporary_keys(address)
    assert given.session_token
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", given.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", given.secret_key)
    monkeypatch.setenv("AWS_SESSION_TOKEN", given.session_token)
    object_store.from_environment.cache_clear()
    yield monkeypatch
    object_store.from_environment.cache_clear()


@pytest.mark.usefixtures("keys")
def test_temporary_keys_open_the_store_to_both_sides(tmp_path: Path) -> None:
    storage.check_reachable(["s3://kfp/any/name"])
    storage.write_text("s3://kfp/a/step.txt", "ä")
    task_side.write_bytes("s3://kfp/a/task.txt", b"task")
    (tmp_path / "file.csv").write_bytes(b"x,y\n" * 10)
    task_side.upload(tmp_path / "file.csv", "s3://kfp/a/file.csv")
    storage.write_text("s3://kfp/a/empty.csv", "")
    assert (task_side.read_text("s3://kfp/a/step.txt"), storage.read_text("s3://kfp/a/task.txt")) == ("ä", "task")
    assert storage.read_start("s3://kfp/a/file.csv", 3) == b"x,y"
    assert storage.read_head("s3://kfp/a/empty.csv") == (b"", True)
    assert storage.data_files("s3://kfp/a/f*.csv") == ["s3://kfp/a/file.csv"]
    assert [item[0] for item in task_side.list_objects("s3://kfp/a")] == [
        f"a/{name}" for name in ("empty.csv", "file.csv", "step.txt", "task.txt")
    ]
    storage.remove("s3://kfp/a")
    assert task_side.read_text("s3://kfp/a/step.txt") is None
    assert not task_side.bucket_exists("none")
    assert task_side.make_bucket("made")
    assert not task_side.make_bucket("made")


WRONG = {
    "AWS_ACCESS_KEY_ID": "InvalidAccessKeyId",
    "AWS_SECRET_ACCESS_KEY": "SignatureDoesNotMatch",
    "AWS_SESSION_TOKEN": "InvalidTokenId",
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_keys_are_told_at_once_by_both_sides(keys: pytest.MonkeyPatch, name: str) -> None:
    keys.setenv(name, "wrong-value-12345")
    object_store.from_environment.cache_clear()
    began = time.monotonic()
    for ask in (
        lambda: storage.check_reachable(["s3://kfp/a"]),
        lambda: storage.read_text("s3://kfp/a"),
        lambda: task_side.write_bytes("s3://kfp/a", b"x"),
        lambda: task_side.bucket_exists("kfp"),
    ):
        with pytest.raises(InputError, match=rf"refuses \({WRONG[name]}\): .*check"):
            ask()
    assert time.monotonic() - began < 8


def test_keys_without_their_token_are_refused(keys: pytest.MonkeyPatch) -> None:
    keys.delenv("AWS_SESSION_TOKEN")
    object_store.from_environment.cache_clear()
    with pytest.raises(InputError, match=r"refuses \(\w+\)"):
        storage.read_text("s3://kfp/a")


@pytest.mark.spark
@pytest.mark.usefixtures("keys")
def test_a_model_comes_back_from_it(spark: Any) -> None:
    rows = spark.createDataFrame([("a",), ("b",), ("a",)], "kind string")
    model = Pipeline(stages=[StringIndexer(inputCol="kind", outputCol="index")]).fit(rows)
    for _ in range(2):  # the second one replaces the first
        storage.write_model(model, "s3://kfp/run/model")
        names = [item[0].split("/")[2] for item in task_side.list_objects("s3://kfp/run/model")]
        assert sorted(names) == ["metadata", "stages", "stages"]
    expected = [row["index"] for row in model.transform(rows).collect()]
    assert [row["index"] for row in storage.read_model("s3://kfp/run/model").transform(rows).collect()] == expected


@pytest.mark.usefixtures("keys")
def test_a_conditional_write_is_made_once_and_refused_afterwards() -> None:
    store, uri = object_store.from_environment(), "s3://kfp/pointer.json"
    assert store.read_tagged(uri) == (b"", "")
    assert not store.write_if_unchanged(uri, b"0", "0" * 32), "there is nothing that could be unchanged"
    assert store.write_if_unchanged(uri, b"1", "")
    assert not store.write_if_unchanged(uri, b"2", ""), "it is there"
    content, tag = store.read_tagged(uri)
    assert content == b"1"
    assert store.write_if_unchanged(uri, b"2", tag)
    assert not store.write_if_unchanged(uri, b"3", tag), "it has changed"
    assert store.read_tagged(uri)[0] == b"2"


@pytest.mark.usefixtures("keys")
def test_of_many_conditional_writes_at_once_exactly_one_is_made() -> None:
    store, uri = object_store.from_environment(), "s3://kfp/race.json"
    for _ in range(20):
        tag = store.read_tagged(uri)[1]
        barrier = threading.Barrier(8)

        def write(number: int, tag: str, barrier: threading.Barrier) -> bool:
            barrier.wait()
            return store.write_if_unchanged(uri, f"{number} after {tag}".encode(), tag)

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(write, range(8), [tag] * 8, [barrier] * 8)) == 1


@pytest.mark.usefixtures("keys")
def test_a_registry_works_in_the_store_as_in_a_directory(tmp_path: Path) -> None:
    registry = place_of("s3://kfp/models")
    a, b = (
        str(versions.write(registry, versions.collect("bank", finished_run(tmp_path / f"{n}", seed=n)))["version"])
        for n in range(2)
    )
    assert versions.names(registry) == ["bank"]
    assert versions.versions_of(registry, "bank") == sorted([a, b])
    seen = pointer.read(registry, "bank")
    pointer.promote(registry, "bank", a)
    with pytest.raises(pointer.ConflictError, match="was moved meanwhile"):
        pointer.promote(registry, "bank", b, seen=seen)
    assert pointer.promote(registry, "bank", b).version == b
    assert pointer.rollback(registry, "bank").version == a
    archive.export(registry, "bank", [b], str(tmp_path / "backup.tar.gz"))
    archive.import_versions(str(tmp_path / "backup.tar.gz"), place_of("s3://kfp/other"))
    assert versions.verify(place_of("s3://kfp/other"), "bank", b)["version"] == b
    pointer.promote(registry, "bank", b)
    assert pruning.prune(registry, "bank", 0) == []

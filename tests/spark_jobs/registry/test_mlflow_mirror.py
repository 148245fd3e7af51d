"""The mirror against a real MLflow server: what it shows, that it may be repeated, and what it says of trouble.

The server is a big package, which the project does not need:

    uv run --extra spark --extra mlflow --with mlflow pytest -m slow tests/spark_jobs/registry/test_mlflow_mirror.py
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from spark_jobs.registry import pointer, versions
from spark_jobs.registry.places import Place, place_of

sys.path.insert(0, str(Path(__file__).parent))

from finished_run import register

from kfp_pipeline.commands.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("flask_cors") is None, reason="the MLflow server is not installed"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a store of its own."""
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={port}", "--workers=1"]
    command += [f"--backend-store-uri=sqlite:///{folder}/db", f"--artifacts-destination={folder}/artifacts"]
    with (
        (folder / "log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True) as process,
    ):
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_healthy(address, process, folder / "log")
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # the server leaves its workers behind when it alone is stopped


def wait_until_healthy(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        try:
            with urllib.request.urlopen(f"{address}/health"):
                return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return place_of(str(tmp_path / "models"))


def make_folder(path: Path) -> Path:
    path.mkdir()
    return path


def client_of(server: str) -> Any:
    from mlflow.tracking import MlflowClient

    return MlflowClient(server, registry_uri=server)


def test_the_champion_is_shown_with_its_files_settings_and_metrics(
    server: str, registry: Place, tmp_path: Path
) -> None:
    from spark_jobs.registry.mlflow_mirror import mirror

    version = register(registry, tmp_path, "shown", 0)
    pointer.promote(registry, "shown", version)
    found = mirror(registry, "shown", server)
    client = client_of(server)
    there = client.get_model_version_by_alias("shown", "champion")
    assert found == {"champion": {"version": version, "mlflow": str(there.version)}}
    assert there.tags["spark-kfp.version"] == version
    run = client.get_run(there.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"areaUnderROC": 0.88, "areaUnderROC_low": 0.86, "areaUnderROC_high": 0.9}
    assert run.data.params == {"train.reg_param": "0.01", "preprocess.seed": "42"}
    folder = Path(client.download_artifacts(there.run_id, "", str(make_folder(tmp_path / "down"))))
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {
        "model/MLmodel",
        "model/sparkml/metadata/part-00000",
        "version/scorecard.json",
        "version/version.json",
    } <= files
    assert not any("examples" in path for path in files), "its rows are data"
    written = {item["path"]: item for item in versions.read(registry, "shown", version)["files"]}
    assert (folder / "version" / "scorecard.json").stat().st_size == written["scorecard.json"]["size"]


def test_it_follows_promotions_canaries_and_rollbacks(
    server: str, registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (register(registry, tmp_path, "followed", seed) for seed in (0, 1))
    words = ["--registry", registry.uri, "--mlflow", server]
    client = client_of(server)

    def aliases() -> dict[str, str]:
        """Returns the aliases, each with the ID of its version."""
        found = client.get_registered_model("followed").aliases
        return {
            alias: client.get_model_version("followed", number).tags["spark-kfp.version"]
            for alias, number in found.items()
        }

    assert main(["models", "promote", "followed", first, "--force", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["promoted"]
    assert aliases() == {"champion": first}
    assert main(["models", "canary", "followed", second, *words]) == 0
    assert aliases() == {"champion": first, "canary": second}
    assert main(["models", "promote", "followed", second, "--force", *words]) == 0
    assert aliases() == {"champion": second}
    assert main(["models", "rollback", "followed", *words]) == 0
    capsys.readouterr()
    assert main(["models", "mirror", "followed", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["champion"]["version"] == first
    assert aliases() == {"champion": first}
    assert len(client.search_model_versions("name='followed'")) == 2, "each version is copied once"


def test_a_copy_that_is_cut_off_leaves_no_version(
    server: str, registry: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    from spark_jobs.registry.mlflow_mirror import mirror

    version = register(registry, tmp_path, "cut", 0)
    pointer.promote(registry, "cut", version)

    def fail(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_artifacts", fail)
        with pytest.raises(KeyboardInterrupt):
            mirror(registry, "cut", server)
    client = client_of(server)
    assert client.search_model_versions("name='cut'") == []
    assert mirror(registry, "cut", server)["champion"]["version"] == version
    runs = client.search_runs([client.get_experiment_by_name("cut").experiment_id])
    assert sorted(run.info.status for run in runs) == ["FAILED", "FINISHED"]


def test_a_server_that_is_not_there_is_told_and_the_pointer_moves_all_the_same(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    version = register(registry, tmp_path, "bank", 0)
    words = ["--registry", registry.uri, "--mlflow", "http://user:secret@127.0.0.1:9"]
    assert main(["models", "promote", "bank", version, "--force", "--json", *words]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out)["promoted"]
    assert "does not answer" in said.err
    assert "secret" not in said.err
    assert "spark-kfp models mirror bank" in said.err
    assert pointer.read(registry, "bank").version == version


def test_a_model_without_a_champion_is_told(registry: Place, tmp_path: Path, server: str) -> None:
    register(registry, tmp_path, "none", 0)
    assert main(["models", "mirror", "none", "--registry", registry.uri, "--mlflow", server]) == 2

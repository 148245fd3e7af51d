"""The mirror in a Kubeflow Model Registry: what it shows, that it may be repeated, and what it says of trouble.

The tests of what it shows run against a registry in memory, and against a real one if its address is given; they leave models in it:

    KUBEFLOW_MODEL_REGISTRY=http://127.0.0.1:8080 uv run pytest tests/spark_jobs/registry/test_kubeflow_mirror.py
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from spark_jobs.registry import kubeflow_model_registry, pointer, versions
from spark_jobs.registry.kubeflow_mirror import mirror
from spark_jobs.registry.places import Place, place_of

sys.path.insert(0, str(Path(__file__).parent))

from fake_model_registry import API, Handler, Things, serving
from finished_run import register

from kfp_pipeline.commands.main import main

REAL = os.environ.get("KUBEFLOW_MODEL_REGISTRY", "")
NO_SERVER = "KUBEFLOW_MODEL_REGISTRY does not say where a Kubeflow Model Registry is"


@pytest.fixture(
    scope="module", params=["in memory", pytest.param("real", marks=pytest.mark.skipif(not REAL, reason=NO_SERVER))]
)
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a Model Registry."""
    if request.param == "real":
        yield REAL
        return
    with serving(type("Answers", (Handler,), {"things": Things()})) as address:
        yield address


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return place_of(str(tmp_path / "models"))


@pytest.fixture
def name() -> str:
    """A name of a model that no other test has used."""
    return f"bank_{uuid.uuid4().hex[:12]}"


def ask(server: str, path: str, query: str = "", **body: Any) -> Any:
    method, data = ("PATCH", json.dumps(body).encode()) if body else ("GET", None)
    request = urllib.request.Request(
        f"{server}{API}/v1alpha3/{path}{'?filterQuery=' + quote(query) if query else ''}",
        data=data,
        method=method,
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request) as answer:
        return json.loads(answer.read())


def model_of(server: str, name: str) -> dict[str, Any]:
    (found,) = ask(server, "registered_models", f'name = "{name}"')["items"]
    return dict(found)


def versions_of(server: str, name: str, *ids: str) -> dict[str, dict[str, Any]]:
    """Returns the ModelVersions of these names."""
    query = " OR ".join(f'name = "{version}"' for version in ids)
    found = ask(server, f"registered_models/{model_of(server, name)['id']}/versions", query)["items"]
    assert len(found) == len(ids), "each is there once"
    return {item["name"]: item for item in found}


def values_of(thing: dict[str, Any]) -> dict[str, Any]:
    return {
        name: next(value for key, value in item.items() if key != "metadataType")
        for name, item in thing["customProperties"].items()
    }


def test_the_champion_is_shown_with_its_origin_its_metrics_and_where_it_is(
    server: str, registry: Place, tmp_path: Path, name: str
) -> None:
    version = register(registry, tmp_path, name, 0)
    pointer.promote(registry, name, version)
    found = mirror(registry, name, server)
    there = versions_of(server, name, version)[version]
    assert found == {"champion": {"version": version, "kubeflow": there["id"]}}
    assert values_of(model_of(server, name)) == {"champion": version}
    digests = {item["path"]: item["sha256"] for item in versions.read(registry, name, version)["files"]}
    assert values_of(there) == {
        "champion": "",
        "run": "run0",
        "label": "deposit",
        "data": "bank.csv",
        "model": "logistic regression",
        "code": "c0de",
        "specification": digests["specification.toml"],
        "areaUnderROC": 0.88,
        "areaUnderROC_low": 0.86,
        "areaUnderROC_high": 0.9,
    }
    (artifact,) = ask(server, f"model_versions/{there['id']}/artifacts", f'name = "{version}"')["items"]
    assert artifact["uri"] == (tmp_path / "models" / name / "versions" / version).as_uri()
    assert (artifact["artifactType"], artifact["modelFormatName"]) == ("model-artifact", "spark-kfp")
    assert artifact["modelFormatVersion"] == "1"


def test_it_follows_promotions_canaries_and_rollbacks(
    server: str, registry: Place, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (register(registry, tmp_path, name, seed) for seed in (0, 1))
    words = ["--registry", registry.uri, "--kubeflow-registry", server]

    def labels() -> list[set[str]]:
        return [
            {key for key, value in values_of(item).items() if value == ""}
            for item in versions_of(server, name, first, second).values()
        ]

    assert main(["models", "promote", name, first, "--force", "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["promoted"]
    assert values_of(model_of(server, name)) == {"champion": first}
    assert main(["models", "canary", name, second, "--share", "0.25", *words]) == 0
    assert values_of(model_of(server, name)) == {"champion": first, "canary": second, "canary_share": 0.25}
    assert labels() == [{"champion"}, {"canary"}]
    assert main(["models", "promote", name, second, "--force", *words]) == 0
    assert values_of(model_of(server, name)) == {"champion": second}
    assert labels() == [set(), {"champion"}]
    assert main(["models", "rollback", name, *words]) == 0
    assert labels() == [{"champion"}, set()]
    capsys.readouterr()
    assert main(["models", "mirror", name, "--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["champion"]["version"] == first
    assert main(["models", "mirror", name, *words]) == 0
    assert "in the Kubeflow Model Registry: " + first in capsys.readouterr().out


def test_what_others_wrote_there_stays(server: str, registry: Place, tmp_path: Path, name: str) -> None:
    first, second = (register(registry, tmp_path, name, seed) for seed in (0, 1))
    pointer.promote(registry, name, first)
    mirror(registry, name, server)
    theirs = {"team": {"metadataType": "MetadataStringValue", "string_value": "risk"}}
    there = versions_of(server, name, first)[first]
    for thing, path in ((model_of(server, name), "registered_models"), (there, "model_versions")):
        properties = thing["customProperties"] | theirs
        ask(server, f"{path}/{thing['id']}", customProperties=properties, state="ARCHIVED")
    pointer.promote(registry, name, second)
    mirror(registry, name, server)
    model, there = model_of(server, name), versions_of(server, name, first)[first]
    assert values_of(model) == {"champion": second, "team": "risk"}
    assert values_of(there)["team"] == "risk"
    assert "champion" not in values_of(there)
    assert [model["state"], there["state"]] == ["ARCHIVED", "ARCHIVED"]


def test_a_second_time_changes_nothing(server: str, registry: Place, tmp_path: Path, name: str) -> None:
    version = register(registry, tmp_path, name, 0)
    pointer.promote(registry, name, version)
    found = mirror(registry, name, server)
    before = model_of(server, name), versions_of(server, name, version)
    assert mirror(registry, name, server) == found
    assert (model_of(server, name), versions_of(server, name, version)) == before


def test_the_artifact_follows_the_registry(server: str, registry: Place, tmp_path: Path, name: str) -> None:
    version = register(registry, tmp_path, name, 0)
    pointer.promote(registry, name, version)
    found = mirror(registry, name, server)["champion"]["kubeflow"]
    moved = place_of(str((tmp_path / "models").rename(tmp_path / "moved")))
    mirror(moved, name, server)
    (artifact,) = ask(server, f"model_versions/{found}/artifacts", f'name = "{version}"')["items"]
    assert artifact["uri"] == (tmp_path / "moved" / name / "versions" / version).as_uri()


def test_two_models_whose_names_are_alike_are_two(server: str, registry: Place, tmp_path: Path, name: str) -> None:
    for alike, seed in ((name.replace("_", "-"), 0), (name, 1)):
        pointer.promote(registry, alike, register(registry, tmp_path, alike, seed))
        mirror(registry, alike, server)
        mirror(registry, alike, server)
        assert model_of(server, alike)["name"] == alike


def test_two_mirrors_at_once_make_one_of_each(server: str, registry: Place, tmp_path: Path, name: str) -> None:
    version = register(registry, tmp_path, name, 0)
    pointer.promote(registry, name, version)
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(mirror(registry, name, server))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    assert values_of(model_of(server, name)) == {"champion": version}
    versions_of(server, name, version)


def test_a_mirror_that_was_cut_off_is_completed(
    server: str, registry: Place, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry, tmp_path, name, 0)
    pointer.promote(registry, name, version)

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(kubeflow_model_registry.ModelRegistry, "artifact", fail)
        with pytest.raises(KeyboardInterrupt):
            mirror(registry, name, server)
    assert values_of(model_of(server, name)) == {}
    found = mirror(registry, name, server)["champion"]["kubeflow"]
    assert len(ask(server, f"model_versions/{found}/artifacts", f'name = "{version}"')["items"]) == 1
    assert values_of(model_of(server, name)) == {"champion": version}


def answering(
    code: int, content: bytes, kind: str = "application/json", **headers: str
) -> type[BaseHTTPRequestHandler]:
    class Answers(Handler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            for key, value in {"Content-Type": kind, "Content-Length": str(len(content)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(content)

    return Answers


PAGE = b'{"items": [], "nextPageToken": "", "pageSize": 0, "size": 0}'
TROUBLE = [
    (answering(401, b"Unauthorized", "text/plain"), 2, "name the file of a token"),
    (answering(403, b'{"code": "Forbidden", "message": "no"}'), 2, "refuses (403"),
    (answering(404, b"404 page not found", "text/plain"), 2, "is no Kubeflow Model Registry"),
    (answering(400, b'{"code": "Bad Request", "message": "invalid filter query"}'), 2, "invalid filter query"),
    (answering(200, b"<html>Sign in</html>", "text/html"), 2, "or is behind a login"),
    (answering(200, b"PK\x03\x04", "application/zip"), 2, "is no Kubeflow Model Registry"),
    (answering(200, b"{not json"), 2, "is no Kubeflow Model Registry"),
    (answering(200, b"\xff\xfe"), 2, "is no Kubeflow Model Registry"),
    (answering(200, b"[]"), 2, "is no Kubeflow Model Registry"),
    (answering(200, b"{}"), 2, "an answer has no items"),
    (answering(200, b'{"items": 1}'), 2, "an answer has no items"),
    (answering(200, PAGE), 2, "is no Kubeflow Model Registry"),  # a list where a model is to be
    (answering(200, b'{"items": [{"id": "1", "name": "bank", "customProperties": 1}]}'), 2, "no custom properties"),
    (answering(200, b'{"items": [{"name": "bank"}], "nextPageToken": "", "pageSize": 0, "size": 1}'), 2, "has no ID"),
    (answering(409, b'{"code": "Conflict", "message": "already exists"}'), 2, "refuses (409"),
    (answering(302, b"", Location="/again"), 2, "is no Kubeflow Model Registry"),
    (answering(500, b'{"code": "Internal", "message": "no disk"}'), 1, "does not answer: 500 Internal Server Error: no disk"),
    (answering(503, b"Datastore service is down", "text/plain"), 1, "does not answer: 503"),
]  # fmt: skip


@pytest.mark.parametrize(("answers", "code", "told"), TROUBLE)
def test_a_server_that_refuses_or_is_another_is_told_in_one_sentence_and_the_pointer_moves_all_the_same(
    answers: type[BaseHTTPRequestHandler],
    code: int,
    told: str,
    registry: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    version = register(registry, tmp_path, "bank", 0)
    with serving(answers) as address:
        words = ["--registry", registry.uri, "--kubeflow-registry", address]
        assert main(["models", "promote", "bank", version, "--force", "--json", *words]) == code
    said = capsys.readouterr()
    assert json.loads(said.out)["promoted"]
    assert said.err.count("\n") == 1, said.err
    assert told in said.err
    assert "the pointer has moved all the same: `spark-kfp models mirror bank`" in said.err
    assert pointer.read(registry, "bank").version == version


def test_a_server_that_is_away_is_told(registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    version = register(registry, tmp_path, "bank", 0)
    words = ["--registry", registry.uri, "--kubeflow-registry", "http://127.0.0.1:9"]
    assert main(["models", "promote", "bank", version, "--force", *words]) == 1
    assert "Connection refused" in capsys.readouterr().err
    assert pointer.read(registry, "bank").version == version


def test_a_server_that_says_nothing_is_not_waited_for(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeflow_model_registry, "ANSWER_SECONDS", 0.2)
    pointer.promote(registry, "bank", register(registry, tmp_path, "bank", 0))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        words = ["--registry", registry.uri, "--kubeflow-registry", address]
        assert main(["models", "mirror", "bank", *words]) == 1
    assert "Read timed out" in capsys.readouterr().err


def test_the_token_is_sent_and_never_shown(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pointer.promote(registry, "bank", register(registry, tmp_path, "bank", 0))
    sent: list[str | None] = []

    class Answers(answering(403, b'{"message": "no"}')):  # type: ignore[misc]
        def answer(self) -> None:
            sent.append(self.headers["Authorization"])
            super().answer()

    path = tmp_path / "token"
    path.write_text("s3cret\n")
    monkeypatch.setenv("SPARK_KFP_KUBEFLOW_REGISTRY_TOKEN_PATH", str(path))
    with serving(Answers) as address:
        assert main(["models", "mirror", "bank", "--registry", registry.uri, "--kubeflow-registry", address]) == 2
    assert sent == ["Bearer s3cret"]
    assert "s3cret" not in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"two\nlines", "tök".encode(), b"\xd0\xff"])
def test_a_file_that_holds_no_token_is_told_before_the_pointer_moves(
    content: bytes, registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = register(registry, tmp_path, "bank", 0)
    (tmp_path / "token").write_bytes(content)
    monkeypatch.setenv("SPARK_KFP_KUBEFLOW_REGISTRY_TOKEN_PATH", str(tmp_path / "token"))
    words = ["--registry", registry.uri, "--kubeflow-registry", "http://127.0.0.1:9"]
    assert main(["models", "promote", "bank", version, "--force", *words]) == 2
    assert f"{tmp_path / 'token'}: a token is one line" in capsys.readouterr().err
    assert not pointer.read(registry, "bank").version


@pytest.mark.parametrize(
    "uri", ["127.0.0.1:9", "ftp://here", "http://me:s3cret@here", "http://here?x=s3cret", "http://"]
)
def test_an_address_that_is_none_is_told(
    uri: str, registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer.promote(registry, "bank", register(registry, tmp_path, "bank", 0))
    assert main(["models", "mirror", "bank", "--registry", registry.uri, "--kubeflow-registry", uri]) == 2
    assert "it must be like http://" in capsys.readouterr().err


def test_a_port_that_is_none_is_told(registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pointer.promote(registry, "bank", register(registry, tmp_path, "bank", 0))
    words = ["--registry", registry.uri, "--kubeflow-registry", "http://127.0.0.1:99999"]
    assert main(["models", "mirror", "bank", *words]) == 2
    assert "check host and port" in capsys.readouterr().err


def test_both_mirrors_are_told_even_if_the_first_one_fails(
    registry: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp_pipeline.commands import mirroring
    from spark_jobs.errors import UnavailableError

    def away(*_: Any, **__: Any) -> Any:
        raise UnavailableError("MLflow is away")

    monkeypatch.setattr(mirroring.mlflow_mirror, "mirror", away)
    monkeypatch.setattr(mirroring, "require", lambda _: None)
    version, things = register(registry, tmp_path, "bank", 0), Things()
    with serving(type("Answers", (Handler,), {"things": things})) as address:
        words = ["--registry", registry.uri, "--mlflow", "http://away", "--kubeflow-registry", address]
        assert main(["models", "promote", "bank", version, "--force", *words]) == 1
    assert "MLflow is away; the pointer has moved all the same" in capsys.readouterr().err
    made = [f"make {kind}" for kind in ("registered_models", "model_versions", "artifacts")]
    assert things.changes == [*made, "change model_versions", "change registered_models"]


def test_a_model_without_a_champion_is_told(registry: Place, tmp_path: Path) -> None:
    register(registry, tmp_path, "none", 0)
    words = ["--registry", registry.uri, "--kubeflow-registry", "http://127.0.0.1:9"]
    assert main(["models", "mirror", "none", *words]) == 2

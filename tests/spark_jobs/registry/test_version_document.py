"""What a version.json must hold, and how damage to it is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run

from spark_jobs.errors import InputError
from spark_jobs.registry import versions
from spark_jobs.registry.places import DirectoryPlace
from spark_jobs.registry.version_document import digest, parse, to_json, version_id

Change = Callable[[dict[str, Any]], Any]


@pytest.fixture
def described(tmp_path: Path) -> dict[str, Any]:
    return json.loads(to_json(versions.collect("bank", finished_run(tmp_path / "run")).document))


def sealed(document: dict[str, Any]) -> bytes:
    """The document as one who knows the rules would write it, with the ID and the digest that fit."""
    document["version"] = version_id(document["created"], document["files"])
    return json.dumps({**document, "sha256": digest(document)}).encode()


def test_a_document_is_read_as_it_was_written(described: dict[str, Any]) -> None:
    assert parse(to_json(described), "version.json") == described
    assert described["sha256"] == digest(described)


def test_a_document_of_earlier_code_without_a_digest_is_read(described: dict[str, Any]) -> None:
    del described["sha256"]
    assert "sha256" not in parse(json.dumps(described).encode(), "version.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda document: document["metrics"][0].update(value=0.9999),
        lambda document: document.update(run="another"),
        lambda document: document.update(label="another"),
        lambda document: document["data"].update(uri="another.csv"),
        lambda document: document["parameters"]["train"].update(reg_param=0.5),
    ],
)
def test_any_change_is_found(described: dict[str, Any], change: Change) -> None:
    change(described)
    with pytest.raises(InputError, match="v is damaged: it was changed"):
        parse(json.dumps(described).encode(), "v")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda document: document.pop("metrics"), "it has no metrics"),
        (lambda document: document.pop("model"), r"it has no model\.kind"),
        (lambda document: document["metrics"][0].update(value="high"), "value of areaUnderROC is 'high'"),
        (lambda document: document["metrics"][0].update(low=float("nan")), "not JSON compliant"),
        (lambda document: document["metrics"][0].pop("high"), "high of areaUnderROC is None"),
        (lambda document: document.update(metrics=[]), "no metric"),
        (lambda document: document.update(metrics=[1]), "a metric is 1"),
        (lambda document: document.update(labels=[1, 2]), "labels is"),
        (lambda document: document.update(parameters={"train": 1}), "parameters is"),
        (lambda document: document["model"].update(settings=3), r"model\.settings is 3"),
        (lambda document: document.update(run="\ud800"), "surrogates not allowed"),
        (lambda document: document.update(created="2026-11-28T12:00:00"), "no time zone"),
        (lambda document: document["files"].append(1), "a file is 1"),
        (lambda document: document["files"][0].pop("size"), "a file is {"),
    ],
)
def test_what_a_reader_could_not_rely_on_is_refused(described: dict[str, Any], change: Change, said: str) -> None:
    change(described)
    with pytest.raises(InputError, match=f"v is damaged: .*{said}"):
        parse(json.dumps(described).encode() if said.startswith("a file") else sealed(described), "v")


@pytest.mark.parametrize(
    "path", ["", "/etc/x", "../x", "a//b", "a/./b", "a\0b", "a\nb", "x" * 256, "x/" * 500 + "x", "\ud800"]
)
def test_a_path_that_leads_elsewhere_or_cannot_be_written_is_refused(described: dict[str, Any], path: str) -> None:
    described["files"][0]["path"] = path
    with pytest.raises(InputError, match=r"is no path of a file below the version|surrogates not allowed"):
        parse(sealed(described), "v")


@pytest.mark.parametrize("path", ["version.json", "scorecard.json", "scorecard.json/x"])
def test_two_files_with_one_path_are_refused(described: dict[str, Any], path: str) -> None:
    described["files"][0]["path"] = path
    with pytest.raises(InputError, match="one path"):
        parse(sealed(described), "v")


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"{", b"[]", b"null", b"1e999", b"[" * 100_000, b'{"registry_version": 2}']
)
def test_what_is_no_document_is_told(content: bytes) -> None:
    with pytest.raises(InputError, match="v is"):
        parse(content, "v")


def test_a_version_that_readers_would_refuse_leaves_no_file(described: dict[str, Any], tmp_path: Path) -> None:
    document = {**described, "metrics": [{**described["metrics"][0], "value": float("nan")}]}
    with pytest.raises(InputError, match="cannot be written"):
        versions.write(DirectoryPlace(tmp_path), versions.Candidate(document, {"scorecard.json": b"{}"}))
    assert not (tmp_path / "bank").exists()


def test_a_damaged_version_is_mended_by_another_copy(tmp_path: Path) -> None:
    registry = DirectoryPlace(tmp_path / "models")
    candidate = versions.collect("bank", finished_run(tmp_path / "run"))
    whole = versions.write(registry, candidate)
    folder = tmp_path / "models" / "bank" / "versions" / candidate.version
    for name in ("scorecard.json", "version.json"):
        (folder / name).write_text("{}")
        with pytest.raises(InputError, match=r"is no version|was changed"):
            versions.verify(registry, "bank", candidate.version)
        assert versions.write(registry, candidate) == whole == versions.verify(registry, "bank", candidate.version)

"""What an import makes of an archive that somebody else has made: nothing is believed, and nothing half of it is left."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from finished_run import finished_run

from spark_jobs.errors import InputError
from spark_jobs.registry import archive, versions
from spark_jobs.registry.places import DirectoryPlace
from spark_jobs.registry.version_document import digest, version_id

Change = Callable[[dict[str, Any], dict[str, bytes]], Any]


@pytest.fixture
def registry(tmp_path: Path) -> DirectoryPlace:
    return DirectoryPlace(tmp_path / "models")


def packed(tmp_path: Path, change: Change = lambda *_: None, *, sealed: bool = True) -> str:
    """Writes an archive of one version, changed; if it is sealed its ID and its digest fit again."""
    candidate = versions.collect("bank", finished_run(tmp_path / "run"))
    document, files = (
        json.loads(json.dumps({**candidate.document, "sha256": digest(candidate.document)})),
        dict(candidate.files),
    )
    change(document, files)
    if sealed:
        document["version"] = version_id(document["created"], document["files"])
        document["sha256"] = digest(document)
    path = tmp_path / "m.tar.gz"
    with tarfile.open(path, "w:gz") as made:
        for name, content in {**files, "version.json": json.dumps(document).encode()}.items():
            entry = tarfile.TarInfo(f"bank/versions/{document['version']}/{name}".replace("\0", ""))
            entry.size = len(content)
            made.addfile(entry, io.BytesIO(content))
    return str(path)


def renamed(document: dict[str, Any], files: dict[str, bytes], path: str) -> None:
    """Gives the first file another path."""
    files[path] = files.pop(document["files"][0]["path"])
    document["files"][0]["path"] = path


def test_a_whole_archive_is_taken(registry: DirectoryPlace, tmp_path: Path) -> None:
    (document,) = archive.import_versions(packed(tmp_path), registry)
    assert document == versions.verify(registry, "bank", document["version"])


@pytest.mark.parametrize(
    ("change", "sealed", "said"),
    [
        (lambda document, _: document["metrics"][0].update(value=0.9999), False, "it was changed"),
        (lambda document, _: document.pop("metrics"), True, "it has no metrics"),
        (lambda document, _: document["metrics"][0].update(value="high"), True, "value of areaUnderROC is 'high'"),
        (lambda document, _: document["metrics"][0].update(value=float("nan")), True, "not JSON compliant"),
        (lambda document, _: document.update(run="\ud800"), True, "surrogates not allowed"),
        (lambda document, files: renamed(document, files, "a\0b"), True, "is no path of a file"),
        (lambda document, files: renamed(document, files, "../../b"), True, "is no path of a file"),
        (lambda document, _: document["files"][0].update(sha256="0" * 64), True, "SHA-256 is another one"),
        (lambda _, files: files.pop("scorecard.json"), True, r"scorecard\.json is missing"),
    ],
)
def test_a_damaged_archive_is_told_by_its_own_name_and_leaves_nothing(
    registry: DirectoryPlace, tmp_path: Path, change: Change, sealed: bool, said: str
) -> None:
    source = packed(tmp_path, change, sealed=sealed)
    with pytest.raises(InputError, match=said) as caught:
        archive.import_versions(source, registry)
    assert str(caught.value).startswith(f"{source}/bank/versions/")
    assert not registry.root.exists()


def test_a_version_of_the_future_is_refused_but_for_clocks_that_differ(
    registry: DirectoryPlace, tmp_path: Path
) -> None:
    for hours, refused in ((23, False), (25, True)):
        created = (datetime.now(UTC) + timedelta(hours=hours)).isoformat()
        source = packed(tmp_path, lambda document, _, created=created: document.update(created=created))
        if refused:
            with pytest.raises(InputError, match=r"m\.tar\.gz: version .* which is to come"):
                archive.import_versions(source, registry)
        else:
            archive.import_versions(source, registry)
    assert len(versions.versions_of(registry, "bank")) == 1


@pytest.fixture
def _traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.usefixtures("_traced")
@pytest.mark.parametrize("named", [False, True])
def test_of_a_small_archive_of_large_files_no_more_is_unpacked_than_version_json_says(
    registry: DirectoryPlace, tmp_path: Path, named: bool
) -> None:
    name = "scorecard.json" if named else "other"
    source = packed(tmp_path, lambda _, files: files.update({name: bytes(30 << 20)}))
    assert Path(source).stat().st_size < 100_000
    tracemalloc.clear_traces()
    if named:
        with pytest.raises(InputError, match=r"scorecard\.json has 31,457,280 bytes and not 11"):
            archive.import_versions(source, registry)
    else:
        (document,) = archive.import_versions(source, registry)
        assert "other" not in registry.names(versions.folder_of("bank", document["version"]))
    assert tracemalloc.get_traced_memory()[1] < 10 << 20


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no archive"),
        (b"hello", "no archive"),
        (gzip.compress(b"hello" * 1000), "no archive"),
        (gzip.compress(bytes(range(256)) * 40)[:100] + b"x" * 100, "no archive"),
        (gzip.compress(bytes(10240)), "holds no version"),
    ],
    ids=["empty", "text", "packed text", "damaged", "empty tar"],  # packed bytes hold the time
)
def test_what_is_no_archive_is_told(registry: DirectoryPlace, tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "m.tar.gz").write_bytes(content)
    with pytest.raises(InputError, match=rf"m\.tar\.gz.*{said}"):
        archive.import_versions(str(tmp_path / "m.tar.gz"), registry)


@pytest.mark.parametrize("at", [0.05, 0.5, 0.95])
def test_an_archive_that_was_cut_off_or_damaged_is_told(registry: DirectoryPlace, tmp_path: Path, at: float) -> None:
    source = Path(packed(tmp_path))
    whole = source.read_bytes()
    middle = int(len(whole) * at)
    for content in (whole[:middle], whole[:middle] + bytes(20) + whole[middle + 20 :]):
        source.write_bytes(content)
        with pytest.raises(InputError, match=r"m\.tar\.gz"):
            archive.import_versions(str(source), registry)
    assert not registry.root.exists()


@pytest.mark.usefixtures("_traced")
def test_a_header_is_not_believed_to_be_large(registry: DirectoryPlace, tmp_path: Path) -> None:
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = tarfile.XHDTYPE, 30 << 20
    with gzip.open(tmp_path / "m.tar.gz", "w") as file:
        file.write(entry.tobuf())
        file.write(bytes(31 << 20))
    tracemalloc.clear_traces()
    with pytest.raises(InputError, match=r"a header of 31,457,280 bytes"):
        archive.import_versions(str(tmp_path / "m.tar.gz"), registry)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20


def test_links_are_no_files_and_too_many_files_are_refused(
    registry: DirectoryPlace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = packed(tmp_path)
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    with pytest.raises(InputError, match="more than 3 files"):
        archive.import_versions(source, registry)
    with tarfile.open(tmp_path / "links.tar", "w") as made:
        entry = tarfile.TarInfo("bank/versions/v/version.json")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        made.addfile(entry)
    with pytest.raises(InputError, match="holds no version"):
        archive.import_versions(str(tmp_path / "links.tar"), registry)


def test_an_archive_that_tar_has_made_is_taken(registry: DirectoryPlace, tmp_path: Path) -> None:
    (document,) = archive.import_versions(packed(tmp_path), registry)
    with tarfile.open(tmp_path / "again.tar", "w") as made:
        made.add(registry.root, ".")
    assert archive.import_versions(str(tmp_path / "again.tar"), DirectoryPlace(tmp_path / "other")) == [document]


def test_what_is_exported_has_the_digest_that_a_version_of_earlier_code_lacks(
    registry: DirectoryPlace, tmp_path: Path
) -> None:
    (document,) = archive.import_versions(packed(tmp_path), registry)
    path = registry.root / versions.folder_of("bank", document["version"]) / "version.json"
    path.write_text(json.dumps({key: value for key, value in document.items() if key != "sha256"}))
    archive.export(registry, "bank", [document["version"]], str(tmp_path / "out.tar"))
    (again,) = archive.import_versions(str(tmp_path / "out.tar"), DirectoryPlace(tmp_path / "other"))
    assert again["sha256"] == digest(document)

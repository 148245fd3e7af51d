"""The door to files: which store a URI leads to, and what is checked before Spark starts."""

from __future__ import annotations

import pytest

from spark_jobs import storage
from spark_jobs.errors import InputError
from spark_jobs.local_files import LocalFiles


class Recorder:
    """An object store that notes what is asked of it."""

    def __init__(self) -> None:
        self.checked: list[str] = []

    def check(self, uri: str) -> None:
        self.checked.append(uri)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    found = Recorder()
    monkeypatch.setattr(storage.object_store, "from_environment", lambda: found)
    return found


@pytest.mark.parametrize("uri", ["/a/b", "a b", "file:/a", "file:///a"])
def test_paths_and_file_uris_lead_to_this_machine(uri: str) -> None:
    assert isinstance(storage.files_of(uri), LocalFiles)


@pytest.mark.parametrize("scheme", ["s3", "s3a", "minio"])
def test_three_schemes_lead_to_one_object_store(store: Recorder, scheme: str) -> None:
    assert storage.files_of(f"{scheme}://bucket/x") is store


def test_another_scheme_is_told_with_those_that_work() -> None:
    with pytest.raises(
        InputError, match=r"gs://b/x: gs:// is not supported; give a path, or a URI that starts with s3, s3a, minio"
    ):
        storage.files_of("gs://b/x")


def test_only_what_lies_in_the_store_is_checked_before_spark_starts(store: Recorder) -> None:
    storage.check_reachable(["/here", "", "s3://a/x", "minio://b/y"])
    assert store.checked == ["s3://a/x", "minio://b/y"]

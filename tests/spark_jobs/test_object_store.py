"""The door to an object store, against a small S3 over real HTTP: what is found, what is removed, what is told."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fake_s3 import SECRET

from spark_jobs import object_store, storage
from spark_jobs.errors import InputError, UnavailableError
from spark_jobs.object_names import bucket_and_key
from spark_jobs.object_store import ObjectStore
from spark_jobs.object_store_settings import ObjectStoreSettings

if TYPE_CHECKING:
    from fake_s3 import FakeS3

SUFFIXES = (".csv", ".parquet")


def store_of(environment: dict[str, str]) -> ObjectStore:
    return ObjectStore(ObjectStoreSettings.from_environment(environment))


@pytest.fixture
def store(s3: FakeS3) -> ObjectStore:
    return store_of(s3.environment)


def test_what_is_written_is_read_back_whatever_the_scheme(s3: FakeS3, store: ObjectStore) -> None:
    content = bytes(range(256)) * 400
    store.write("s3://kfp/run 1/ä+b.bin", content)
    assert s3.objects == {"run 1/ä+b.bin": content}
    for scheme in ("s3", "s3a", "minio"):
        assert store.read(f"{scheme}://kfp/run 1/ä+b.bin") == content
    store.write("s3://kfp/empty", b"")
    assert store.read("s3://kfp/empty") == b""


def test_a_document_can_be_read_as_a_stream_to_its_end_and_beyond(s3: FakeS3, store: ObjectStore) -> None:
    s3.objects["a"] = b"first\nsecond\n"
    with store.open("s3://kfp/a") as file:
        assert file.readline() == b"first\n"
        assert file.read() == b"second\n"
        assert file.read(1) == b""


@pytest.mark.parametrize("ask", ["read", "open"])
def test_an_object_that_is_not_there_is_a_file_that_is_not_there(store: ObjectStore, ask: str) -> None:
    with pytest.raises(FileNotFoundError, match="s3://kfp/none: no such object"):
        getattr(store, ask)("s3://kfp/none")


def test_a_uri_of_one_object_finds_it_whatever_its_suffix(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("data/bank", "data/bank.csv", "data/_hidden.csv")
    assert store.find("s3://kfp/data/bank", SUFFIXES) == ["s3://kfp/data/bank"]
    assert store.find("minio://kfp/data/_hidden.csv", SUFFIXES) == ["minio://kfp/data/_hidden.csv"]


FOLDER = ("t/b.csv", "t/a.parquet", "t/sub/c.csv", "t/note.md", "t/_SUCCESS", "t/.a.csv", "t/_temporary/0/d.csv")


def test_a_folder_finds_what_is_below_it_sorted_but_not_the_hidden_nor_its_neighbours(
    s3: FakeS3, store: ObjectStore
) -> None:
    s3.put(*FOLDER, "t/", "t/sub/", "tt/x.csv", "t.csv")
    found = [f"s3a://kfp/t/{name}" for name in ("a.parquet", "b.csv", "sub/c.csv")]
    assert store.find("s3a://kfp/t", SUFFIXES) == found


def test_a_folder_may_be_named_with_a_slash(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("t/b.csv", "tt/x.csv")
    assert store.find("s3://kfp/t/", SUFFIXES) == ["s3://kfp/t/b.csv"]


def test_a_folder_with_a_marker_may_be_named_with_a_slash(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("t/", "t/b.csv")
    assert store.find("s3://kfp/t/", SUFFIXES) == ["s3://kfp/t/b.csv"]


@pytest.mark.parametrize("uri", ["s3://kfp", "s3://kfp/"])
def test_a_whole_bucket_is_a_folder_too(s3: FakeS3, store: ObjectStore, uri: str) -> None:
    s3.put("b.csv")
    assert store.find(uri, SUFFIXES) == ["s3://kfp/b.csv"]


def test_a_folder_without_a_table_finds_nothing_and_none_at_all_is_told(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("t/note.md", "empty/")
    assert store.find("s3://kfp/t", SUFFIXES) == []
    assert store.find("s3://kfp/empty", SUFFIXES) == []
    with pytest.raises(InputError, match="s3://kfp/none: no such object in bucket 'kfp'"):
        store.find("s3://kfp/none", SUFFIXES)


def test_a_pattern_finds_what_it_matches_over_many_pages_of_a_listing(s3: FakeS3, store: ObjectStore) -> None:
    s3.put(*(f"day-{number:02d}/t.csv" for number in range(10)), "day-03/", "Day-04/t.csv", "other/t.csv")
    assert store.find("s3://kfp/day-0[1-3]/*.csv", SUFFIXES) == [f"s3://kfp/day-0{n}/t.csv" for n in (1, 2, 3)]
    assert len(store.find("s3://kfp/day-*/?.csv", SUFFIXES)) == 10
    with pytest.raises(InputError, match="no such object"):
        store.find("s3://kfp/day-*/none", SUFFIXES)


def test_a_star_neither_crosses_a_slash_nor_takes_hidden_files(s3: FakeS3, store: ObjectStore) -> None:
    s3.put(*FOLDER)
    assert store.find("s3://kfp/t/*.csv", SUFFIXES) == ["s3://kfp/t/b.csv"]


@pytest.mark.parametrize(
    "pattern",
    [
        "t/*",
        "t/*.csv",
        "t/*/*.csv",
        "*/*.csv",
        "t/**/*.csv",
        "**/c.csv",
        "t/?.csv",
        "t/[a-b].csv",
        "t/.*.csv",
        "t/**",
    ],
)
def test_a_pattern_finds_in_the_store_what_it_finds_on_a_disk(
    s3: FakeS3, store: ObjectStore, tmp_path: Path, pattern: str
) -> None:
    names = [name for name in FOLDER if "/_" not in name]
    s3.put(*names, "t/", "t/sub/")
    for name in names:
        storage.write_text(str(tmp_path / name), "x")
    here = [name.removeprefix(f"{tmp_path}/") for name in storage.LOCAL.find(str(tmp_path / pattern), SUFFIXES)]
    assert here
    assert [name.removeprefix("s3://kfp/") for name in store.find(f"s3://kfp/{pattern}", SUFFIXES)] == here


@pytest.mark.parametrize(
    "place",
    ["store", "disk"],
)
def test_a_star_takes_no_marker_of_spark_for_a_table(
    s3: FakeS3, store: ObjectStore, tmp_path: Path, place: str
) -> None:
    s3.put("t/a.csv", "t/_SUCCESS")
    for name in s3.objects:
        storage.write_text(str(tmp_path / name), "x")
    found = (
        store.find("s3://kfp/t/*", SUFFIXES) if place == "store" else storage.LOCAL.find(f"{tmp_path}/t/*", SUFFIXES)
    )
    assert [name.rpartition("/")[2] for name in found] == ["a.csv"]


def test_an_object_whose_name_looks_like_a_pattern_is_found(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("bank[1].csv")
    assert store.find("s3://kfp/bank[1].csv", SUFFIXES) == ["s3://kfp/bank[1].csv"]


def test_what_is_removed_is_the_object_and_all_below_it_and_no_name_that_begins_like_it(
    s3: FakeS3, store: ObjectStore
) -> None:
    s3.put("a/b", "a/b/", "a/b/c", "a/b/_x/.d", "a/bc", "a/b.csv", "a/b-old/e", "a/a", "x")
    store.remove("s3://kfp/a/b")
    assert sorted(s3.objects) == ["a/a", "a/b-old/e", "a/b.csv", "a/bc", "x"]


def test_removing_what_is_not_there_is_no_error(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("a/bc")
    store.remove("s3://kfp/a/b")
    assert list(s3.objects) == ["a/bc"]
    assert not any(request.startswith("POST") for request in s3.requests)


@pytest.mark.parametrize("uri", ["s3://kfp", "s3://kfp/"])
def test_a_whole_bucket_is_never_removed(s3: FakeS3, store: ObjectStore, uri: str) -> None:
    s3.put("a", "b/c", "/d")
    store.remove(uri)
    assert sorted(s3.objects) == ["/d", "a", "b/c"]


def test_a_folder_that_is_named_with_a_slash_is_removed_too(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("a/b/", "a/b/c", "a/bc")
    store.remove("s3://kfp/a/b/")
    assert list(s3.objects) == ["a/bc"]


def test_a_bucket_that_is_there_is_all_that_writing_needs(store: ObjectStore) -> None:
    store.check("s3://kfp/any/name")


@pytest.mark.parametrize("ask", ["check", "read", "remove"])
def test_a_bucket_that_is_not_there_is_bad_input_and_told_how_to_make_it(
    s3: FakeS3, store: ObjectStore, ask: str
) -> None:
    with pytest.raises(
        InputError, match="s3://none/a: there is no such bucket; make it first: spark-kfp data make-bucket"
    ):
        getattr(store, ask)("s3://none/a")
    assert len(s3.requests) == 1


@pytest.mark.parametrize("fault", ["503", "cut", "half"])
def test_a_store_that_is_away_and_comes_back_loses_nothing(s3: FakeS3, store: ObjectStore, fault: str) -> None:
    s3.put("a/1")
    assert store.read("s3://kfp/a/1") == b"content of a/1"
    s3.faults = [fault] * 3
    assert store.read("s3://kfp/a/1") == b"content of a/1"
    assert len(s3.requests) == 5


@pytest.mark.parametrize("fault", ["503", "cut"])
def test_writing_listing_removing_and_checking_are_patient_too(s3: FakeS3, store: ObjectStore, fault: str) -> None:
    s3.faults = [fault] * 2
    store.write("s3://kfp/a/1", b"content")
    assert s3.objects == {"a/1": b"content"}
    s3.faults = [fault] * 2
    assert store.find("s3://kfp/a/1", SUFFIXES) == ["s3://kfp/a/1"]
    s3.faults = [fault] * 2
    store.check("s3://kfp/a")
    s3.faults = [fault, "", fault]
    store.remove("s3://kfp/a")
    assert not s3.objects


def test_the_first_contact_has_less_patience_than_later_ones_and_says_what_it_waits_for(
    s3: FakeS3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(object_store.time, "monotonic", lambda: float(next(clock)))  # a second a look
    s3.put("a")
    s3.always = "503"
    with pytest.raises(UnavailableError):
        store.read("s3://kfp/a")
    first = len(s3.requests)
    assert 2 <= first <= object_store.FIRST_CONTACT_SECONDS
    (told,) = caplog.messages
    assert f"{store.settings.endpoint_url} does not answer" in told
    assert "asking again for" in told
    s3.always = ""
    store.read("s3://kfp/a")
    s3.always = "503"
    with pytest.raises(UnavailableError):
        store.read("s3://kfp/a")
    assert len(s3.requests) - first > 1.5 * first


def test_a_store_that_never_answers_names_its_address_and_its_variable(
    s3: FakeS3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "FIRST_CONTACT_SECONDS", 0.1)
    s3.always = "cut"
    with pytest.raises(
        UnavailableError, match=f"at {store.settings.endpoint_url} does not answer .*; check AWS_ENDPOINT_URL"
    ) as caught:
        store.write("s3://kfp/a", b"x")
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"


def test_an_address_at_which_nobody_listens_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "FIRST_CONTACT_SECONDS", 0.1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_ACCESS_KEY_ID": "a"}
        store = store_of({**environment, "AWS_SECRET_ACCESS_KEY": SECRET})
        with pytest.raises(UnavailableError, match="Connection refused"):
            store.check("s3://kfp/a")


def test_a_store_that_is_overloaded_says_so(s3: FakeS3, store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(object_store, "FIRST_CONTACT_SECONDS", 0.1)
    s3.always = "503"
    with pytest.raises(UnavailableError) as caught:
        store.read("s3://kfp/a")
    assert "SlowDown" in str(caught.value)


def test_a_stream_that_is_cut_is_the_store_being_away(s3: FakeS3, store: ObjectStore) -> None:
    s3.put("a")
    s3.faults = ["half"]
    with store.open("s3://kfp/a") as file, pytest.raises((UnavailableError, OSError)):
        file.read()


@pytest.mark.parametrize("endpoint", ["minio:9000", "ftp://minio", "http://", "minio"])
def test_an_address_that_is_none_is_bad_input(s3: FakeS3, endpoint: str) -> None:
    with pytest.raises(InputError, match="it must be like http://"):
        store_of({**s3.environment, "AWS_ENDPOINT_URL": endpoint})


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://b/../a", "s3://b/a/.."])
def test_a_uri_without_a_bucket_or_that_climbs_is_bad_input(uri: str) -> None:
    with pytest.raises(InputError, match="not a URI like s3://BUCKET/NAME"):
        bucket_and_key(uri)


def test_dots_within_a_name_do_not_climb() -> None:
    assert bucket_and_key("s3://b/a..b/c") == ("b", "a..b/c")


def test_spark_is_told_all_but_the_secret(s3: FakeS3, store: ObjectStore) -> None:
    settings = store.settings.s3a_settings()
    assert settings["spark.hadoop.fs.s3a.endpoint"] == s3.environment["AWS_ENDPOINT_URL"]
    assert settings["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert SECRET not in str(settings)
    assert store.spark_uri("minio://kfp/a b/c") == "s3a://kfp/a b/c"
    secure = store_of(
        {**s3.environment, "AWS_ENDPOINT_URL": "https://minio", "AWS_REGION": "eu"}
    ).settings.s3a_settings()
    assert secure["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "true"
    assert secure["spark.hadoop.fs.s3a.endpoint.region"] == "eu"


def test_storage_reads_and_writes_either_side_by_the_uri(door: FakeS3, tmp_path: Path) -> None:
    for place in ("s3://kfp/a", str(tmp_path / "a")):
        uri = storage.join(place, "b.txt")
        storage.write_text(uri, "ä")
        assert storage.read_text(uri) == "ä"
        storage.remove(place)
        with pytest.raises(InputError, match="no such file"):
            storage.read_text(uri)
    assert not door.objects


def test_storage_reads_the_head_of_an_object(door: FakeS3) -> None:
    door.put("a.csv")
    assert storage.read_head("s3://kfp/a.csv") == (b"content of a.csv", True)
    door.objects["big.csv"] = b"x" * (storage.HEAD_BYTES + 1)
    head, whole = storage.read_head("s3://kfp/big.csv")
    assert (len(head), whole) == (storage.HEAD_BYTES, False)


@pytest.mark.usefixtures("door")
def test_a_step_that_has_not_finished_is_told_as_that() -> None:
    with pytest.raises(InputError, match="s3://kfp/load holds no finished step"):
        storage.read_result("s3://kfp/load")


@pytest.mark.usefixtures("door")
def test_only_a_session_that_meets_the_store_is_told_of_it() -> None:
    assert storage.session_settings(["/a", "file:/b"]) == {}
    assert "spark.hadoop.fs.s3a.endpoint" in storage.session_settings(["/a", "s3://kfp/a"])


def test_a_scheme_that_nobody_knows_is_bad_input() -> None:
    with pytest.raises(InputError, match="gs:// is not supported"):
        storage.files_of("gs://bucket/a")


def test_a_conditional_write_is_refused_if_the_object_has_changed(s3: FakeS3, store: ObjectStore) -> None:
    assert store.read_tagged("s3://kfp/a") == (b"", "")
    assert store.write_if_unchanged("s3://kfp/a", b"1", "")
    assert not store.write_if_unchanged("s3://kfp/a", b"2", "")
    tag = store.read_tagged("s3://kfp/a")[1]
    assert store.write_if_unchanged("s3://kfp/a", b"2", tag)
    assert not store.write_if_unchanged("s3://kfp/a", b"3", tag)
    del s3.objects["a"]
    assert not store.write_if_unchanged("s3://kfp/a", b"4", tag), "an object that was removed has changed"
    assert s3.objects == {}


@pytest.mark.parametrize("fault", ["cut", "503", "lost", "ConditionalRequestConflict"])
def test_a_conditional_write_is_patient_and_knows_its_own(s3: FakeS3, store: ObjectStore, fault: str) -> None:
    s3.objects["a"] = b"0"
    tag = store.read_tagged("s3://kfp/a")[1]
    s3.faults = [fault]
    assert store.write_if_unchanged("s3://kfp/a", b"1", tag)
    assert s3.objects["a"] == b"1"


def test_a_conditional_write_does_not_take_the_write_of_another_for_its_own(s3: FakeS3, store: ObjectStore) -> None:
    s3.objects["a"] = b"0"
    tag = store.read_tagged("s3://kfp/a")[1]
    s3.objects["a"] = b"another's"
    s3.faults = ["503"]
    assert not store.write_if_unchanged("s3://kfp/a", b"1", tag)
    assert s3.objects["a"] == b"another's"


def test_a_conditional_write_that_is_refused_says_why(s3: FakeS3, store: ObjectStore) -> None:
    s3.faults = ["AccessDenied"]
    with pytest.raises(InputError, match="AccessDenied"):
        store.write_if_unchanged("s3://kfp/a", b"1", "")

"""Which data a run reads: the date in its URI, and a version that changes whenever the data do."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from kfp_pipeline.runtime import object_store
from kfp_pipeline.runtime.data_version import fill_date, version_of
from spark_jobs.errors import InputError
from spark_jobs.object_names import ListedObject


@pytest.mark.parametrize(
    ("uri", "filled"),
    [
        ("s3://b/{{date}}/bank.csv", "s3://b/2026-11-23/bank.csv"),
        ("s3://b/{{ date }}.csv", "s3://b/2026-11-23.csv"),
        ("s3://b/{{date:%Y/%m/%d}}/{{date:%H}}.csv", "s3://b/2026/11/23/02.csv"),
        ("s3://b/bank.csv", "s3://b/bank.csv"),
        ("s3://b/{a,b}.csv", "s3://b/{a,b}.csv"),
    ],
)
def test_the_date_is_that_for_which_the_run_was_due(uri: str, filled: str) -> None:
    assert fill_date(uri, "2026-11-23T02:00:00Z") == filled


def test_the_date_is_that_in_utc() -> None:
    assert fill_date("s3://b/{{date}}.csv", "2026-11-23T01:30:00+02:00") == "s3://b/2026-11-22.csv"


@pytest.mark.parametrize("time", ["", "[[ScheduledTime]]", "{{$.pipeline_job_schedule_time_utc}}"])
def test_without_a_time_and_where_kfp_leaves_the_placeholder_the_date_is_todays(time: str) -> None:
    assert fill_date("s3://b/{{date}}.csv", time) == f"s3://b/{datetime.now(UTC):%Y-%m-%d}.csv"


@pytest.mark.parametrize(
    ("uri", "time", "told"),
    [
        ("s3://b/{{date}}.csv", "tomorrow", "must be like 2026-12-31T23:59:59Z"),
        ("s3://b/{{day}}.csv", "", "only {{date}}"),
        ("s3://b/{{date:../%Y}}.csv", "", "is no format of a date"),
        ("s3://b/{{date:%c}}.csv", "", "is no format of a date"),
        ("s3://b/{{date}.csv", "", "only {{date}}"),
    ],
)
def test_what_cannot_be_filled_in_is_told(uri: str, time: str, told: str) -> None:
    with pytest.raises(InputError, match=re.escape(told)):
        fill_date(uri, time)


class Store:
    """What an object store lists."""

    def __init__(self, *listed: ListedObject) -> None:
        self.listed = list(listed)
        self.asked: list[str] = []

    def __call__(self, uri: str, *, whole_names: bool = True) -> list[ListedObject]:
        self.asked.append(uri)
        return object_store.at_or_below(self.listed, object_store.bucket_and_key(uri)[1], whole_names=whole_names)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Store:
    found = Store(("data/bank.csv", 10, "e1", ""), ("data/bank.csv.bak", 5, "e2", ""), ("data/spec.toml", 3, "e3", ""))
    monkeypatch.setattr(object_store, "list_objects", found)
    return found


@pytest.mark.parametrize(
    "changed", [("data/bank.csv", 11, "e1", ""), ("data/bank.csv", 10, "e9", ""), ("data/bank.csv", 10, "e1", "v2")]
)
def test_the_version_changes_with_size_etag_and_version(store: Store, changed: ListedObject) -> None:
    before = version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml")
    assert before == version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml")
    store.listed[0] = changed
    assert version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml") != before


def test_the_version_changes_with_the_specification_and_not_with_a_neighbour(store: Store) -> None:
    before = version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml")
    store.listed[1] = ("data/bank.csv.bak", 6, "other", "")
    assert version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml") == before
    store.listed[2] = ("data/spec.toml", 3, "other", "")
    assert version_of("s3://b/data/bank.csv", "s3://b/data/spec.toml") != before


def test_a_folder_and_a_glob_have_the_version_of_all_below_them(store: Store) -> None:
    folder, glob = version_of("s3://b/data"), version_of("s3://b/data/*.csv")
    store.listed.append(("data/more.csv", 1, "e4", ""))
    assert version_of("s3://b/data") != folder
    assert version_of("s3://b/data/*.csv") != glob
    assert store.asked[1] == "s3://b/data/"


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    ("uri", "told"), [("s3://b/data/nobody.csv", "there is nothing"), ("/tmp/bank.csv", "spark-kfp data upload")]
)
def test_data_that_a_task_cannot_read_are_told(uri: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        version_of(uri)

"""The record of started trainings: one in a cool-down, whoever asks at once, and the same answer for whoever asks again."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from spark_jobs.errors import InputError
from spark_jobs.object_store import ObjectStore
from spark_jobs.object_store_settings import ObjectStoreSettings
from spark_jobs.registry import retraining
from spark_jobs.registry.places import DirectoryPlace, Place, StorePlace
from spark_jobs.registry.retraining import StartedTraining

if TYPE_CHECKING:
    from fake_s3 import FakeS3

MONDAY = datetime(2026, 11, 30, 6, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return DirectoryPlace(tmp_path / "models")


def claim(registry: Place, by: str, at: datetime = MONDAY, cooldown: timedelta = DAY) -> tuple[StartedTraining, bool]:
    return retraining.claim(registry, "bank", by, cooldown, "drift of column 'age'", at)


def test_a_second_training_waits_for_the_end_of_the_cool_down(registry: Place) -> None:
    first, mine = claim(registry, "a")
    assert (first.by, first.time, mine) == ("a", MONDAY, True)
    assert claim(registry, "b", MONDAY + DAY - timedelta(seconds=1)) == (first, False)
    assert claim(registry, "b", MONDAY + DAY)[1] is True
    document = json.loads(registry.read("bank/retraining.json"))
    assert [item["by"] for item in document["started"]] == ["a", "b"]


def test_a_repeated_task_gets_its_own_answer_again_even_after_others(registry: Place) -> None:
    first, _ = claim(registry, "a")
    claim(registry, "b", MONDAY + 2 * DAY)
    assert claim(registry, "a", MONDAY + 2 * DAY + timedelta(hours=1)) == (first, True)


def test_without_a_cool_down_each_alarm_starts_one_and_the_document_keeps_the_last_hundred(registry: Place) -> None:
    assert all(claim(registry, str(number), cooldown=timedelta(0))[1] for number in range(103))
    kept = json.loads(registry.read("bank/retraining.json"))["started"]
    assert [item["by"] for item in kept] == [str(number) for number in range(3, 103)]


def test_of_many_runs_at_once_one_starts_a_training(registry: Place) -> None:
    for day in range(10):
        barrier = threading.Barrier(8)

        def ask(number: int, day: int = day, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return claim(registry, f"{day}-{number}", MONDAY + day * DAY)[1]

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(ask, range(8))) == 1


def test_in_an_object_store_a_lost_answer_is_known_as_our_own(s3: FakeS3) -> None:
    registry = StorePlace("s3://kfp/models", ObjectStore(ObjectStoreSettings.from_environment(s3.environment)))
    assert claim(registry, "a")[1] is True
    s3.faults = ["lost"]
    assert claim(registry, "b", MONDAY + DAY)[1] is True
    assert claim(registry, "c", MONDAY + DAY)[1] is False


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"registry_version": 1, "started": [{"by": "a"}]}', b'{"registry_version": 9, "started": []}'],
)
def test_a_damaged_document_is_named(registry: Place, content: bytes) -> None:
    registry.write("bank/retraining.json", content)
    with pytest.raises(InputError, match=r"bank/retraining\.json is damaged"):
        claim(registry, "a")

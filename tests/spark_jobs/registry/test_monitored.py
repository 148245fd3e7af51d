"""What is kept of the batches of a version: a line each, once, whoever writes at the same time."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spark_jobs.errors import InputError
from spark_jobs.registry.monitored import record
from spark_jobs.registry.places import DirectoryPlace, Place


@pytest.fixture
def registry(tmp_path: Path) -> Place:
    return DirectoryPlace(tmp_path / "models")


def test_a_repeated_batch_replaces_its_line_and_the_last_thousand_are_kept(registry: Place) -> None:
    for number in range(3):
        record(registry, "bank", "1", {"by": str(number), "rows": number})
    assert record(registry, "bank", "1", {"by": "1", "rows": 9})[-1] == {"by": "1", "rows": 9}
    lines = registry.read("bank/monitoring/1.jsonl").decode().splitlines()
    assert len(lines) == 3
    registry.write("bank/monitoring/2.jsonl", b"".join(b'{"by": "%d"}\n' % number for number in range(1000)))
    kept = record(registry, "bank", "2", {"by": "new"})
    assert (len(kept), kept[0]["by"], kept[-1]["by"]) == (1000, "1", "new")


def test_of_batches_at_once_none_is_lost(registry: Place) -> None:
    barrier = threading.Barrier(6)

    def write(number: int) -> None:
        barrier.wait()
        record(registry, "bank", "1", {"by": str(number)})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert len(registry.read("bank/monitoring/1.jsonl").splitlines()) == 6


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"at": 1}', b"\xff"])
def test_a_damaged_document_is_named(registry: Place, content: bytes) -> None:
    registry.write("bank/monitoring/1.jsonl", content)
    with pytest.raises(InputError, match=r"monitoring/1\.jsonl is damaged"):
        record(registry, "bank", "1", {"by": "a"})


def test_a_document_that_others_replace_all_the_time_is_given_up(
    registry: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "swap", lambda *_: False)
    with pytest.raises(InputError, match="replaced by others 20 times"):
        record(registry, "bank", "1", {"by": "a"})

"""What a server counts for the step drift: the right bins, no value, and a full disk that nobody but the operator notices."""

from __future__ import annotations

import json
import logging
import resource
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from serving import capture
from serving.app import Application
from serving.capture import Capture, append
from serving.champion import Champion
from serving.model_source import place_of
from serving.settings import ServerSettings, SettingsError

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC)


def histogram(name: str, **bins: Any) -> dict[str, Any]:
    kind = "categorical" if "values" in bins else "numeric"
    return {"name": name, "kind": kind, "edges": [], "values": [], "counts": [], "missing": 0, "other": 0, **bins}


REFERENCE = {
    "reference_version": 1,
    "rows": 100,
    "columns": [
        histogram("kind", values=["common", "rare"]),
        histogram("age", edges=[30.0, 50.0]),
        histogram("income", edges=[]),
    ],
    "score": histogram("probability", edges=[0.25, 0.5]),
    "model": "digest",
}


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Capture]:
    found = Capture(tmp_path / "counts", 30)
    yield found
    found.close()


@pytest.fixture
def app(registry: Any, scorecard: dict[str, Any], counted: Capture) -> Application:
    """A server whose version `one` has a reference, and `two` has none."""
    registry.add("one", scorecard, files={"reference.json": json.dumps(REFERENCE).encode()})
    registry.add("two", scorecard)
    registry.point("one")
    champion = Champion("bank", place_of(str(registry.root)))
    champion.refresh()
    return Application(ServerSettings(registry=str(registry.root)), champion, counted)


def lines(folder: Path) -> list[Any]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def predict(call: Callable[..., Any], app: Application, *rows: dict[str, Any], verb: str = "predict") -> None:
    assert call(app, "POST", f"/v1/models/bank:{verb}", {"instances": list(rows)}).status == 200


def test_rows_are_counted_in_the_bins_of_the_reference_and_no_value_is_written(
    app: Application, call: Callable[..., Any], counted: Capture, tmp_path: Path
) -> None:
    predict(call, app, {"age": 30, "income": 700, "kind": "rare"}, {"age": " 49.9 ", "income": None, "kind": "secret"})
    predict(call, app, {"age": 87.25, "income": "nan", "kind": " "}, {"age": 20, "income": 31415, "kind": "common"})
    predict(call, app, {"age": 20, "income": 1, "kind": "common"}, verb="explain")  # a question, no customer
    counted.close()
    (line,) = lines(tmp_path / "counts")
    assert (line["version"], line["score"]["name"]) == ("one", "probability")
    kind, age, income = line["columns"]
    assert (kind["counts"], kind["missing"], kind["other"]) == ([1, 1], 1, 1)
    assert (age["counts"], age["missing"]) == ([1, 2, 1], 0)
    assert (income["counts"], income["missing"]) == ([2], 2)
    assert sum(line["score"]["counts"]) == 4
    assert datetime.fromisoformat(line["at"]).tzinfo
    (path,) = (tmp_path / "counts").glob("*.jsonl")
    assert not [value for value in ("49.9", "secret", "87.25", "31415") if value in path.read_text()]


def test_a_second_line_counts_what_came_since_the_first(
    app: Application, call: Callable[..., Any], counted: Capture, tmp_path: Path, row: dict[str, Any]
) -> None:
    for rows in (1, 2):
        predict(call, app, *([row] * rows))
        counted._count_pending()
        counted.write(NOON)
    counted.write(NOON)  # nothing came: no line
    assert [sum(line["score"]["counts"]) for line in lines(tmp_path / "counts")] == [1, 2]


def test_a_full_disk_is_said_once_and_the_counts_are_written_later(
    app: Application, call: Callable[..., Any], counted: Capture, tmp_path: Path, row: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.INFO):
        patch.setattr(capture, "append", refuse)
        for _ in range(3):
            predict(call, app, row)
            counted._count_pending()
            counted.write(NOON)
    assert [record.getMessage() for record in caplog.records if record.name == "serving.capture"] == [
        "counts cannot be written; they are kept, and the server goes on"
    ]
    assert 'spark_kfp_serving_capture_failures_total{model="bank"} 3' in call(app, "GET", "/metrics").body.decode()
    counted.write(NOON)
    assert [sum(line["score"]["counts"]) for line in lines(tmp_path / "counts")] == [3]


def test_a_version_without_a_reference_is_served_and_not_counted(
    app: Application, call: Callable[..., Any], counted: Capture, registry: Any, tmp_path: Path, row: dict[str, Any]
) -> None:
    registry.point("two")
    app.champion.refresh()
    predict(call, app, row, row)
    counted.close()
    assert lines(tmp_path / "counts") == []
    assert 'spark_kfp_serving_capture_dropped_rows_total{model="bank"} 2' in call(app, "GET", "/metrics").body.decode()


def test_more_rows_than_can_be_counted_are_dropped_and_not_kept_in_memory(
    app: Application, call: Callable[..., Any], counted: Capture, row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "MOST_PENDING", 3)
    monkeypatch.setattr(counted, "_count_pending", lambda: None)
    predict(call, app, row, row)
    predict(call, app, row, row)
    assert (counted.dropped, len(counted._pending)) == (2, 1)


def test_files_of_earlier_days_are_removed_and_others_are_not(
    app: Application, call: Callable[..., Any], counted: Capture, tmp_path: Path, row: dict[str, Any]
) -> None:
    for name in ("2026-10-30-host-1.jsonl", "2026-10-31-host-1.jsonl", "2026-10-01.txt", "notes.jsonl"):
        (tmp_path / "counts" / name).write_text("")
    predict(call, app, row)
    counted._count_pending()
    counted.write(NOON)
    left = {path.name for path in (tmp_path / "counts").iterdir()}
    assert left >= {"2026-10-31-host-1.jsonl", "2026-10-01.txt", "notes.jsonl"}
    assert "2026-10-30-host-1.jsonl" not in left


@pytest.mark.parametrize("before", ["", "one\n", 'one\n{"at": "2026'])
def test_what_a_killed_process_left_of_a_line_is_removed(tmp_path: Path, before: str) -> None:
    (tmp_path / "f").write_text(before)
    append(tmp_path / "f", b"two\n")
    assert (tmp_path / "f").read_text() == before[: before.rfind("\n") + 1] + "two\n"


def test_a_line_that_does_not_fit_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    append(tmp_path / "f", b"one\n")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, limits[1]))  # the kernel writes 6 bytes more and no further one
    try:
        with pytest.raises(OSError, match="the disk is full"):
            append(tmp_path / "f", b"twelve bytes\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "f").read_text() == "one\n"
    monkeypatch.setattr(capture, "MOST_BYTES", 10)
    with pytest.raises(OSError, match="would be larger"):
        append(tmp_path / "f", b"twelve bytes\n")


def test_a_folder_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match=r"--capture .* cannot be written"):
        Capture(tmp_path / "file" / "counts", 30)
    with pytest.raises(SettingsError, match="--capture needs --registry"):
        ServerSettings.from_environment({"scorecard": "s.json", "capture": "c"}, {})
    with pytest.raises(SettingsError, match="--capture s3://b/c is no directory"):
        ServerSettings.from_environment({"registry": "r", "capture": "s3://b/c"}, {})
